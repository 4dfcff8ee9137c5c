"""Pictures within their budget: what is held at the same time, who waits for it, and what it takes of the machine."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from claw.budget import ByteBudget
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.media import PictureLoader
from claw.dingtalk.openapi import OpenApiClient
from claw.errors import MediaError
from claw.messages import Inbound, Media, MediaKind
from claw.secret import Secret
from tests.clock import FakeClock
from tests.dingtalk.conftest import DOWNLOAD_PATH, TOKEN_PATH, credentials, inbound

PNG = b"\x89PNG\r\n\x1a\n"
PICTURE = Media(MediaKind.PICTURE, Secret("dcA1"))
SIZE = 90_000
URL_SIZE = 4 * SIZE // 3
FOUR = inbound(media=(PICTURE,) * 4)
ONE = inbound(media=(PICTURE,))


class Storage:
    """DingTalk's OpenAPI and its storage in one; bodies wait for `pace`."""

    def __init__(self) -> None:
        self.url = ""
        self.size = SIZE
        self.chunked = False
        self.cut = False
        self.opened = 0
        self.pace = asyncio.Event()
        self.pace.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == TOKEN_PATH:
            return web.json_response({"accessToken": "fake-access-token-9942", "expireIn": 7200})
        if request.path == DOWNLOAD_PATH:
            return web.json_response({"downloadUrl": f"{self.url}/files/one"})
        self.opened += 1
        response = web.StreamResponse()
        if not self.chunked:
            response.content_length = self.size
        await response.prepare(request)
        try:
            await self.pace.wait()
            await response.write(PNG[: self.size])
            if self.cut and request.transport is not None:
                request.transport.abort()
            for at in range(len(PNG), self.size, 64 * 1024):
                await response.write(bytes(min(64 * 1024, self.size - at)))
        except ConnectionResetError:
            pass  # Whoever asked has gone.
        return response


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    storage = Storage()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", storage.handle)
    async with TestServer(app) as server:
        storage.url = str(server.make_url("")).rstrip("/")
        yield storage


MakeLoader = Callable[[ByteBudget], PictureLoader]


@pytest.fixture
def make_loader(client: DingTalkClient, clock: FakeClock, storage: Storage) -> MakeLoader:
    openapi = OpenApiClient(client, storage.url, credentials, clock)
    return lambda budget: PictureLoader(client, openapi, (storage.url,), budget, timeout_s=5, max_bytes=100_000)


class Holder:
    """Holds a message's pictures until it is let go."""

    def __init__(self, loader: PictureLoader, message: Inbound) -> None:
        self.holds = asyncio.Event()
        self.lets_go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(loader, message))

    async def _hold(self, loader: PictureLoader, message: Inbound) -> int:
        async with loader.hold(message) as pictures:
            self.holds.set()
            await self.lets_go.wait()
            return len(pictures)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.005)


async def test_the_room_is_held_until_the_caller_is_done(make_loader: MakeLoader) -> None:
    """As many bytes as its `data:` URLs have, and none afterwards; the list is empty then, too."""
    budget = ByteBudget(1_000_000)
    async with make_loader(budget).hold(FOUR) as pictures:
        assert len(pictures) == 4
        urls = [picture.url for picture in pictures]
        assert sum(map(len, urls)) <= budget.used <= sum(map(len, urls)) + 200
    assert budget.used == 0
    assert pictures == []
    content = base64.b64decode(urls[0].removeprefix("data:image/png;base64,"), validate=True)
    assert content == PNG + bytes(SIZE - len(PNG))


async def test_load_holds_nothing_afterwards(make_loader: MakeLoader) -> None:
    """Who only loads gives the room back."""
    budget = ByteBudget(1_000_000)
    assert len(await make_loader(budget).load(FOUR)) == 4
    assert budget.used == 0


@pytest.mark.parametrize("size", [0, 1, 11, 12, 13, 14, 64 * 1024 + 1, 99_999])
async def test_every_size_is_encoded_whole(size: int, make_loader: MakeLoader, storage: Storage) -> None:
    """Whatever is over at the end of a chunk is not lost; what is shorter than a picture's head is none."""
    storage.size = size
    if size < 12:
        storage.size = size
        with pytest.raises(MediaError):
            await make_loader(ByteBudget(1_000_000)).load(ONE)
        return
    (url,) = await make_loader(ByteBudget(1_000_000)).load(ONE)
    assert base64.b64decode(url.partition(",")[2], validate=True) == PNG + bytes(size - len(PNG))


async def test_without_a_length_the_most_is_reserved(make_loader: MakeLoader, storage: Storage) -> None:
    """A server that does not say how much comes may send as much as is taken."""
    storage.chunked = True
    budget = ByteBudget(1_000_000)
    async with make_loader(budget).hold(ONE):
        assert budget.used >= 100_000 * 4 // 3


async def test_too_large_by_its_head_costs_no_room_and_no_read(make_loader: MakeLoader, storage: Storage) -> None:
    """Nothing is reserved for what will not be taken."""
    storage.size = 100_001
    budget = ByteBudget(10)
    with pytest.raises(MediaError, match="larger"):
        await make_loader(budget).load(ONE)


async def test_too_large_in_the_end_is_left(make_loader: MakeLoader, storage: Storage) -> None:
    """Without a length it is found while reading."""
    storage.size, storage.chunked = 100_001, True
    budget = ByteBudget(1_000_000)
    with pytest.raises(MediaError, match="larger"):
        await make_loader(budget).load(ONE)
    assert budget.used == 0


async def test_messages_wait_for_room_and_none_for_ever(make_loader: MakeLoader) -> None:
    """Twelve messages of four pictures, room for one and a half: one after another, never more than the budget."""
    budget = ByteBudget(6 * URL_SIZE)
    loader = make_loader(budget)
    most = 0

    async def use(message: Inbound) -> None:
        nonlocal most
        async with loader.hold(message) as pictures:
            most = max(most, budget.used)
            await asyncio.sleep(0.01)
            assert len(pictures) == len(message.media)

    async with asyncio.timeout(20):
        await asyncio.gather(*(use(message) for message in [FOUR, ONE] * 6))
    assert 4 * URL_SIZE <= most <= budget.limit
    assert budget.used == 0


async def test_who_waits_keeps_no_connection_open(make_loader: MakeLoader, storage: Storage) -> None:
    """A server would end it before its turn comes: the picture is asked for again then, and comes."""
    budget = ByteBudget(URL_SIZE + 100)
    loader = make_loader(budget)
    first = Holder(loader, ONE)
    await first.holds.wait()
    storage.pace.clear()
    second = Holder(loader, ONE)
    await until(lambda: storage.opened == 2)
    await asyncio.sleep(0.05)
    storage.pace.set()
    await asyncio.sleep(0.05)
    assert not second.holds.is_set()
    first.lets_go.set()
    assert await first.task == 1
    async with asyncio.timeout(5):
        await second.holds.wait()
    assert storage.opened == 3
    second.lets_go.set()
    assert await second.task == 1
    assert budget.used == 0


@pytest.mark.parametrize("when", ["opening", "waiting", "reading", "holding"])
async def test_who_is_cancelled_holds_nothing(when: str, make_loader: MakeLoader, storage: Storage) -> None:
    """At `/stop`, whatever it was doing."""
    budget = ByteBudget(URL_SIZE + 100)
    loader = make_loader(budget)
    others = Holder(loader, ONE) if when == "waiting" else None
    if others is not None:
        await others.holds.wait()
    if when in {"opening", "reading"}:
        storage.pace.clear()
    holder = Holder(loader, ONE)
    if when == "holding":
        await holder.holds.wait()
    elif when == "reading":
        await until(lambda: budget.used > 0)
    else:
        await until(lambda: storage.opened > (others is not None))
    holder.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder.task
    if others is not None:
        assert budget.used > 0
        others.lets_go.set()
        await others.task
    storage.pace.set()
    assert budget.used == 0


async def test_one_that_cannot_be_had_gives_all_back(make_loader: MakeLoader, storage: Storage) -> None:
    """A body that ends early is an error, and the room of all four is free again."""
    budget = ByteBudget(1_000_000)
    loader = make_loader(budget)
    storage.pace.clear()
    loading = asyncio.create_task(loader.load(FOUR))
    await until(lambda: budget.used > 0)
    storage.cut = True
    storage.pace.set()
    with pytest.raises(MediaError, match="could not be fetched"):
        await loading
    assert budget.used == 0


# --- what it takes of the machine ----------------------------------------------------------------------------------

LOADING = """
import asyncio, json, resource, sys
from claw.budget import ByteBudget
from claw.clock import Clock
from claw.config.settings import Credentials
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.media import PictureLoader
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import CallCounter
from claw.http_client import http_session
from claw.secret import Secret
from tests.dingtalk.conftest import inbound
from tests.dingtalk.test_media_budget import FOUR, ONE

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main(url, messages):
    clock = Clock()
    async with http_session() as http:
        client = DingTalkClient(http, CallCounter(clock), clock)
        openapi = OpenApiClient(client, url, lambda: Credentials("dingfakeclient", Secret("s")), clock)
        loader = PictureLoader(client, openapi, (url,), ByteBudget(64 * 1024 * 1024))
        async def use():
            async with loader.hold(FOUR) as pictures:
                return sum(len(each.url) for each in pictures)
        await openapi.tokens.get()
        idle = peak()
        found = await asyncio.gather(*(use() for _ in range(messages)))
        print(json.dumps({"found": found, "mb": peak() - idle}))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("messages", [1, 6])
async def test_large_pictures_take_little_more_than_they_are(messages: int, storage: Storage) -> None:
    """Four of 9.9 MB: less than 80 MB above idle at the peak, for one message as for six at once."""
    storage.size = 9_900_000
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        LOADING,
        storage.url,
        str(messages),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, err.decode()
    report = json.loads(out)
    assert report["found"] == [4 * (4 * 9_900_000 // 3 + len("data:image/png;base64,"))] * messages
    assert report["mb"] < 80

"""Attachments: all that can be had, in order, each failure in its place, within the room that there is."""

from __future__ import annotations

import asyncio
import io
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from PIL import Image

from claw.budget import ByteBudget
from claw.errors import MediaError, MediaProblem
from claw.files.reader import FileReader
from claw.files.values import FileText, PictureBytes
from claw.observe import telemetry
from claw.parts import Media, MediaKind
from claw.secret import Secret
from claw.turn.attachments import (
    DATA_URL_MAX_BYTES,
    FILES_MAX,
    PICTURES_MAX,
    TEXTS_MAX_CHARS,
    Attachments,
    Found,
)
from claw.turn.pictures import CACHE_LIFE_S, Picture, PictureCache
from tests.clock import FakeClock
from tests.dingtalk.conftest import spans  # noqa: F401 - a fixture
from tests.files.made import FACT, chunks_of, make_picture

T = TypeVar("T")


class Storage:
    """Gives out what stands under a code; an error in its place is raised."""

    def __init__(self) -> None:
        self.held: dict[str, bytes | MediaProblem] = {}
        self.asked: list[str] = []
        self.running = 0
        self.most = 0

    async def fetch(
        self, _: str, media: Media, max_bytes: int, consume: Callable[[int, AsyncIterator[bytes]], Awaitable[T]]
    ) -> T:
        code = media.code.reveal()
        self.asked.append(code)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.01)
            content = self.held.get(code, MediaProblem.EXPIRED)
            if isinstance(content, MediaProblem):
                raise MediaError("no", content)
            assert len(content) <= max_bytes
            return await consume(len(content), chunks_of(content))
        finally:
            self.running -= 1


class Room:
    """Attachments with a storage, and what they hold."""

    def __init__(self, *, file_max_bytes: int = 1_000_000, limit: int = 64 * 1024 * 1024) -> None:
        self.storage = Storage()
        self.clock = FakeClock()
        self.budget = ByteBudget(limit)
        self.cache = PictureCache(self.clock)
        self.attachments = Attachments(
            self.storage, FileReader(), self.budget, self.cache, file_max_bytes=file_max_bytes
        )

    async def find(self, *media: Media) -> list[Found]:
        async with self.attachments.hold("robot", media) as found:
            return list(found)


def picture(code: str) -> Media:
    return Media(MediaKind.PICTURE, Secret(code))


def file(code: str, name: str = "a.txt") -> Media:
    return Media(MediaKind.FILE, Secret(code), name)


def colour(red: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(target, "PNG")
    return target.getvalue()


def red_of(found: Found) -> int:
    assert isinstance(found, Picture)
    content = b64decode(found.url.partition(",")[2])
    pixel = Image.open(io.BytesIO(content)).convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


async def test_six_pictures_of_which_one_is_gone() -> None:
    """All that can be had, in order; what is missing says why in its place; three at a time."""
    room = Room()
    room.storage.held = {f"p{n}": colour(n * 40) for n in range(6) if n != 1}
    found = await room.find(*(picture(f"p{n}") for n in range(6)))
    assert found[1] is MediaProblem.EXPIRED
    assert [red_of(each) for each in found if each is not MediaProblem.EXPIRED] == [0, 80, 120, 160, 200]
    assert room.storage.most == 3


async def test_files_and_pictures_together() -> None:
    """Each becomes what it is; a picture that was sent as a file is one."""
    room = Room()
    room.storage.held = {"f": FACT.encode(), "p": make_picture(), "q": make_picture("JPEG")}
    text, first, second = await room.find(file("f"), picture("p"), file("q", "IMG_1.JPG"))
    assert isinstance(text, FileText)
    assert (text.text, text.kind) == (FACT, "text")
    assert isinstance(first, Picture)
    assert isinstance(second, Picture)


async def test_what_is_not_fetched_at_all() -> None:
    """Sound, video, files where they are off, and what is too many cost no call."""
    room = Room(file_max_bytes=0)
    room.storage.held = {"p": make_picture()}
    media = (Media(MediaKind.AUDIO, Secret("a")), Media(MediaKind.VIDEO, Secret("v")), file("f"))
    assert await room.find(*media) == [MediaProblem.UNSUPPORTED, MediaProblem.UNSUPPORTED, MediaProblem.OFF]
    assert not room.storage.asked
    found = await room.find(*[picture("p")] * (PICTURES_MAX + 2))
    assert found[PICTURES_MAX:] == [MediaProblem.TOO_MANY] * 2
    many = Room()
    many.storage.held = {"f": b"x"}
    files = await many.find(*[file("f")] * (FILES_MAX + 1))
    assert files[-1] is MediaProblem.TOO_MANY


async def test_the_texts_of_a_question_are_bounded() -> None:
    """Files are read in order, up to the characters that one question may have."""
    room = Room(file_max_bytes=20_000_000)
    room.storage.held = {"f": b"x" * 119_000}
    found = await room.find(*[file("f")] * 3)
    texts = [each for each in found if isinstance(each, FileText)]
    assert sum(len(each.text) for each in texts) == TEXTS_MAX_CHARS
    assert [each.is_whole for each in texts] == [True, True, False]


async def test_room_is_held_and_given_back() -> None:
    """Reserved for the most that pictures may take, held for what they take, free and empty afterwards."""
    room = Room()
    room.storage.held = {"p": make_picture()}
    async with room.attachments.hold("robot", [picture("p"), file("f")]) as found:
        assert isinstance(found[0], Picture)
        assert room.budget.used == len(found[0].url)
    assert (room.budget.used, found) == (0, [])


async def test_messages_wait_for_room_and_none_for_ever() -> None:
    """More messages than fit at once are held one after another."""
    room = Room(limit=4 * DATA_URL_MAX_BYTES)
    room.storage.held = {f"p{n}": make_picture() for n in range(40)}
    most = 0

    async def ask(number: int) -> None:
        nonlocal most
        media = [picture(f"p{n}") for n in range(number * 4, number * 4 + 4)]
        async with room.attachments.hold("robot", media) as found:
            most = max(most, room.budget.used)
            assert len(found) == 4

    async with asyncio.timeout(60):
        await asyncio.gather(*(ask(number) for number in range(8)))
    assert most <= 4 * DATA_URL_MAX_BYTES
    assert room.budget.used == 0


async def test_a_cancelled_holder_leaves_nothing() -> None:
    """Neither room nor a task is left of a turn that was stopped while it fetched."""
    room = Room()
    room.storage.held = {"p": make_picture("PNG", (2000, 2000))}
    task = asyncio.create_task(room.find(*[picture("p")] * 5))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert room.budget.used == 0
    assert {each.get_name() for each in asyncio.all_tasks()} & {"claw.turn.attachment"} == set()


async def test_a_picture_stays_within_reach() -> None:
    """Asked for again it costs no fetch, until its time is over."""
    room = Room()
    room.storage.held = {"p": make_picture()}
    await room.find(picture("p"))
    await room.find(picture("p"))
    assert room.storage.asked == ["p"]
    await room.clock.advance(CACHE_LIFE_S + 1)
    await room.find(picture("p"))
    assert room.storage.asked == ["p", "p"]


def test_the_cache_is_bounded() -> None:
    """Those that were not asked for longest go first; one that is larger than all is not kept."""
    cache = PictureCache(FakeClock(), limit=30)
    for key in "abc":
        cache.add(key, Picture("x" * 10))
    assert cache.get("a") is not None
    cache.add("d", Picture("x" * 10))
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    cache.add("e", Picture("x" * 31))
    assert cache.get("e") is None
    assert cache.used == 30


async def test_the_trace_names_no_file(spans: Callable[[], list[ReadableSpan]]) -> None:  # noqa: F811 - as above
    """Each fetch is a span with its kind and its problem, and nothing of its name or code."""
    room = Room()
    room.storage.held = {"f": FACT.encode()}
    await room.find(file("f", "salaries.txt"), picture("gone"))
    found = {each.name: dict(each.attributes or {}) for each in spans()}
    assert set(found) == {"attachment file", "attachment picture"}
    assert found["attachment picture"][telemetry.ERROR_TYPE] == "expired"
    assert "salaries" not in str(found)


class LyingReader:
    """A reader whose pictures are whatever it says."""

    async def read(self, name: str, size: int, chunks: AsyncIterator[bytes]) -> FileText:
        raise AssertionError(name, size, chunks)

    async def shrink(self, size: int, chunks: AsyncIterator[bytes]) -> PictureBytes:
        async for _ in chunks:
            pass
        return PictureBytes("image/png", bytes(size))


async def test_a_large_file_is_passed_on_as_it_comes() -> None:
    """Bytes of the original are not held here: only what was made of them counts."""
    storage, budget = Storage(), ByteBudget(64 * 1024 * 1024)
    storage.held = {"p": bytes(1000)}
    attachments = Attachments(storage, LyingReader(), budget, PictureCache(FakeClock()), file_max_bytes=1)
    async with attachments.hold("robot", [picture("p")]) as found:
        assert isinstance(found[0], Picture)
        assert budget.used == len(found[0].url)

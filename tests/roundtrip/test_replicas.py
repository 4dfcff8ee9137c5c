"""Two real claw processes on one real Redis: they answer as one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from claw import app
from claw.config.reader import load
from claw.emulator import Emulator, Person, Push
from claw.errors import SettingsError
from claw.language import Language
from claw.turn import texts
from tests.redis_server import RedisServer, free_port, running
from tests.service import ADMIN_TOKEN, CLIENT_SECRET, RUN, Service, environment
from tests.service import running as serving

pytestmark = pytest.mark.timeout(110)

ZH, EN = Language.ZH, Language.EN
TTL = 6.0
SHORT_LEASES = (
    "-c",
    (
        "import sys; from claw.inbox import leases; from claw.__main__ import main;"
        f"leases.LEASE_TTL_S, leases.RENEW_INTERVAL_S = {TTL}, {TTL / 6}; sys.exit(main(['run']))"
    ),
)
"""A claw whose leases are short, so that a test need not wait for half a minute."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis as the documents want it, with a password."""
    options = {"appendonly": "yes", "appendfsync": "always", "requirepass": "s3cret-of-redis"}
    with running(tmp_path / "redis", **options) as server:
        yield server


class Replicas:
    """Claws that share the Redis, and the connection that each has opened."""

    def __init__(self, emulator: Emulator, redis: RedisServer, folder: Path) -> None:
        self.emulator = emulator
        self.redis = redis
        self.folder = folder
        self.connections: dict[str, Service] = {}
        self.stack = contextlib.AsyncExitStack()

    async def start(self, arguments: tuple[str, ...] = RUN, **variables: str) -> Service:
        variables = {"CLAW_STORE_URL": self.redis.url(), "CLAW_STREAM_CONNECTIONS": "1", **variables}
        environ = environment(self.emulator.url, self.folder / "unused", **variables)
        service = await self.stack.enter_async_context(serving(environ, self.folder, arguments))
        await self.emulator.wait_connections(len(self.connections) + 1)
        (mine,) = {each.id for each in self.emulator.connections} - self.connections.keys()
        self.connections[mine] = service
        return service

    async def pair(self, arguments: tuple[str, ...] = RUN, **variables: str) -> tuple[Service, Service]:
        return await self.start(arguments, **variables), await self.start(arguments, **variables)

    def holder(self, push: Push) -> Service:
        """Who got a message last."""
        return self.connections[push.connections_tried[-1]]

    async def busy(self, *services: Service) -> Service:
        """Who runs a turn, as soon as somebody does."""
        async with asyncio.timeout(20):
            while True:
                for service in services:
                    if (await service.get("/status", ADMIN_TOKEN))[1]["turns_in_flight"]:
                        return service
                await asyncio.sleep(0.05)


@pytest.fixture
async def replicas(emulator: Emulator, redis: RedisServer, tmp_path: Path) -> AsyncIterator[Replicas]:
    made = Replicas(emulator, redis, tmp_path)
    async with made.stack:
        yield made


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def accepted(emulator: Emulator, text: str, *, person: str = "u-1001", chat: str = "direct") -> Push:
    """Say something, and wait for its ack: of two on their way to two replicas either may arrive first."""
    push = (await emulator.say(text, person=person, chat=chat)).push
    assert push is not None
    await asyncio.wait_for(push.acked.wait(), 20)
    return push


def answered(emulator: Emulator) -> list[str]:
    """The messages that were answered, in the order of the answers."""
    return [reply.in_reply_to for reply in emulator.replies.log if reply.in_reply_to]


async def test_order_within_conversations(emulator: Emulator, replicas: Replicas) -> None:
    """Whoever gets a message, each conversation is answered once, in order; and both have got some."""
    await replicas.pair()
    people = [f"p-{number}" for number in range(6)]
    for each in people:
        emulator.chats.add_person(Person(each, each, each))
    said: dict[str, list[str]] = {each: [] for each in people}
    pushes: list[Push] = []
    for number in range(10):
        for each in people:
            push = await accepted(emulator, f"<{number}>", person=each)
            said[each].append(push.msg_id)
            pushes.append(push)
    for ids in said.values():
        for each in ids:
            await emulator.wait_reply_to(each, timeout=60)
    log = answered(emulator)
    assert len(log) == len(set(log)) == 60
    for ids in said.values():
        mine = set(ids)
        assert [each for each in log if each in mine] == ids
    assert len({push.connections_tried[0] for push in pushes}) == 2
    assert not emulator.violations


async def test_memory_is_shared(emulator: Emulator, replicas: Replicas) -> None:
    """What one replica answered the other one's model is told, and what was settled with one holds at the other."""
    one, two = await replicas.pair(CLAW_OWNER="u-1001", CLAW_CONTEXT="off")
    got: set[Service] = set()
    while len(got) < 2:
        message = await emulator.say(f"question {len(emulator.model.requests)}")
        await emulator.wait_reply_to(message)
        assert message.push is not None
        got.add(replicas.holder(message.push))
    told = [entry["content"] for entry in emulator.model.requests[-1].body["messages"] if entry["role"] == "user"]
    assert told == [f"question {number}" for number in range(len(told))]
    await emulator.wait_reply_to(await emulator.say("/policy group allowlist"))
    for service in (one, two):
        assert (await service.get("/status", ADMIN_TOKEN))[1]["access"]["group_policy"] == "allowlist"


async def test_a_duplicate_at_the_other_replica(emulator: Emulator, replicas: Replicas) -> None:
    """A message that DingTalk repeats to the other replica is acked there and not answered again."""
    await replicas.pair()
    data = emulator.robot_data("once")
    pushes = [emulator.push(data)]
    await emulator.wait_reply_to(pushes[0])
    while len({push.connections_tried[-1] for push in pushes}) < 2:
        pushes.append(emulator.push(data))
        await asyncio.wait_for(pushes[-1].acked.wait(), 10)
    await emulator.wait_reply_to(await emulator.say("after"))
    assert [reply.text.count("once") > 0 for reply in emulator.replies.log] == [True, False]


async def test_a_killed_replica_is_taken_over(emulator: Emulator, replicas: Replicas) -> None:
    """What a replica was working on when it was killed the other one answers after the lease, in order, once."""
    one, two = await replicas.pair(SHORT_LEASES)
    emulator.faults.update({"model_hang": True})
    said = [await accepted(emulator, f"<{number}>") for number in range(3)]
    victim = await replicas.busy(one, two)
    await victim.kill()
    emulator.faults.reset()
    for each in said:
        await emulator.wait_reply_to(each, timeout=60)
    assert answered(emulator) == [each.msg_id for each in said]


async def test_a_replica_that_leaves_hands_over_at_once(emulator: Emulator, replicas: Replicas) -> None:
    """What a drain gives back the other replica takes at once: nobody waits for a lease of half a minute."""
    one, two = await replicas.pair(CLAW_DRAIN_TIMEOUT="0.3")
    emulator.faults.update({"model_hang": True})
    said = await emulator.say("hello")
    leaver = await replicas.busy(one, two)
    emulator.faults.reset()
    assert await leaver.terminate() == 0
    await emulator.wait_reply_to(said, timeout=20)
    assert len(emulator.replies.log) == 1


async def test_stop_reaches_the_replica_that_thinks(emulator: Emulator, replicas: Replicas) -> None:
    """/stop is obeyed by whoever gets it: the turn that runs elsewhere ends, silently, and the next one goes on."""
    one, two = await replicas.pair()
    emulator.faults.update({"model_hang": True})
    slow = await emulator.say("tell me everything")
    thinker = await replicas.busy(one, two)
    other = two if thinker is one else one
    # As long as it stands still, only the other one can take the order.
    thinker.signal(signal.SIGSTOP)
    orders: list[Push] = []
    try:
        while not orders or replicas.holder(orders[-1]) is not other:
            order = (await emulator.say("/stop")).push
            assert order is not None
            orders.append(order)
        told = await emulator.wait_reply_to(orders[-1], timeout=20)
    finally:
        thinker.signal(signal.SIGCONT)
    assert texts.STOPPED[EN] in told.text
    # Those that went to the one that stood still are obeyed now: the next turn must not begin before.
    for order in orders:
        await emulator.wait_reply_to(order, timeout=20)
    emulator.faults.reset()

    async def idle() -> bool:
        return not (await thinker.get("/status", ADMIN_TOKEN))[1]["turns_in_flight"]

    await until(idle)
    await emulator.wait_reply_to(await emulator.say("next"), timeout=20)
    with pytest.raises(TimeoutError):
        await emulator.wait_reply_to(slow, timeout=0.2)


async def test_one_owner_out_of_two_replicas(emulator: Emulator, replicas: Replicas) -> None:
    """Of 20 first messages at the same moment, spread over both, one makes the owner."""
    one, two = await replicas.pair(CLAW_OWNER="")
    people = [f"p-{number}" for number in range(20)]
    for each in people:
        emulator.chats.add_person(Person(each, each, each))
    said = [await emulator.say("你好", person=each) for each in people]
    replies = [await emulator.wait_reply_to(each, timeout=30) for each in said]
    assert sum(texts.PAIRED[ZH] in reply.text for reply in replies) == 1
    owners = [(await each.get("/status", ADMIN_TOKEN))[1]["access"]["owner"] for each in (one, two)]
    assert owners[0] == owners[1]
    assert len(owners[0]) == 1


async def test_redis_away_and_back(emulator: Emulator, redis: RedisServer, replicas: Replicas) -> None:
    """Without Redis nothing is acked and /ready says why; with it all goes on, and nothing that was acked is lost."""
    services = await replicas.pair()
    emulator.faults.update({"model_delay": 0.5, "repush_after": 3.0})
    said = [await accepted(emulator, f"<{number}>", chat="g-team") for number in range(4)]
    redis.kill()
    for service in services:
        body = await service.until_ready(ready=False)
        assert body["checks"]["store"]["ok"] is False
        assert "Redis cannot be reached" in body["checks"]["store"]["reason"]
        assert body["checks"]["stream"]["ok"] is True
        assert (await service.get("/health"))[0] == 200
    unheard = await emulator.say("<while away>", chat="g-team")
    await asyncio.sleep(0.5)
    assert unheard.push is not None
    assert not unheard.push.acked.is_set()
    redis.start()
    for service in services:
        await service.until_ready(30)
    for each in (*said, unheard.push):
        await emulator.wait_reply_to(each, timeout=45)
    # The one whose sending Redis' end broke in on may have been sent twice.
    assert list(dict.fromkeys(answered(emulator))) == [each.msg_id for each in (*said, unheard.push)]
    for service in services:
        # The ack in the store follows the answer by a moment.
        async with asyncio.timeout(10):
            while (await service.get("/status", ADMIN_TOKEN))[1]["inbox"]["pending"]:
                await asyncio.sleep(0.05)
        told = "\n".join(service.lines)
        assert redis.password not in told
        assert CLIENT_SECRET not in told


async def test_a_start_before_redis(emulator: Emulator, redis: RedisServer, replicas: Replicas) -> None:
    """A claw that starts before Redis does is alive and not ready, and serves as soon as it can."""
    redis.kill()
    environ = environment(emulator.url, replicas.folder, CLAW_STORE_URL=redis.url(), CLAW_OWNER="")
    service = Service(environ, replicas.folder)
    try:
        await service.start()
        body = await service.until_ready(ready=False)
        assert body["checks"]["store"]["ok"] is False
        assert (await service.get("/health"))[0] == 200
        redis.start()
        await service.until_ready(30)

        async def asks_for_an_owner() -> bool:
            return any("no owner yet" in entry["message"] for entry in service.logs)

        await until(asks_for_an_owner)
        await emulator.wait_reply_to(await emulator.say("hello"), timeout=20)
        assert await service.terminate() == 0
    finally:
        await service.kill()


async def test_a_start_that_fails_leaves_nobody_waiting_for_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claw that finds its port taken, while its store is away, ends with all of its tasks."""
    monkeypatch.setattr(app, "ANNOUNCE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"redis://127.0.0.1:{free_port()}/0"
        port = str(taken.getsockname()[1])
        environ = environment("http://127.0.0.1:9", tmp_path, CLAW_STORE_URL=away, HOST="127.0.0.1", PORT=port)
        with pytest.raises(SettingsError, match="PORT"):
            await app.App(load(environ)).run()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_wrong_password_is_bad_settings(emulator: Emulator, redis: RedisServer, tmp_path: Path) -> None:
    """A password that Redis refuses ends the start with 78, told by variable, without the password; from a file too."""
    file = tmp_path / "url"
    file.write_text(redis.url().replace(redis.password, "wrong-password") + "\n")
    environ = environment(emulator.url, tmp_path, CLAW_STORE_URL="", CLAW_STORE_URL_FILE=str(file))
    service = Service(environ, tmp_path)
    with pytest.raises(AssertionError, match="does not serve"):
        await service.start()
    assert await service.ended() == 78
    told = "\n".join(service.lines)
    assert f"CLAW_STORE_URL：redis://127.0.0.1:{redis.port}/0 不能用" in told
    assert "refuses the user or the password" in told
    assert "wrong-password" not in told

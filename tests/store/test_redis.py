"""The Redis store: the contract, and what a server, a network and other processes can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_asyncio

from claw.errors import LeaseLostError, StoreError, StoreRefusedError
from claw.inbox.retries import Limits
from claw.inbox.turns import TurnHooks
from claw.inbox.worker import Worker
from claw.messages import Answer, Exchange, Inbound
from claw.secret import Secret
from claw.store.ports import DELAY_MAX_S
from claw.store.redis import client, scripts
from claw.store.redis.store import RedisStore, prefix_of
from claw.store.values import Risk, SendReceipt, SendState, UsageRow
from tests.certificates import certificate
from tests.clock import FakeClock
from tests.drafts import RecordingDraft
from tests.redis_server import RedisServer, free_port, running
from tests.store.contract import ANSWER, ROOM, TTL, StoreContract, World, claim, claimed_ids, put, write
from tests.store.contract_operation import OperationContract
from tests.store.hardship import HardshipContract

ROBOT = "dingfakeclient"


class RedisWorld(World):
    """A database that was emptied and a time that the test moves: scripts get it in place of Redis' own."""

    store: RedisStore

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.clock = FakeClock()
        self.store = self.opened_by_another()

    def opened_by_another(self) -> RedisStore:
        return RedisStore(Secret(self.server.url()), ROBOT, clock=self.clock, now=self.clock.wall)

    async def later(self, seconds: float) -> None:
        """The store sleeps in real time, so it is told to look at what the time has become, as a hint does."""
        await self.clock.advance(seconds)
        self.server.command("PUBLISH", f"{self.prefix}:hints", "news")
        await asyncio.sleep(0.05)

    @property
    def prefix(self) -> str:
        return self.store._client.prefix

    async def die(self) -> None:
        """To Redis, a store that is closed without a release is a process that died."""
        await self.store.close()
        self.store = self.opened_by_another()
        await self.store.open()


@pytest_asyncio.fixture
async def world(server: RedisServer) -> AsyncIterator[RedisWorld]:
    server.command("FLUSHALL")
    world = RedisWorld(server)
    await world.store.open()
    yield world
    await world.store.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


class TestRedisStore(StoreContract, OperationContract, HardshipContract):
    """Every promise of the contract."""


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def works(store: RedisStore) -> bool:
    try:
        await store.clean()
    except StoreError:
        return False
    return True


@contextlib.asynccontextmanager
async def opened(url: str, robot: str = ROBOT) -> AsyncIterator[RedisStore]:
    """A store by Redis' own clock."""
    store = RedisStore(Secret(url), robot)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may harm; what it has acknowledged is on its disk."""
    with running(tmp_path / "redis", appendonly="yes", appendfsync="always") as started:
        yield started


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits that a test can wait for."""
    monkeypatch.setattr(client, "CALL_TIMEOUT_S", 0.3)
    monkeypatch.setattr(client, "HELLO_TIMEOUT_S", 0.3)
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", 0.1)


# --- several processes ----------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def other(world: RedisWorld) -> AsyncIterator[RedisStore]:
    """What another process of the same robot has opened, in the same time."""
    store = world.opened_by_another()
    await store.open()
    yield store
    await store.close()


async def test_a_repeat_is_known_everywhere(world: RedisWorld, other: RedisStore) -> None:
    """A message that one process has put is a repeat to every other one."""
    assert await put(world.store)
    assert not await put(other)
    assert sorted(await asyncio.gather(*(put(each, 2) for each in (world.store, other) * 10))) == [False] * 19 + [True]


async def test_a_queue_is_one_for_all(world: RedisWorld, other: RedisStore) -> None:
    """Two processes never hold messages of one queue at the same time, whoever took them off the socket."""
    await put(world.store, 1)
    await put(other, 2)
    lease = await claim(other)
    assert lease.inbound.msg_id == "msg1"
    assert await world.store.claim("worker", TTL) is None
    await other.ack(lease, Exchange("m", "u", "a"))
    assert (await claim(world.store)).inbound.msg_id == "msg2"
    assert await world.store.exchanges("m", 9) == [Exchange("m", "u", "a")]


async def test_the_messages_of_a_dead_process_go_to_another(world: RedisWorld, other: RedisStore) -> None:
    """Not before the lease has run out, and then with whatever the dead one had saved."""
    await put(world.store)
    lease = await claim(world.store)
    await world.store.save_answer(lease, ANSWER)
    await world.store.close()
    assert await other.claim("other", TTL) is None
    world.clock._now += TTL
    found = await claim(other)
    assert (found.answer, found.claims) == (ANSWER, 2)
    assert found.fence > lease.fence


async def test_entries_of_one_are_seen_by_all(world: RedisWorld, other: RedisStore) -> None:
    """The next look of any process sees what another one entered or deleted."""
    assert await other.items() == {}
    await world.store.set("policy", "open")
    assert await other.items() == {"policy": "open"}
    await other.delete("policy")
    assert await world.store.items() == {}
    told = await asyncio.gather(*(each.set_if_absent("owner", str(id(each))) for each in (world.store, other) * 5))
    assert len(set(told)) == 1
    assert await world.store.items() == await other.items() == {"owner": told[0]}


async def test_entries_travel_only_when_they_changed(world: RedisWorld) -> None:
    """A look at entries that nobody changed reads one key."""
    await world.store.set("policy", "open")
    await world.store.items()
    world.server.command("CONFIG", "RESETSTAT")
    for _ in range(5):
        assert await world.store.items() == {"policy": "open"}
    assert b"cmdstat_hgetall" not in world.server.command("INFO", "commandstats")


@pytest.mark.parametrize("hints", [True, False])
async def test_who_waits_hears_of_another_ones_message(world: RedisWorld, other: RedisStore, hints: bool) -> None:
    """By a hint, and without any by looking."""
    if not hints:
        world.store._client._on_hint = lambda word: None
    waiting = asyncio.create_task(StoreContract.drained_wait(world.store))
    await asyncio.sleep(0.05)
    await put(other)
    await asyncio.wait_for(waiting, 10)


async def test_hints_come_back(world: RedisWorld, other: RedisStore) -> None:
    """Where the connection of the hints breaks, it is opened again."""
    heard: list[bytes] = []
    world.store._client._on_hint = heard.append
    world.server.command("CLIENT", "KILL", "TYPE", "pubsub")

    async def hears() -> bool:
        await other.release(await claim(other)) if await put(other, len(heard)) else None
        return len(heard) > 2

    await put(other, "x", "y")
    await eventually(hears)


async def test_robots_share_nothing(world: RedisWorld) -> None:
    """Two robots on one database know nothing of each other, whatever their ids look like."""
    await put(world.store)
    await world.store.set("owner", "ann")
    async with opened(world.server.url(), "another") as store:
        assert await store.claim("worker", TTL) is None
        assert await store.items() == {}
        assert await put(store)
        assert (await store.depth()).pending == 1
    assert len({prefix_of(robot) for robot in ("", "a", "A", "a:b", "{a}", "机器人")}) == 6


async def test_all_keys_of_a_robot_are_on_one_node(world: RedisWorld) -> None:
    """Whatever is kept has the robot's hash tag in front, which a cluster goes by."""
    await live(world, 3)
    tags = {key.partition("}")[0] for key in world.server.held()}
    assert tags == {prefix_of(ROBOT).rstrip("}")}


# --- /stop, from one process to another ------------------------------------------------------------------------------


async def test_a_stop_reaches_the_process_that_thinks(world: RedisWorld, other: RedisStore) -> None:
    """Who asks is told whether there was somebody to stop, once; the holder hears of its very lease."""
    heard: list[tuple[int, int]] = []
    world.store.on_interrupt(lambda seq, fence: heard.append((seq, fence)))
    assert not await other.interrupt("lane")
    await put(world.store)
    assert not await other.interrupt("lane"), "nobody works on it yet"
    lease = await claim(world.store)
    assert await other.interrupt("lane")
    assert not await other.interrupt("lane")
    assert not await other.interrupt("other lane")

    async def told() -> bool:
        return bool(heard)

    await eventually(told)
    assert heard == [(lease.seq, lease.fence)]


async def test_a_stop_whose_hint_was_missed_is_told_by_the_next_renewal(world: RedisWorld, other: RedisStore) -> None:
    """Hints may get lost; a lease is renewed for as long as its turn runs."""
    world.store._client._on_hint = lambda word: None
    heard: list[tuple[int, int]] = []
    world.store.on_interrupt(lambda seq, fence: heard.append((seq, fence)))
    await put(world.store)
    lease = await claim(world.store)
    await world.store.renew(lease, TTL)
    assert await other.interrupt("lane")
    await world.store.renew(lease, TTL)
    assert heard == [(lease.seq, lease.fence)]


@pytest.mark.parametrize("how", ["answered", "expired", "released"])
async def test_there_is_nothing_to_stop(world: RedisWorld, other: RedisStore, how: str) -> None:
    """A turn that has its answer, or whose holder has let go, is not told as stopped."""
    await put(world.store)
    lease = await claim(world.store)
    if how == "answered":
        await world.store.save_answer(lease, ANSWER)
    elif how == "released":
        await world.store.release(lease)
    else:
        await world.later(TTL + 1)
    assert not await other.interrupt("lane")


async def test_a_stop_outlives_the_process_that_was_asked(world: RedisWorld, other: RedisStore) -> None:
    """Who takes over a message whose holder died is told that its person wants no answer any more."""
    await put(world.store)
    assert not (await claim(world.store)).stopped
    assert await other.interrupt("lane")
    await world.store.close()
    world.clock._now += TTL
    assert (await claim(other)).stopped


# --- a server that fails, and comes back -----------------------------------------------------------------------------


async def test_a_restart_of_redis_is_survived(own: RedisServer) -> None:
    """While it is away each call fails, in words; afterwards all goes on by itself, and nothing is lost."""
    async with opened(own.url()) as store:
        assert await put(store, 1)
        lease = await claim(store)
        own.kill()
        for late in (put(store, 2), store.claim("worker", TTL), store.check(), store.wait(), store.items()):
            with pytest.raises(StoreError, match="Redis cannot be reached"):
                await late
        own.start()
        await eventually(lambda: works(store))
        await store.check()
        await store.ack(lease, ANSWER.exchange)
        assert await store.exchanges("m", 1) == [ANSWER.exchange]
        assert not await put(store, 1)
        assert await put(store, 2)


async def test_a_store_that_is_not_there_yet_is_waited_for(own: RedisServer) -> None:
    """A claw that starts before Redis does opens its store all the same, and says no until it comes."""
    own.kill()
    async with opened(own.url()) as store:
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.check()
        own.start()
        await eventually(lambda: works(store))
        assert await put(store)


async def test_a_frozen_redis_holds_nobody_up(own: RedisServer, short: None) -> None:
    """A server that takes calls and answers none: they fail in time, closing too, and thawed it serves again."""
    async with opened(own.url()) as store:
        await put(store, 1)
        own.freeze()
        with pytest.raises(StoreError, match="does not answer"):
            await put(store, 2)
        with pytest.raises(StoreError):
            await store.check()
        own.thaw()
        await eventually(lambda: works(store))
        await put(store, 2)
        assert await claimed_ids(store) == ["msg1"], "the second one waits behind it, once"
        own.freeze()
        hanging = asyncio.create_task(put(store, 3))
        await asyncio.sleep(0)
        await asyncio.wait_for(store.close(), 10)
        with pytest.raises(StoreError, match="closed"):
            await hanging
    assert asyncio.all_tasks() == {asyncio.current_task()}
    own.thaw()


async def test_calls_that_gathered_while_redis_froze_are_not_all_tried(
    own: RedisServer, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has waited for as long as a call may take fails with the batch that it waited for."""
    monkeypatch.setattr(client, "BATCH_MAX", 1)
    async with opened(own.url()) as store:
        asked: list[int] = []
        replies = store._client._replies

        async def counted(batch: list[client.Call]) -> list[Any]:
            asked.append(len(batch))
            return await replies(batch)

        monkeypatch.setattr(store._client, "_replies", counted)
        own.freeze()
        failed = await asyncio.gather(*(put(store, number) for number in range(20)), return_exceptions=True)
        own.thaw()
        assert {type(error) for error in failed} == {StoreError}
        assert len(asked) < 5


async def test_a_read_only_replica_is_told(own: RedisServer) -> None:
    """After a failover the old master takes no writes: that is said, and followed when it ends."""
    async with opened(own.url()) as store:
        await put(store, 1)
        own.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreError, match="read-only replica"):
            await put(store, 2)
        with pytest.raises(StoreError, match="read-only replica"):
            await store.check()
        own.command("REPLICAOF", "NO", "ONE")
        assert await put(store, 2)


async def test_a_full_memory_is_told(own: RedisServer) -> None:
    """Without memory nothing is acked, and what is kept stays; with memory it goes on."""
    async with opened(own.url()) as store:
        await put(store, 1)
        own.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreError, match="no memory left"):
            await put(store, 2)
        with pytest.raises(StoreError, match="no memory left"):
            await store.check()
        own.command("CONFIG", "SET", "maxmemory", "0")
        assert await put(store, 2)
        assert (await store.depth()).pending == 2


async def test_a_disk_that_fails_redis_is_told(own: RedisServer) -> None:
    """A Redis that cannot save takes no writes, by its own setting; nothing is acked then."""
    async with opened(own.url()) as store:
        own.command("CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(StoreError, match="too few replicas"):
            await put(store)
        own.command("CONFIG", "SET", "min-replicas-to-write", "0")
        assert await put(store)


async def test_a_wrong_password_is_refused_at_the_start(tmp_path: Path) -> None:
    """Only a person can cure it: open raises StoreRefusedError, without the password, and may be called again."""
    with running(tmp_path / "redis", requirepass="right-p@ss/word") as server:
        for address in ("redis://127.0.0.1:{}/0", "redis://:wrong-password@127.0.0.1:{}/0"):
            store = RedisStore(Secret(address.format(server.port)), ROBOT)
            with pytest.raises(StoreRefusedError, match="password"):
                await store.open()
            with pytest.raises(StoreRefusedError, match="password") as caught:
                await store.open()
            assert "wrong-password" not in f"{caught.value!r}{caught.value.__cause__!r}{store!r}{vars(store._client)}"
            await store.close()
        async with opened(f"redis://:right-p%40ss%2Fword@127.0.0.1:{server.port}/0") as store:
            assert await put(store)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_password_that_was_changed_is_told(own: RedisServer) -> None:
    """At run time the store fails, in words, and works again when the password is the old one."""
    async with opened(own.url()) as store:
        own.command("CONFIG", "SET", "requirepass", "new")
        own.password = "new"
        own.command("CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(StoreRefusedError, match="password"):
            await put(store)
        own.command("CONFIG", "SET", "requirepass", "")
        own.password = ""
        assert await put(store)


async def test_a_user_with_too_few_rights_is_told(own: RedisServer) -> None:
    """A user of an access list that may not run scripts is refused; one that may do what claw needs is served."""
    own.command("ACL", "SETUSER", "poor", "on", ">poor", "~*", "&*", "+@read")
    keys, channel = f"~{prefix_of(ROBOT)}:*", f"&{prefix_of(ROBOT)}:*"
    own.command("ACL", "SETUSER", "rich", "on", ">rich", keys, f"~{prefix_of(ROBOT)}", channel, "+@all", "-@dangerous")
    with pytest.raises(StoreRefusedError, match="may not do this"):
        async with opened(own.url().replace("//", "//poor:poor@")):
            pass
    async with opened(own.url().replace("//", "//rich:rich@")) as store:
        assert await put(store)
        assert await claim(store)
        assert store.server_info == {}, "who may not ask for INFO is served all the same"


async def test_a_flushed_redis_is_gone_on_with(own: RedisServer) -> None:
    """Where somebody empties the database, what was there is lost and said so; what comes is served."""
    async with opened(own.url()) as store:
        await put(store, 1)
        lease = await claim(store)
        await store.set("owner", "ann")
        assert await store.items() == {"owner": "ann"}
        own.command("FLUSHALL")
        with pytest.raises(LeaseLostError):
            await store.renew(lease, TTL)
        assert await store.items() == {}
        assert await put(store, 1)
        assert await store.claim("worker", TTL) is not None


async def test_a_lease_from_before_a_loss_is_none_after_it(world: RedisWorld, other: RedisStore) -> None:
    """A message that gets the number of one that Redis lost is not touched by whoever held that one."""
    await put(world.store, 1, "a")
    old = await claim(world.store)
    world.server.command("FLUSHALL")
    await put(other, 2, "b")
    new = await claim(other)
    assert new.seq == old.seq
    for write_late in (
        world.store.renew(old, TTL),
        world.store.save_answer(old, ANSWER),
        world.store.release(old),
        world.store.bury(old, "cause"),
        world.store.ack(old),
    ):
        with pytest.raises(LeaseLostError):
            await write_late
    await other.renew(new, TTL)


async def test_a_claim_that_redis_lost_is_none_after_it(world: RedisWorld, other: RedisStore) -> None:
    """Where a failover forgets a claim, who claims next is the only one to hold the message."""
    await put(world.store)
    name = f"{world.prefix}:msg:1"
    before = world.server.command("HGET", name, "fence").decode()
    old = await claim(world.store)
    world.server.command("HSET", name, "fence", before)
    world.server.command("ZREM", f"{world.prefix}:held", "1")
    world.server.command("ZADD", f"{world.prefix}:ready", "1", "1")
    new = await claim(other)
    with pytest.raises(LeaseLostError):
        await world.store.renew(old, TTL)
    await other.renew(new, TTL)


async def test_who_waits_hears_of_a_message_after_a_loss(world: RedisWorld) -> None:
    """Redis may have counted its news anew, and have come to the number that was told before."""
    await put(world.store, 1)
    await asyncio.wait_for(world.store.wait(), 20)
    world.server.command("FLUSHALL")
    await put(world.store, 2)
    await asyncio.wait_for(world.store.wait(), 5)


async def test_an_evicted_message_hides_no_news(world: RedisWorld, other: RedisStore) -> None:
    """A claim that finds its message gone tells of what else has become free in the same moment."""
    for number, queue in ((1, "a"), (2, "b")):
        await put(world.store, number, queue)
        await claim(world.store)
    await asyncio.wait_for(other.wait(), 20)
    await world.clock.advance(TTL + 1)
    world.server.command("DEL", f"{world.prefix}:msg:1")
    await world.store._client.submit(scripts.CLAIM, 30_000, 0)
    await asyncio.wait_for(other.wait(), 5)


async def test_a_word_that_is_none_of_ours_is_passed_over(world: RedisWorld) -> None:
    """Whoever else publishes there does not end our listening."""
    heard: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    world.store.on_interrupt(lambda seq, fence: heard.put_nowait((seq, fence)))

    async def listens() -> bool:
        return bool(world.server.command("PUBLISH", f"{world.prefix}:hints", "news"))

    await eventually(listens)
    for word in ("", "stop", "stop a b", "stop 1 2 3", "\u72d7", "stop 7 8"):
        world.server.command("PUBLISH", f"{world.prefix}:hints", word)
    assert await asyncio.wait_for(heard.get(), 20) == (7, 8)


async def test_a_worker_renews_before_it_claims_after_an_outage(
    world: RedisWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leases ran out while Redis was away: it must not take up what it still works on."""
    begun: list[str] = []

    async def handle(inbound: Inbound, route: object, draft: object, followers: object = ()) -> Answer:
        begun.append(inbound.msg_id)
        await asyncio.Event().wait()
        raise AssertionError

    async def thinks() -> bool:
        return bool(begun)

    def away(*_: object, **__: object) -> asyncio.Future[object]:
        raise StoreError("away")

    async def ignore(*_: object) -> NoReturn:
        raise AssertionError

    hooks = TurnHooks(
        handle=handle,
        begin_draft=RecordingDraft,
        say=ignore,
        failure_reply=ignore,
        remedy=lambda error: "",
        patience_reply=ignore,
        interrupted_reply=lambda inbound, route: ANSWER,
        select_followers=None,
        on_undelivered=ignore,
        once_per=world.store.once_per,
        on_sent=ignore,
        on_given_up=ignore,
        on_end=lambda trip: None,
    )
    worker = Worker(world.store, hooks, Limits(3, 300.0, 600.0), slots=32, owner="claw", clock=world.clock)
    await put(world.store)
    task = asyncio.create_task(worker.run())
    try:
        await eventually(thinks)
        with monkeypatch.context() as outage:
            outage.setattr(world.store._client, "submit", away)
            world.store._wake()
            await world.clock.advance(45)
        for _ in range(20):
            await world.clock.advance(0.2)
            await world.store.depth()
        assert begun == ["msg1"]
        assert worker.running == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_evicted_message_is_passed_over(world: RedisWorld) -> None:
    """A message that Redis threw away is told in the log, and keeps no other queue waiting."""
    await put(world.store, 1, "a")
    await put(world.store, 2, "b")
    world.server.command("DEL", f"{prefix_of(ROBOT)}:msg:1")
    assert await claimed_ids(world.store) == ["msg2"]
    assert (await world.store.depth()).pending == 1


@pytest.mark.parametrize("lost", [[1], [1, 2]])
async def test_an_evicted_message_does_not_block_its_queue(world: RedisWorld, lost: list[int]) -> None:
    """The next message of its conversation gets the queue going again; what is left is answered in order."""
    for number in (1, 2, 3):
        await put(world.store, number)
    lease = await claim(world.store)
    for number in lost:
        world.server.command("DEL", f"{prefix_of(ROBOT)}:msg:{number}")
    with pytest.raises(LeaseLostError):
        await world.store.ack(lease)
    await put(world.store, 4)
    for number in range(len(lost) + 1, 5):
        lease = await claim(world.store)
        assert lease.inbound.msg_id == f"msg{number}"
        await world.store.ack(lease)
    assert (await world.store.depth()).pending == 0


async def test_a_message_that_cannot_be_read_is_buried(world: RedisWorld) -> None:
    """It becomes a dead letter, and its queue goes on."""
    await put(world.store, 1)
    await put(world.store, 2)
    world.server.command("HSET", f"{prefix_of(ROBOT)}:msg:1", "inbound", "{")
    assert await claimed_ids(world.store) == ["msg2"]
    (letter,) = await world.store.dead()
    assert (letter.key, letter.error) == ("robot:msg1", "the stored message cannot be read")


async def test_a_dead_letter_keeps_no_address(world: RedisWorld) -> None:
    """Nobody can answer by what is kept of a message that was given up."""
    await put(world.store)
    await world.store.bury(await claim(world.store), "cause")
    kept = world.server.command("HGET", f"{prefix_of(ROBOT)}:letter:1", "inbound")
    assert b"s3cret" not in kept
    assert b"hello" in kept


async def test_a_claim_that_nobody_waits_for_is_given_back(world: RedisWorld) -> None:
    """A worker that was cancelled while it claimed leaves no message to wait for its lease."""
    await put(world.store)
    task = asyncio.create_task(world.store.claim("worker", TTL))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await world.store.depth()  # The claim is made by now, and the release is asked for.
    assert (await claim(world.store)).claims == 1


async def test_a_claim_whose_reply_meets_the_cancellation_is_given_back(
    world: RedisWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply has come, and its worker is cancelled before it has run again."""
    await put(world.store)
    resolve = world.store._client._resolve

    def resolve_and_cancel(*batch: Any) -> None:
        resolve(*batch)
        task.cancel()

    with monkeypatch.context() as patch:
        patch.setattr(world.store._client, "_resolve", resolve_and_cancel)
        task = asyncio.create_task(world.store.claim("worker", TTL))
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    await world.store.depth()
    assert (await claim(world.store)).claims == 1


# --- connections that break ------------------------------------------------------------------------------------------


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A port at which `serve` has each connection, until it returns or the test ends."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.transport.abort()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        running_ones = [task for task in tasks if task is not None]
        for task in running_ones:
            task.cancel()
        await asyncio.gather(*running_ones, return_exceptions=True)
        await asyncio.sleep(0)


class Relay:
    """Stands between store and server; can break a connection after a call has reached Redis, before its reply."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cut = ""
        """Bytes of a call whose replies never come back; once."""
        self.opened = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        onward, back = await asyncio.open_connection("127.0.0.1", self.port)

        async def there() -> None:
            while data := await reader.read(1 << 16):
                if self.cut and self.cut.encode() in data:
                    self.cut = ""
                    cut.set()
                back.write(data)

        async def again() -> None:
            while (data := await onward.read(1 << 16)) and not cut.is_set():
                writer.write(data)

        cut = asyncio.Event()
        ways = [asyncio.create_task(there()), asyncio.create_task(again())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


@pytest_asyncio.fixture
async def relay(server: RedisServer) -> AsyncIterator[tuple[Relay, RedisStore]]:
    server.command("FLUSHALL")
    relay = Relay(server.port)
    async with listening(relay) as port, opened(f"redis://127.0.0.1:{port}/0") as store:
        yield relay, store


async def forgettings(store: RedisStore) -> str:
    """Forget, and return how often that was done."""
    return (await store.forget("m")).rpartition(".")[2]


@pytest.mark.parametrize(
    ("script", "call", "told"),
    [
        (scripts.PUT, lambda store: put(store, 9), True),
        (scripts.CLAIM, claimed_ids, ["msg1"]),
        (scripts.FORGET, forgettings, "1"),
        (scripts.ONCE_PER, lambda store: store.once_per("notice", 60), True),
        (scripts.CONSUME_QUOTA, lambda store: store.consume_quota("ann", "2026-11-21", "k", 1), True),
        (scripts.SET_ITEM_IF_ABSENT, lambda store: store.set_if_absent("owner", "ann"), "ann"),
    ],
    ids=["put", "claim", "forget", "first_in", "spend", "enter_first"],
)
async def test_a_call_whose_reply_is_lost_is_not_done_twice(
    relay: tuple[Relay, RedisStore],
    script: scripts.Script,
    call: Callable[[RedisStore], Awaitable[object]],
    told: object,
) -> None:
    """It is made again on a new connection, and its caller is told what happened the first time."""
    between, store = relay
    await put(store, 1)
    between.cut = script.sha
    before = between.opened
    assert await call(store) == told
    assert between.cut == ""
    assert between.opened > before


@pytest.mark.parametrize("how", ["ack", "release", "bury", "interrupt", "calls"])
async def test_a_write_whose_reply_is_lost_is_not_done_twice(relay: tuple[Relay, RedisStore], how: str) -> None:
    """Nor is a lease told as lost that the very call has ended."""
    between, store = relay
    await put(store, 1)
    lease = await claim(store)
    script = {"calls": scripts.ADD_CALLS}.get(how) or getattr(scripts, how.upper())
    between.cut = script.sha
    match how:
        case "ack":
            await store.ack(lease, Exchange("m", "u", "a"))
            assert len(await store.exchanges("m", 9)) == 1
        case "release":
            await store.release(lease, failed=True)
            assert (await claim(store)).attempts == 1
        case "bury":
            await store.bury(lease, "cause")
            assert len(await store.dead()) == 1
        case "interrupt":
            assert await store.interrupt("lane")
        case _:
            await store.add_calls("2026-11", {"webhook": 2})
            assert await store.calls("2026-11") == {"webhook": 2}
    assert between.cut == ""


async def test_an_idle_connection_that_was_cut_costs_nothing(own: RedisServer) -> None:
    """A firewall or a Redis that closes idle connections is not noticed by who calls next."""
    async with opened(own.url()) as store:
        for number in range(3):
            own.command("CLIENT", "KILL", "TYPE", "normal")
            assert await put(store, number)


# --- what servers say ------------------------------------------------------------------------------------------------


class Parrot:
    """A server that gives one answer to everything; `first` answers the greeting's first command."""

    def __init__(self, answer: bytes, first: bytes = b"") -> None:
        self.answer = answer
        self.first = first

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = self.first or self.answer
        while line := await reader.readline():
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                await reader.readexactly(size + 2)
            writer.write(said)
            said = self.answer


def info(version: str) -> bytes:
    text = f"redis_version:{version}\r\n".encode()
    return b"$%d\r\n%s\r\n" % (len(text), text)


async def opened_and_checked(store: RedisStore) -> None:
    await store.open()
    await store.check()


@pytest.mark.parametrize(
    ("answer", "first", "hopeless", "words"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", b"", False, "still loading"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", b"", False, "lost its master"),
        (b"-BUSY Redis is busy running a script.\r\n", b"", False, "somebody's script"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", b"", False, "cannot save to its disk"),
        (b"-CLUSTERDOWN The cluster is down\r\n", b"", False, "cluster is down"),
        (b"-MOVED 866 10.0.0.1:6379\r\n", b"", True, "name the node"),
        (b"-NOAUTH Authentication required.\r\n", b"", True, "asks for a password|refuses the user"),
        (b"-NOPERM this user has no permissions\r\n", b"", True, "may not do this"),
        (b"-ERR Error running script: -OOM command not allowed when\r\n", b"", False, "no memory left"),
        (b"-ERR something new\r\n", b"", False, "Redis refuses: something new"),
        (b"-ERR unknown command 'AUTH', with args beginning with: 's3cret' \r\n", b"", False, "unknown command 'AUTH'"),
        (b"HTTP/1.1 400 Bad Request\r\n", b"", False, "broke|refuses"),
        (b":1\r\n", info("6.0.16"), True, "6.0.16 is too old"),
        (b"*3\r\n:9\r\n$0\r\n\r\n:0\r\n", info("7.2.4"), True, "schema 9"),
    ],
)
async def test_what_is_wrong_is_said_in_words(answer: bytes, first: bytes, hopeless: bool, words: str) -> None:
    """Each refusal of a server has its sentence; those that only a person can cure end the start."""
    async with listening(Parrot(answer, first)) as port:
        store = RedisStore(Secret(f"redis://{'' if first else ':s3cret@'}127.0.0.1:{port}/0"), ROBOT)
        with pytest.raises(StoreError, match=words) as caught:
            await opened_and_checked(store)
        await store.close()
    assert caught.value.retryable is not hopeless
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "risks"),
    [
        ({"appendonly": "yes"}, ()),
        ({"appendonly": "no"}, (Risk.FORGETS,)),
        ({"appendonly": "yes", "maxmemory": "100mb", "maxmemory-policy": "noeviction"}, ()),
    ],
)
async def test_settings_that_lose_messages_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, str], risks: tuple[Risk, ...]
) -> None:
    """A Redis that keeps nothing on a disk is served, and told at the start."""
    with running(tmp_path / "redis", **options) as server:
        async with opened(server.url()) as store:
            assert store.risks == risks
    told = [record.__dict__["remedy"] for record in caplog.records if record.message == "store may lose messages"]
    assert told == [risk.value for risk in risks]


async def test_the_password_is_never_told(own: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever fails, at whatever level of the log, user and password are in no line."""
    caplog.set_level(logging.DEBUG)
    own.command("CONFIG", "SET", "requirepass", "s3cret-password")
    own.password = "s3cret-password"
    async with opened(f"redis://:s3cret-password@127.0.0.1:{own.port}/0") as store:
        own.kill()
        with pytest.raises(StoreError) as caught:
            await put(store)
        told = [repr(caught.value), repr(store), repr(store._client)]
        told += [str(record.__dict__) for record in caplog.records]
    assert caplog.records
    assert "s3cret" not in "".join(told)


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    """rediss:// speaks TLS, and SSL_CERT_FILE decides whom it trusts."""
    cert, key = map(str, certificate(tmp_path, "127.0.0.1"))
    files = {"tls-cert-file": cert, "tls-key-file": key, "tls-ca-cert-file": cert}
    port = free_port()
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", cert)
    else:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with running(tmp_path / "redis", **files, **{"tls-port": str(port), "tls-auth-clients": "no"}):
        async with opened(f"rediss://127.0.0.1:{port}/0") as store:
            if trusted:
                assert await put(store)
                await store.check()
            else:
                with pytest.raises(StoreError, match="TLS with Redis fails"):
                    await put(store)


async def test_a_database_by_number(own: RedisServer) -> None:
    """The number behind the address is the database."""
    async with opened(own.url(3)) as third, opened(own.url(0)) as first:
        assert await put(third)
        assert (await first.depth()).pending == 0
    assert b"db3:" in own.command("INFO", "keyspace")


# --- Redis' own clock ------------------------------------------------------------------------------------------------


async def test_time_is_redis_own(own: RedisServer) -> None:
    """Leases and rests run by the server's clock, so that no process's clock matters."""
    async with opened(own.url()) as store, opened(own.url()) as other:
        await put(store)
        lease = await store.claim("worker", 0.2)
        assert lease is not None
        assert abs(lease.received_at - time.time()) < 60
        await asyncio.wait_for(StoreContract.drained_wait(other), 20)
        again = await claim(other)
        assert again.fence > lease.fence
        await other.release(again, 0.2)
        await asyncio.wait_for(StoreContract.drained_wait(store), 20)


@pytest.mark.parametrize("how", ["lease", "rest"])
async def test_a_clock_that_was_set_back_blocks_no_queue_for_long(
    world: RedisWorld, other: RedisStore, how: str
) -> None:
    """A server that had run a day ahead is set right: what was promised before ends within its bound."""
    await put(world.store)
    lease = await claim(world.store)
    if how == "rest":
        await world.store.release(lease, 60)
    world.clock.jump(-86_400)
    assert await claimed_ids(other) == []
    await world.clock.advance(scripts.LEASE_MAX_S if how == "lease" else DELAY_MAX_S)
    assert await claimed_ids(other) == ["msg1"]


# --- nothing grows for ever ------------------------------------------------------------------------------------------


async def live(world: RedisWorld, messages: int) -> None:
    """Some days of a robot's life: questions, failures, stops, commands, lists and counts."""
    store = world.store
    for number in range(messages):
        await write(store, number, replace(ROOM, id=f"room{number % 5}"))
        lease = await claim(store)
        if number % 7 == 0:
            await store.release(lease, failed=True)
            lease = await claim(store)
        if number % 11 == 0:
            await store.bury(lease, "cause")
        else:
            await store.interrupt(lease.route.queue)
            await store.save_answer(lease, ANSWER)
            await store.ack(lease, Exchange(f"m{number % 5}", "u" * 100, "a" * 100))
        day = datetime.fromtimestamp(world.clock.wall(), UTC).date().isoformat()
        await store.consume_quota(f"person{number % 5}", day, f"k{number}", 100)
        await store.once_per(f"notice{number}", 60)
        await store.add_calls(day[:7], {"webhook": 1})
        await store.set("policy", str(number))


async def test_what_is_over_leaves_nothing(world: RedisWorld) -> None:
    """When every keeping time has passed, only counters and what has no end are left."""
    await live(world, 30)
    await world.store.forget("m0")
    await world.later(500 * 86400)
    await world.store.clean()
    left = {key.removeprefix(f"{prefix_of(ROBOT)}:").partition(":")[0] for key in world.server.held()}
    ever = {"seq", "news", "newest", "schema", "entries", "version", "epochs", "id", "probe"}
    assert left - {"once", "said"} == ever | {"seen"}, "the times of DingTalk have not gone on: its ids stay"
    assert world.server.command("KEYS", "*:epochs*") == [f"{prefix_of(ROBOT)}:epochs:floor".encode()]
    await world.store.set_language("robot:ann", "en")
    by_itself = (":once:", ":said:", ":language:")
    expiring = [key for key in world.server.held() if any(each in key for each in by_itself)]
    assert len(expiring) > 3
    assert all(world.server.command("PTTL", key) > 0 for key in expiring)


async def test_cleaning_goes_in_steps(world: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of old things is dropped whole, a chunk at a time."""
    monkeypatch.setattr(scripts, "CHUNK_MAX", 3)
    small = scripts.load("clean", CHUNK_MAX=3)
    monkeypatch.setattr(scripts, "CLEAN", small)
    world.server.command("SCRIPT", "LOAD", small.text)
    await live(world, 20)
    await world.later(500 * 86400)
    await world.store.clean()
    assert await world.store.chats() == []
    assert await world.store.dead() == []


async def test_dead_letters_are_bounded(world: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond DEAD_LETTERS_MAX the oldest go, with what was kept of them."""
    small = scripts.load("bury", DEAD_MAX=3)
    monkeypatch.setattr(scripts, "BURY", small)
    world.server.command("SCRIPT", "LOAD", small.text)
    for number in range(6):
        await put(world.store, number)
        await world.store.bury(await claim(world.store), f"cause {number}")
    assert [letter.error for letter in await world.store.dead()] == ["cause 5", "cause 4", "cause 3"]
    assert len([key for key in world.server.held() if ":letter:" in key]) == 3


# --- who does without -----------------------------------------------------------------------------------------------


def test_a_claw_with_sqlite_does_without() -> None:
    """Redis' library, 10 MB and 0.2 s, is loaded only where Redis is the store."""
    code = "import sys, claw.app, claw.cli.doctor.command; print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


async def test_receipts_and_usage_expire(world: RedisWorld) -> None:
    """Redis forgets receipts and usage by itself after their time."""
    await world.store.begin_send(SendReceipt("send-1", SendState.PENDING, 1.0))
    await world.store.add_usage([UsageRow("2026-11-27", "p", "c", questions=1)])
    names = ("send:send-1", "used:2026-11-27", "used:2026-11-27:rows")
    assert all(int(world.server.command("PTTL", f"{world.prefix}:{name}")) > 0 for name in names)

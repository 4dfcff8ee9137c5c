"""Accepting: durable first, acked then, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claw.clock import Clock
from claw.errors import StoreError
from claw.inbox.accept import STORE_TIMEOUT_S, Acceptance
from claw.inbox.routing import Router
from claw.messages import Delivery, Inbound, Route
from claw.policy import GroupSession
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Row
from claw.turn.commands.parser import is_urgent
from tests.clock import FakeClock
from tests.messages import inbound

ROUTE = Router(GroupSession.SHARED, is_urgent).route


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "claw.db")
    await opened.open()
    yield opened
    await opened.close()


class Socket:
    """Counts the acks that were written on it, and what the store held at that moment."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.pending_at_ack: list[int] = []

    def delivery(self, message: Inbound) -> Delivery:
        async def acknowledge() -> None:
            self.pending_at_ack.append((await self.store.depth()).pending)

        return Delivery(message, time.time(), acknowledge)


async def test_ack_follows_the_commit(store: SqliteStore) -> None:
    """When the ack is written, the message is in the inbox."""
    socket = Socket(store)
    await Acceptance(store, ROUTE, Clock())(socket.delivery(inbound()))
    assert socket.pending_at_ack == [1]


async def test_duplicate_is_acked_and_dropped(store: SqliteStore) -> None:
    """A repeat (same robotCode:msgId) is acked again and never queued again, even when its text differs."""
    socket = Socket(store)
    accept = Acceptance(store, ROUTE, Clock())
    await accept(socket.delivery(inbound("one", msg_id="same==")))
    await accept(socket.delivery(inbound("two", msg_id="same==")))
    assert socket.pending_at_ack == [1, 1]


async def test_same_message_to_two_robots(store: SqliteStore) -> None:
    """Two robots that are @-ed in one message each get it under the same msgId: both count."""
    socket = Socket(store)
    accept = Acceptance(store, ROUTE, Clock())
    await accept(socket.delivery(inbound(msg_id="same==", robot_code="robot1")))
    await accept(socket.delivery(inbound(msg_id="same==", robot_code="robot2")))
    assert (await store.depth()).pending == 2


async def test_no_ack_when_the_store_fails(store: SqliteStore) -> None:
    """A message that was not stored is not acked: DingTalk's repeat is the second chance."""
    socket = Socket(store)
    accept = Acceptance(store, ROUTE, Clock())
    accept.drain()
    await store.close()
    with pytest.raises(StoreError):
        await store.put(Row(inbound(), Route("x", "x")))
    await accept(socket.delivery(inbound()))
    assert socket.pending_at_ack == []


async def test_order_of_arrival_is_kept(store: SqliteStore) -> None:
    """Deliveries that begin in order enter the inbox in order, although they run at the same time."""
    socket = Socket(store)
    accept = Acceptance(store, ROUTE, Clock())
    await asyncio.gather(*(accept(socket.delivery(inbound(str(n), chat=f"c{n}"))) for n in range(200)))
    claimed = []
    while (lease := await store.claim("test", 30)) is not None:
        claimed.append(lease.inbound.text)
        await store.ack(lease)
    assert claimed == [str(n) for n in range(200)]


class AwayStore(SqliteStore):
    """A store that takes nothing while it is `away`."""

    away = True
    tries = 0

    async def put(self, row: Row) -> bool:
        self.tries += 1
        if self.away:
            raise StoreError("database or disk is full")
        return await super().put(row)


class Outage:
    """Deliveries on the fake clock while the store is away."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.store = AwayStore(path)
        self.accept = Acceptance(self.store, ROUTE, self.clock)
        self.acked: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def say(self, text: str, chat: str = "cidA") -> None:
        async def acknowledge() -> None:
            self.acked.append(text)

        delivery = Delivery(inbound(text, chat=chat), self.clock.wall(), acknowledge)
        self.tasks.append(asyncio.create_task(self.accept(delivery)))
        await self.clock.settle()

    async def come_back(self) -> None:
        self.store.away = False
        async with asyncio.timeout(10):
            while not all(task.done() for task in self.tasks):
                await self.clock.advance(0.1)
                await asyncio.sleep(0.001)

    async def claimed(self) -> list[str]:
        texts = []
        while (lease := await self.store.claim("test", 30)) is not None:
            texts.append(lease.inbound.text)
            await self.store.ack(lease)
        return texts


@pytest.fixture
async def outage(tmp_path: Path) -> AsyncIterator[Outage]:
    made = Outage(tmp_path / "claw.db")
    await made.store.open()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await made.store.close()


async def test_an_outage_delays_the_ack(outage: Outage) -> None:
    """A store that is away for less than DingTalk waits costs nothing but time: stored and acked once it is back."""
    await outage.say("hello")
    await outage.clock.advance(STORE_TIMEOUT_S - 5)
    assert outage.acked == []
    await outage.come_back()
    assert outage.acked == ["hello"]
    assert await outage.claimed() == ["hello"]


async def test_order_of_a_conversation_outlasts_an_outage(outage: Outage) -> None:
    """Messages of one conversation enter in order of arrival, also those that come when the store is back already."""
    for number in range(5):
        await outage.say(str(number))
        await outage.clock.advance(1.3)
    outage.store.away = False
    await outage.say("5")
    await outage.come_back()
    assert outage.acked == [str(number) for number in range(6)]
    assert await outage.claimed() == outage.acked


async def test_tries_are_spread(outage: Outage) -> None:
    """The store is asked within tenths of a second at first, and every second or two later on."""
    await outage.say("hello")
    await outage.clock.advance(1.0)
    assert 3 <= outage.store.tries <= 11
    before = outage.store.tries
    await outage.clock.advance(20.0)
    assert 10 <= outage.store.tries - before <= 45


async def test_an_outage_that_lasts_leaves_the_frame_unacked(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    """Before DingTalk repeats it a message is let go, and an outage is logged once, not for each message."""
    for number in range(9):
        await outage.say(str(number), chat=f"c{number % 3}")
    await outage.clock.advance(STORE_TIMEOUT_S + 2.5)
    assert all(task.done() for task in outage.tasks)
    assert outage.acked == []
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2
    # The next one starts afresh.
    await outage.say("later")
    await outage.come_back()
    assert await outage.claimed() == ["later"]


async def test_a_drain_ends_the_waiting(outage: Outage) -> None:
    """At a drain nobody waits for a store that is away: no time passes."""
    for number in range(3):
        await outage.say(str(number))
    await outage.clock.advance(1.0)
    outage.accept.drain()
    await asyncio.wait_for(asyncio.gather(*outage.tasks), 1)
    assert outage.acked == []


async def test_a_conversation_does_not_wait_for_another_ones_turn(outage: Outage) -> None:
    """When the store is back, each conversation is stored by itself."""
    await outage.say("a", chat="a")
    await outage.say("b", chat="b")
    await outage.clock.advance(10.0)
    await outage.come_back()
    assert sorted(outage.acked) == ["a", "b"]

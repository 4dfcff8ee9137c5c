"""Accepting: durable first, acked then, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claw.errors import StoreError
from claw.inbox.accept import Acceptance
from claw.inbox.routing import Router
from claw.messages import Delivery, Inbound, Route
from claw.policy import GroupSession
from claw.store.ports import Row
from claw.store.sqlite.store import SqliteStore
from claw.turn.commands.parser import is_urgent
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
    await Acceptance(store, ROUTE)(socket.delivery(inbound()))
    assert socket.pending_at_ack == [1]


async def test_duplicate_is_acked_and_dropped(store: SqliteStore) -> None:
    """A repeat (same robotCode:msgId) is acked again and never queued again, even when its text differs."""
    socket = Socket(store)
    accept = Acceptance(store, ROUTE)
    await accept(socket.delivery(inbound("one", msg_id="same==")))
    await accept(socket.delivery(inbound("two", msg_id="same==")))
    assert socket.pending_at_ack == [1, 1]


async def test_same_message_to_two_robots(store: SqliteStore) -> None:
    """Two robots that are @-ed in one message each get it under the same msgId: both count."""
    socket = Socket(store)
    accept = Acceptance(store, ROUTE)
    await accept(socket.delivery(inbound(msg_id="same==", robot_code="robot1")))
    await accept(socket.delivery(inbound(msg_id="same==", robot_code="robot2")))
    assert (await store.depth()).pending == 2


async def test_no_ack_when_the_store_fails(store: SqliteStore) -> None:
    """A message that was not stored is not acked: DingTalk's repeat is the second chance."""
    socket = Socket(store)
    await store.close()
    with pytest.raises(StoreError):
        await store.put(Row(inbound(), Route("x", "x")))
    await Acceptance(store, ROUTE)(socket.delivery(inbound()))
    assert socket.pending_at_ack == []


async def test_order_of_arrival_is_kept(store: SqliteStore) -> None:
    """Deliveries that begin in order enter the inbox in order, although they run at the same time."""
    socket = Socket(store)
    accept = Acceptance(store, ROUTE)
    await asyncio.gather(*(accept(socket.delivery(inbound(str(n), chat=f"c{n}"))) for n in range(200)))
    claimed = []
    while (lease := await store.claim("test", 30)) is not None:
        claimed.append(lease.inbound.text)
        await store.ack(lease)
    assert claimed == [str(n) for n in range(200)]

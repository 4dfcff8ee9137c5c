"""A store that forgets what is worked on (a failover, a restart without persistence) loses no message that is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claw.errors import LeaseLostError
from claw.inbox.leases import LEASE_TTL_S
from claw.messages import Answer, Exchange, Inbound, Markdown, Outcome
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Lease, Row
from tests.inbox.harness import HarnessDraft, WorkerHarness
from tests.messages import inbound


class ForgetfulStore(SqliteStore):
    """Forgets the messages that are leased when `lose` is called: to it they are gone, and neither seen."""

    forgotten: frozenset[str] = frozenset()
    knows_them_as_seen = False

    async def lose(self, *leases: Lease) -> None:
        for lease in leases:
            await super().ack(lease)
        self.forgotten |= {lease.inbound.key for lease in leases}

    def _look(self, lease: Lease) -> None:
        if lease.inbound.key in self.forgotten:
            error = LeaseLostError("the store has lost the message")
            vars(error)["gone"] = True
            raise error

    async def put(self, row: Row) -> bool:
        if row.inbound.key in self.forgotten and not self.knows_them_as_seen:
            # The file still knows its key: a new one stands for a store that does not.
            row = replace(row, inbound=replace(row.inbound, msg_id=f"{row.inbound.msg_id}again"))
        return await super().put(row)

    async def renew(self, lease: Lease, ttl: float) -> None:
        self._look(lease)
        await super().renew(lease, ttl)

    async def save_answer(self, lease: Lease, answer: Answer) -> None:
        self._look(lease)
        await super().save_answer(lease, answer)

    async def ack(self, lease: Lease, exchange: Exchange | None = None, **options: Any) -> None:
        self._look(lease)
        await super().ack(lease, exchange, **options)

    async def release(self, lease: Lease, delay: float = 0.0, **options: Any) -> None:
        self._look(lease)
        await super().release(lease, delay, **options)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "claw.db", store=ForgetfulStore)
    await made.store.open()
    yield made
    await made.close()


async def lose_all(harness: WorkerHarness) -> None:
    store = harness.store
    assert isinstance(store, ForgetfulStore)
    await store.lose(*(turn.lease for turn in harness.worker._active.values()))


class Thinking:
    """A handler that waits for the test between its beginning and its answer."""

    def __init__(self, harness: WorkerHarness) -> None:
        self.harness = harness
        self.began, self.gate = asyncio.Event(), asyncio.Event()
        harness.handle = self.handle

    async def handle(self, message: Inbound) -> Answer:
        self.began.set()
        await self.gate.wait()
        return await self.harness.echo(message)


async def test_forgotten_while_the_model_works(harness: WorkerHarness) -> None:
    """The turn goes on over renewals, and its answer is delivered once; the model is not asked again."""
    thinking = Thinking(harness)
    await harness.put(inbound("one"))
    harness.start()
    await thinking.began.wait()
    await lose_all(harness)
    await harness.clock.advance(LEASE_TTL_S)
    thinking.gate.set()
    await harness.until(lambda: harness.delivered == ["re: one"])
    await harness.until(harness.empty)
    assert harness.handled == ["one"]
    assert harness.delivered == ["re: one"]
    assert len(await harness.store.exchanges(inbound().chat_key, 9)) == 1


async def test_forgotten_between_two_parts(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is out is not sent again."""
    parts: list[int] = []

    async def finish(draft: HarnessDraft, answer: Answer, persist: Any) -> None:
        for part in range(answer.sent, 3):
            parts.append(part)
            if part == 0:
                await lose_all(harness)
            if part < 2:
                await persist(answer.with_sent(part + 1))

    async def handle(message: Inbound) -> Answer:
        return Answer(tuple(Markdown(str(n)) for n in range(3)), Outcome.ANSWERED)

    monkeypatch.setattr(HarnessDraft, "finish", finish)
    harness.handle = handle
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(lambda: len(parts) == 3)
    await harness.until(harness.empty)
    assert parts == [0, 1, 2]
    assert harness.handled == ["one"]


async def test_forgotten_when_all_is_out(harness: WorkerHarness) -> None:
    """Nothing is said again, and the exchange is remembered."""

    async def deliver(answer: Answer) -> None:
        harness.delivered.append(answer.text)
        await lose_all(harness)

    harness.deliver = deliver
    await harness.put(inbound("one"))
    harness.start()

    async def is_remembered() -> bool:
        return len(await harness.store.exchanges(inbound().chat_key, 9)) == 1

    await harness.until(is_remembered)
    await harness.until(harness.empty)
    assert harness.delivered == ["re: one"]


async def test_forgotten_at_a_drain(harness: WorkerHarness) -> None:
    """A turn that is given back puts its message back, for the next process."""
    thinking = Thinking(harness)
    await harness.put(inbound("one"))
    harness.start()
    await thinking.began.wait()
    await lose_all(harness)
    await harness.worker.drain(0.01)
    lease = await harness.store.claim("next", LEASE_TTL_S)
    assert lease is not None
    assert lease.inbound.text == "one"
    assert lease.answer is None


async def test_seen_all_the_same(harness: WorkerHarness, caplog: pytest.LogCaptureFixture) -> None:
    """Where the store takes it for a repeat the answer is delivered once without it, and the log says so."""
    thinking = Thinking(harness)
    assert isinstance(harness.store, ForgetfulStore)
    harness.store.knows_them_as_seen = True
    await harness.put(inbound("one"))
    harness.start()
    await thinking.began.wait()
    await lose_all(harness)
    thinking.gate.set()
    await harness.until(lambda: harness.delivered == ["re: one"])
    assert "calls it seen" in caplog.text
    await harness.put(inbound("two"))
    await harness.until(lambda: harness.delivered == ["re: one", "re: two"])

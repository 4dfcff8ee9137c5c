"""The worker: order within a conversation, independence between them, stops and drains."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claw.inbox.leases import LEASE_TTL_S
from claw.inbox.turns import CancelReason
from claw.messages import Answer, Inbound, Outcome
from claw.store.ports import Lease
from tests.inbox.harness import WorkerHarness, somebody
from tests.messages import inbound


async def test_answers_in_order(harness: WorkerHarness) -> None:
    """Messages of one conversation are answered one at a time, in order of arrival, and remembered."""
    at_once = most = 0

    async def slow(message: Inbound) -> Answer:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        return await harness.echo(message)

    harness.handle = slow
    await harness.put(*(inbound(str(n)) for n in range(20)))
    harness.start()
    await harness.until(harness.empty)
    assert harness.delivered == [f"re: {n}" for n in range(20)]
    assert most == 1
    assert [turn.user for turn in await harness.store.exchanges(inbound().chat_key, 50)] == [str(n) for n in range(20)]


async def test_conversations_do_not_wait_for_each_other(harness: WorkerHarness) -> None:
    """A conversation whose model hangs holds up nobody else."""

    async def hang(message: Inbound) -> Answer:
        if message.text == "hang":
            await asyncio.Event().wait()
        return await harness.echo(message)

    harness.handle = hang
    await harness.put(inbound("hang", chat="slow"), inbound("behind", chat="slow"))
    await harness.put(*(somebody(n) for n in range(10)))
    harness.start()
    await harness.until(lambda: len(harness.delivered) == 10)
    assert "behind" not in harness.handled


async def test_concurrency_is_bounded(tmp_path: Path) -> None:
    """Never more turns at once than CLAW_MAX_CONCURRENCY, except for /stop, which is let through."""
    harness = WorkerHarness(tmp_path / "claw.db", slots=3)
    await harness.store.open()
    gate = asyncio.Event()

    async def wait(message: Inbound) -> Answer:
        if message.text != "/stop":
            await gate.wait()
        return await harness.echo(message)

    harness.handle = wait
    await harness.put(*(somebody(n) for n in range(6)))
    harness.start()
    await harness.until(lambda: len(harness.handled) == 3)
    await harness.put(inbound("/stop", chat="c0"))
    await harness.until(lambda: harness.delivered == ["re: /stop"] and harness.worker.running == 3)
    gate.set()
    await harness.until(harness.empty)
    assert len(harness.delivered) == 7
    await harness.close()


async def test_stop_ends_a_generating_turn(harness: WorkerHarness) -> None:
    """A stopped turn sends nothing, is not tried again, and the next message of its conversation follows."""
    handling = asyncio.Event()

    async def handle(message: Inbound) -> Answer:
        if message.text == "long":
            handling.set()
            await asyncio.Event().wait()
        return await harness.echo(message)

    harness.handle = handle
    await harness.put(inbound("long"), inbound("next"))
    harness.start()
    await handling.wait()
    assert harness.worker.stop(inbound().chat_key)
    await harness.until(harness.empty)
    assert harness.delivered == ["re: next"]
    assert not harness.worker.stop(inbound().chat_key)


class Forgetting:
    """Answers with the epoch in which it was asked, and forgets as `/new` does: stop, forget, ack."""

    def __init__(self, harness: WorkerHarness) -> None:
        self.harness = harness
        self.working, self.gate = asyncio.Event(), asyncio.Event()
        harness.handle = self.handle

    async def handle(self, message: Inbound) -> Answer:
        key, store = message.chat_key, self.harness.store
        if message.text == "/stop":
            await self.harness.worker.stop_anywhere(key)
            await store.forget(key)
            return Answer.of("forgotten", Outcome.COMMAND)
        answer = await self.harness.echo(message)
        assert answer.exchange is not None
        exchange = replace(answer.exchange, epoch=await store.epoch(key))
        if message.text == "long":
            self.working.set()
            await self.gate.wait()
        return replace(answer, exchange=exchange)


async def test_forgetting_ends_the_running_turn(harness: WorkerHarness) -> None:
    """A turn that still waits for its answer is ended at once, beside it, and leaves no exchange."""
    forgetting = Forgetting(harness)
    await harness.put(inbound("long"))
    harness.start()
    await forgetting.working.wait()
    await harness.put(inbound("/stop"), inbound("after"))
    await harness.until(harness.empty)
    assert sorted(harness.delivered) == ["forgotten", "re: after"]
    assert [each.user for each in await harness.store.exchanges(inbound().chat_key, 9)] == ["after"]


async def test_what_is_delivered_meanwhile_stays_forgotten(harness: WorkerHarness) -> None:
    """A turn that just finishes cannot be stopped any more: its answer goes out, its exchange does not come back."""
    forgetting = Forgetting(harness)
    sending, gate = asyncio.Event(), asyncio.Event()

    async def deliver(answer: Answer) -> None:
        if answer.text == "re: long":
            sending.set()
            await gate.wait()
        harness.delivered.append(answer.text)

    harness.deliver = deliver
    forgetting.gate.set()
    await harness.put(inbound("long"))
    harness.start()
    await sending.wait()
    await harness.put(inbound("/stop"))
    await harness.until(lambda: harness.delivered == ["forgotten"])
    gate.set()
    await harness.until(harness.empty)
    assert harness.delivered == ["forgotten", "re: long"]
    assert await harness.store.exchanges(inbound().chat_key, 9) == []


async def test_a_crashed_turn_stays_forgotten(tmp_path: Path) -> None:
    """An answer that was saved before a crash, and is delivered after `/new`, does not come back as an exchange."""
    first = WorkerHarness(tmp_path / "claw.db")
    await first.store.open()
    Forgetting(first).gate.set()
    sending = asyncio.Event()

    async def stuck(answer: Answer) -> None:
        sending.set()
        await asyncio.Event().wait()

    first.deliver = stuck
    await first.put(inbound("long"))
    first.start()
    await sending.wait()
    await first.close()
    second = WorkerHarness(tmp_path / "claw.db")
    await second.store.open()
    await second.store.forget(inbound().chat_key)
    second.start()
    await second.until(second.empty)
    assert second.delivered == ["re: long"]
    assert await second.store.exchanges(inbound().chat_key, 9) == []
    await second.close()


async def test_another_process_stops_a_turn(harness: WorkerHarness) -> None:
    """The lease that another process names is stopped, and no other one: its queue may have gone on."""
    handling = asyncio.Event()

    async def handle(message: Inbound) -> Answer:
        handling.set()
        await asyncio.Event().wait()
        return await harness.echo(message)

    harness.handle = handle
    leases: list[Lease] = []
    claim = harness.store.claim

    async def remembered(*args: Any, **kwargs: Any) -> Lease | None:
        lease = await claim(*args, **kwargs)
        leases.extend([lease] if lease else [])
        return lease

    harness.store.claim = remembered  # type: ignore[method-assign]
    await harness.put(inbound("long"))
    harness.start()
    await handling.wait()
    (lease,) = leases
    harness.worker._on_interrupt(lease.seq, lease.fence + 1)
    harness.worker._on_interrupt(lease.seq + 1, lease.fence)
    await asyncio.sleep(0.01)
    assert harness.worker.running == 1
    harness.worker._on_interrupt(lease.seq, lease.fence)
    await harness.until(harness.empty)
    assert harness.delivered == []
    assert await harness.store.dead() == []


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_stop_asks_the_others_where_nothing_runs_here(harness: WorkerHarness, elsewhere: bool) -> None:
    """A turn of our own is stopped here, without the store; else the store tells whether somebody else has one."""
    asked: list[str] = []

    async def interrupt(queue: str) -> bool:
        asked.append(queue)
        return elsewhere

    async def hang(message: Inbound) -> Answer:
        await asyncio.Event().wait()
        return await harness.echo(message)

    harness.store.interrupt = interrupt  # type: ignore[method-assign]
    harness.handle = hang
    assert await harness.worker.stop_anywhere("queue") is elsewhere
    assert asked == ["queue"]
    await harness.put(inbound("long"))
    harness.start()
    await harness.until(lambda: harness.worker.running == 1)
    assert await harness.worker.stop_anywhere(inbound().chat_key)
    assert not await harness.worker.stop_anywhere(inbound().chat_key), "it ends already"
    await harness.until(harness.empty)
    assert asked == ["queue"]


async def test_what_was_to_be_stopped_is_not_begun(harness: WorkerHarness) -> None:
    """A message whose holder was asked to stop, and died, is put away without an answer."""
    claim = harness.store.claim

    async def stopped(*args: Any, **kwargs: Any) -> Lease | None:
        lease = await claim(*args, **kwargs)
        return lease and replace(lease, stopped=lease.inbound.text == "long")

    harness.store.claim = stopped  # type: ignore[method-assign]
    await harness.put(inbound("long"), inbound("next"))
    harness.start()
    await harness.until(harness.empty)
    assert (harness.handled, harness.delivered) == (["next"], ["re: next"])


async def test_stop_does_not_cut_what_is_being_delivered(harness: WorkerHarness) -> None:
    """An answer that is on its way is sent whole: /stop comes too late for it."""
    sending, gate = asyncio.Event(), asyncio.Event()

    async def deliver(answer: Answer) -> None:
        sending.set()
        await gate.wait()
        harness.delivered.append(answer.text)

    harness.deliver = deliver
    await harness.put(inbound("one"))
    harness.start()
    await sending.wait()
    assert not harness.worker.stop(inbound().chat_key)
    gate.set()
    await harness.until(harness.empty)
    assert harness.delivered == ["re: one"]


async def test_drain_finishes_what_runs(harness: WorkerHarness) -> None:
    """A drain claims nothing more, lets running turns end, and leaves the rest in the inbox."""
    gate = asyncio.Event()

    async def wait(message: Inbound) -> Answer:
        await gate.wait()
        return await harness.echo(message)

    harness.handle = wait
    await harness.put(inbound("one"), inbound("two"))
    harness.start()
    await harness.until(lambda: harness.handled == ["one"])
    drain = asyncio.create_task(harness.worker.drain(60))
    await asyncio.sleep(0.01)
    gate.set()
    await drain
    assert harness.task is not None
    await harness.task
    assert harness.delivered == ["re: one"]
    assert (await harness.store.depth()).pending == 1


@pytest.mark.parametrize("asked_again", [False, True])
async def test_drain_gives_back_what_does_not_end(harness: WorkerHarness, asked_again: bool) -> None:
    """A turn that outlasts the drain, or is not waited for, goes back to the inbox, uncounted, for the next process."""
    await harness.put(inbound("one"))

    async def hang(message: Inbound) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    harness.handle = hang
    harness.start()
    await harness.until(lambda: harness.handled == ["one"])
    drain = asyncio.create_task(harness.worker.drain(60 if asked_again else 0.01))
    await asyncio.sleep(0)
    if asked_again:
        drain.cancel()
    await asyncio.wait([drain])
    lease = await harness.store.claim("next", 30)
    assert lease is not None
    assert (lease.inbound.text, lease.attempts) == ("one", 0)


async def test_cancelled_worker_leaves_no_task(harness: WorkerHarness) -> None:
    """Cancelling the worker cancels its turns; nothing of it is left running."""
    before = {task.get_name() for task in asyncio.all_tasks()}
    harness.handle = lambda message: asyncio.Event().wait()  # type: ignore[assignment,return-value]
    await harness.put(*(inbound(chat=f"c{n}") for n in range(5)))
    harness.start()
    await harness.until(lambda: harness.worker.running == 5)
    assert harness.task is not None
    harness.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await harness.task
    assert {task.get_name() for task in asyncio.all_tasks()} - before <= {"claw.store.timer"}


@pytest.mark.parametrize("reason", [CancelReason.STOP, CancelReason.RELEASE, CancelReason.ABANDON])
async def test_cancelled_between_claim_and_start(
    harness: WorkerHarness, reason: CancelReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that is cancelled before its task has run at all still frees its slot, and is stopped or given back."""
    start = harness.worker._start
    fences: list[int] = []

    def start_and_cancel(lease: Lease) -> None:
        start(lease)
        fences.append(lease.fence)
        if len(fences) == 1:
            if reason is CancelReason.STOP:
                assert harness.worker.stop(lease.route.queue)
            else:
                harness.worker._active[lease.route.queue].cancel(reason)

    monkeypatch.setattr(harness.worker, "_start", start_and_cancel)
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(lambda: bool(fences) and harness.worker.running == 0)
    if reason is CancelReason.ABANDON:
        await harness.clock.advance(LEASE_TTL_S + 1)
    await harness.until(harness.empty)
    assert harness.delivered == ([] if reason is CancelReason.STOP else ["re: one"])

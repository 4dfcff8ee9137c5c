"""The worker: order within a conversation, independence between them, stops and drains."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claw.draft import DeliveryStoppedError, Persist
from claw.errors import DingTalkError, DingTalkReason
from claw.inbox import worker
from claw.inbox.active import CancelReason
from claw.inbox.delivery import STOPPED_MARK
from claw.inbox.leases import LEASE_TTL_S
from claw.messages import Answer, Exchange, Inbound, Markdown, Outcome
from claw.parts import Words
from claw.store.values import Interrupted, Lease
from tests.inbox.harness import WorkerHarness, somebody
from tests.messages import inbound

SHORT = 0.05
"""Seconds in which something does not happen."""


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


async def test_what_is_delivered_meanwhile_stays_forgotten(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is on its way goes out, however long it takes; its exchange does not come back."""
    monkeypatch.setattr(worker, "CUT_TIMEOUT_S", SHORT)
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

    async def interrupt(queue: str, **_: Any) -> Interrupted:
        asked.append(queue)
        return Interrupted.STOPPED if elsewhere else Interrupted.NOTHING

    async def hang(message: Inbound) -> Answer:
        await asyncio.Event().wait()
        return await harness.echo(message)

    harness.store.interrupt = interrupt  # type: ignore[method-assign]
    harness.handle = hang
    assert bool(await harness.worker.stop_anywhere("queue")) is elsewhere
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


class Sending:
    """Sends an answer of three parts, each when the test lets it."""

    def __init__(self, harness: WorkerHarness) -> None:
        self.harness = harness
        self.on_its_way = asyncio.Event()
        self.gate = asyncio.Semaphore(0)
        self.fault: Exception | None = None
        harness.handle = self.handle
        harness.finish = self.finish

    async def handle(self, message: Inbound) -> Answer:
        if message.text != "one":
            return await self.harness.echo(message)
        exchange = Exchange(message.chat_key, message.text, "first, second, third")
        parts = tuple(Markdown(each) for each in ("first", "second", "third"))
        return Answer(parts, Outcome.ANSWERED, exchange=exchange)

    async def finish(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        for index in range(answer.sent, len(answer.content)):
            self.on_its_way.set()
            await self.gate.acquire()
            if self.fault is not None:
                raise self.fault
            part = answer.content[index]
            assert isinstance(part, Markdown)
            self.harness.delivered.append(part.text)
            answer = replace(answer, receipts=(*answer.receipts, f"receipt-{part.text}"))
            if index + 1 < len(answer.content):
                try:
                    await persist(answer.with_sent(index + 1))
                except DeliveryStoppedError as stop:
                    stop.shown = ", ".join(self.harness.delivered)
                    raise
        return answer.receipts

    async def let_out(self, parts: int) -> None:
        """Let parts go out, until the next one is on its way."""
        for _ in range(parts):
            self.on_its_way.clear()
            self.gate.release()
            await self.on_its_way.wait()


async def test_stop_ends_the_sending(harness: WorkerHarness) -> None:
    """What is on its way goes out, the rest never does; history keeps what was seen, and the next message follows."""
    sending = Sending(harness)
    await harness.put(inbound("one"), inbound("two"))
    harness.start()
    await sending.on_its_way.wait()
    await sending.let_out(1)
    key = inbound().chat_key
    assert harness.worker.stop(key, "somebody else") is Interrupted.OTHERS
    stopping = asyncio.create_task(harness.worker.stop_anywhere(key, "u-1001"))
    await asyncio.sleep(SHORT)
    assert not stopping.done(), "whether anything was stopped is not known yet"
    sending.gate.release()
    assert await stopping is Interrupted.STOPPED
    sending.gate.release()
    await harness.until(harness.empty)
    assert harness.delivered == ["first", "second", "re: two"]
    told = [(each.user, each.assistant) for each in await harness.store.exchanges(key, 9)]
    assert told == [("one", f"first, second\n\n{STOPPED_MARK}"), ("two", "re: two")]
    kept = await harness.store.find_message(key, ["receipt-second"])
    assert kept is not None
    assert kept.parts == (Words("first, second"),)


async def test_stop_comes_too_late_for_the_last_part(harness: WorkerHarness) -> None:
    """Nothing was stopped then, and nobody is told so; nor does a next message cut an answer."""
    sending = Sending(harness)
    await harness.put(inbound("one"))
    harness.start()
    await sending.on_its_way.wait()
    await sending.let_out(2)
    key = inbound().chat_key
    assert harness.worker.stop(key, reason=CancelReason.INTERRUPT) is Interrupted.NOTHING
    stopping = asyncio.create_task(harness.worker.stop_anywhere(key))
    await asyncio.sleep(0)
    sending.gate.release()
    assert await stopping is Interrupted.NOTHING
    assert harness.delivered == ["first", "second", "third"]
    assert [each.assistant for each in await harness.store.exchanges(key, 9)] == ["first, second, third"]


@pytest.mark.parametrize(("out", "said"), [(0, []), (1, [f"first, second, third\n\n{STOPPED_MARK}"])])
async def test_a_part_that_is_refused_is_not_tried_again_after_a_stop(
    harness: WorkerHarness, out: int, said: list[str]
) -> None:
    """It ends there, however often DingTalk might have been asked; of what nobody saw nothing is remembered."""
    sending = Sending(harness)
    await harness.put(inbound("one"))
    harness.start()
    await sending.on_its_way.wait()
    await sending.let_out(out)
    stopping = asyncio.create_task(harness.worker.stop_anywhere(inbound().chat_key))
    await asyncio.sleep(0)
    sending.fault = DingTalkError("webhook", "busy", reason=DingTalkReason.SERVER_BUSY, retryable=True)
    sending.gate.release()
    assert await stopping is Interrupted.STOPPED
    await harness.until(harness.empty)
    assert len(harness.delivered) == out
    assert await harness.store.dead() == []
    assert [each.assistant for each in await harness.store.exchanges(inbound().chat_key, 9)] == said


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

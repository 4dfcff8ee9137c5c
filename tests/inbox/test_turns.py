"""One turn: retries, deliveries, dead letters, and a store that fails in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from claw.errors import DingTalkError, ModelError, ModelErrorKind, StoreError
from claw.inbox.leases import LEASE_TTL_S
from claw.messages import Answer, Inbound, Outcome
from claw.store.values import Row, RowKind
from tests.inbox.harness import ROUTE, WorkerHarness
from tests.messages import inbound


async def test_retryable_fault_is_retried_then_told(harness: WorkerHarness) -> None:
    """A retryable fault is tried CLAW_MAX_ATTEMPTS times with waits, then the person is told and the message buried."""

    async def busy(message: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.BUSY, "429", retryable=True)

    harness.handle = busy
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert harness.handled == ["one"] * 3
    assert harness.delivered == ["sorry: one"]
    assert [letter.error for letter in await harness.store.dead()] == ["busy: 429 (try 3)"]


def hold_release(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Let each release wait. Return the event that says that one has begun, and the one that lets it go on."""
    releasing, gate = asyncio.Event(), asyncio.Event()
    release = harness.store.release

    async def release_slowly(*args: Any, **options: Any) -> None:
        releasing.set()
        await gate.wait()
        await release(*args, **options)

    monkeypatch.setattr(harness.store, "release", release_slowly)
    return releasing, gate


async def test_stop_comes_too_late_for_a_release(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that failed and is being given back for another try is not said to be stopped: it will come again."""
    releasing, gate = hold_release(harness, monkeypatch)

    async def busy_once(message: Inbound) -> Answer:
        harness.handle = harness.echo
        raise ModelError(ModelErrorKind.BUSY, "429", retryable=True)

    harness.handle = busy_once
    await harness.put(inbound("one"))
    harness.start()
    await releasing.wait()
    assert not harness.worker.stop(inbound().chat_key)
    gate.set()
    await harness.until_empty_over_time()
    assert harness.delivered == ["re: one"]


async def test_stop_waits_for_a_release(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/stop` for a turn that is being given back stops its message where it waits for the next try."""
    releasing, gate = hold_release(harness, monkeypatch)

    async def busy(message: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.BUSY, "429", retryable=True, retry_after=60)

    harness.handle = busy
    await harness.put(inbound("one"))
    harness.start()
    await releasing.wait()
    stopping = asyncio.create_task(harness.worker.stop_anywhere(inbound().chat_key))
    await harness.clock.settle()
    gate.set()
    assert await stopping
    await harness.until(harness.empty)
    assert (harness.handled, harness.delivered) == (["one"], [])


async def test_permanent_fault_is_told_at_once(harness: WorkerHarness) -> None:
    """A fault that no other try can cure is told after the first."""

    async def refuse(message: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.UNAUTHORIZED, "401")

    harness.handle = refuse
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(harness.empty)
    assert (harness.handled, harness.delivered) == (["one"], ["sorry: one"])


async def test_fault_of_ours_does_not_end_the_worker(harness: WorkerHarness) -> None:
    """An error that nobody foresaw ends one message, not the worker."""

    async def broken(message: Inbound) -> Answer:
        if message.text == "poison":
            raise ZeroDivisionError
        return await harness.echo(message)

    harness.handle = broken
    await harness.put(inbound("poison", chat="a"), inbound("good", chat="b"))
    harness.start()
    await harness.until(lambda: harness.delivered == ["re: good"])


async def test_retry_after_is_honoured(harness: WorkerHarness) -> None:
    """The wait that the model's server asks for is kept."""

    async def busy(message: Inbound) -> Answer:
        if len(harness.handled) == 1:
            raise ModelError(ModelErrorKind.BUSY, "429", retryable=True, retry_after=60)
        return await harness.echo(message)

    harness.handle = busy
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(lambda: harness.worker.running == 0 and len(harness.handled) == 1)
    await harness.clock.advance(59)
    assert len(harness.handled) == 1
    await harness.clock.advance(2)
    await harness.until(harness.empty)
    assert harness.delivered == ["re: one"]


async def test_answer_is_paid_for_once(harness: WorkerHarness) -> None:
    """An answer that could not be sent is kept and sent again; the model is not asked again."""
    tries = 0

    async def flaky(answer: Answer) -> None:
        nonlocal tries
        tries += 1
        if tries < 6:
            raise DingTalkError("webhook", "500", status=500, retryable=True)
        harness.delivered.append(answer.text)

    harness.deliver = flaky
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert (harness.handled, harness.delivered) == (["one"], ["re: one"])


@pytest.mark.parametrize("spoils", [0, 1, 3])
async def test_attempts_of_a_failed_turn(harness: WorkerHarness, spoils: int) -> None:
    """An answer that tells of a failure knows how often the turn was tried, whatever its delivery takes."""

    async def busy(message: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.BUSY, "429", retryable=True)

    async def flaky(answer: Answer) -> None:
        nonlocal spoils
        if spoils:
            spoils -= 1
            raise DingTalkError("webhook", "500", status=500, retryable=True)
        tries.append(answer.tries)

    tries: list[int] = []
    harness.handle, harness.deliver = busy, flaky
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert tries == [3]
    assert [letter.attempts for letter in await harness.store.dead()] == [3]


class FailingMethod:
    """A store that fails at one of its methods, four times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, harness: WorkerHarness, method: str) -> None:
        self.left = 4
        self._real = getattr(harness.store, method)
        monkeypatch.setattr(harness.store, method, self)

    async def __call__(self, *args: Any, **options: Any) -> None:
        if self.left:
            self.left -= 1
            raise StoreError("disk full")
        await self._real(*args, **options)


async def test_store_trouble_does_not_block_a_conversation(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails for a moment delays a turn for about as long, not until its lease runs out."""
    FailingMethod(monkeypatch, harness, "release")

    async def handle(_: Inbound) -> Answer:
        harness.handle = harness.echo
        raise StoreError("disk full")

    harness.handle = handle
    await harness.put(inbound("one"))
    harness.start()
    began = harness.clock.monotonic()
    await harness.until_empty_over_time()
    assert harness.delivered == ["re: one"]
    assert harness.clock.monotonic() - began < LEASE_TTL_S / 2


@pytest.mark.parametrize("write", ["save_answer", "ack"])
async def test_store_trouble_repeats_nothing(
    write: str, harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is paid for or said while the store fails is neither asked for nor said again when it works again."""
    trouble = FailingMethod(monkeypatch, harness, write)
    await harness.put(inbound("one"), inbound("two"))
    harness.start()
    await harness.until_empty_over_time()
    assert (trouble.left, harness.handled, harness.delivered) == (0, ["one", "two"], ["re: one", "re: two"])


async def test_store_trouble_repeats_no_failure_reply(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure reply that is out is not said again where its message could not be buried at once."""
    trouble = FailingMethod(monkeypatch, harness, "bury")

    async def handle(_: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.UNAUTHORIZED, "401")

    harness.handle = handle
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert (trouble.left, harness.delivered) == (0, ["sorry: one"])


async def test_saved_answer_survives_a_crash(tmp_path: Path) -> None:
    """A process that dies between the model's answer and its delivery costs no second model call."""
    first = WorkerHarness(tmp_path / "claw.db")
    await first.store.open()
    sending = asyncio.Event()

    async def stuck(answer: Answer) -> None:
        sending.set()
        await asyncio.Event().wait()

    first.deliver = stuck
    await first.put(inbound("one"))
    first.start()
    await sending.wait()
    await first.close()
    second = WorkerHarness(tmp_path / "claw.db")
    await second.store.open()
    second.start()
    await second.until(second.empty)
    assert (second.handled, second.delivered) == ([], ["re: one"])
    await second.close()


@pytest.mark.parametrize("kind", [RowKind.SEND, RowKind.ALERT])
async def test_what_comes_with_its_answer_is_only_delivered(harness: WorkerHarness, kind: RowKind) -> None:
    """A send or an alert is delivered in its queue's order, without a turn; `/stop` is not for it, and no history."""
    delivering, gate = asyncio.Event(), asyncio.Event()

    async def deliver(answer: Answer) -> None:
        if answer.text == "report":
            delivering.set()
            await gate.wait()
        harness.delivered.append(answer.text)

    harness.deliver = deliver
    message = inbound("", msg_id="send-1")
    row = Row(message, ROUTE(message), kind=kind, answer=Answer.of("report", Outcome.ANSWERED))
    await harness.store.put(row)
    assert not await harness.store.put(row)
    await harness.put(inbound("behind"))
    harness.start()
    await delivering.wait()
    assert not harness.worker.stop(message.chat_key)
    gate.set()
    await harness.until(harness.empty)
    assert (harness.handled, harness.delivered) == (["behind"], ["report", "re: behind"])
    assert [turn.user for turn in await harness.store.exchanges(message.chat_key, 9)] == ["behind"]

"""What the worker tells a draft: why it is left, whom else it answers, and that nothing more comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry import trace

from claw.draft import Persist, Suspension
from claw.errors import DingTalkError, LeaseLostError, ModelError, ModelErrorKind, StoreError
from claw.inbox.delivery import Deliverer, DeliveryEnd, suspend_at_end
from claw.inbox.turns import CLAIMS_MAX
from claw.messages import Answer, Inbound, Markdown, Outcome
from claw.store.values import Interrupted
from tests.clock import FakeClock
from tests.drafts import RecordingDraft
from tests.inbox.harness import ROUTE, WorkerHarness
from tests.messages import inbound
from tests.reply.tools import lease_of

RETRYABLE = ModelError(ModelErrorKind.SERVER, "500", retryable=True)


@pytest.fixture
async def merging(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "claw.db", merges=True)
    await made.store.open()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("error", "is_draining", "why"),
    [
        (None, False, Suspension.RETRY),
        (StoreError("away"), False, Suspension.RETRY),
        (ZeroDivisionError(), False, Suspension.RETRY),
        (LeaseLostError("another's"), False, Suspension.LOST),
        (asyncio.CancelledError(), False, Suspension.LOST),
        (asyncio.CancelledError(), True, Suspension.DRAIN),
    ],
    ids=["released", "store", "fault", "lost", "abandoned", "drained"],
)
async def test_why_a_draft_is_left(error: BaseException | None, is_draining: bool, why: Suspension) -> None:
    """By how its turn ended; what was raised goes on up."""
    draft = RecordingDraft(lease_of(inbound(), FakeClock()))
    raised: BaseException | None = None

    async def end() -> None:
        if error is not None:
            raise error

    try:
        async with suspend_at_end(draft, lambda: is_draining) as same:
            assert same is draft
            await end()
    except BaseException as fault:  # noqa: BLE001 - a cancellation of the test's own is one of them
        raised = fault
    assert raised is error
    assert draft.suspended == [why]


async def nothing(_: Answer) -> None:
    pass


async def test_a_draft_that_is_finished_is_not_left() -> None:
    """It takes no notice: its answer is out."""
    draft = RecordingDraft(lease_of(inbound(), FakeClock()))
    async with suspend_at_end(draft, lambda: True):
        await draft.finish(Answer.of("out", Outcome.ANSWERED), nothing)
    assert draft.suspended == []


async def test_each_try_has_a_draft_of_its_own(harness: WorkerHarness) -> None:
    """One that failed is left for the next, which finishes."""
    tries = 0

    async def handle(message: Inbound) -> Answer:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RETRYABLE
        return await harness.echo(message)

    harness.handle = handle
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert [draft.suspended for draft in harness.drafts] == [[Suspension.RETRY], []]
    assert [draft.updates for draft in harness.drafts] == [["one"], ["one"]]


@pytest.mark.parametrize("retryable", [True, False])
async def test_an_answer_that_is_given_up(harness: WorkerHarness, retryable: bool) -> None:
    """Another try is one, and the last one is told that nothing more comes: it takes its signs back."""

    async def refuse(answer: Answer) -> None:
        if answer.text.startswith("re: "):
            raise DingTalkError("webhook", "no", retryable=retryable, tries_max=3)

    harness.deliver = refuse
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    told = [draft.suspended for draft in harness.drafts if draft.inbound.text == "one"]
    assert told == [*[[Suspension.RETRY]] * (2 if retryable else 0), [Suspension.GIVEN_UP]]
    assert len(await harness.store.dead()) == 1


async def test_an_answer_whose_delivery_kills_the_process(harness: WorkerHarness) -> None:
    """It is buried without another try; nothing more comes of it."""
    await harness.put(inbound("one"))
    lease = await harness.store.claim("dead", 1.0)
    assert lease is not None
    await harness.store.save_answer(lease, Answer.of("re: one", Outcome.ANSWERED))
    for _ in range(CLAIMS_MAX - 1):
        await harness.clock.advance(10)
        assert await harness.store.claim("dead", 1.0) is not None
    await harness.clock.advance(10)
    harness.start()
    await harness.until_empty_over_time()
    assert [draft.suspended for draft in harness.drafts if draft.inbound.text == "one"] == [[Suspension.GIVEN_UP]]
    assert len(await harness.store.dead()) == 1


async def test_an_answer_that_nobody_wants_and_dingtalk_refuses(harness: WorkerHarness) -> None:
    """It was stopped while a part was on its way, and that part failed: there is no other try."""
    message = inbound("one")

    async def finish(_: Answer, persist: Persist) -> tuple[str, ...]:
        assert harness.worker.stop(ROUTE(message).queue) is Interrupted.STOPPED
        raise DingTalkError("webhook", "no", retryable=True)

    async def handle(_: Inbound) -> Answer:
        return Answer((Markdown("a"), Markdown("b")), Outcome.ANSWERED)

    harness.handle, harness.finish = handle, finish
    await harness.put(message)
    harness.start()
    await harness.until_empty_over_time()
    assert [draft.suspended for draft in harness.drafts] == [[Suspension.GIVEN_UP]]
    assert await harness.store.dead() == []


async def hang(_: Inbound) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError("nobody lets it go")


async def test_a_drain_is_told(harness: WorkerHarness) -> None:
    """The process ends, and another one goes on."""
    harness.handle = hang
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(lambda: harness.worker.running == 1 and bool(harness.handled))
    await harness.worker.drain(0.0)
    await harness.until(lambda: harness.worker.running == 0)
    assert [draft.suspended for draft in harness.drafts] == [[Suspension.DRAIN]]


async def test_a_stop_ends_in_the_draft(harness: WorkerHarness) -> None:
    """An empty answer: what shows the text so far says that it was stopped."""
    harness.handle = hang
    message = inbound("one")
    await harness.put(message)
    harness.start()
    await harness.until(lambda: bool(harness.handled))
    assert harness.worker.stop(ROUTE(message).queue) is Interrupted.STOPPED
    await harness.until(harness.empty)
    (draft,) = harness.drafts
    assert [(each.text, each.outcome) for each in draft.finished] == [("", Outcome.STOPPED)]
    assert draft.suspended == []


async def test_a_draft_hears_whom_else_it_answers(merging: WorkerHarness) -> None:
    """Messages that wait behind one and are answered with it join its draft, in their order; again at another try."""
    harness = merging
    failing: Callable[[], bool] = iter([True, False]).__next__

    async def handle(message: Inbound) -> Answer:
        if message.text == "first":
            if failing():
                raise RETRYABLE
            return await harness.echo(message)
        return await harness.echo(message)

    harness.handle = handle
    await harness.put(*(inbound(text) for text in ("first", "second", "third", "alone", "fifth")))
    harness.start()
    await harness.until_empty_over_time()
    joined = [(draft.inbound.text, [each.text for each in draft.joined]) for draft in harness.drafts]
    assert joined == [("first", ["second", "third"]), ("first", ["second", "third"]), ("alone", ["fifth"])]


async def test_without_merging_nobody_joins(harness: WorkerHarness) -> None:
    """Each message has a draft of its own."""
    await harness.put(inbound("first"), inbound("second"))
    harness.start()
    await harness.until_empty_over_time()
    assert [draft.joined for draft in harness.drafts] == [[], []]


@pytest.mark.parametrize(("sent", "finished"), [(0, [""]), (1, [])], ids=["nothing out", "a part out"])
async def test_an_answer_that_nobody_wants_any_more(harness: WorkerHarness, sent: int, finished: list[str]) -> None:
    """Where nothing is out, what shows it so far is ended; else the rest is not sent, and the signs are taken back."""
    message = inbound("one")
    await harness.put(message)
    lease = await harness.store.claim("test", 30.0)
    assert lease is not None
    draft, kept = RecordingDraft(lease), list[Answer]()
    answer = replace(Answer((Markdown("a"), Markdown("b")), Outcome.ANSWERED), sent=sent)
    end = await Deliverer(harness.store, harness.hooks.on_undelivered, harness.clock).deliver(
        lease, draft, answer, trace.INVALID_SPAN, note_progress=kept.append, is_unwanted=lambda: True
    )
    assert end is DeliveryEnd.CUT
    assert [each.text for each in draft.finished] == finished
    assert draft.suspended == ([] if finished else [Suspension.GIVEN_UP])
    assert [each.outcome for each in kept] == [Outcome.STOPPED]

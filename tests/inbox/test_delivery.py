"""Answers that DingTalk does not take: tries over an hour, and who is told at the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from claw.errors import DingTalkError, DingTalkReason
from claw.inbox.retries import DELIVERY_TIMEOUT_S
from claw.messages import Answer, ChatKind, Conversation, Exchange, Inbound, Markdown, Outcome, Sender
from claw.store.values import Row, RowKind
from tests.inbox.harness import OWNER, ROUTE, HarnessDraft, WorkerHarness
from tests.messages import inbound

ANN = "u-1001"


class Refusing:
    """DingTalk, as far as it refuses what people asked for; what claw itself tells gets through."""

    def __init__(self, harness: WorkerHarness, error: Exception, times: int = 10**9) -> None:
        self.harness = harness
        self.error = error
        self.left = times
        self.tried_at: list[float] = []

    async def __call__(self, answer: Answer) -> None:
        if answer.text.startswith("re: ") and self.left:
            self.left -= 1
            self.tried_at.append(self.harness.clock.monotonic())
            raise self.error
        self.harness.delivered.append(answer.text)


def refuse(harness: WorkerHarness, times: int = 10**9, **fields: Any) -> Refusing:
    """Let DingTalk refuse every answer, or the first ones."""
    deliver = Refusing(harness, DingTalkError("webhook", "no", **{"retryable": True, **fields}), times)
    harness.deliver = deliver
    return deliver


async def run(harness: WorkerHarness, *messages: Inbound) -> None:
    await harness.put(*messages)
    harness.start()
    await harness.until_empty_over_time()


async def test_surely_not_delivered_is_tried_for_an_hour(harness: WorkerHarness) -> None:
    """Whatever answered in DingTalk's place: tries go on for an hour, many of them at its beginning."""
    deliver = refuse(harness, status=403)
    await run(harness, inbound("one"))
    began, *_, ended = deliver.tried_at
    assert len(deliver.tried_at) > 15
    assert len([at for at in deliver.tried_at if at < began + 60]) >= 4
    assert ended - began == pytest.approx(DELIVERY_TIMEOUT_S, abs=15)
    assert harness.handled == ["one"]


async def test_maybe_delivered_is_tried_twice_more(harness: WorkerHarness) -> None:
    """A call that may have been delivered is made at most three times, a minute and ten minutes apart."""
    deliver = refuse(harness, status=502, maybe_delivered=True)
    await run(harness, inbound("one"))
    assert [letter.attempts for letter in await harness.store.dead()] == [3]
    first, second = (b - a for a, b in pairwise(deliver.tried_at))
    assert 60 <= first < 90
    assert 600 <= second < 800


async def test_an_unknown_refusal_is_tried_a_few_times(harness: WorkerHarness) -> None:
    """A refusal that nobody knows costs four calls; then the person is told directly, and the chat goes on."""

    async def deliver(answer: Answer) -> None:
        if answer.text == "re: one":
            tried_at.append(harness.clock.monotonic())
            raise DingTalkError("webhook", "errcode 400018", errcode=400018, retryable=True, tries_max=4)
        harness.delivered.append(answer.text)

    tried_at: list[float] = []
    harness.deliver = deliver
    await run(harness, inbound("one"), inbound("two"))
    waits = [b - a for a, b in pairwise(tried_at)]
    assert [least <= wait < least * 1.25 + 15 for wait, least in zip(waits, (5, 60, 600), strict=True)] == [True] * 3
    assert "re: two" in harness.delivered
    assert set(harness.receivers) == {OWNER, ANN}
    assert [letter.attempts for letter in await harness.store.dead()] == [4]


async def test_doubts_and_sure_failures_are_counted_apart(harness: WorkerHarness) -> None:
    """A gateway's 502 after many refusals is tried again: what surely failed has shown the answer to nobody."""
    deliver = refuse(harness, times=9, status=500)

    async def then_502(answer: Answer) -> None:
        if deliver.left == 1:
            deliver.error = DingTalkError("webhook", "no", retryable=True, maybe_delivered=True)
        await deliver(answer)

    harness.deliver = then_502
    await run(harness, inbound("one"))
    assert harness.delivered == ["re: one"]


async def test_trouble_of_seconds_loses_nothing(harness: WorkerHarness) -> None:
    """A 502 that lasts ten seconds delays an answer by about a minute; three quick tries are no longer all."""

    async def deliver(answer: Answer) -> None:
        if harness.clock.monotonic() < until:
            raise DingTalkError("webhook", "502", status=502, retryable=True, maybe_delivered=True)
        harness.delivered.append(answer.text)

    until = harness.clock.monotonic() + 10
    harness.deliver = deliver
    await run(harness, inbound("one"), inbound("two"))
    assert harness.delivered == ["re: one", "re: two"]
    assert await harness.store.dead() == []


async def test_the_hour_begins_with_the_answer(harness: WorkerHarness) -> None:
    """A message that waited for hours has its whole hour, too."""
    await harness.put(inbound("one"))
    await harness.clock.advance(3 * 3600)
    deliver = refuse(harness, times=8, status=500)
    harness.start()
    await harness.until_empty_over_time()
    assert deliver.left == 0
    assert harness.delivered == ["re: one"]


async def test_each_part_is_counted_afresh(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went out is not sent again, and the part behind it has all of its own tries."""
    calls: list[int] = []

    async def finish(draft: HarnessDraft, answer: Answer, persist: Any) -> None:
        for part in range(answer.sent, 3):
            calls.append(part)
            if calls.count(part) < 3:
                raise DingTalkError("webhook", "502", retryable=True, maybe_delivered=True)
            if part < 2:
                await persist(answer.with_sent(part + 1))
                answer = answer.with_sent(part + 1)

    async def handle(message: Inbound) -> Answer:
        return Answer(tuple(Markdown(str(n)) for n in range(3)), Outcome.ANSWERED)

    monkeypatch.setattr(HarnessDraft, "finish", finish)
    harness.handle = handle
    await run(harness, inbound("one"))
    assert calls == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert await harness.store.dead() == []


async def test_a_fault_of_the_sender_is_bounded(harness: WorkerHarness) -> None:
    """A fault of the program may be one of the moment; nobody knows how far the call was."""
    deliver = harness.deliver = Refusing(harness, ZeroDivisionError())
    await run(harness, inbound("one"), inbound("two"))
    assert len(deliver.tried_at) == 6


async def test_final_by_dingtalks_own_code(harness: WorkerHarness) -> None:
    """An answer that DingTalk refuses for good is buried at once, with the cause."""
    deliver = refuse(harness, retryable=False, errcode=430102, reason=DingTalkReason.CONTENT_REFUSED)
    await run(harness, inbound("one"))
    assert len(deliver.tried_at) == 1
    assert [letter.error for letter in await harness.store.dead()] == ["not delivered (final): webhook: no"]


async def test_owner_and_person_are_told(harness: WorkerHarness) -> None:
    """After giving up, the owner and the person are written to directly; the group's webhook is not needed for it."""
    refuse(harness, status=500)
    group = Conversation("cidG", ChatKind.GROUP, "Finance")
    await run(harness, inbound("What is due?", conversation=group))
    alert, notice = harness.delivered
    assert harness.receivers[-2:] == [OWNER, ANN]
    assert (alert.splitlines()[0], "the group Finance" in notice, "What is due?" in notice) == (
        "I gave up delivering an answer to Ann (in the group Finance): no.",
        True,
        True,
    )
    for draft in harness.drafts[-2:]:
        assert draft.inbound.conversation.kind is ChatKind.DIRECT
        assert not draft.inbound.webhook
        assert draft.inbound.robot_code == "dingfakeclient"
    (letter,) = await harness.store.dead()
    assert letter.answer is not None
    assert (letter.answer.text, letter.attempts > 15) == ("re: What is due?", True)


async def test_nobody_is_told_too_often(harness: WorkerHarness) -> None:
    """Once an hour for each reason and each person: an outage must not cost a call for each answer."""
    refuse(harness, retryable=False)
    await run(harness, *(inbound(str(n), chat=f"c{n}") for n in range(5)))
    assert sorted(harness.receivers[-2:]) == [ANN, OWNER]
    assert len(harness.receivers) == 5 + 2
    refuse(harness, retryable=False, reason=DingTalkReason.GROUP_GONE)
    await harness.put(inbound("another"))
    await harness.until_empty_over_time()
    assert harness.receivers[-2:] == [ANN, OWNER], "another reason, the same person"
    await harness.clock.advance(3600)
    await harness.put(inbound("later"))
    await harness.until_empty_over_time()
    assert len(harness.receivers) == 5 + 2 + 2 + 3


@pytest.mark.parametrize(
    ("sender", "reason", "told"),
    [
        (Sender("$:x", ANN), DingTalkReason.USER_INVALID, [OWNER]),
        (Sender("$:x", ""), DingTalkReason.UNKNOWN, [OWNER]),
        (Sender("$:x", OWNER), DingTalkReason.UNKNOWN, [OWNER]),
    ],
)
async def test_who_cannot_be_reached(
    harness: WorkerHarness, sender: Sender, reason: DingTalkReason, told: list[str]
) -> None:
    """Nobody is written to who has no staff id, or whom DingTalk does not know, nor an owner twice."""
    refuse(harness, retryable=False, reason=reason)
    await run(harness, inbound("one", sender=sender))
    assert harness.receivers[1:] == told


async def test_an_alert_leads_to_no_other(harness: WorkerHarness) -> None:
    """What cannot be told either ends as a dead letter, and nobody is told of that."""

    async def fail(answer: Answer) -> None:
        raise DingTalkError("direct", "no permission")

    harness.deliver = fail
    await run(harness, inbound("one"))
    assert [len(harness.receivers), len(await harness.store.dead())] == [3, 3]


async def test_a_store_that_fails_tells_nobody_and_buries(harness: WorkerHarness) -> None:
    """Telling is best effort: the message is buried all the same."""
    refuse(harness, retryable=False)
    harness.owners_unknown = True
    await run(harness, inbound("one"))
    assert (harness.delivered, len(await harness.store.dead())) == ([], 1)


async def test_a_failure_that_cannot_be_told(harness: WorkerHarness) -> None:
    """A dead letter whose person could not be told names both causes."""

    async def handle(_: Inbound) -> Answer:
        raise ZeroDivisionError

    refuse(harness, retryable=False)
    harness.handle = handle
    harness.failure_text = "re: sorry"
    await run(harness, inbound("one"))
    (letter,) = await harness.store.dead()
    assert letter.error.startswith("not delivered (final): webhook: no; to say: ")
    assert letter.error.endswith("(try 3)")


@pytest.mark.parametrize("kind", [RowKind.SEND, RowKind.ALERT])
async def test_what_comes_with_its_answer_is_tried_for_an_hour(harness: WorkerHarness, kind: RowKind) -> None:
    """A send or an alert is tried like an answer, and never handed to the handler; of a lost send the owner hears."""
    deliver = refuse(harness, status=500)
    message = inbound("", msg_id="send-1")
    await harness.store.put(Row(message, ROUTE(message), kind=kind, answer=Answer.of("re: port", Outcome.ANSWERED)))
    await run(harness)
    assert (harness.handled, len(await harness.store.dead())) == ([], 1)
    assert deliver.tried_at[-1] - deliver.tried_at[0] == pytest.approx(DELIVERY_TIMEOUT_S, abs=15)
    assert harness.receivers[len(deliver.tried_at) :] == ([OWNER] if kind is RowKind.SEND else [])


def test_an_answers_record_survives_the_store() -> None:
    """When it was made, what is doubtful, and how often the turn was tried are stored; old rows have none of it."""
    exchange = Exchange("key", "user", "assistant")
    answer = replace(Answer.of("hi", Outcome.FAILED, 1, exchange, "cause"), tries=3, made_at=1.8e9, doubts=2)
    assert Answer.from_json(answer.to_json()) == answer
    assert answer.with_sent(2).doubts == 0
    old = Answer.from_json('{"v":1,"content":[],"outcome":"answered","sent":0,"exchange":null,"error":""}')
    assert (old.tries, old.made_at, old.doubts) == (0, 0.0, 0)

"""Sending an answer: its parts, its way, and going on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.dingtalk.client import encode_json
from claw.dingtalk.openapi import PARAM_MAX_BYTES, OpenApiClient
from claw.dingtalk.quota import CallCounter
from claw.dingtalk.webhook import BODY_MAX_BYTES, WebhookClient
from claw.errors import DingTalkError, DingTalkReason, LeaseLostError
from claw.language import Language
from claw.messages import Answer, ChatKind, Inbound, Markdown, Outcome, UnknownContent
from claw.reply.mentions import ID_MAX_CHARS
from claw.reply.plan import UNKNOWN_MARK
from claw.reply.sender import AnswerSender
from tests.clock import FakeClock
from tests.dingtalk.conftest import (
    DIRECT_PATH,
    GROUP_PATH,
    WEBHOOK_PATH,
    FakeDingTalk,
    MakeClient,
    cut,
    hang,
    html,
    inbound,
)
from tests.reply.test_plan import plan_deliveries

LONG = "\n\n".join(f"第{n}段：" + "字" * 1500 for n in range(9))
THROTTLED = (200, {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"})
GONE = (200, {"errcode": 300001, "errmsg": "session 不存在"})
NO_SCOPE = (403, {"code": "Forbidden.AccessDenied.AccessTokenPermissionDenied"})


def plan_parts(text: str) -> list[str]:
    """The parts in which a text goes out."""
    return [delivery.text for delivery in plan_deliveries([Markdown(text)], Language.EN, 5)]


@pytest.fixture
def sender(webhook: WebhookClient, openapi: OpenApiClient) -> AnswerSender:
    return AnswerSender(webhook, openapi, Language.ZH, 5)


class Progress:
    """Keeps what the worker would store."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.counts: list[int] = []

    async def __call__(self, answer: Answer) -> None:
        self.answer = answer
        self.counts.append(answer.sent)


async def send(sender: AnswerSender, message: Inbound, text: str, sent: int = 0) -> Progress:
    progress = Progress(Answer.of(text, Outcome.ANSWERED, sent))
    await sender.send(message, progress.answer, progress)
    return progress


def texts(dingtalk: FakeDingTalk) -> list[str]:
    """What was posted to whichever way, in order."""
    found = []
    for request in dingtalk.requests:
        if request.path == WEBHOOK_PATH:
            found.append(request.json["markdown"]["text"])
        elif "msgParam" in request.json:
            found.append(json.loads(request.json["msgParam"])["text"])
    return found


async def test_a_short_answer_is_one_call(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """One part by the webhook, no progress to keep, nobody mentioned in a direct chat."""
    progress = await send(sender, inbound(webhook=dingtalk.webhook), "**Hello** there")
    body = dingtalk.requests[0].json
    assert body == {"msgtype": "markdown", "markdown": {"title": "Hello there", "text": "**Hello** there"}}
    assert len(dingtalk.requests) == 1
    assert progress.counts == []


@pytest.mark.parametrize(
    "content", [(), (Markdown(""),), (Markdown("  \n "),), (Markdown(" "), Markdown("\n" * 50_000))], ids=len
)
@pytest.mark.parametrize("by_webhook", [True, False])
async def test_an_empty_answer_costs_no_call(
    content: tuple[Markdown, ...], by_webhook: bool, sender: AnswerSender, dingtalk: FakeDingTalk, calls: CallCounter
) -> None:
    """Whoever is denied in silence is no expense, not even a token."""
    progress = Progress(Answer(content, Outcome.DENIED))
    message = inbound(kind=ChatKind.GROUP, webhook=dingtalk.webhook if by_webhook else "")
    await sender.send(message, progress.answer, progress)
    assert dingtalk.requests == []
    assert calls.peek() == {}
    assert progress.counts == []


async def test_in_a_group_the_first_part_mentions_who_asked(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """The id is in `at` and, literally, in the text; only once."""
    await send(sender, inbound(kind=ChatKind.GROUP, webhook=dingtalk.webhook), LONG)
    first, *others = [request.json for request in dingtalk.requests]
    assert first["at"] == {"atUserIds": ["u-1001"], "isAtAll": False}
    assert first["markdown"]["text"].startswith("@u-1001\n\n第0段")
    assert others
    assert all("at" not in body and "@u-1001" not in body["markdown"]["text"] for body in others)


async def test_a_stranger_in_a_group_is_not_mentioned(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """People outside of the organisation have no staff id."""
    await send(sender, inbound(kind=ChatKind.GROUP, webhook=dingtalk.webhook, staff_id=""), "hi")
    assert "at" not in dingtalk.requests[0].json
    assert texts(dingtalk) == ["hi"]


async def test_progress_is_told_after_each_part_but_the_last(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """The last part's end is the worker's ack."""
    progress = await send(sender, inbound(webhook=dingtalk.webhook), LONG)
    count = len(plan_parts(LONG))
    assert count > 2
    assert progress.counts == list(range(1, count))
    assert texts(dingtalk) == plan_parts(LONG)


async def test_a_restart_goes_on_after_the_parts_that_are_out(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """Parts before `sent` are not sent again, and later parts mention nobody."""
    await send(sender, inbound(kind=ChatKind.GROUP, webhook=dingtalk.webhook), LONG, sent=1)
    assert texts(dingtalk) == plan_parts(LONG)[1:]
    await send(sender, inbound(webhook=dingtalk.webhook), "short", sent=5)
    assert len(texts(dingtalk)) == len(plan_parts(LONG)) - 1


async def test_a_failure_in_the_middle_loses_and_repeats_nothing(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """The second try begins with the part that failed."""
    dingtalk.will(WEBHOOK_PATH, (200, {"errcode": 0}), (200, {"errcode": -1}))
    progress = Progress(Answer.of(LONG, Outcome.ANSWERED))
    with pytest.raises(DingTalkError):
        await sender.send(inbound(webhook=dingtalk.webhook), progress.answer, progress)
    await sender.send(inbound(webhook=dingtalk.webhook), progress.answer, progress)
    sent = texts(dingtalk)
    del sent[1]  # It was refused.
    assert sent == plan_parts(LONG)


async def test_each_piece_of_content_is_delivered_in_its_order(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """`sent` counts deliveries over all content; a kind that only another version knows leaves a mark, as one."""
    content = (Markdown("# One"), UnknownContent({"kind": "hologram"}), Markdown(LONG), Markdown(" "))
    progress = Progress(Answer(content, Outcome.ANSWERED))
    await sender.send(inbound(webhook=dingtalk.webhook), progress.answer, progress)
    parts = plan_parts(LONG)
    assert texts(dingtalk) == ["# One", *plan_parts(UNKNOWN_MARK), *parts]
    assert progress.counts == list(range(1, len(parts) + 2))
    titles = [request.json["markdown"]["title"] for request in dingtalk.requests]
    assert titles[0] == "One"
    assert titles[2].startswith("第0段")
    assert len(plan_parts(UNKNOWN_MARK)) == 1


async def test_a_restart_counts_over_all_content(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """After two deliveries the third piece of content is next."""
    answer = Answer((Markdown("one"), UnknownContent({"kind": "x"}), Markdown("three")), Outcome.ANSWERED, sent=2)
    progress = Progress(answer)
    await sender.send(inbound(webhook=dingtalk.webhook), answer, progress)
    assert texts(dingtalk) == ["three"]


def test_the_mark_is_in_both_languages() -> None:
    """Whoever reads it understands one of them."""
    ((title, text),) = plan_deliveries([UnknownContent({})], Language.EN, 5)
    assert title
    assert "版本" in text
    assert "version" in text


async def test_a_gateway_that_gave_up_does_not_change_the_way(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """However long it asks to wait: the message may have been delivered, and would be seen twice."""

    async def gave_up(_: web.Request) -> web.Response:
        return web.Response(status=504, headers={"Retry-After": "120"})

    dingtalk.will(WEBHOOK_PATH, gave_up)
    with pytest.raises(DingTalkError) as caught:
        await send(sender, inbound(webhook=dingtalk.webhook), "hi")
    assert (caught.value.maybe_delivered, caught.value.retry_after) == (True, 120.0)
    assert len(dingtalk.requests) == 1


async def test_an_error_of_progress_stops_the_sending(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """Whoever lost the lease must not send on."""

    async def lost(_: Answer) -> None:
        raise LeaseLostError("taken")

    with pytest.raises(LeaseLostError):
        await sender.send(inbound(webhook=dingtalk.webhook), Answer.of(LONG, Outcome.ANSWERED), lost)
    assert len(dingtalk.requests) == 1


@pytest.mark.parametrize("hours", [-8, 0, 8])
async def test_our_clock_does_not_judge_the_webhook(
    hours: int, sender: AnswerSender, dingtalk: FakeDingTalk, clock: FakeClock
) -> None:
    """A webhook that DingTalk gave out a minute ago is used, however far our clock is ahead or behind."""
    dingtalks_now = clock.wall() - hours * 3600
    await send(sender, inbound(webhook=dingtalk.webhook, expires=dingtalks_now - 60 + 5400), "hi")
    assert [request.path for request in dingtalk.requests] == [WEBHOOK_PATH]


@pytest.mark.parametrize("hours", [-8, 0, 8])
@pytest.mark.parametrize("refusal", [GONE, (200, {"errcode": 300005}), (200, {"errcode": 400101})])
async def test_ninety_minutes_later_dingtalk_says_so(
    hours: int, refusal: tuple[int, object], sender: AnswerSender, dingtalk: FakeDingTalk, clock: FakeClock
) -> None:
    """One call finds out that the webhook has expired, whatever our clock says; the answer goes out by the OpenAPI."""
    dingtalks_now = clock.wall() - hours * 3600
    dingtalk.will(WEBHOOK_PATH, refusal)
    await send(sender, inbound(webhook=dingtalk.webhook, expires=dingtalks_now - 5400 + 5400), LONG)
    assert len(dingtalk.to(WEBHOOK_PATH)) == 1
    assert len(dingtalk.to(DIRECT_PATH)) == len(plan_parts(LONG))


async def test_a_webhook_that_has_expired_is_not_tried_again_for_its_message(
    sender: AnswerSender, dingtalk: FakeDingTalk
) -> None:
    """The worker's next tries go straight to the OpenAPI; another message's webhook is tried as ever."""
    message = inbound(webhook=dingtalk.webhook)
    dingtalk.will(WEBHOOK_PATH, GONE)
    dingtalk.will(DIRECT_PATH, (500, {"code": "system.error"}), (500, {"code": "system.error"}))
    for _ in range(2):
        with pytest.raises(DingTalkError) as caught:
            await send(sender, message, "hi")
        assert caught.value.retryable
    await send(sender, message, "hi")
    assert len(dingtalk.to(WEBHOOK_PATH)) == 1
    await send(sender, replace(message, msg_id="msgFakeTwo000=="), "hi")
    assert len(dingtalk.to(WEBHOOK_PATH)) == 2


async def test_expired_webhooks_are_remembered_up_to_a_number(
    sender: AnswerSender, dingtalk: FakeDingTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is forgotten first, which costs it a call."""
    monkeypatch.setattr("claw.reply.sender.EXPIRED_MAX", 2)
    messages = [replace(inbound(webhook=dingtalk.webhook), msg_id=f"msg{number}") for number in range(3)]
    dingtalk.will(WEBHOOK_PATH, *[GONE] * 4)
    for message in [*messages, messages[2], messages[0]]:
        await send(sender, message, "hi")
    assert len(dingtalk.to(WEBHOOK_PATH)) == 4


async def test_without_a_webhook_a_group_gets_its_answer_by_openapi(
    sender: AnswerSender, dingtalk: FakeDingTalk
) -> None:
    """The OpenAPI cannot mention anybody, so the text does not try to."""
    await send(sender, inbound(kind=ChatKind.GROUP), "hi")
    assert texts(dingtalk) == ["hi"]
    assert len(dingtalk.to(GROUP_PATH)) == 1


async def test_a_webhook_that_is_gone_in_the_middle_is_left(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """300001 sends this part and all after it by the OpenAPI, cut as before."""
    dingtalk.will(WEBHOOK_PATH, (200, {"errcode": 0}), GONE)
    progress = await send(sender, inbound(webhook=dingtalk.webhook), LONG)
    parts = plan_parts(LONG)
    assert len(dingtalk.to(WEBHOOK_PATH)) == 2
    assert [json.loads(r.json["msgParam"])["text"] for r in dingtalk.to(DIRECT_PATH)] == parts[1:]
    assert progress.counts == list(range(1, len(parts)))


async def test_a_throttled_webhook_is_left_for_the_openapi(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """The throttle lasts for minutes: the answer goes the other way now."""
    dingtalk.will(WEBHOOK_PATH, THROTTLED)
    await send(sender, inbound(kind=ChatKind.GROUP, webhook=dingtalk.webhook), "hi")
    assert len(dingtalk.to(GROUP_PATH)) == 1


async def test_a_throttled_webhook_is_waited_for_without_the_permission(
    sender: AnswerSender, dingtalk: FakeDingTalk
) -> None:
    """Where the OpenAPI will never send, the webhook's own error asks for another try after a minute."""
    dingtalk.will(WEBHOOK_PATH, THROTTLED)
    dingtalk.will(GROUP_PATH, NO_SCOPE)
    with pytest.raises(DingTalkError) as caught:
        await send(sender, inbound(kind=ChatKind.GROUP, webhook=dingtalk.webhook), "hi")
    assert (caught.value.errcode, caught.value.retryable, caught.value.retry_after) == (130101, True, 60.0)


async def test_a_webhook_at_an_unknown_host_is_left_for_the_openapi(
    sender: AnswerSender, dingtalk: FakeDingTalk
) -> None:
    """Nothing goes to the unknown host, and the person still gets the answer."""
    await send(sender, inbound(webhook="https://evil.example/robot?session=1"), "hi")
    assert [request.path for request in dingtalk.requests[-1:]] == [DIRECT_PATH]


@pytest.mark.parametrize("errcode", [400102, 410100, 130101, 90020])
@pytest.mark.parametrize("kind", list(ChatKind))
async def test_dingtalks_word_that_the_webhook_cannot_be_used_changes_the_way(
    errcode: int, kind: ChatKind, sender: AnswerSender, dingtalk: FakeDingTalk
) -> None:
    """Switched off, throttled for minutes, or its month's quota used up: within the same try, and for all parts."""
    dingtalk.will(WEBHOOK_PATH, (200, {"errcode": errcode}))
    await send(sender, inbound(kind=kind, webhook=dingtalk.webhook), LONG)
    assert len(dingtalk.to(WEBHOOK_PATH)) == 1
    assert len(dingtalk.to(GROUP_PATH if kind is ChatKind.GROUP else DIRECT_PATH)) == len(plan_parts(LONG))


async def blocked(_: web.Request) -> web.Response:
    return web.Response(status=403, text="<html>Blocked</html>", content_type="text/html")


async def busy(_: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "120"})


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"errcode": 430102}),
        (200, {"errcode": 777777}),
        (200, {"errcode": -1}),
        (200, {"errcode": 90018}),
        (200, {"status": "ok"}),
        (403, {"message": "Forbidden"}),
        (404, None),
        (429, None),
        (500, None),
        (502, None),
        blocked,
        busy,
        html,
        cut,
    ],
)
async def test_other_failures_of_the_webhook_do_not_change_the_way(
    answer: tuple[int, object], sender: AnswerSender, dingtalk: FakeDingTalk
) -> None:
    """What the OpenAPI would refuse as well, the webhook take later, or a proxy said, costs no second call."""
    dingtalk.will(WEBHOOK_PATH, answer)
    with pytest.raises(DingTalkError):
        await send(sender, inbound(webhook=dingtalk.webhook), "hi")
    assert len(dingtalk.requests) == 1


async def test_an_unanswered_send_does_not_change_the_way(
    make_client: MakeClient, openapi: OpenApiClient, dingtalk: FakeDingTalk
) -> None:
    """It may have been delivered: sending it another way at once would show it twice."""
    impatient = WebhookClient(make_client(0.2), [dingtalk.url])
    dingtalk.will(WEBHOOK_PATH, hang)
    with pytest.raises(DingTalkError) as caught:
        await send(AnswerSender(impatient, openapi, Language.ZH, 5), inbound(webhook=dingtalk.webhook), "hi")
    assert caught.value.retryable
    assert len(dingtalk.requests) == 1


async def test_a_stranger_cannot_be_reached_after_the_webhook(sender: AnswerSender, dingtalk: FakeDingTalk) -> None:
    """No staff id and no webhook: permanent, and nothing is called."""
    with pytest.raises(DingTalkError) as caught:
        await send(sender, inbound(staff_id=""), "hi")
    assert not caught.value.retryable
    assert caught.value.reason is DingTalkReason.USER_INVALID
    assert dingtalk.requests == []


@given(st.one_of(st.text(), st.text(alphabet='"\\\n字😀`~ ', max_size=300).map(lambda text: text * 200)))
@settings(max_examples=60, deadline=None)
def test_one_part_size_fits_both_ways(text: str) -> None:
    """Each part fits with title and mention into a webhook's body, and with its title into `msgParam`."""
    title = '"' * 24
    staff_id = "字" * ID_MAX_CHARS
    for part in plan_parts(text):
        body = {"msgtype": "markdown", "markdown": {"title": title, "text": f"@{staff_id}\n\n{part}"}}
        assert len(encode_json({**body, "at": {"atUserIds": [staff_id], "isAtAll": False}})) <= BODY_MAX_BYTES
        assert len(encode_json({"title": title, "text": part})) <= PARAM_MAX_BYTES

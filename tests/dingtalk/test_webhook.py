"""The session webhook: what is posted where, and what every answer means."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from claw.dingtalk.client import ANSWER_MAX_BYTES, DingTalkClient
from claw.dingtalk.quota import CallCounter
from claw.dingtalk.webhook import BODY_MAX_BYTES, WebhookClient
from claw.errors import DingTalkError, DingTalkReason
from claw.secret import Secret
from tests.clock import FakeClock
from tests.dingtalk.conftest import SESSION, WEBHOOK_PATH, FakeDingTalk, MakeClient, cut, hang, html


async def test_markdown_is_posted_as_dingtalk_wants_it(webhook: WebhookClient, dingtalk: FakeDingTalk) -> None:
    """The body is docs/protocol.md section 6.1's, in plain UTF-8, with `at` for whom is mentioned."""
    await webhook.send(Secret(dingtalk.webhook), "标题", "@u-1001 你好", ["u-1001"])
    request = dingtalk.requests[0]
    assert request.json == {
        "msgtype": "markdown",
        "markdown": {"title": "标题", "text": "@u-1001 你好"},
        "at": {"atUserIds": ["u-1001"], "isAtAll": False},
    }
    assert "你好".encode() in request.raw
    assert request.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("at", [[], [""]])
async def test_nobody_to_mention_means_no_at(webhook: WebhookClient, dingtalk: FakeDingTalk, at: list[str]) -> None:
    """An unknown person is left out, not sent as an empty id."""
    await webhook.send(Secret(dingtalk.webhook), "t", "x", at)
    assert "at" not in dingtalk.requests[0].json


@pytest.mark.parametrize(
    ("url", "endpoints", "allowed"),
    [
        ("https://oapi.dingtalk.com/robot/sendBySession?session=1", ["https://api.dingtalk.com"], True),
        ("https://oapi.dingtalk.io/robot/sendBySession?session=1", ["https://api.dingtalk.com"], True),
        ("https://OAPI.DingTalk.com/x", ["https://api.dingtalk.com"], True),
        ("http://oapi.dingtalk.com/robot/sendBySession", ["https://api.dingtalk.com"], False),
        ("https://dingtalk.com.evil.example/x", ["https://api.dingtalk.com"], False),
        ("https://evildingtalk.com/x", ["https://api.dingtalk.com"], False),
        ("https://oapi.dingtalk.com@evil.example/x", ["https://api.dingtalk.com"], False),
        ("https://user:pass@oapi.dingtalk.com/x", ["https://api.dingtalk.com"], False),
        ("https://:pass@oapi.dingtalk.com/x", ["https://api.dingtalk.com"], False),
        ("https://evil.example\\@oapi.dingtalk.com/x", ["https://api.dingtalk.com"], False),
        ("https://evil.example#.dingtalk.com/x", ["https://api.dingtalk.com"], False),
        ("https://evil.example?.dingtalk.com", ["https://api.dingtalk.com"], False),
        ("https://evil.example/x", ["https://api.dingtalk.com"], False),
        ("http://127.0.0.1:9/x", ["https://api.dingtalk.com"], False),
        ("http://169.254.169.254/latest", ["https://api.dingtalk.com"], False),
        ("http://127.0.0.1:8081/x", ["http://127.0.0.1:8081"], True),
        ("http://localhost:8081/x", ["http://127.0.0.1:8081"], True),
        ("http://[::1]:8081/x", ["http://localhost:8081"], True),
        ("http://127.0.0.1:9/x", ["http://127.0.0.1:8081"], False),
        ("http://localhost:9/x", ["http://127.0.0.1:8081"], False),
        ("https://127.0.0.1:8081/x", ["http://127.0.0.1:8081"], False),
        ("http://10.0.0.1:8081/x", ["http://127.0.0.1:8081"], False),
        ("http://emulator:8081/x", ["http://emulator:8081"], True),
        ("http://emulator:6379/x", ["http://emulator:8081"], False),
        ("https://emulator/x", ["http://emulator:8081"], False),
        ("https://emulator:8081/x", ["http://emulator:8081"], False),
        ("http://ding.corp.example/x", ["https://ding.corp.example"], False),
        ("http://ding.corp.example:443/x", ["https://ding.corp.example"], False),
        ("https://ding.corp.example/x", ["https://ding.corp.example"], True),
        ("https://ding.corp.example:443/x", ["https://ding.corp.example"], True),
        ("https://ding.corp.example:8443/x", ["https://ding.corp.example"], False),
        ("https://oapi.dingtalk.com:8443/x", ["https://api.dingtalk.com"], False),
        ("ftp://oapi.dingtalk.com/x", ["https://api.dingtalk.com"], False),
        ("https://oapi.dingtalk.com:99999/x", ["https://api.dingtalk.com"], False),
        ("https://oapi.dingtalk.com/x\r\nHost: y", ["https://api.dingtalk.com"], False),
        ("//oapi.dingtalk.com/x", ["https://api.dingtalk.com"], False),
        ("https://[::1", ["https://api.dingtalk.com"], False),
        ("https://", ["https://api.dingtalk.com"], False),
        ("nonsense", ["https://api.dingtalk.com"], False),
        ("", ["https://api.dingtalk.com"], False),
    ],
)
async def test_only_dingtalk_is_answered(
    url: str, endpoints: list[str], allowed: bool, calls: CallCounter, clock: FakeClock
) -> None:
    """A webhook at any origin but DingTalk's and the configured ones is refused before anything is sent."""
    posted: list[str] = []

    class Http:
        async def request(self, _method: str, address: object, **_: object) -> None:
            posted.append(str(address))
            raise aiohttp.InvalidURL("not today")

    webhook = WebhookClient(DingTalkClient(Http(), calls, clock), endpoints)  # type: ignore[arg-type]
    with pytest.raises(DingTalkError) as caught:
        await webhook.send(Secret(url), "t", "x")
    assert bool(posted) is allowed
    assert not caught.value.retryable
    assert (caught.value.reason is DingTalkReason.WEBHOOK_HOST) is not allowed


async def test_a_body_that_is_too_long_is_not_posted(webhook: WebhookClient, dingtalk: FakeDingTalk) -> None:
    """More than 20 000 bytes would be refused: the call is saved."""
    with pytest.raises(DingTalkError) as caught:
        await webhook.send(Secret(dingtalk.webhook), "t", "字" * (BODY_MAX_BYTES // 3))
    assert (caught.value.reason, caught.value.retryable) == (DingTalkReason.TOO_LONG, False)
    assert dingtalk.requests == []


async def test_an_endless_answer_is_not_read(webhook: WebhookClient, dingtalk: FakeDingTalk) -> None:
    """Beyond 256 KB an answer is not DingTalk's, whatever it says."""
    dingtalk.will(WEBHOOK_PATH, (200, {"errcode": 0, "errmsg": "x" * ANSWER_MAX_BYTES}))
    with pytest.raises(DingTalkError):
        await webhook.send(Secret(dingtalk.webhook), "t", "x")


async def test_redirects_are_not_followed(webhook: WebhookClient, dingtalk: FakeDingTalk) -> None:
    """A redirect could lead anywhere: it is an error."""

    async def redirect(_: Any) -> Any:
        raise aiohttp.web.HTTPTemporaryRedirect(f"{dingtalk.url}/elsewhere")

    dingtalk.will(WEBHOOK_PATH, redirect)
    with pytest.raises(DingTalkError) as caught:
        await webhook.send(Secret(dingtalk.webhook), "t", "x")
    error = caught.value
    assert (error.status, error.retryable, error.maybe_delivered) == (307, True, False)
    assert len(dingtalk.requests) == 1


async def test_a_send_that_breaks_on_a_new_connection_is_not_repeated(
    webhook: WebhookClient, dingtalk: FakeDingTalk
) -> None:
    """The server has the message and may have delivered it: whether to send it again is the worker's to say."""
    dingtalk.will(WEBHOOK_PATH, cut)
    with pytest.raises(DingTalkError) as caught:
        await webhook.send(Secret(dingtalk.webhook), "t", "x")
    assert caught.value.retryable
    assert caught.value.maybe_delivered
    assert len(dingtalk.requests) == 1


async def test_a_kept_connection_that_breaks_after_the_message_is_not_repeated(
    webhook: WebhookClient, dingtalk: FakeDingTalk
) -> None:
    """DingTalk had read the message when it closed the kept connection: people would see it twice."""
    await webhook.send(Secret(dingtalk.webhook), "t", "x")
    dingtalk.will(WEBHOOK_PATH, cut)
    with pytest.raises(DingTalkError) as caught:
        await webhook.send(Secret(dingtalk.webhook), "t", "y")
    assert caught.value.maybe_delivered
    assert [request.json["markdown"]["text"] for request in dingtalk.requests] == ["x", "y"]


async def test_no_answer_is_an_error_worth_another_try(make_client: MakeClient, dingtalk: FakeDingTalk) -> None:
    """A server that never answers is left after the timeout, once: the message may have arrived."""
    dingtalk.will(WEBHOOK_PATH, hang)
    with pytest.raises(DingTalkError) as caught:
        await WebhookClient(make_client(0.2), [dingtalk.url]).send(Secret(dingtalk.webhook), "t", "x")
    assert (caught.value.retryable, caught.value.maybe_delivered, caught.value.status) == (True, True, None)
    assert caught.value.reason is DingTalkReason.TIMEOUT
    assert len(dingtalk.requests) == 1


async def test_retry_after_is_honoured(webhook: WebhookClient, dingtalk: FakeDingTalk) -> None:
    """A Retry-After header becomes the error's."""

    async def busy(_: Any) -> Any:
        return aiohttp.web.Response(status=503, headers={"Retry-After": "7"})

    dingtalk.will(WEBHOOK_PATH, busy)
    with pytest.raises(DingTalkError) as caught:
        await webhook.send(Secret(dingtalk.webhook), "t", "x")
    assert caught.value.retry_after == 7.0


async def test_each_send_is_a_span(
    webhook: WebhookClient,
    dingtalk: FakeDingTalk,
    spans: Callable[[], list[ReadableSpan]],
    outcomes: Callable[[], dict[tuple[str, str], int]],
    calls: CallCounter,
) -> None:
    """A span says where it went and how it ended; the metric and the ledger's count agree with it."""
    dingtalk.will(WEBHOOK_PATH, (200, {"errcode": 0}), (200, {"errcode": 430102}), (200, {"errcode": 130101}))
    await webhook.send(Secret(dingtalk.webhook), "t", "x")
    for _ in range(2):
        with pytest.raises(DingTalkError):
            await webhook.send(Secret(dingtalk.webhook), "t", "x")
    good, refused, throttled = spans()
    assert good.name == "send dingtalk.reply"
    assert good.kind is SpanKind.CLIENT
    assert good.attributes is not None
    assert good.attributes["claw.reply.mode"] == "markdown"
    assert good.attributes["server.address"] == "127.0.0.1"
    assert good.attributes["http.response.status_code"] == 200
    assert good.attributes["dingtalk.errcode"] == 0
    assert "error.type" not in good.attributes
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "430102"
    assert refused.status.status_code is StatusCode.ERROR
    assert throttled.attributes is not None
    assert throttled.attributes["dingtalk.errcode"] == 130101
    assert outcomes() == {("webhook", "ok"): 1, ("webhook", "refused"): 1, ("webhook", "throttled"): 1}
    assert [*calls.take().values()] == [{"webhook": 2}]


@pytest.mark.parametrize("answer", [html, cut, hang, (200, {"errcode": 300001, "errmsg": SESSION}), (500, [SESSION])])
async def test_the_session_is_in_no_error_log_or_span(
    answer: Any,
    make_client: MakeClient,
    dingtalk: FakeDingTalk,
    spans: Callable[[], list[ReadableSpan]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever happens, the webhook's session stays a secret: also in the errors behind the error."""
    caplog.set_level(logging.DEBUG)
    dingtalk.will(WEBHOOK_PATH, answer, answer)
    with pytest.raises(DingTalkError) as caught:
        await WebhookClient(make_client(0.3), [dingtalk.url]).send(Secret(dingtalk.webhook), "t", "x")
    assert SESSION not in everything_of(caught.value)
    assert SESSION not in "".join(span.to_json() for span in spans())
    # The test server's own access log names paths; ours must not.
    assert not [
        r
        for r in caplog.records
        if not r.name.startswith("aiohttp.access") and SESSION in json.dumps(vars(r), default=repr)
    ]


def everything_of(error: BaseException | None) -> str:
    """All that an error and those behind it show."""
    shown = ""
    while error is not None:
        shown += f"{error!r} {error} {vars(error)!r} {error.args!r}"
        error = error.__cause__ or error.__context__
    return shown

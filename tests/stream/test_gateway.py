"""The gateway: what is sent, what each answer means, and that nobody is asked too often."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from claw import __version__
from claw.config.settings import Credentials
from claw.errors import GatewayError, GatewayReason
from claw.secret import Secret
from claw.stream import gateway
from claw.stream.endpoint import find_refusal
from claw.stream.gateway import Gateway, RateLimiter, Registration, parse_registration, rejection_text
from tests.clock import FakeClock
from tests.stream import vectors
from tests.stream.dingtalk import DingTalk

SECRET = "not-a-real-secret"
CREDENTIALS = Credentials("dingfakeclient", Secret(SECRET))
NOW = 1_800_000_000.0


def parse(status: int, body: str | bytes = b"", **headers: str) -> Registration:
    raw = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse_registration(status, named, raw, CREDENTIALS, now=NOW)


async def test_request(dingtalk: DingTalk, http: aiohttp.ClientSession) -> None:
    """The request is the official one: credentials, the two topics that we serve, who we are, and Accept."""
    registration = await Gateway(http, dingtalk.url, lambda: CREDENTIALS).register()
    (body,), (headers,) = dingtalk.registrations, dingtalk.headers
    assert body.pop("localIp")
    assert body == {
        "clientId": "dingfakeclient",
        "clientSecret": SECRET,
        "subscriptions": [
            {"type": "CALLBACK", "topic": vectors.ROBOT_TOPIC},
            {"type": "CALLBACK", "topic": vectors.CARD_TOPIC},
        ],
        "ua": f"claw-sdk-python/v{__version__}",
    }
    assert headers["Accept"] == "application/json"
    assert registration.url.reveal() == f"{dingtalk.endpoint}?ticket=ticket-1"
    assert "ticket-1" not in repr(registration)


@pytest.mark.parametrize(
    ("endpoint", "ticket", "url"),
    [
        ("wss://h:443/connect", "8c1e7a52-0b6d", "wss://h:443/connect?ticket=8c1e7a52-0b6d"),
        ("wss://h/connect?a=b", "t", "wss://h/connect?a=b&ticket=t"),
        ("ws://h/c", "a&b c", "ws://h/c?ticket=a%26b%20c"),
    ],
)
def test_address(endpoint: str, ticket: str, url: str) -> None:
    """The ticket is added to whatever address the gateway names, never to one that we know."""
    assert parse(200, json.dumps({"endpoint": endpoint, "ticket": ticket})).url.reveal() == url


def test_vector_answer() -> None:
    """The official answer gives the official address."""
    registration = parse(200, vectors.GATEWAY_OK)
    assert registration.host == "wss-open-connection.dingtalk.com"
    assert registration.client_id == "dingfakeclient"


IP = '{"code":"Forbidden.AccessDenied.IpNotInWhiteList"}'
QPS_CODE = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
QPS = json.dumps({"code": QPS_CODE, "message": "…"})
MONTH = '{"code":"Forbidden.AccessDenied.ApiCountLimitForOrg","message":"api count limit"}'
BAN = '{"status":1111,"wait":5,"source":"x5","punish":"deny","uuid":"u"}'
PAGE = "<html><body>The plain HTTP request was sent to HTTPS port</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "code", "retry_after"),
    [
        (401, vectors.GATEWAY_401, {}, GatewayReason.UNAUTHORIZED, "authFailed", None),
        (401, "", {}, GatewayReason.UNAUTHORIZED, "", None),
        (400, "", {}, GatewayReason.NOT_STREAM_APP, "", None),
        (400, '{"code":"invalidParameter"}', {}, GatewayReason.NOT_STREAM_APP, "invalidParameter", None),
        (400, "<?xml version='1.0'?><Error/>", {}, GatewayReason.NOT_STREAM_APP, "", None),
        (400, PAGE, {}, GatewayReason.NOT_DINGTALK, "", None),
        (400, "\ufeff\n<!DOCTYPE html><title>x</title>", {}, GatewayReason.NOT_DINGTALK, "", None),
        (400, "denied", {"Content_Type": "text/html; charset=gbk"}, GatewayReason.NOT_DINGTALK, "", None),
        (401, PAGE, {}, GatewayReason.NOT_DINGTALK, "", None),
        (403, QPS, {}, GatewayReason.THROTTLED, QPS_CODE, 1.0),
        (
            403,
            QPS,
            {"Retry_After": "7"},
            GatewayReason.THROTTLED,
            "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi",
            7.0,
        ),
        (403, IP, {}, GatewayReason.IP_NOT_ALLOWED, "Forbidden.AccessDenied.IpNotInWhiteList", None),
        (403, MONTH, {}, GatewayReason.QUOTA_EXHAUSTED, "Forbidden.AccessDenied.ApiCountLimitForOrg", None),
        (403, "", {}, GatewayReason.BAD_ANSWER, "", None),
        (403, BAN, {}, GatewayReason.BANNED, "", 5.0),
        (200, BAN, {}, GatewayReason.BANNED, "", 5.0),
        (429, "", {"Retry_After": "12"}, GatewayReason.THROTTLED, "", 12.0),
        (429, "", {"Retry_After": "86400"}, GatewayReason.THROTTLED, "", 3600.0),
        (503, PAGE, {"Retry_After": formatdate(NOW + 20, usegmt=True)}, GatewayReason.NOT_DINGTALK, "", 20.0),
        (500, "", {}, GatewayReason.BUSY, "", None),
        (504, "", {}, GatewayReason.BUSY, "", None),
        (404, "", {}, GatewayReason.BAD_ANSWER, "", None),
        (302, "", {}, GatewayReason.BAD_ANSWER, "", None),
        (200, "", {}, GatewayReason.BAD_ANSWER, "", None),
        (200, PAGE, {}, GatewayReason.NOT_DINGTALK, "", None),
        (200, "[]", {}, GatewayReason.BAD_ANSWER, "", None),
        (200, "[" * 100_000, {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://h/c"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://h/c","ticket":""}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":7,"ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"https://h/c","ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss:///c","ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://h:0/c","ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://h:99999/c","ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://[h/c","ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://h/c\\nx","ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://h/c#x","ticket":"t"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (200, '{"endpoint":"wss://h/c","ticket":"\\ud800"}', {}, GatewayReason.BAD_ANSWER, "", None),
        (401, json.dumps({"code": SECRET}), {}, GatewayReason.UNAUTHORIZED, "", None),
    ],
)
def test_errors(
    status: int, body: str, headers: dict[str, str], reason: GatewayReason, code: str, retry_after: float | None
) -> None:
    """Each answer that is no registration is either a rejection or a trouble to wait out, and says for how long."""
    with pytest.raises(GatewayError) as caught:
        parse(status, body, **headers)
    error = caught.value
    assert (error.reason, error.retryable) == (reason, not reason.is_rejection)
    assert (error.status, error.code) == (status, code)
    assert error.retry_after == (None if retry_after is None else pytest.approx(retry_after, abs=1))
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "authFailed", "DINGTALK_CLIENT_SECRET"),
        (400, "", "Stream"),
        (403, "Forbidden.AccessDenied.IpNotInWhiteList", "whitelist"),
        (403, "Forbidden.AccessDenied.ApiCountLimitForOrg", "quota"),
        (403, "Forbidden.AccessDenied.AccessTokenPermissionDenied", "permissions"),
    ],
)
def test_explanation(status: int, code: str, words: str) -> None:
    """A rejection says in both languages what a person has to check."""
    with pytest.raises(GatewayError) as caught:
        parse(status, json.dumps({"code": code}))
    assert caught.value.reason.is_rejection
    text = rejection_text(caught.value)
    zh, en = text.split(" / ")
    assert words in en
    assert "请" in zh
    assert f"HTTP {status}" in zh


async def test_gateway_that_never_answers(dingtalk: DingTalk, http: aiohttp.ClientSession) -> None:
    """A gateway that accepts and stays silent costs the timeout, not for ever."""
    released = asyncio.Event()

    async def hang() -> web.Response:
        await released.wait()
        return web.Response()

    dingtalk.answer = hang
    with pytest.raises(GatewayError, match="in time") as caught:
        await Gateway(http, dingtalk.url, lambda: CREDENTIALS, timeout=0.2).register()
    assert (caught.value.reason, caught.value.retryable) == (GatewayReason.TIMEOUT, True)
    released.set()


async def test_gateway_that_drips(dingtalk: DingTalk, http: aiohttp.ClientSession) -> None:
    """An endless answer is cut at 64 KiB."""

    async def flood() -> web.Response:
        return web.Response(body=b'{"endpoint":"' + b"x" * 10_000_000)

    dingtalk.answer = flood
    with pytest.raises(GatewayError, match=r"lacks endpoint") as caught:
        await Gateway(http, dingtalk.url, lambda: CREDENTIALS).register()
    assert caught.value.retryable


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://\udcff.invalid", "http://a..b:80"])
async def test_gateway_out_of_reach(http: aiohttp.ClientSession, url: str) -> None:
    """Nobody there, or an address that cannot be: retryable."""
    with pytest.raises(GatewayError, match="cannot be reached") as caught:
        await Gateway(http, url, lambda: CREDENTIALS).register()
    assert (caught.value.reason, caught.value.retryable) == (GatewayReason.UNREACHABLE, True)


async def test_redirects_are_not_followed(dingtalk: DingTalk, http: aiohttp.ClientSession) -> None:
    """The secret goes to the configured host only."""

    async def away() -> web.Response:
        return web.Response(status=307, headers={"Location": dingtalk.url + gateway.PATH})

    dingtalk.answer = away
    with pytest.raises(GatewayError):
        await Gateway(http, dingtalk.url, lambda: CREDENTIALS).register()
    assert len(dingtalk.registrations) == 1


DINGTALK = "https://api.dingtalk.com"


@pytest.mark.parametrize(
    ("gateway_url", "endpoint", "refusal"),
    [
        (DINGTALK, "wss://wss-open-connection.dingtalk.com:443/connect", ""),
        (DINGTALK, "wss://wss-open-connection-union.dingtalk.com:443/connect", ""),
        (DINGTALK, "ws://wss-open-connection.dingtalk.com/connect", "TLS"),
        (DINGTALK, "wss://evil.example/connect", "DingTalk's"),
        (DINGTALK, "wss://dingtalk.com.evil.example/connect", "DingTalk's"),
        (DINGTALK, "wss://169.254.169.254/latest", "DingTalk's"),
        (DINGTALK, "wss://127.0.0.1/", "DingTalk's"),
        (DINGTALK, "wss://api.dingtalk.com@evil.example/", "user"),
        (DINGTALK, "wss://u:p@wss-open-connection.dingtalk.com/", "user"),
        (DINGTALK, "wss://钉钉.dingtalk.com/", "odd"),
        ("https://ding.corp.example", "wss://stream.corp.example/connect", ""),
        ("https://ding.corp.example", "wss://ding.corp.example:8443/connect", ""),
        ("https://ding.corp.example", "ws://ding.corp.example/connect", "TLS"),
        ("https://ding.corp.example", "wss://10.1.2.3/connect", "private"),
        ("https://ding.corp.example", "wss://localhost/connect", "loopback"),
        ("http://ding.corp.example", "ws://stream.corp.example/connect", ""),
        ("http://ding.corp.example", "ws://169.254.169.254/latest", "local"),
        ("http://ding.corp.example", "ws://127.1/", "disguised"),
        ("http://ding.corp.example", "ws://2130706433/", "disguised"),
        ("http://ding.corp.example", "ws://0x7f000001/", "disguised"),
        ("http://ding.corp.example", "ws://localhost./", "loopback"),
        ("http://ding.corp.example", "ws://[::ffff:127.0.0.1]/", "loopback"),
        ("http://10.0.0.5:8080", "ws://10.0.0.6:9000/connect", ""),
        ("http://10.0.0.5:8080", "ws://100.100.100.200/", "local"),
        ("http://10.0.0.5:8080", "ws://127.0.0.1/", "loopback"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:9/connect", ""),
        ("http://127.0.0.1:8080", "ws://[::1]:9/connect", ""),
        ("http://127.0.0.1:8080", "ws://169.254.169.254/latest", "local"),
        ("http://127.0.0.1:8080", "ws://[fe80::1]/", "local"),
        ("http://127.0.0.1:8080", "ws://192.168.1.1/", "private"),
        ("http://127.0.0.1:8080", "wss://wss-open-connection.dingtalk.com:443/connect", ""),
    ],
)
def test_where_we_go(gateway_url: str, endpoint: str, refusal: str) -> None:
    """DingTalk's gateway names DingTalk's hosts; an operator's own names public ones, or some beside itself."""
    found = find_refusal(f"{endpoint}?ticket=t", gateway_url)
    assert refusal in found
    assert bool(found) is bool(refusal)


@pytest.mark.parametrize("endpoint", ["ws://169.254.169.254/latest/meta-data", "ws://u:p@127.0.0.1:1/connect"])
async def test_refused_endpoint_is_told(dingtalk: DingTalk, http: aiohttp.ClientSession, endpoint: str) -> None:
    """An endpoint that we do not go to is an odd answer of the gateway, told with its host and tried again later."""

    async def answer() -> web.Response:
        return web.json_response({"endpoint": endpoint, "ticket": "t-1"})

    dingtalk.answer = answer
    with pytest.raises(GatewayError, match="that we do not go to") as caught:
        await Gateway(http, dingtalk.url, lambda: CREDENTIALS).register()
    assert (caught.value.reason, caught.value.retryable) == (GatewayReason.BAD_ANSWER, True)
    assert str(URL(endpoint).host) in str(caught.value)
    assert "t-1" not in str(caught.value)
    assert "meta-data" not in str(caught.value)


async def test_nothing_secret_is_logged(
    dingtalk: DingTalk, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither secret nor ticket reaches a log, even at DEBUG and from the libraries below."""
    caplog.set_level(logging.DEBUG)
    await Gateway(http, dingtalk.url, lambda: CREDENTIALS).register()
    text = "".join(f"{record.getMessage()}{record.__dict__}" for record in caplog.records if record.name[:4] == "claw")
    assert SECRET not in text
    assert "ticket-1" not in text


@pytest.mark.parametrize("lasting", [[0.0] * 7, [0.6, 0.0, 0.3, 0.9, 0.0, 2.0, 0.0]])
async def test_pace(lasting: list[float]) -> None:
    """Never more than two registrations in any second, however late they are seen, in the order asked."""
    clock = FakeClock()
    pace = RateLimiter(clock)
    calls: list[tuple[int, float]] = []
    ends: dict[int, float] = {}

    async def ask(number: int) -> None:
        async with pace.call():
            calls.append((number, clock.monotonic()))
            await clock.sleep(lasting[number])
            ends[number] = clock.monotonic()

    asking: list[asyncio.Task[Any]] = [asyncio.create_task(ask(number)) for number in range(7)]
    await clock.advance(0)
    assert len(calls) == 2
    await clock.advance(15)
    await asyncio.gather(*asking)
    assert [number for number, _ in calls] == list(range(7))
    for three in itertools.combinations(calls, 3):
        # The first is seen at its very end, the last at its very begin.
        assert max(at for _, at in three) - min(ends[number] for number, _ in three) > 1.0


async def test_pace_of_a_cancelled_call() -> None:
    """Whoever is cancelled while it waits uses nothing up; whoever is cancelled in its call may have been seen."""
    clock = FakeClock()
    pace = RateLimiter(clock, calls=1, window=1.0)
    began: list[float] = []

    async def ask(seconds: float) -> None:
        async with pace.call():
            began.append(clock.monotonic())
            await clock.sleep(seconds)

    calling, waiting, last = [asyncio.create_task(ask(seconds)) for seconds in (5.0, 0.0, 0.0)]
    await clock.advance(2)
    calling.cancel()
    await clock.advance(0.5)
    waiting.cancel()
    await clock.advance(1)
    await asyncio.wait_for(last, 1)
    assert began == [1000.0, 1003.0]

"""The OpenAPI: one token for all, what every answer means, and what is sent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan

from claw.config.settings import Credentials
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import CallCounter
from claw.errors import DingTalkError
from claw.secret import Secret
from tests.clock import FakeClock
from tests.dingtalk.conftest import (
    CLIENT_SECRET,
    DIRECT_PATH,
    DOWNLOAD_PATH,
    GROUP_PATH,
    TOKEN,
    TOKEN_PATH,
    FakeDingTalk,
    MakeClient,
    credentials,
    hang,
    html,
)
from tests.dingtalk.test_webhook import everything_of

REFUSED = (401, {"code": "InvalidAuthentication", "message": "不合法的access_token"})


# --- token ---------------------------------------------------------------------------------------------------------


async def test_fifty_callers_fetch_one_token(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """All who ask at the same time get the token of one call."""
    tokens = await asyncio.gather(*(openapi.tokens.get() for _ in range(50)))
    assert set(tokens) == {TOKEN}
    assert [request.json for request in dingtalk.to(TOKEN_PATH)] == [
        {"appKey": "dingfakeclient", "appSecret": CLIENT_SECRET}
    ]


async def test_the_fetch_outlives_the_one_who_began_it(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """When the first caller is cancelled the others still get the token of the same call."""
    arrived, free = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> Any:
        arrived.set()
        await free.wait()
        return aiohttp.web.json_response({"accessToken": TOKEN, "expireIn": 7200})

    dingtalk.will(TOKEN_PATH, slow)
    first = asyncio.create_task(openapi.tokens.get())
    others = [asyncio.create_task(openapi.tokens.get()) for _ in range(3)]
    await arrived.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    free.set()
    assert await asyncio.gather(*others) == [TOKEN] * 3
    assert len(dingtalk.to(TOKEN_PATH)) == 1


async def test_the_fetch_ends_with_the_last_who_waits(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """Nobody waits any more: no task is left, and the next caller begins afresh."""
    arrived = asyncio.Event()

    async def stuck(request: Any) -> Any:
        arrived.set()
        return await hang(request)

    dingtalk.will(TOKEN_PATH, stuck)
    waiting = [asyncio.create_task(openapi.tokens.get()) for _ in range(2)]
    await arrived.wait()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0)
    assert "claw.dingtalk.token" not in {task.get_name() for task in asyncio.all_tasks() if not task.cancelling()}
    assert await openapi.tokens.get() == TOKEN


async def test_a_failed_fetch_fails_for_all_and_is_not_kept(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """One failed call is everybody's error; the next who asks tries again."""
    dingtalk.will(TOKEN_PATH, (500, {"code": "system.error"}))
    results = await asyncio.gather(*(openapi.tokens.get() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, DingTalkError) and result.retryable for result in results)
    assert len(dingtalk.to(TOKEN_PATH)) == 1
    assert await openapi.tokens.get() == TOKEN


async def test_a_token_is_replaced_five_minutes_early(
    openapi: OpenApiClient, dingtalk: FakeDingTalk, clock: FakeClock
) -> None:
    """A token told to live 7200 s is used for 6900."""
    await openapi.tokens.get()
    await clock.advance(6899)
    await openapi.tokens.get()
    assert len(dingtalk.to(TOKEN_PATH)) == 1
    await clock.advance(2)
    await openapi.tokens.get()
    assert len(dingtalk.to(TOKEN_PATH)) == 2


@pytest.mark.parametrize(
    ("expire_in", "good_for"), [(60, 30), ("7200", 6900), (None, 6900), (-1, 6900), (10**12, 6900), ([], 6900)]
)
async def test_odd_lives_of_a_token(
    expire_in: object, good_for: int, openapi: OpenApiClient, dingtalk: FakeDingTalk, clock: FakeClock
) -> None:
    """A short life is used by half; one that makes no sense counts as two hours."""
    dingtalk.will(TOKEN_PATH, (200, {"accessToken": TOKEN, "expireIn": expire_in}))
    await openapi.tokens.get()
    await clock.advance(good_for - 1)
    await openapi.tokens.get()
    assert len(dingtalk.to(TOKEN_PATH)) == 1
    await clock.advance(2)
    await openapi.tokens.get()
    assert len(dingtalk.to(TOKEN_PATH)) == 2


async def test_a_refused_token_is_refreshed_once(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """401 gets a fresh token and one more try."""
    dingtalk.will(TOKEN_PATH, (200, {"accessToken": "old-token", "expireIn": 7200}))
    dingtalk.will(DIRECT_PATH, REFUSED)
    await openapi.send_direct("dingfakeclient", "u-1001", "t", "x")
    assert [request.headers["x-acs-dingtalk-access-token"] for request in dingtalk.to(DIRECT_PATH)] == [
        "old-token",
        TOKEN,
    ]


async def test_a_token_refused_twice_is_an_error(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """A fresh token that is refused as well is not tried for ever here."""
    dingtalk.will(DIRECT_PATH, REFUSED, REFUSED, REFUSED)
    with pytest.raises(DingTalkError) as caught:
        await openapi.send_direct("dingfakeclient", "u-1001", "t", "x")
    assert (caught.value.retryable, caught.value.status) == (True, 401)
    assert len(dingtalk.to(DIRECT_PATH)) == 2
    assert len(dingtalk.to(TOKEN_PATH)) == 2


async def test_a_refused_token_is_refreshed_once_for_all(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """Ten sends whose token was refused share one refresh."""
    dingtalk.will(TOKEN_PATH, (200, {"accessToken": "old-token", "expireIn": 7200}))
    dingtalk.will(GROUP_PATH, *[REFUSED] * 10)
    await asyncio.gather(*(openapi.send_group("dingfakeclient", f"cid{n}", "t", "x") for n in range(10)))
    assert len(dingtalk.to(TOKEN_PATH)) == 2


async def test_only_the_refused_token_is_forgotten(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """Who comes late with an old token does not throw the new one away."""
    await openapi.tokens.get()
    openapi.tokens.forget("old-token")
    await openapi.tokens.get()
    assert len(dingtalk.to(TOKEN_PATH)) == 1


async def test_a_short_token_does_not_blind_us(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """A test server's token may be a word that its answers hold by chance."""
    dingtalk.token = "process"
    await openapi.send_direct("dingfakeclient", "u-1001", "t", "x")


async def test_a_changed_secret_is_used_for_the_next_token(
    client: DingTalkClient, dingtalk: FakeDingTalk, clock: FakeClock
) -> None:
    """Credentials are read when a token is fetched, since a `_FILE` secret may change."""
    secrets = iter(["first", "second"])
    openapi = OpenApiClient(client, dingtalk.url, lambda: Credentials("id", Secret(next(secrets))), clock)
    openapi.tokens.forget(await openapi.tokens.get())
    await openapi.tokens.get()
    assert [request.json["appSecret"] for request in dingtalk.to(TOKEN_PATH)] == ["first", "second"]


# --- sends ---------------------------------------------------------------------------------------------------------


async def test_a_direct_send(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """The body is V11's, with `msgParam` as a JSON string."""
    await openapi.send_direct("dingfakeclient", "u-1001", "Hi", "**好**")
    body = dingtalk.to(DIRECT_PATH)[0].json
    assert json.loads(body.pop("msgParam")) == {"title": "Hi", "text": "**好**"}
    assert body == {"robotCode": "dingfakeclient", "userIds": ["u-1001"], "msgKey": "sampleMarkdown"}
    assert dingtalk.requests[-1].headers["Accept"] == "application/json"


async def test_a_group_send(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """The conversation id is the OpenAPI's openConversationId."""
    await openapi.send_group("dingfakeclient", "cidFakeGroup00==", "Hi", "x")
    body = dingtalk.to(GROUP_PATH)[0].json
    assert body["openConversationId"] == "cidFakeGroup00=="
    assert "userIds" not in body


async def test_a_download_address_is_a_secret(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """It is good for anybody, so it does not show itself."""
    link = await openapi.get_download_url("dingfakeclient", Secret("dcA1"))
    assert link.reveal() == f"{dingtalk.url}/files/one"
    assert dingtalk.url not in repr(link)
    assert dingtalk.to(DOWNLOAD_PATH)[0].json == {"downloadCode": "dcA1", "robotCode": "dingfakeclient"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", [TOKEN_PATH, DIRECT_PATH, GROUP_PATH, DOWNLOAD_PATH])
async def test_redirects_are_not_followed(
    path: str, status: int, openapi: OpenApiClient, dingtalk: FakeDingTalk
) -> None:
    """Whoever answers in DingTalk's place would get the secret, the token or the text."""

    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": f"{dingtalk.url}/elsewhere"})

    dingtalk.will(path, redirect)
    if path == GROUP_PATH:
        call: Awaitable[object] = openapi.send_group("dingfakeclient", "cid", "t", "x")
    elif path == DOWNLOAD_PATH:
        call = openapi.get_download_url("dingfakeclient", Secret("dc"))
    else:
        call = openapi.send_direct("dingfakeclient", "u-1001", "t", "x")
    with pytest.raises(DingTalkError) as caught:
        await call
    assert (caught.value.status, caught.value.retryable) == (status, True)
    assert dingtalk.to("/elsewhere") == []


async def test_too_long_a_message_is_not_sent(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """`msgParam` has at most 15 000 bytes."""
    with pytest.raises(DingTalkError) as caught:
        await openapi.send_group("dingfakeclient", "cid", "t", "字" * 5000)
    assert not caught.value.retryable
    assert dingtalk.requests == []


async def test_what_is_counted(
    openapi: OpenApiClient,
    dingtalk: FakeDingTalk,
    calls: CallCounter,
    outcomes: Callable[[], dict[tuple[str, str], int]],
    spans: Callable[[], list[ReadableSpan]],
) -> None:
    """Tokens count apart, throttled calls not at all; only sends are spans."""
    dingtalk.will(GROUP_PATH, (403, {"code": "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"}))
    with pytest.raises(DingTalkError):
        await openapi.send_group("dingfakeclient", "cid", "t", "x")
    await openapi.send_group("dingfakeclient", "cid", "t", "x")
    await openapi.send_direct("dingfakeclient", "u-1001", "t", "x")
    await openapi.get_download_url("dingfakeclient", Secret("dcA1"))
    assert calls.peek() == {"2027-01": {"token": 1, "group": 1, "direct": 1, "download": 1}}
    assert outcomes() == {
        ("token", "ok"): 1,
        ("group", "throttled"): 1,
        ("group", "ok"): 1,
        ("direct", "ok"): 1,
        ("download", "ok"): 1,
    }
    assert [span.name for span in spans()] == ["send dingtalk.reply"] * 3


# --- secrets -------------------------------------------------------------------------------------------------------


async def _echo(request: aiohttp.web.Request) -> aiohttp.web.Response:
    """An answer that repeats all that it was sent, as its code."""
    token = request.headers.get("x-acs-dingtalk-access-token", "")
    raw = await request.text()
    return aiohttp.web.json_response({"code": token or CLIENT_SECRET, "message": raw}, status=400)


@pytest.mark.parametrize("path", [TOKEN_PATH, DIRECT_PATH])
@pytest.mark.parametrize("answer", [_echo, html, hang])
async def test_no_secret_is_shown(
    path: str,
    answer: Any,
    make_client: MakeClient,
    dingtalk: FakeDingTalk,
    clock: FakeClock,
    spans: Callable[[], list[ReadableSpan]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither token nor client secret is in an error, a log line, a span or a repr, even if the answer repeats them."""
    caplog.set_level(logging.DEBUG)
    openapi = OpenApiClient(make_client(0.3), dingtalk.url, credentials, clock)
    dingtalk.will(path, answer)
    with pytest.raises(DingTalkError) as caught:
        await openapi.send_direct("dingfakeclient", "u-1001", "t", "x")
    shown = everything_of(caught.value) + "".join(span.to_json() for span in spans())
    shown += "".join(json.dumps(vars(record), default=repr) for record in caplog.records)
    shown += repr(vars(openapi)) + repr(vars(openapi.tokens))
    assert TOKEN not in shown
    assert CLIENT_SECRET not in shown

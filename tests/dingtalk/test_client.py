"""A call and its count: nothing that a server says gets out but DingTalkError."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest

from claw.dingtalk.client import WAIT_MAX_S, DingTalkClient
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import Api, CallCounter
from claw.dingtalk.webhook import WebhookClient
from claw.errors import DingTalkError, DingTalkReason
from claw.secret import Secret
from tests.clock import FakeClock
from tests.dingtalk.conftest import MakeClient, credentials
from tests.dingtalk.test_webhook import everything_of

CONSTANT = [
    b"",
    b"\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
    b"HTTP/1.1 999999 What\r\n\r\n",
    b"HTTP/1.1 000 Nil\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/9.9 200 OK\r\n\r\n{}",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 4\r\n\r\n\x00\x01\x02\x03",
    b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff\xfe=\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=\xff\r\nContent-Length: 2\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\nRetry-After: \xb2\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 301 Moved\r\nLocation: http://[bad\r\nContent-Length: 0\r\n\r\n",
]
BODIES = [
    b"",
    b"null",
    b"true",
    b"0",
    b"[]",
    b'"ok"',
    b"{}",
    b"{",
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b"<html></html>",
    b"NaN",
    b'{"errcode":NaN}',
    b'{"errcode":1e400}',
    b'{"errcode":' + b"9" * 5000 + b"}",
    b'{"errcode":"' + b"9" * 5000 + b'"}',
    b'{"errcode":{"a":0}}',
    b'{"errcode":0.0}',
    b'{"errcode":"zero"}',
    b'{"code":"\\ud800\\udfff\\u0000"}',
    b'{"code":7,"accessToken":[],"processQueryKey":{},"downloadUrl":null}',
    b'{"accessToken":"a\\r\\nX: y","expireIn":"soon"}',
    b'{"accessToken":"\\u00e9"}',
    b'{"processQueryKey":""}',
    b'{"code":"Forbidden.AccessDenied.AccessTokenPermissionDenied","accessdenieddetail":[{}]}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"x" * 400_000,
]
STATUSES = [200, 201, 206, 299, 300, 304, 400, 401, 403, 404, 418, 429, 451, 500, 502, 503, 504, 599]


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """A server that reads a request, writes these bytes, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def hostile_answers() -> list[bytes]:
    draw = random.Random(20261121)
    answers = list(CONSTANT)
    for body in BODIES:
        for status in [*draw.sample(STATUSES, 4), 200]:
            head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            answers.append(head.encode() + body)
    for _ in range(100):
        answer = bytearray(draw.choice(answers)[:2000])
        for _ in range(draw.randint(1, 8)):
            answer[draw.randrange(len(answer)) if answer else 0 : draw.randrange(len(answer) + 1)] = draw.randbytes(2)
        answers.append(bytes(answer))
    return answers


@pytest.mark.parametrize("api", [Api.WEBHOOK, Api.DIRECT, Api.TOKEN])
async def test_hostile_answers_are_dingtalk_errors(api: Api, make_client: MakeClient) -> None:
    """Hundreds of broken, wrong and huge answers: none gets out as anything but DingTalkError."""
    for answer in hostile_answers():
        async with raw_server(answer) as url:
            openapi = OpenApiClient(make_client(5), url, credentials, FakeClock())
            if api is Api.DIRECT:
                openapi.tokens._token, openapi.tokens._good_until = Secret("t"), 1e12
            sending = (
                WebhookClient(make_client(5), [url]).send(Secret(f"{url}/robot?session=1"), "t", "x")
                if api is Api.WEBHOOK
                else openapi.send_direct("dingfakeclient", "u-1001", "t", "x")
            )
            with pytest.raises(DingTalkError) as caught:
                await sending
            assert str(caught.value).isprintable()


async def test_an_unreachable_server_is_worth_another_try(
    client: DingTalkClient, clock: FakeClock, calls: CallCounter
) -> None:
    """Nobody listens: retryable, and nothing is counted."""
    url = "http://127.0.0.1:1"
    with pytest.raises(DingTalkError) as caught:
        await OpenApiClient(client, url, credentials, clock).get_download_url("dingfakeclient", Secret("dc"))
    assert (caught.value.retryable, caught.value.maybe_delivered, caught.value.status) == (True, False, None)
    assert calls.peek() == {}


PAGE = b"<html><body>Blocked by policy</body></html>"
GOOD = b'{"errcode":0,"errmsg":"ok"}'


def http(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Write an answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("answer", "reason", "maybe", "counted"),
    [
        (http(403, PAGE, "Content-Type: text/html"), DingTalkReason.NOT_DINGTALK, False, False),
        (http(403, b'{"message":"no"}'), DingTalkReason.NOT_DINGTALK, False, False),
        (http(404, PAGE), DingTalkReason.NOT_DINGTALK, False, False),
        (http(302, b"", "Location: http://127.0.0.1:1/login"), DingTalkReason.NOT_DINGTALK, False, False),
        (http(308, b"", "Location: /robot/elsewhere"), DingTalkReason.NOT_DINGTALK, False, False),
        (http(407, PAGE, "Proxy-Authenticate: Basic"), DingTalkReason.NOT_DINGTALK, False, False),
        (http(413, PAGE), DingTalkReason.NOT_DINGTALK, False, False),
        (http(429), DingTalkReason.QPS, False, False),
        (http(502, PAGE), DingTalkReason.SERVER_BUSY, True, True),
        (http(503, PAGE), DingTalkReason.SERVER_BUSY, False, True),
        (http(504, PAGE), DingTalkReason.SERVER_BUSY, True, True),
        (http(200, PAGE, "Content-Type: text/html"), DingTalkReason.NOT_DINGTALK, True, True),
        (http(200, b'{"status":"ok"}'), DingTalkReason.NOT_DINGTALK, True, True),
        (http(200, GOOD)[:-5], DingTalkReason.BROKEN_OFF, True, False),
        (b"", DingTalkReason.BROKEN_OFF, True, False),
    ],
)
async def test_who_answers_in_dingtalks_place_is_not_believed(
    answer: bytes, reason: DingTalkReason, maybe: bool, counted: bool, client: DingTalkClient, calls: CallCounter
) -> None:
    """What is no code of DingTalk's is tried again and followed nowhere; whether it was delivered, its kind says."""
    async with raw_server(answer) as url:
        with pytest.raises(DingTalkError) as caught:
            await WebhookClient(client, [url]).send(Secret(f"{url}/robot?session=1"), "t", "x")
    error = caught.value
    assert (error.reason, error.retryable, error.maybe_delivered) == (reason, True, maybe)
    assert bool(calls.peek()) is counted


@pytest.mark.parametrize("answer", [http(502, PAGE), http(200, PAGE), b""])
async def test_without_a_token_nothing_was_sent(answer: bytes, client: DingTalkClient, clock: FakeClock) -> None:
    """However the call for the token ended: people have seen nothing, and the answer's tries are not bounded by it."""
    async with raw_server(answer) as url:
        with pytest.raises(DingTalkError) as caught:
            await OpenApiClient(client, url, credentials, clock).send_direct("dingfakeclient", "u-1001", "t", "x")
    error = caught.value
    assert (error.api, error.retryable, error.maybe_delivered) == (Api.TOKEN, True, False)


@pytest.mark.parametrize("answer", [http(407, PAGE), http(403), http(502), b""])
async def test_a_proxy_that_lets_nobody_through_delivered_nothing(
    answer: bytes, client: DingTalkClient, calls: CallCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refused the tunnel, or hung up before there was one: tried again for as long as there is time."""
    async with raw_server(answer) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        webhook = WebhookClient(client, ["https://api.dingtalk.com"])
        with pytest.raises(DingTalkError) as caught:
            await webhook.send(Secret("https://oapi.dingtalk.com/robot/sendBySession?session=00ff"), "t", "x")
    error = caught.value
    assert (error.reason, error.retryable, error.maybe_delivered) == (DingTalkReason.NOT_DINGTALK, True, False)
    assert "00ff" not in everything_of(error)
    assert calls.peek() == {}


@pytest.mark.parametrize("hours", [-8, 0, 8])
async def test_a_date_to_wait_for_is_measured_by_the_servers_clock(
    hours: int, client: DingTalkClient, clock: FakeClock
) -> None:
    """Ours may be hours off: 20 s are 20 s."""
    now = clock.wall() + hours * 3600
    headers = [f"Date: {formatdate(now, usegmt=True)}", f"Retry-After: {formatdate(now + 20, usegmt=True)}"]
    async with raw_server(http(503, PAGE, *headers)) as url:
        with pytest.raises(DingTalkError) as caught:
            await WebhookClient(client, [url]).send(Secret(f"{url}/robot?session=1"), "t", "x")
    assert caught.value.retry_after == 20.0


async def test_a_wait_is_believed_for_minutes(client: DingTalkClient) -> None:
    """A proxy that asks for an hour and is gone in a minute does not hold the answer up for all of its time."""
    async with raw_server(http(503, PAGE, "Retry-After: 3600")) as url:
        with pytest.raises(DingTalkError) as caught:
            await WebhookClient(client, [url]).send(Secret(f"{url}/robot?session=1"), "t", "x")
    assert caught.value.retry_after == WAIT_MAX_S


async def test_a_connection_that_never_comes_delivered_nothing(make_client: MakeClient, clock: FakeClock) -> None:
    """A listener whose queue is full takes no connection: told apart from a server that does not answer."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        host, port = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex((host, port))
            openapi = OpenApiClient(make_client(0.4), f"http://{host}:{port}", credentials, clock)
            with pytest.raises(DingTalkError) as caught:
                await openapi.get_download_url("dingfakeclient", Secret("dc"))
        finally:
            for each in waiting:
                each.close()
    assert caught.value.reason is DingTalkReason.CONNECT
    assert (caught.value.retryable, caught.value.maybe_delivered) == (True, False)


async def test_cancellation_propagates(client: DingTalkClient) -> None:
    """A call that is cancelled ends as cancelled."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        webhook = WebhookClient(client, [url])
        task = asyncio.create_task(webhook.send(Secret(f"{url}/x"), "t", "x"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


SENDING = """
import asyncio, sys
from claw.clock import Clock
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.quota import CallCounter
from claw.dingtalk.webhook import WebhookClient
from claw.http_client import http_session
from claw.secret import Secret

async def main(url):
    async with http_session() as http:
        clock = Clock()
        client = DingTalkClient(http, CallCounter(clock), clock, timeout_s=1.0)
        await WebhookClient(client, [url]).send(Secret(url), "t", "x")
        print("sent")

asyncio.run(main(sys.argv[1]))
"""


async def test_a_process_that_was_stopped_reads_the_answer_that_came_meanwhile() -> None:
    """DingTalk has delivered and said so: taken for a timeout, the message would go out twice."""
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go_on.wait()
        writer.write(http(200, GOOD))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/robot"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SENDING, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            await asyncio.wait_for(asked.wait(), 20)
            os.kill(child.pid, signal.SIGSTOP)
            go_on.set()
            await asyncio.sleep(2.5)
        finally:
            os.kill(child.pid, signal.SIGCONT)
        out, err = await asyncio.wait_for(child.communicate(), 20)
    assert out == b"sent\n", err.decode()

"""A call and its count: nothing that a server says gets out but DingTalkError."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import Api, CallCounter
from claw.dingtalk.webhook import WebhookClient
from claw.errors import DingTalkError, DingTalkReason
from claw.secret import Secret
from tests.clock import FakeClock
from tests.dingtalk.conftest import MakeClient, credentials

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

"""Media: what is fetched, from where, how often, and what is refused."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from claw.clock import Clock
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.hosts import is_private, parse_address, parse_url
from claw.dingtalk.media import MediaLoader
from claw.dingtalk.openapi import OpenApiClient
from claw.errors import MediaError, MediaProblem
from claw.parts import Media, MediaKind
from claw.secret import Secret
from tests.dingtalk.conftest import DOWNLOAD_PATH, FakeDingTalk, cut, hang
from tests.dingtalk.test_webhook import everything_of

CONTENT = bytes(range(256)) * 8
MEDIA = Media(MediaKind.FILE, Secret("dcA1"), "a.bin")
PATH = "/files/one"
MAX_BYTES = 100_000


class QuickClock(Clock):
    """Waits between tries take no time."""

    async def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= 2


@pytest.fixture
def loader(client: DingTalkClient, openapi: OpenApiClient, dingtalk: FakeDingTalk) -> MediaLoader:
    return MediaLoader(client, openapi, (dingtalk.url,), QuickClock(), head_timeout_s=0.5, body_timeout_s=0.5)


async def take(_: int, chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def fetch(loader: MediaLoader) -> bytes:
    return await loader.fetch("dingfakeclient", MEDIA, MAX_BYTES, take)


async def problem_of(loader: MediaLoader) -> MediaProblem:
    with pytest.raises(MediaError) as raised:
        await fetch(loader)
    assert "/files" not in f"{raised.value}"
    return raised.value.problem


def serving(content: bytes = CONTENT, status: int = 200, **headers: str) -> Any:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=content, status=status, headers=headers)

    return serve


async def cut_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = len(CONTENT)
    await response.prepare(request)
    await response.write(CONTENT[:100])
    assert request.transport is not None
    request.transport.abort()
    return response


async def without_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(20):
        await response.write(bytes(10_000))
    return response


async def test_a_file_is_fetched(loader: MediaLoader, dingtalk: FakeDingTalk) -> None:
    """Its bytes come as they are, by one call; the token is not sent to storage."""
    dingtalk.will(PATH, serving())
    assert await fetch(loader) == CONTENT
    assert dingtalk.to(DOWNLOAD_PATH)[0].json == {"downloadCode": "dcA1", "robotCode": "dingfakeclient"}
    assert "x-acs-dingtalk-access-token" not in {name.lower() for name in dingtalk.to(PATH)[0].headers}


@pytest.mark.parametrize(
    "failure", [serving(status=502), serving(status=503), serving(status=429), cut, cut_in_the_middle, hang]
)
async def test_what_breaks_is_tried_again(loader: MediaLoader, dingtalk: FakeDingTalk, failure: Any) -> None:
    """Twice, at the same address: one call of the OpenAPI for all tries."""
    dingtalk.will(PATH, failure, failure, serving())
    assert await fetch(loader) == CONTENT
    assert (len(dingtalk.to(DOWNLOAD_PATH)), len(dingtalk.to(PATH))) == (1, 3)


async def test_tries_have_an_end(loader: MediaLoader, dingtalk: FakeDingTalk) -> None:
    """What does not come at all is told as such."""
    dingtalk.will(PATH, *[serving(status=502)] * 5)
    assert await problem_of(loader) is MediaProblem.NOT_FETCHED
    assert len(dingtalk.to(PATH)) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_address_that_ended_is_asked_for_once_more(
    loader: MediaLoader, dingtalk: FakeDingTalk, status: int
) -> None:
    """Addresses are good for minutes: a second one is asked for, and no third."""
    dingtalk.will(PATH, serving(status=status), serving())
    assert await fetch(loader) == CONTENT
    dingtalk.will(PATH, *[serving(status=status)] * 5)
    assert await problem_of(loader) is MediaProblem.NOT_FETCHED
    assert len(dingtalk.to(DOWNLOAD_PATH)) == 4


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((400, {"code": "invalidParameter.robotCode.downloadCode"}), MediaProblem.EXPIRED),
        ((400, {"code": "invalidParameter.robotCode.empty"}), MediaProblem.NOT_FETCHED),
        ((403, {"code": "Forbidden.AccessDenied.ApiCountLimitForOrg"}), MediaProblem.NOT_FETCHED),
        ((200, {"downloadUrl": "http://127.0.0.1/x"}), MediaProblem.NOT_ALLOWED),
        ((200, {"downloadUrl": "http://169.254.169.254/latest"}), MediaProblem.NOT_ALLOWED),
        ((200, {"downloadUrl": "http://localhost:6379/"}), MediaProblem.NOT_ALLOWED),
        ((200, {"downloadUrl": "file:///etc/passwd"}), MediaProblem.NOT_ALLOWED),
    ],
)
async def test_why_there_is_no_address(
    loader: MediaLoader, dingtalk: FakeDingTalk, answer: tuple[int, object], problem: MediaProblem
) -> None:
    """An expired code is told apart from others; nothing inside the operator's network is asked."""
    dingtalk.will(DOWNLOAD_PATH, answer)
    assert await problem_of(loader) is problem
    assert len(dingtalk.to(DOWNLOAD_PATH)) == 1
    assert not dingtalk.to(PATH)


@pytest.mark.parametrize("serve", [serving(bytes(MAX_BYTES + 1)), without_length])
async def test_what_is_too_large_is_not_taken(loader: MediaLoader, dingtalk: FakeDingTalk, serve: Any) -> None:
    """By its length, or by counting where none is told; it is not tried again."""
    dingtalk.will(PATH, serve)
    assert await problem_of(loader) is MediaProblem.TOO_LARGE
    assert len(dingtalk.to(PATH)) == 1


async def test_a_redirect_is_not_followed(loader: MediaLoader, dingtalk: FakeDingTalk) -> None:
    """An address that leads on may lead into the operator's network."""
    dingtalk.will(PATH, *[serving(status=302, Location="http://169.254.169.254/")] * 5)
    assert await problem_of(loader) is MediaProblem.NOT_FETCHED


async def test_what_the_taker_refuses_is_not_fetched_again(loader: MediaLoader, dingtalk: FakeDingTalk) -> None:
    """A file that cannot be read is not read better the second time."""
    dingtalk.will(PATH, *[serving()] * 5)

    async def refuse(_: int, __: AsyncIterator[bytes]) -> bytes:
        raise MediaError("no", MediaProblem.DAMAGED)

    with pytest.raises(MediaError):
        await loader.fetch("dingfakeclient", MEDIA, MAX_BYTES, refuse)
    assert len(dingtalk.to(PATH)) == 1


async def test_http_becomes_https(loader: MediaLoader, dingtalk: FakeDingTalk, monkeypatch: pytest.MonkeyPatch) -> None:
    """DingTalk often names its storage by http, which has https as well."""
    asked: list[str] = []

    async def get(url: Any) -> Any:
        asked.append(str(url))
        raise OSError

    monkeypatch.setattr(loader._client, "get", get)
    dingtalk.will(DOWNLOAD_PATH, (200, {"downloadUrl": "http://93.184.216.34/x?sig=%2F"}))
    assert await problem_of(loader) is MediaProblem.NOT_FETCHED
    assert set(asked) == {"https://93.184.216.34/x?sig=%2F"}


async def test_no_address_in_any_word(
    loader: MediaLoader, dingtalk: FakeDingTalk, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither errors nor logs name an address, which is a secret."""
    caplog.set_level(logging.DEBUG)
    async with TestServer(web.Application()) as server:
        gone = str(server.make_url("/secret-path"))
    dingtalk.will(DOWNLOAD_PATH, (200, {"downloadUrl": gone}))
    with pytest.raises(MediaError) as raised:
        await fetch(loader)
    assert "secret-path" not in everything_of(raised.value) + caplog.text


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("169.254.169.254", True),
        ("100.100.100.200", True),
        ("127.0.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("198.18.0.1", False),
        ("93.184.216.34", False),
        ("2606:2800:220:1:248:1893:25c8:1946", False),
    ],
)
def test_what_is_inside(host: str, private: bool) -> None:
    """Addresses that the internet does not route to, the metadata service of Alibaba Cloud among them."""
    address = parse_address(host)
    assert address is not None
    assert is_private(address) is private


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://h/x",
        "https://",
        "https://u@h/",
        "https://h:0/",
        "https://h/a b",
        "https://h/\n",
        "https://[",
        "https://h/é",
    ],
)
def test_what_is_no_address(url: str) -> None:
    """Only absolute http(s) addresses without user part are one."""
    assert parse_url(url) is None


async def test_a_name_that_leads_inside(
    loader: MediaLoader, dingtalk: FakeDingTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is judged by all that it stands for."""

    async def look_up(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, 0, 0, "", ("93.184.216.34", 0)), (socket.AF_INET, 0, 0, "", ("10.0.0.1", 0))]

    import asyncio  # noqa: PLC0415 - the loop of this very test

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    dingtalk.will(DOWNLOAD_PATH, (200, {"downloadUrl": "https://storage.example/x"}))
    assert await problem_of(loader) is MediaProblem.NOT_ALLOWED

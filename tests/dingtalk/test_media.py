"""Pictures: what is fetched, from where, and what is refused."""

from __future__ import annotations

import base64
import logging
import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from claw.budget import ByteBudget
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.hosts import is_private, parse_address, parse_url
from claw.dingtalk.media import PictureLoader, detect_mime
from claw.dingtalk.openapi import OpenApiClient
from claw.errors import MediaError
from claw.messages import Media, MediaKind
from claw.secret import Secret
from tests.dingtalk.conftest import DOWNLOAD_PATH, FakeDingTalk, hang, inbound
from tests.dingtalk.test_webhook import everything_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
PICTURE = Media(MediaKind.PICTURE, Secret("dcA1"))
FILE_PATH = "/files/one"


@pytest.fixture
def pictures(client: DingTalkClient, openapi: OpenApiClient, dingtalk: FakeDingTalk) -> PictureLoader:
    return PictureLoader(client, openapi, (dingtalk.url,), ByteBudget(1_000_000), timeout_s=0.5, max_bytes=100_000)


async def fetch(pictures: PictureLoader) -> str:
    """Fetch the picture of a message that has one."""
    (url,) = await pictures.load(inbound(media=(PICTURE,)))
    return url


def serving(content: bytes, status: int = 200) -> Any:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=content, status=status, content_type="text/html")

    return serve


async def test_a_picture_becomes_a_data_url(pictures: PictureLoader, dingtalk: FakeDingTalk) -> None:
    """Its bytes tell the kind, whatever the server says; the token is not sent along."""
    dingtalk.will(FILE_PATH, serving(PNG))
    assert await fetch(pictures) == "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert "x-acs-dingtalk-access-token" not in {name.lower() for name in dingtalk.to(FILE_PATH)[0].headers}


async def test_four_pictures_of_a_message_are_fetched(pictures: PictureLoader, dingtalk: FakeDingTalk) -> None:
    """In order, pictures only, four at most."""
    dingtalk.will(FILE_PATH, *[serving(PNG + bytes([n])) for n in range(6)])
    media = (Media(MediaKind.FILE, Secret("dcF")), *[PICTURE] * 6)
    found = await pictures.load(inbound(media=media))
    assert [base64.b64decode(each.partition(",")[2])[-1] for each in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "mime"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"GIF89arest", "image/gif"),
        (b"GIF87arest", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"BMrest", "image/bmp"),
        (b"<svg/>", None),
        (b"<html>", None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_the_kind(content: bytes, mime: str | None) -> None:
    """A model gets only what it can read."""
    assert detect_mime(content) == mime


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (serving(b"<html>"), "no picture"),
        (serving(PNG, 404), "HTTP 404"),
        (serving(b"\x89PNG\r\n\x1a\n" + b"x" * 200_000), "larger"),
        (hang, "did not come"),
    ],
)
async def test_a_file_that_is_not_good(
    handler: Any, reason: str, pictures: PictureLoader, dingtalk: FakeDingTalk
) -> None:
    """Each fault is a MediaError with its cause."""
    dingtalk.will(FILE_PATH, handler)
    with pytest.raises(MediaError, match=reason):
        await fetch(pictures)


async def test_redirects_are_not_followed(pictures: PictureLoader, dingtalk: FakeDingTalk) -> None:
    """A redirect could lead inside."""

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPFound(f"{dingtalk.url}/inner")

    dingtalk.will(FILE_PATH, redirect)
    with pytest.raises(MediaError, match="HTTP 302"):
        await fetch(pictures)
    assert not dingtalk.to("/inner")


async def test_a_code_that_has_expired(pictures: PictureLoader, dingtalk: FakeDingTalk) -> None:
    """DingTalk's refusal is the picture's error."""
    dingtalk.will(DOWNLOAD_PATH, (400, {"code": "invalidParameter.robotCode.downloadCode"}))
    with pytest.raises(MediaError, match="expired"):
        await fetch(pictures)


@pytest.mark.parametrize(
    "link",
    [
        "http://169.254.169.254/secret-path",
        "http://10.1.2.3/secret-path",
        "https://192.168.0.1/secret-path",
        "http://100.100.100.200/secret-path",
        "http://127.0.0.1:9/secret-path",
        "http://localhost:9/secret-path",
        "http://[::ffff:10.0.0.1]/secret-path",
        "http://[::1]/secret-path",
        "http://0.0.0.0/secret-path",
        "file:///secret-path",
        "ftp://files.example/secret-path",
        "http://user@files.example/secret-path",
        "secret-path",
    ],
)
async def test_addresses_inside_are_refused(
    link: str,
    client: DingTalkClient,
    openapi: OpenApiClient,
    dingtalk: FakeDingTalk,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a public endpoint nothing inside the network is fetched, and no address is told."""
    caplog.set_level(logging.DEBUG)
    dingtalk.will(DOWNLOAD_PATH, (200, {"downloadUrl": link}))
    pictures = PictureLoader(client, openapi, ("https://api.dingtalk.com",), ByteBudget(1_000_000))
    with pytest.raises(MediaError, match="not allowed") as caught:
        await fetch(pictures)
    assert "secret-path" not in everything_of(caught.value) + caplog.text


async def test_another_port_of_an_endpoint_is_inside(pictures: PictureLoader, dingtalk: FakeDingTalk) -> None:
    """A configured endpoint may serve files from inside the network; what else listens on its host may not."""
    listening = FakeDingTalk()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listening.handle)
    async with TestServer(app) as server:
        dingtalk.will(DOWNLOAD_PATH, (200, {"downloadUrl": str(server.make_url("/files/one"))}))
        with pytest.raises(MediaError, match="not allowed"):
            await fetch(pictures)
    assert listening.requests == []


async def test_a_name_that_leads_inside_is_refused(
    client: DingTalkClient, openapi: OpenApiClient, dingtalk: FakeDingTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are looked up before they are trusted."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    pictures = PictureLoader(client, openapi, ("https://api.dingtalk.com",), ByteBudget(1_000_000))
    assert await pictures._resolve(Secret("http://files.example/x")) is None


@pytest.mark.parametrize(
    ("link", "fetched"),
    [
        ("http://8.8.8.8/a?Signature=x%2Fy%3D", "https://8.8.8.8/a?Signature=x%2Fy%3D"),
        ("https://8.8.8.8/a", "https://8.8.8.8/a"),
        ("http://8.8.8.8:8000/a", "http://8.8.8.8:8000/a"),
    ],
)
async def test_http_becomes_https(link: str, fetched: str, client: DingTalkClient, openapi: OpenApiClient) -> None:
    """Outside of loopback the usual port is upgraded; the signed query stays as it is."""
    pictures = PictureLoader(client, openapi, ("https://api.dingtalk.com",), ByteBudget(1_000_000))
    assert str(await pictures._resolve(Secret(link))) == fetched


@pytest.mark.parametrize(
    ("address", "inner"),
    [
        ("8.8.8.8", False),
        ("2400:3200::1", False),
        ("198.18.0.5", False),
        ("100.64.0.1", True),
        ("172.16.0.1", True),
        ("fd00::1", True),
        ("fe80::1", True),
        ("224.0.0.1", True),
        ("::ffff:127.0.0.1", True),
    ],
)
def test_what_is_inside(address: str, inner: bool) -> None:
    """Private, shared and special addresses are inside; those that local proxies invent are not."""
    found = parse_address(address)
    assert found is not None
    assert is_private(found) is inner


@pytest.mark.parametrize("url", ["http://exa mple/", "http://a\n/", "http://é.example/", "x" * 9000, "http:///x"])
def test_addresses_that_are_none(url: str) -> None:
    """What could break a request line is no address."""
    assert parse_url(url) is None

"""Fetching what an answer names: within bounds, and never from inside the operator's network."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from claw import proxy
from claw.budget import ByteBudget
from claw.errors import MediaError, MediaProblem
from claw.reply import fetching
from claw.reply.fetching import LinkFetcher, PublicResolver
from tests.dingtalk.conftest import FakeDingTalk, cut, hang

MEGABYTE = 1024 * 1024


@asynccontextmanager
async def hold(fake: FakeDingTalk, link: str, timeout_s: float = 5.0) -> AsyncIterator[bytes]:
    """Fetch as for an answer; the fake's origin is configured."""
    budget = ByteBudget(8 * MEGABYTE)
    fetcher = LinkFetcher((fake.url,), budget, timeout_s=timeout_s)
    async with fetcher.open() as opened, opened.hold(link, MEGABYTE) as content:
        assert budget.used == len(content)
        yield content
    assert budget.used == 0


async def problem_of(fake: FakeDingTalk, link: str, timeout_s: float = 5.0) -> MediaProblem:
    with pytest.raises(MediaError) as caught:
        async with hold(fake, link, timeout_s):
            pass
    assert "://" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.problem


def redirect(target: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target, "Set-Cookie": "a=b"})

    return answer


async def show(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"a picture")


async def test_a_file_is_fetched_without_credentials(dingtalk: FakeDingTalk) -> None:
    """As anybody would: no token, no cookie, no Authorization, also after a redirect that sets one."""
    dingtalk.will("/a.png", redirect("/b.png"))
    dingtalk.will("/b.png", show)
    async with hold(dingtalk, f"{dingtalk.url}/a.png?sig=1") as content:
        assert content == b"a picture"
    for request in dingtalk.requests:
        assert not {"authorization", "cookie", "x-acs-dingtalk-access-token"} & {
            each.lower() for each in request.headers
        }


@pytest.mark.parametrize(
    "link",
    [
        "https://10.0.0.5/a.png",
        "https://192.168.1.1/a.png",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.100.100.200/latest/meta-data/",
        "https://[::1]/a.png",
        "https://[fe80::1]/a.png",
        "https://[::ffff:10.0.0.1]/a.png",
        "https://[64:ff9b::a00:1]/a.png",
        "https://[2002:a00:1::]/a.png",
        "https://127.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f000001/a.png",
        "https://0.0.0.0/a.png",
        "https://localhost:9/a.png",
        "https://a.localhost/a.png",
        "http://93.184.215.14:8080/a.png",
        "https://user:password@93.184.215.14/a.png",
        "ftp://93.184.215.14/a.png",
        "https:///a.png",
    ],
)
async def test_nothing_inside_is_asked(link: str, dingtalk: FakeDingTalk) -> None:
    """Addresses inside in all their spellings, and what is not https; directly and by a redirect."""
    assert await problem_of(dingtalk, link) is MediaProblem.NOT_ALLOWED
    dingtalk.will("/a.png", redirect(link))
    assert await problem_of(dingtalk, f"{dingtalk.url}/a.png") is MediaProblem.NOT_ALLOWED


async def test_another_port_of_a_configured_host_is_inside(dingtalk: FakeDingTalk) -> None:
    """What else listens there may be the operator's database."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        link = f"http://127.0.0.1:{other.getsockname()[1]}/a.png"
        assert await problem_of(dingtalk, link) is MediaProblem.NOT_ALLOWED


async def test_a_name_that_changes_after_the_check(dingtalk: FakeDingTalk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection looks the name up itself, and an address inside is none."""

    async def pass_all(url: object) -> object:
        return url

    monkeypatch.setattr(fetching, "find_public", pass_all)
    link = dingtalk.url.replace("127.0.0.1", "rebound.localhost").replace("http://", "https://")
    assert await problem_of(dingtalk, f"{link}/a.png") is MediaProblem.NOT_FETCHED
    assert dingtalk.requests == []


async def test_the_resolver_gives_public_addresses_only() -> None:
    """Names of the operator's own are exempt: a proxy, or an emulator."""
    resolver = PublicResolver(frozenset())
    with pytest.raises(OSError, match="inside"):
        await resolver.resolve("localhost", 80)
    resolver.exempt.add("localhost")
    assert await resolver.resolve("localhost", 80)
    await resolver.close()


async def test_a_proxy_is_used(dingtalk: FakeDingTalk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is set nothing goes past it; what it refuses is not fetched."""
    monkeypatch.setenv("HTTPS_PROXY", dingtalk.url.replace("127.0.0.1", "localhost"))
    proxy.forget()
    assert await problem_of(dingtalk, "https://93.184.215.14/a.png") is MediaProblem.NOT_FETCHED
    proxy.forget()


async def test_redirects_end(dingtalk: FakeDingTalk) -> None:
    """A ring of them is left, as is one to nowhere."""
    dingtalk.will("/a.png", *[redirect("/a.png")] * 9)
    assert await problem_of(dingtalk, f"{dingtalk.url}/a.png") is MediaProblem.NOT_FETCHED
    assert len(dingtalk.requests) == fetching.REDIRECTS_MAX + 1
    dingtalk.will("/b.png", redirect(""))
    assert await problem_of(dingtalk, f"{dingtalk.url}/b.png") is MediaProblem.NOT_ALLOWED


async def test_a_large_file_is_not_read(dingtalk: FakeDingTalk) -> None:
    """By its head, or where that says nothing, as soon as there is too much."""

    async def say(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(MEGABYTE + 1))

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(bytes(MEGABYTE))
        return response

    dingtalk.will("/a.png", say, flood)
    assert await problem_of(dingtalk, f"{dingtalk.url}/a.png") is MediaProblem.TOO_LARGE
    assert await problem_of(dingtalk, f"{dingtalk.url}/a.png") is MediaProblem.TOO_LARGE


async def test_what_does_not_come(dingtalk: FakeDingTalk) -> None:
    """Missing, cut (a GET is asked once more for that by the library), or too slow."""
    dingtalk.will("/a.png", (404, {}), cut, cut, hang)
    assert await problem_of(dingtalk, f"{dingtalk.url}/a.png") is MediaProblem.NOT_FETCHED
    assert await problem_of(dingtalk, f"{dingtalk.url}/a.png") is MediaProblem.NOT_FETCHED
    assert await problem_of(dingtalk, f"{dingtalk.url}/a.png", 0.2) is MediaProblem.TOO_SLOW

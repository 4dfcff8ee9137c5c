"""Fetches pictures and files that an answer names by a link, as an anonymous reader of the web would.

A link of an answer may have been put there by anybody whose words the model has read, to make this process call a host
within the operator's network. Order of events: the address is checked, its name looked up, and refused where it leads
inside; it is asked for, without any credential; a redirect is an address like the first, and checked as such; the head
says how large the file is, and room for it is reserved before its bytes are read.

A name may change between the check and the connection. So the names are looked up for the connection by a resolver that
gives no address inside either. Where a proxy is set it is used, and looks the name up once more: what it lets through
is the operator's decision. No error names an address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from socket import AddressFamily
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from claw.budget import ByteBudget
from claw.dingtalk.hosts import UrlPolicy, is_private, parse_address, parse_url
from claw.dingtalk.media import find_public
from claw.errors import MediaError, MediaProblem
from claw.http_client import deadline, http_session, read_at_most, send
from claw.proxy import proxy_of

FETCH_TIMEOUT_S: Final = 15.0
"""Seconds for one file in all: the person waits for the whole answer."""
REDIRECTS_MAX: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class PublicResolver(AbstractResolver):
    """Looks names up; one that leads inside the network is not found. `exempt`: names of the operator's own."""

    def __init__(self, exempt: frozenset[str]) -> None:
        self.exempt = set(exempt)
        self._system = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError."""
        found = await self._system.resolve(host, port, family)
        # A link-local address may come with a zone.
        addresses = [parse_address(str(each["host"]).partition("%")[0]) for each in found]
        if host not in self.exempt and any(each is None or is_private(each) for each in addresses):
            raise OSError("the name leads inside the network")
        return found

    async def close(self) -> None:
        await self._system.close()


class LinkFetcher:
    """Fetches for answers. `endpoints`: the configured ones, whose origins may serve files even inside the network.

    `budget` bounds the bytes that are held for all answers at the same time.
    """

    def __init__(self, endpoints: tuple[str, ...], budget: ByteBudget, *, timeout_s: float = FETCH_TIMEOUT_S) -> None:
        self._policy = UrlPolicy(endpoints)
        self._own_hosts = frozenset(URL(each).host or "" for each in endpoints)
        self._budget = budget
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenFetcher]:
        """Fetch for one answer: no connection to a stranger is kept after it."""
        resolver = PublicResolver(self._own_hosts)
        async with http_session(resolver) as session:
            yield OpenFetcher(session, resolver, self._policy, self._budget, self._timeout_s)


@dataclass(frozen=True, slots=True)
class OpenFetcher:
    """Fetches for one answer."""

    _session: aiohttp.ClientSession
    _resolver: PublicResolver
    _policy: UrlPolicy
    _budget: ByteBudget
    _timeout_s: float

    @asynccontextmanager
    async def hold(self, link: str, max_bytes: int) -> AsyncIterator[bytes]:
        """Fetch a file, and hold the room that it takes. Raises MediaError."""
        async with AsyncExitStack() as stack:
            try:
                async with deadline(self._timeout_s):
                    content = await self._fetch(link, max_bytes, stack)
            except TimeoutError:
                raise MediaError("it did not come in time", MediaProblem.TOO_SLOW) from None
            except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
                raise MediaError(f"its fetching failed ({type(fault).__name__})") from None
            yield content

    async def _fetch(self, link: str, max_bytes: int, stack: AsyncExitStack) -> bytes:
        response = await self._ask(link, stack)
        if response.status != 200:
            raise MediaError(f"its server answered HTTP {response.status}")
        length = response.content_length
        if length is not None and length > max_bytes:
            # Not read to its end: the connection is of no more use.
            response.close()
            raise _make_too_large(max_bytes)
        # Before its bytes are read, and after its head: who only waits for a slow server holds no room.
        room = await stack.enter_async_context(self._budget.reserve(max_bytes if length is None else max(length, 1)))
        content = await read_at_most(response, room.size)
        if content is None:
            raise _make_too_large(max_bytes)
        room.shrink(len(content))
        return content

    async def _ask(self, link: str, stack: AsyncExitStack) -> aiohttp.ClientResponse:
        """Return the response at the end of the redirects."""
        url = parse_url(link)
        for _ in range(REDIRECTS_MAX + 1):
            address = await self._check(url)
            if (proxy := proxy_of(address)) is not None and proxy.host:
                # Its own name is looked up too, and it stands inside the network as a rule.
                self._resolver.exempt.add(proxy.host)
            response = await stack.enter_async_context(await send(self._session, "GET", address))
            # Never followed by the library, which checks no address and would take cookies along.
            if response.status not in _REDIRECTS:
                return response
            target = response.headers.get("Location", "")
            response.close()
            url = parse_url(str(address.join(URL(target, encoded=True)))) if target else None
        raise MediaError("it is redirected too often")

    async def _check(self, url: URL | None) -> URL:
        """Return the address to ask. Raises MediaError where nothing may be fetched from there."""
        public = url if url is None or self._policy.is_configured(url) else await find_public(url)
        if url is None or public is None:
            raise MediaError("its address is not allowed", MediaProblem.NOT_ALLOWED)
        # In the clear anybody on the way could put another picture into an answer.
        if public.scheme != "https" and not self._policy.is_configured(public):
            raise MediaError("its address is not https", MediaProblem.NOT_ALLOWED)
        return public


def _make_too_large(max_bytes: int) -> MediaError:
    return MediaError(f"it is larger than {max_bytes // (1024 * 1024)} MB", MediaProblem.TOO_LARGE)

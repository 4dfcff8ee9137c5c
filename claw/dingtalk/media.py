"""Media that came with a message, by their download codes (docs/protocol.md section 6.4).

Order of events: the code is traded for an address at the OpenAPI; the address is checked (it is good for anybody who
has it, hence a secret) and made https; a request for it is sent, without following redirects; the head of its response
says how large the file is, and its bytes are handed on as they come. What breaks in between is tried again at the same
address; one that storage does not know any more is asked for once more. No error names an address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from claw.clock import Clock
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.hosts import Address, UrlPolicy, is_loopback, is_private, parse_address, parse_url
from claw.dingtalk.openapi import OpenApiClient
from claw.errors import DingTalkError, DingTalkReason, MediaError, MediaProblem
from claw.http_client import deadline
from claw.parts import Media
from claw.retry import full_jitter
from claw.secret import Secret

HEAD_TIMEOUT_S: Final = 20.0
"""Seconds for the head of a response, the look-up of its host included."""
BODY_TIMEOUT_S: Final = 60.0
"""Seconds for its bytes."""
TRIES_MAX: Final = 3
"""Requests for one file, at however many addresses."""
RETRY_BASE_S: Final = 0.3
RETRY_CEILING_S: Final = 2.0
_GONE: Final = frozenset({401, 403, 404, 410})
"""Statuses by which storage says that an address is not good any more: such addresses end after some minutes."""

T = TypeVar("T")
Consume = Callable[[int, AsyncIterator[bytes]], Awaitable[T]]
"""Takes a file: its size in bytes, as far as its head told, else the most that is taken; and its bytes."""


class _BrokenError(Exception):
    """A try that failed, and that another one may make good."""

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gone = gone


class MediaLoader:
    """Fetches media. `endpoints`: the configured ones, whose origins may serve files even inside the network."""

    def __init__(
        self,
        client: DingTalkClient,
        openapi: OpenApiClient,
        endpoints: tuple[str, ...],
        clock: Clock,
        *,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._client = client
        self._openapi = openapi
        self._policy = UrlPolicy(endpoints)
        self._clock = clock
        self._head_timeout_s = head_timeout_s
        self._body_timeout_s = body_timeout_s

    async def fetch(self, robot_code: str, media: Media, max_bytes: int, consume: Consume[T]) -> T:
        """Fetch a file and return what `consume` makes of it. Raises MediaError, and what `consume` raises.

        `consume` may be called again, from the beginning, after a try that broke off.
        """
        address = await self._find_address(robot_code, media)
        is_fresh, reason = False, ""
        for number in range(1, TRIES_MAX + 1):
            # Its error is returned, lest the library's, which names addresses, hide behind it.
            found = await self._try(address, max_bytes, consume)
            if not isinstance(found, _BrokenError):
                return found
            reason = found.reason
            if number == TRIES_MAX or (found.gone and is_fresh):
                break
            if found.gone:
                # Asked for again once: each asking is billed.
                address, is_fresh = await self._find_address(robot_code, media), True
            else:
                await self._clock.sleep(full_jitter(number, base=RETRY_BASE_S, ceiling=RETRY_CEILING_S))
        raise MediaError(reason, MediaProblem.NOT_FETCHED)

    async def _find_address(self, robot_code: str, media: Media) -> URL:
        try:
            link = await self._openapi.get_download_url(robot_code, media.code)
        except DingTalkError as error:
            expired = error.reason is DingTalkReason.DOWNLOAD_CODE
            problem = MediaProblem.EXPIRED if expired else MediaProblem.NOT_FETCHED
            raise MediaError(f"DingTalk gave no address for it: {error.detail}", problem) from None
        try:
            # A name server can hang as a file server can.
            async with asyncio.timeout(self._head_timeout_s):
                url = await self._resolve(link)
        except TimeoutError:
            raise MediaError("the name of its storage was not looked up in time") from None
        if url is None:
            raise MediaError("its address is not allowed", MediaProblem.NOT_ALLOWED)
        return url

    async def _try(self, url: URL, max_bytes: int, consume: Consume[T]) -> T | _BrokenError:
        try:
            async with deadline(self._head_timeout_s):
                response = await self._client.get(url)
            async with response:
                if response.status != 200:
                    return _BrokenError(f"storage answered HTTP {response.status}", gone=response.status in _GONE)
                length = response.content_length
                if length is not None and length > max_bytes:
                    response.close()
                    raise _make_too_large(max_bytes)
                chunks = _iter_chunks(response, max_bytes)
                async with deadline(self._body_timeout_s):
                    return await consume(max_bytes if length is None else max(length, 1), chunks)
        except TimeoutError:
            return _BrokenError("it did not come in time")
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
            return _BrokenError(f"its fetching broke off ({type(fault).__name__})")

    async def _resolve(self, link: Secret) -> URL | None:
        """Return the address to fetch from, https where it can be; None where it leads into the operator's network.

        A name is looked up here and once more by the connector. In between it may change; the check is a second
        line of defence behind DingTalk's own answer. A name that cannot be looked up is left to the proxy, if any.
        """
        url = parse_url(link.reveal())
        if url is None or self._policy.is_configured(url):
            return url
        return await find_public(url)


async def find_public(url: URL) -> URL | None:
    """Return an address with https, where it can be; None where it leads to this machine or into its network."""
    host = url.host or ""
    if is_loopback(host):
        return None
    address = parse_address(host)
    addresses = [address] if address is not None else await _look_up(host)
    if any(is_private(each) for each in addresses):
        return None
    # DingTalk often names storage by http, which has https as well (docs/protocol.md section 6.4).
    return url.with_scheme("https").with_port(None) if url.scheme == "http" and url.port == 80 else url


async def _look_up(host: str) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    # A link-local IPv6 address may carry a zone.
    addresses = (parse_address(str(each[4][0]).partition("%")[0]) for each in found)
    return [each for each in addresses if each is not None]


async def _iter_chunks(response: aiohttp.ClientResponse, max_bytes: int) -> AsyncIterator[bytes]:
    taken = 0
    async for chunk in response.content.iter_any():
        taken += len(chunk)
        if taken > max_bytes:
            response.close()
            raise _make_too_large(max_bytes)
        yield chunk


def _make_too_large(max_bytes: int) -> MediaError:
    return MediaError(f"it is larger than {max_bytes // (1024 * 1024)} MB", MediaProblem.TOO_LARGE)

"""Outgoing HTTP: how a session is made, and the one rule by which a request is sent a second time.

Order of events of `send`: look up the proxy, send on a pooled or a new connection, return when the head of the
response is there. A redirect is an answer like any other: to follow it would carry secrets to whoever it names.

A server may close a kept connection at the moment at which we use it. Such a request was never read, so it is sent
again. A connection that was opened for the request cannot have died that way: if it breaks, the server had the request
and may have acted on it. DingTalk's sends have no idempotency key, and an agent's tools run twice for a question that
is asked twice, so that case is left to those who count the tries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

import aiohttp
from yarl import URL

from claw import __version__
from claw.proxy import proxy_of

DEAD_WITHIN_S: Final = 1.0
"""Seconds within which a pooled connection that was already dead shows it (a closed socket answers within a round
trip). One that ends later was ended by a server that may have begun to work."""

_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)


@dataclass(slots=True)
class _Use:
    """One use of a connection, as the session's trace reports it."""

    reused: bool = False


def trace_reuse() -> aiohttp.TraceConfig:
    """Make the trace that a session needs for `send`; without it nothing is ever sent a second time."""

    async def on_reuse(_session: object, context: SimpleNamespace, _params: object) -> None:
        # Requests that do not go through `send`, such as a WebSocket's, bring no note of their own.
        if isinstance(context.trace_request_ctx, _Use):
            context.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(on_reuse)
    return config


def http_session() -> aiohttp.ClientSession:
    """Make the session for DingTalk's HTTP and WebSocket: no cookies, no limit of connections; the caller closes it."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
        headers={"User-Agent": f"claw/{__version__}"},
        trace_configs=[trace_reuse()],
    )


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    data: bytes | None = None,
    timeout: aiohttp.ClientTimeout = _NO_TIMEOUT,
) -> aiohttp.ClientResponse:
    """Send a request and return when the head of its response is there; the caller closes the response.

    Raises what aiohttp raises. `timeout` bounds each try, not their sum.
    """
    time = asyncio.get_running_loop().time
    began = time()
    while True:
        use = _Use()
        try:
            return await session.request(
                method,
                url,
                headers=headers,
                data=data,
                allow_redirects=False,
                proxy=proxy_of(url),
                timeout=timeout,
                trace_request_ctx=use,
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # The pool may hold several dead ones, each is found out in turn; the first new connection ends this.
            if not use.reused or time() - began > DEAD_WITHIN_S:
                raise


async def read_at_most(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    """Read a body; None where it is longer than `max_bytes`, and then its connection is closed."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            # Reading on to keep the connection could take for ever.
            response.close()
            return None
    return bytes(body)


def describe_failure(error: BaseException) -> str:
    """Describe why a server was not reached, without an address: the kind of fault, or what the proxy said."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused the way with HTTP {error.status}; see HTTPS_PROXY and NO_PROXY"
    return type(error).__name__

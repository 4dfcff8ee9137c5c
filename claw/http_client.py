"""Outgoing HTTP: how a session is made, and how a request is sent once.

Order of events of `send`: let the loop see which pooled connections have died, look up the proxy, send on a pooled or a
new connection, return when the head of the response is there. A redirect is an answer like any other: to follow it
would carry secrets to whoever it names. Bodies come as they are, without an encoding: of a packed one nobody knows its
size before it is unpacked.

No request is sent a second time here. A kept connection that breaks after it was written to may have been closed
before the server read the request, or after the server acted on it: end and reset look the same for both (RFC 9110,
9.2.2). DingTalk's sends have no idempotency key, and an agent's tools run twice for a question that is asked twice, so
that another try is left to those who count the tries. What can be told apart is a connection that was dead before: the
pool drops it as soon as the loop has read its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from claw import __version__
from claw.proxy import proxy_of

KEEP_ALIVE_S: Final = 4.0
"""Seconds that an unused connection is kept. Many servers close theirs after 5 s (the default of Node, of uvicorn, of
Apache): whoever closes first does not meet the other's close with a request."""

LATE_S: Final = 0.25
"""Seconds by which a timer that fires tells that it was we who stood still, not only the other side."""
GRACE_S: Final = 1.0
"""Seconds that what came meanwhile then gets to be read."""
GRACES_MAX: Final = 3
"""Graces of one call: a process that stands still all the time must not make its calls endless."""

_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
_LOOP_TURNS: Final = 3
"""Turns of the loop after which it has read all ends of connections that had arrived: it polls, reads, and closes."""


class TunnelError(aiohttp.ClientConnectionError):
    """The proxy opened no tunnel, so that nothing was sent; `status` is its answer (None: it hung up)."""

    def __init__(self, status: int | None) -> None:
        super().__init__("the proxy hung up" if status is None else f"the proxy answered HTTP {status}")
        self.status = status


@dataclass(slots=True)
class _Use:
    """The use of a connection by one request, as the session's trace reports it."""

    connecting: bool = False


def trace_connecting() -> aiohttp.TraceConfig:
    """Make the trace by which `send` knows that it had no connection yet; without it there is no TunnelError."""

    def note_as(*, connecting: bool) -> Callable[[object, SimpleNamespace, object], Awaitable[None]]:
        async def note(_session: object, context: SimpleNamespace, _params: object) -> None:
            # Requests that do not go through `send`, such as a WebSocket's, bring no note of their own.
            if isinstance(context.trace_request_ctx, _Use):
                context.trace_request_ctx.connecting = connecting

        return note

    config = aiohttp.TraceConfig()
    config.on_connection_create_start.append(note_as(connecting=True))
    config.on_connection_create_end.append(note_as(connecting=False))
    return config


def http_session(resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """Make the session for DingTalk's HTTP and WebSocket: no cookies, no limit of connections; the caller closes it.

    `resolver` looks names up, in place of the system. A body that is packed although we asked for none stays packed,
    and is then no JSON and no picture.
    """
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=KEEP_ALIVE_S, resolver=resolver),
        headers={"User-Agent": f"claw/{__version__}", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trace_configs=[trace_connecting()],
    )


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError where the block takes longer than `seconds` by which this process was awake.

    As `asyncio.timeout`, but for a process that is stopped, or a machine that sleeps: its timers are late then, and say
    nothing of the other side, whose answer may lie in the socket.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def arm(delay_s: float, graces: int) -> None:
        nonlocal timer
        due = loop.time() + delay_s
        timer = loop.call_at(due, fire, due, graces)

    def fire(due: float, graces: int) -> None:
        # The race: in one turn of the loop sockets are read before timers fire, but who waits for what was read is
        # woken in the next. A plain timeout would end the call with its answer in hand.
        if graces and loop.time() - due > LATE_S:
            arm(GRACE_S, graces - 1)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        arm(seconds, GRACES_MAX)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    data: bytes | AsyncIterable[bytes] | aiohttp.MultipartWriter | None = None,
    timeout: aiohttp.ClientTimeout = _NO_TIMEOUT,
) -> aiohttp.ClientResponse:
    """Send a request and return when the head of its response is there; the caller closes the response.

    Raises TunnelError and what aiohttp raises. After any other error than TunnelError, ClientConnectorError and
    ConnectionTimeoutError the server may have had the request.
    """
    # A loop that was busy has not read yet that a pooled connection was closed, and would write to it.
    for _ in range(_LOOP_TURNS):
        await asyncio.sleep(0)
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
    except aiohttp.ClientHttpProxyError as error:
        # Not chained: the library's error holds the request's headers.
        raise TunnelError(error.status) from None
    except aiohttp.ServerDisconnectedError:
        if use.connecting:
            raise TunnelError(None) from None
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

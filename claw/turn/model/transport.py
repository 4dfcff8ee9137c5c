"""The SDK's requests over aiohttp: half the CPU of the SDK's own transport, whose HTTP parser is written in Python.

Order of events: the SDK hands a request in. aiohttp sends it on a pooled connection, by the proxy and certificate
settings of the environment, once (claw/http_client.py). The body is handed out as it comes; closing it before its end
closes the connection, by which servers stop working.

The SDK brings a transport like it (`openai.DefaultAioHttpClient`, openai 3.50), which finds no proxy in the environment
and takes every broken connection for a connect timeout. This module goes when that one does both.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Final

import aiohttp
import httpx2
from yarl import URL

from claw.http_client import TunnelError, send, trace_connecting

HEADER_MAX_BYTES: Final = 65_536
"""The longest header of a response, and its first line. aiohttp's own 8 190 are too few for the policies and cookies
that gateways add; what is longer ends the request."""

ERROR_BODY_MAX_BYTES: Final = 262_144
"""What is read of the body of an error: it is taken as a whole, and its words stand at its beginning."""


class _Body(httpx2.AsyncByteStream):
    """A response's body, or the first `limit` bytes of it; closing it before its end closes the connection."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx2.Request, limit: int | None) -> None:
        self._response = response
        self._request = request
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            # As it comes, in parts of any size: a person waits for each word.
            left = self._limit
            async for part in self._response.content.iter_any():
                yield part[:left]
                if left is not None:
                    left -= len(part)
                    if left <= 0:
                        return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise httpx2.ReadError(_describe(error), request=self._request) from error

    async def aclose(self) -> None:
        # A closed connection is how the server learns that nobody listens any more: it stops the model's work.
        self._response.close()


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends over an aiohttp session of its own, made at the first request."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._ssl = httpx2.create_ssl_context()
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and return when the head of the response is there. Raises httpx2.TransportError."""
        if self._session is None:
            # Made here and not in the constructor: that one runs in a thread, and a session belongs to a loop.
            self._session = aiohttp.ClientSession(
                # CLAW_MAX_CONCURRENCY bounds the requests; to wait for a connection here would eat the deadline.
                connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=HEADER_MAX_BYTES,
                max_field_size=HEADER_MAX_BYTES,
                timeout=self._timeout,
                trace_configs=[trace_connecting()],
            )
        stream = None if isinstance(request.stream, httpx2.ByteStream) else request.stream
        try:
            response = await send(
                self._session,
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                # One with pictures is written as it is sent (upload.py).
                data=stream if isinstance(stream, AsyncIterable) else await request.aread(),
                timeout=self._timeout,
            )
        except (aiohttp.ClientConnectorError, TunnelError) as error:  # Nothing was sent.
            raise httpx2.ConnectError(_describe(error), request=request) from error
        except (aiohttp.ConnectionTimeoutError, TimeoutError) as error:
            raise httpx2.ConnectTimeout(_describe(error), request=request) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise httpx2.RemoteProtocolError(_describe(error), request=request) from error
        headers = list(response.raw_headers)
        limit = None
        if response.status >= 300:
            # The SDK reads an error whole, and unpacks it: of a packed one only the status is taken.
            limit = 0 if is_packed(response.headers) else ERROR_BODY_MAX_BYTES
            headers = [(name, value) for name, value in headers if name.lower() != b"content-encoding"]
        return httpx2.Response(
            response.status, headers=headers, stream=_Body(response, request, limit), request=request
        )

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def is_packed(headers: Mapping[str, str]) -> bool:
    """Whether a body is compressed: a few kilobytes may stand for gigabytes, and none is asked for."""
    return headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__

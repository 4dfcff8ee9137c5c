"""The SDK's requests over aiohttp: half the CPU of its own transport, whose HTTP parser is written in Python.

Order of events: the SDK hands a request in; aiohttp sends it on a pooled connection, by the proxy and certificate
settings of the environment, and once more where a connection of the pool turns out to be dead (llama.cpp closes after
an error, and does not say so); the body is handed out as it comes; a body that is not read to its end closes its
connection, by which servers stop working. Imported with the SDK, off the critical path (llm.py): httpx2 comes with it.

The SDK brings a transport like it (`openai.DefaultAioHttpClient`), which does not find a proxy in the environment and
takes every broken connection for a connect timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Final

import aiohttp
import httpx2
from yarl import URL

from claw.proxy import proxy_of

DEAD_WITHIN_S: Final = 1.0
"""Seconds within which a connection that was dead before we used it shows that. Later the server has ended it, who may
have begun to work: whether to ask again is then for those to say who count the tries."""


class _Body(httpx2.AsyncByteStream):
    """A response's body; closing it before its end closes the connection."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._response.content.iter_any():
                yield part
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise httpx2.ReadError(_words(error), request=self._request) from error

    async def aclose(self) -> None:
        self._response.close()


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends over an aiohttp session of its own, made at the first request."""

    def __init__(self, connect_timeout: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._verify = httpx2.create_ssl_context()
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and return when the head of the response is there. Raises httpx2.TransportError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._verify),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=self._timeout,
                trace_configs=[_noting_reuse()],
            )
        try:
            response = await self._sent(self._session, request)
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(_words(error), request=request) from error
        except (aiohttp.ConnectionTimeoutError, TimeoutError) as error:
            raise httpx2.ConnectTimeout(_words(error), request=request) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise httpx2.RemoteProtocolError(_words(error), request=request) from error
        return httpx2.Response(
            response.status, headers=list(response.raw_headers), stream=_Body(response, request), request=request
        )

    @staticmethod
    async def _sent(session: aiohttp.ClientSession, request: httpx2.Request) -> aiohttp.ClientResponse:
        url, body = URL(str(request.url), encoded=True), await request.aread()
        time = asyncio.get_running_loop().time
        while True:
            began, used = time(), SimpleNamespace(before=False)
            try:
                return await session.request(
                    request.method,
                    url,
                    headers=request.headers.multi_items(),
                    data=body,
                    allow_redirects=False,
                    proxy=proxy_of(url),
                    trace_request_ctx=used,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The pool may hold several dead ones; a new connection ends this.
                if not used.before or time() - began > DEAD_WITHIN_S:
                    raise

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _noting_reuse() -> aiohttp.TraceConfig:
    """Notes in a request's `trace_request_ctx` that its connection was used before."""

    async def reused(_session: object, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.before = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(reused)
    return config


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__

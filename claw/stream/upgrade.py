"""From a ticket to an open WebSocket.

One request, whose answer is 101 or an error: a redirect is told and not followed, since it would take us to an address
that nobody has judged.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from yarl import URL

from claw.errors import HandshakeError
from claw.http_client import describe_failure
from claw.proxy import proxy_of
from claw.stream.gateway import Registration

HANDSHAKE_TIMEOUT_S: Final = 5.0
FRAME_MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of one frame, the most that any client is known to accept (docs/protocol.md section 1.4)."""

_WS_TO_HTTP: Final = {"ws": "http", "wss": "https"}


async def upgrade(
    http: aiohttp.ClientSession, registration: Registration, *, timeout: float, close_timeout: float
) -> aiohttp.ClientWebSocketResponse:
    """Upgrade to a WebSocket within `timeout` seconds. Raises HandshakeError; the ticket is used up either way."""
    url = URL(registration.url.reveal(), encoded=True)
    # aiohttp looks for WSS_PROXY where a wss address is given; as https the usual HTTPS_PROXY and NO_PROXY hold.
    url = url.with_scheme(_WS_TO_HTTP.get(url.scheme, url.scheme))
    # `ws_connect` follows redirects and has no switch for it, a session of its own has. The connector stays `http`'s.
    once = aiohttp.ClientSession(
        connector=http.connector,
        connector_owner=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=http.headers,
        middlewares=[_refuse_redirect],
    )
    try:
        async with asyncio.timeout(timeout), once:
            return await once.ws_connect(
                url,
                autoclose=False,
                autoping=False,
                heartbeat=None,
                proxy=proxy_of(url),
                max_msg_size=FRAME_MAX_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=close_timeout),
            )
    except TimeoutError:
        raise HandshakeError("the endpoint did not upgrade in time") from None
    except aiohttp.WSServerHandshakeError as error:
        raise HandshakeError(
            f"the endpoint refused the upgrade with HTTP {error.status}", status=error.status
        ) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise HandshakeError(f"the endpoint cannot be reached ({describe_failure(error)})") from None


async def _refuse_redirect(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise HandshakeError(
            f"the endpoint answered the upgrade with a redirect to {_host_of(response)}, which is not followed (HTTP "
            f"{response.status})",
            status=response.status,
        )
    return response


def _host_of(response: aiohttp.ClientResponse) -> str:
    """Name where a redirect leads to, by its host only: the rest may hold a ticket."""
    try:
        return (response.url.join(URL(response.headers.get("Location", ""))).host or "nowhere")[:100]
    except ValueError:
        return "nowhere"

"""Small things that all HTTP handlers of the emulator share: error bodies, reading JSON, hanging for good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import LooseHeaders

BAD_GATEWAY_HTML: Final = (
    "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
)
NO_OBJECT: Final = "the body is not a JSON object"
POLL_INTERVAL_S: Final = 0.2
"""Between two looks whether the peer of a hanging request is still there."""
KNOWN_ERRORS: Final = {
    400: ("invalidParameter", "参数错误"),
    401: ("InvalidAuthentication", "不合法的access_token"),
    # Too fast, over the quota and not permitted are all 403: a client has to look at the code.
    403: (
        "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi",
        "您的企业应用调用钉钉开放平台当前接口的所有请求都被暂时禁用了",
    ),
    404: ("InvalidAction.NotFound", "Specified api is not found, please check your url and method."),
    429: ("Throttling", "request is throttled"),
    500: ("system.error", "系统错误"),
    503: ("ServiceUnavailable", "service is busy"),
    504: ("gateway.timeout", "gateway timeout"),
}
"""By status: `code` and `message` where nothing better is known (docs/protocol.md section 1.3 and 6.6)."""


def reply_json(body: Any, *, status: int = 200, headers: LooseHeaders | None = None) -> web.Response:
    return web.Response(
        # The real one sends Chinese as it is: a client that guesses the charset has to fail here, too.
        body=json.dumps(body, ensure_ascii=False).encode(),
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )


class RefusedError(Exception):
    """A call that is refused as api.dingtalk.com refuses it; what is left empty follows from the status."""

    def __init__(
        self,
        status: int,
        code: str = "",
        message: str = "",
        *,
        headers: LooseHeaders | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """`detail`: fields that stand in the body beside them."""
        super().__init__(status, code, message)
        known_code, known_message = KNOWN_ERRORS.get(status, ("unknownError", "unknown error"))
        self.status = status
        self.code = code or known_code
        self.message = message or code or known_message
        self.headers = headers
        self.detail = detail or {}

    def reply(self) -> web.Response:
        """Reply the error; `requestid` is in lower case (docs/protocol.md section 1.3)."""
        body = {"requestid": str(uuid.uuid4()).upper(), "code": self.code, "message": self.message, **self.detail}
        return reply_json(body, status=self.status, headers=self.headers)


def reply_html(status: int = 502) -> web.Response:
    return web.Response(text=BAD_GATEWAY_HTML, status=status, content_type="text/html")


async def read_json(request: web.Request) -> dict[str, Any] | None:
    """Read the body as a JSON object; None if it is anything else, or never came whole."""
    try:
        # RecursionError: thousands of brackets are no syntax error to Python. ConnectionError: the body was cut off.
        body = json.loads(await request.read())
    except (ValueError, RecursionError, ConnectionError):
        return None
    return body if isinstance(body, dict) else None


def as_text(value: Any) -> str:
    """Read a field that has to be a string; anything else counts as missing."""
    return value if isinstance(value, str) else ""


def is_gone(request: web.Request) -> bool:
    """Say whether the peer has closed its connection."""
    return request.transport is None or request.transport.is_closing()


class Hangs:
    """Requests that are never answered; they end with their peer or with the emulator."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    async def hang(self, request: web.Request) -> web.Response:
        """Wait until the peer has gone or the emulator stops, then end the connection without an answer."""
        # Polled, since a handler that neither reads nor writes is not told that its peer has gone.
        while not self._stopping.is_set() and not is_gone(request):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), POLL_INTERVAL_S)
        # With an answer, even a late one, the client would count a failure; it has to find its own timeout.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def sleep(self, seconds: float, request: web.Request | None = None) -> None:
        """Sleep, but not longer than the emulator lives, nor than the request's peer is there."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stopping.is_set():
            if request is not None and is_gone(request):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), left if request is None else min(left, POLL_INTERVAL_S))

    def open(self) -> None:
        self._stopping = asyncio.Event()  # A new one: the emulator may have been started in another loop before.

    def close(self) -> None:
        # Whoever sleeps or hangs wakes at once: stopping an emulator must not take as long as its slowest fault.
        self._stopping.set()


def reset_transport(transport: asyncio.Transport | None) -> None:
    """End a TCP connection with RST instead of FIN."""
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        # Lingering for no time makes the kernel send RST and drop what is unsent, as a NAT that lost its table does;
        # abort alone ends with FIN, which a client takes for a polite end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()

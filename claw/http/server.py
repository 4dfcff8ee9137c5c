"""The HTTP surface for orchestrators and operators (DESIGN section 4).

Order of events for a request: its path names the route, or 404; the administrator's routes do not exist without a
token; then the method, or 405; then the bearer, or 401; then the route's answer, as JSON. Nothing of a request but its
line and headers is read. No answer tells a version or a stack: what fails is logged here and answered
with 500. Connections are few, short-lived and bounded, since this port may be open to more than probes.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import inspect
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from aiohttp import web

from claw.errors import SettingsError
from claw.http.health import Health, Report
from claw.secret import Secret

KEEPALIVE_S: Final = 15.0
"""Seconds that a connection may be idle, or take for its first request's headers."""
LINGER_S: Final = 1.0
"""Seconds for which an unwanted body is thrown away, so that its sender can read the answer."""
SHUTDOWN_S: Final = 0.5
"""Seconds that a running answer gets when we stop, and again when it is cancelled."""
CONNECTIONS_MAX: Final = 256
"""Open connections; one more closes the oldest, so that a flood of idle ones keeps no probe out."""
BODY_MAX: Final = 1024
"""Bytes that a request may say its body has; no route reads any."""
HEADERS_MAX: Final = 64

log: Final = logging.getLogger(__name__)


class Scope(StrEnum):
    """What `POST /restart` replaces."""

    STREAM = "stream"
    """The connections, make-before-break."""
    PROCESS = "process"
    """Everything: drain, then exit 75."""


StatusCall = Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]


class _Route(NamedTuple):
    methods: tuple[str, ...]
    answer: Callable[[web.BaseRequest], Awaitable[web.Response]]
    admin: bool = False


def _json(status: int, body: Mapping[str, Any], **headers: str) -> web.Response:
    # Surrogates, which UTF-8 cannot hold, become the escapes that JSON has for them.
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
    response = web.Response(status=status, body=data, content_type="application/json", charset="utf-8")
    response.headers.update(
        {"Server": "claw", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        | {name.replace("_", "-"): value for name, value in headers.items()}
    )
    return response


class Server:
    """Listens from `start` to `stop`.

    `on_restart` begins what was asked for and returns at once; False: a restart is running already. `status` gives
    the body of /status.
    """

    def __init__(
        self,
        host: str,
        port: int,
        health: Health,
        *,
        admin_token: Secret,
        on_restart: Callable[[Scope], bool],
        status: StatusCall,
    ) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._token = admin_token.reveal().encode("utf-8", "surrogateescape")
        self._on_restart = on_restart
        self._status = status
        self._runner: web.ServerRunner | None = None
        self._door: asyncio.Server | None = None
        alive = _Route(("GET", "HEAD"), self._alive)
        ready = _Route(("GET", "HEAD"), self._ready)
        self._routes: Final = {
            "/health": alive,
            "/livez": alive,
            "/healthz": alive,
            "/ready": ready,
            "/readyz": ready,
            "/status": _Route(("GET", "HEAD"), self._told, admin=True),
            "/restart": _Route(("POST",), self._restart, admin=True),
        }

    async def start(self) -> None:
        """Listen. Raises SettingsError, naming the variable at fault, where the address cannot be had."""
        listener = _Listener(self._answer)
        runner = web.ServerRunner(listener, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            self._door = await asyncio.get_running_loop().create_server(listener, self._host, self._port)
        except OSError as error:
            await runner.cleanup()
            raise SettingsError([self._unusable(error)]) from error
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        log.info("listening", extra={"host": self._host, "port": self.port})

    def _unusable(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return f"PORT: {self._port} is in use by another process"
        if error.errno in {errno.EACCES, errno.EPERM}:
            return f"PORT: {self._port} may not be opened by this user; ports from 1024 on may"
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            return f"HOST: {self._host!r} is no address of this machine"
        cause = error.strerror or type(error).__name__
        return f"HOST, PORT: {self._host!r}, {self._port} cannot be listened on ({cause})"

    @property
    def port(self) -> int:
        """The port in use, which differs from the one asked for where that was 0."""
        return int(self._door.sockets[0].getsockname()[1]) if self._door else self._port

    async def stop(self) -> None:
        """Close the port and all connections; a running answer gets a moment to end."""
        runner, self._runner = self._runner, None
        door, self._door = self._door, None
        if runner is None or door is None:
            return
        # asyncio loses a connection, and leaves its socket open, that was accepted in the very turn of the loop in
        # which its server closes (CPython issue 109564). So first nothing is accepted any more, for one turn.
        loop = asyncio.get_running_loop()
        for listening in door.sockets:
            loop.remove_reader(listening)
        try:
            await asyncio.sleep(0)
        finally:
            door.close()
            await runner.cleanup()

    # --- one request ---------------------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        try:
            return await self._routed(request)
        except asyncio.CancelledError:
            raise
        except Exception:
            # The path is the asker's text, and may hold anything: it is not logged.
            log.exception("a request failed")
            return _json(500, {"error": "internal"})

    async def _routed(self, request: web.BaseRequest) -> web.Response:
        route = self._routes.get(request.path)
        if route is None or (route.admin and not self._token):
            return _json(404, {"error": "not found"})
        if request.method not in route.methods:
            return _json(405, {"error": "method not allowed"}, Allow=", ".join(route.methods))
        if route.admin and not self._allowed(request):
            log.warning("a request without the right token was refused", extra={"remote": request.remote})
            return _json(401, {"error": "unauthorized"}, WWW_Authenticate="Bearer")
        if (request.content_length or 0) > BODY_MAX:
            return _json(413, {"error": "no body is expected"})
        return await route.answer(request)

    def _allowed(self, request: web.BaseRequest) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self._token) and scheme.lower() == "bearer"

    @staticmethod
    def _reported(report: Report) -> web.Response:
        return _json(200 if report.ok else 503, report.to_json())

    async def _alive(self, _: web.BaseRequest) -> web.Response:
        return self._reported(self._health.liveness())

    async def _ready(self, _: web.BaseRequest) -> web.Response:
        return self._reported(await self._health.readiness())

    async def _told(self, _: web.BaseRequest) -> web.Response:
        status = self._status()
        return _json(200, await status if inspect.isawaitable(status) else status)

    async def _restart(self, request: web.BaseRequest) -> web.Response:
        asked = request.query.getall("scope", [Scope.STREAM.value])
        if len(asked) != 1 or asked[0] not in set(Scope):
            return _json(400, {"error": "unknown scope", "scopes": [scope.value for scope in Scope]})
        scope = Scope(asked[0])
        if not self._on_restart(scope):
            return _json(409, {"error": "a restart is running"})
        log.warning("restart accepted", extra={"scope": scope.value, "remote": request.remote})
        return _json(202, {"status": "accepted", "scope": scope.value})


# --- the wire ----------------------------------------------------------------------------------------------


class _Connection(web.RequestHandler):
    """aiohttp's connection, whose answer to what is no HTTP tells neither a version nor the asker's text."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # Anybody can send garbage as often as they like: it is no event for the log.
        log.debug("a request could not be read", extra={"remote": request.remote, "cause": type(exc).__name__})
        response = _json(status, {"error": "bad request" if status < 500 else "internal"})
        response.force_close()
        return response


class _Listener(web.Server):
    """aiohttp's low-level server with connections of ours, and no more than CONNECTIONS_MAX of them."""

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            max_headers=HEADERS_MAX,
            access_log=None,  # type: ignore[arg-type] # None is documented and means none
            auto_decompress=False,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        # Those that were closed but have not said goodbye yet count no more.
        living = [each for each in self.connections if each.connected]
        if len(living) > CONNECTIONS_MAX:
            living[0].force_close()

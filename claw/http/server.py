"""The HTTP server for orchestrators and operators (docs/architecture.md).

Order of events for a request: the router finds its route, else the answer is 404 or 405. An administrator's route
wants the bearer token, else 401, later and later for who guesses (guesses.py); without a token in the settings such
routes do not exist. A body that is too long is refused with 413. Then the route answers; each module of this room makes
its own by `routes()`. Every error is JSON. No answer tells a version or a stack: what fails is logged here and answered
with 500.

Connections are few, short-lived and bounded, since this port may be open to more than probes. Where there are too many,
whoever holds the most of them loses one.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from claw.clock import Clock
from claw.errors import SettingsError
from claw.http.guesses import GuessLimiter, client_of
from claw.http.responses import HEADERS, ApiError
from claw.language import Bilingual
from claw.observe.redact import register
from claw.secret import Secret

KEEPALIVE_S: Final = 15.0
"""Seconds that a connection may be idle, or take for its first request's headers."""
LINGER_S: Final = 1.0
"""Seconds for which an unwanted body is thrown away, so that its sender can read the answer."""
SHUTDOWN_S: Final = 0.5
"""Seconds that a running answer gets when we stop, and again when it is cancelled."""
CONNECTIONS_MAX: Final = 256
"""Open connections; one more closes the oldest of the client that holds the most: a flood keeps no probe out."""
BACKLOG: Final = 512
"""Connections that the kernel completes before we take them: a flood that fills it makes a probe wait for a second."""
BODY_MAX_BYTES: Final = 1024
HEADERS_MAX: Final = 64
ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 - a container's probes come from outside of it

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log: Final = logging.getLogger(__name__)


class Server:
    """Listens from `start` to `stop`; it cannot be started again.

    `public` routes answer everybody. `admin` routes want what `admin_token` gives, and do not exist where that is empty
    at the start. It is asked for each of their requests, in a thread: a token's file may be changed while we run.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        public: Iterable[web.AbstractRouteDef],
        admin: Iterable[web.AbstractRouteDef] = (),
        admin_token: Callable[[], Secret],
        body_limits: Mapping[str, int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        # An address of IPv6 may come as in a URL.
        self._host = host.strip("[]")
        self._port = port
        self._body_limits = dict(body_limits or {})
        """Bytes that bodies may have, by the paths of the routes that take more than BODY_MAX_BYTES."""
        self._admin = list(admin)
        self._read_token = admin_token
        self._guesses = GuessLimiter(clock)
        self._known_token = Secret("")
        self._reading = asyncio.Lock()
        self._app = web.Application(
            # The first one stands outermost: what the others raise becomes JSON too.
            middlewares=[_render_errors, self._require_token, self._limit_body],
            client_max_size=BODY_MAX_BYTES,
        )
        self._app.on_response_prepare.append(_set_headers)
        # By exception, so that a route that somebody forgets to sort wants the token.
        self._public = frozenset(route.resource for route in self._app.add_routes(public))
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises SettingsError, naming the variable at fault, where the address cannot be had."""
        # Without a token such routes are not even made: their absence must look like any other path's.
        if await self._current_token():
            self._app.add_routes(self._admin)
        runner = web.AppRunner(self._app, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            # Not by web.TCPSite: the connections are ours.
            self._listener = await self._listen(lambda: _Connection(runner))
        except OSError as error:
            await runner.cleanup()
            raise SettingsError([self._explain(error)]) from error
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        log.info("listening", extra={"host": self._host, "port": self.port})

    async def _listen(self, make_connection: Callable[[], _Connection]) -> asyncio.Server:
        """Listen on `host`, which is both families where it is `::`. Raises OSError."""
        loop = asyncio.get_running_loop()
        if not _is_any_ipv6(self._host):
            return await loop.create_server(make_connection, self._host, self._port, backlog=BACKLOG)
        both = _open_dual_stack(self._port)
        if both is None:
            log.warning("this machine has no IPv6, listening on IPv4 only", extra={"host": self._host})
            return await loop.create_server(make_connection, ANY_IPV4, self._port, backlog=BACKLOG)
        try:
            return await loop.create_server(make_connection, sock=both, backlog=BACKLOG)
        except BaseException:
            both.close()
            raise

    def _explain(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return Bilingual(f"PORT: {self._port} is in use by another process", f"PORT：{self._port} 已被别的进程占用")
        if error.errno in {errno.EACCES, errno.EPERM}:
            en = f"PORT: {self._port} may not be opened by this user; ports from 1024 on may"
            return Bilingual(en, f"PORT：当前用户无权打开 {self._port}；1024 及以上的端口可以")
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            return Bilingual(
                f"HOST: {self._host!r} is no address of this machine", f"HOST：{self._host!r} 不是本机地址"
            )
        cause = error.strerror or type(error).__name__
        where = f"{self._host!r}, {self._port}"
        return Bilingual(
            f"HOST, PORT: {where} cannot be listened on ({cause})", f"HOST、PORT：无法监听 {where}（{cause}）"
        )

    @property
    def port(self) -> int:
        """The port in use, which differs from the one asked for where that was 0."""
        return int(self._listener.sockets[0].getsockname()[1]) if self._listener else self._port

    async def stop(self) -> None:
        """Close the port and all connections; a running answer gets a moment to end."""
        # Taken first, so that a second `stop`, or one before `start`, finds nothing to do.
        runner, self._runner = self._runner, None
        listener, self._listener = self._listener, None
        if runner is None or listener is None:
            return
        # asyncio loses a connection, and leaves its socket open, that was accepted in the very turn of the loop in
        # which its server closes (CPython issue 109564). So first nothing is accepted any more, for one turn.
        loop = asyncio.get_running_loop()
        for listening in listener.sockets:
            loop.remove_reader(listening)
        try:
            await asyncio.sleep(0)
        finally:
            listener.close()
            await runner.cleanup()

    @web.middleware
    async def _require_token(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        # No resource: nothing has this path, or not with this method. That is said to everybody.
        if resource is not None and resource not in self._public:
            # Before the token is read: what is refused here costs neither a thread nor a comparison.
            self._guesses.admit(request.remote)
            if not await self._is_authorized(request):
                await self._guesses.punish(request.remote)
            self._guesses.forget(request.remote)
        return await handler(request)

    @web.middleware
    async def _limit_body(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a body by its declared length, before any of it is read; one without is bounded as it is read."""
        resource = request.match_info.route.resource
        most = self._body_limits.get(resource.canonical if resource is not None else "", BODY_MAX_BYTES)
        if (request.content_length or 0) > most:
            raise _too_large(most)
        return await handler(request if most == BODY_MAX_BYTES else request.clone(client_max_size=most))

    async def _is_authorized(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        # Bytes as they come in a header: `compare_digest` takes no text beyond ASCII.
        given = token.strip().encode("utf-8", "surrogateescape")
        right = (await self._current_token()).reveal().encode("utf-8", "surrogateescape")
        # Compared first, so that the time of an answer tells nothing of the token. An empty one opens nothing.
        return hmac.compare_digest(given, right) and scheme.lower() == "bearer" and bool(right)

    async def _current_token(self) -> Secret:
        # One reading at a time: a flood of guesses must not take the threads that others wait for.
        async with self._reading:
            token = await asyncio.to_thread(self._read_token)
            if token != self._known_token:
                # Before anybody can use it, hence before it can come into any line.
                register(token)
                self._known_token = token
            return token


def _is_any_ipv6(host: str) -> bool:
    """Say whether `host` is `::`, in any spelling."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 6 and address.is_unspecified


def _open_dual_stack(port: int) -> socket.socket | None:
    """Return a socket that listens on both families; None where this machine has no IPv6. Raises OSError."""
    try:
        # Not by asyncio, which makes its sockets of IPv6 deaf to IPv4, whatever the system's default is.
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except ValueError:
        return None
    except OSError as error:
        # A kernel with IPv6 compiled in and switched off fails only here.
        if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            return None
        raise


@web.middleware
async def _render_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with JSON whatever a route or the router raises."""
    try:
        return await handler(request)
    except ApiError as error:
        return error.to_response()
    except web.HTTPException as error:
        # Redirects are raised too, and are no errors.
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _translate(error).to_response()
    except Exception:
        # The path is the asker's text, and may hold anything: it is not logged.
        log.exception("a request failed")
        return ApiError(500, "internal", "internal error").to_response()


def _translate(error: web.HTTPException) -> ApiError:
    """Return what aiohttp's error is in our words: its own text may repeat the asker's."""
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = {str(hdrs.ALLOW): ", ".join(sorted(error.allowed_methods))}
            return ApiError(405, "method_not_allowed", "method not allowed", headers=allowed)
        case web.HTTPRequestEntityTooLarge():
            return _too_large()
        case _:
            status = HTTPStatus(error.status)
            return ApiError(status, status.name.lower(), status.phrase.lower())


def _too_large(most: int = BODY_MAX_BYTES) -> ApiError:
    return ApiError(413, "body_too_large", f"a body may have {most} bytes at most")


async def _set_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Complete what did not come from `json_response`: files, streams, aiohttp's own answers."""
    # Always: aiohttp has set its own by now, which names its version and Python's.
    response.headers["Server"] = HEADERS["Server"]
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


class _Connection(web.RequestHandler):
    """aiohttp's connection, silent about what is no HTTP, and one of CONNECTIONS_MAX at most."""

    def __init__(self, runner: web.AppRunner) -> None:
        server = runner.server
        if server is None:
            raise RuntimeError("the runner is not set up")
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            max_headers=HEADERS_MAX,
            # It would repeat the path, which is the asker's text.
            access_log=None,  # type: ignore[arg-type] # None is documented and means none
            # A compressed body could be small on the wire and huge in memory.
            auto_decompress=False,
        )
        self._server = server
        self.client = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Once, and not for each comparison below; a peer that has gone again already has no name any more.
        self.client = client_of(str((transport.get_extra_info("peername") or ("",))[0]))
        # Closed ones stay in the list until their last task has ended: they count no more.
        living = [each for each in self._server.connections if each.connected and isinstance(each, _Connection)]
        if len(living) > CONNECTIONS_MAX:
            held = Counter(each.client for each in living)
            # Whoever floods holds the most; of theirs the oldest, for a probe from the same address comes anew.
            next(each for each in living if held[each.client] == max(held.values())).abort()

    def abort(self) -> None:
        """Close at once: what a peer that never reads has not taken must not keep its socket open."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read, without a version or the asker's text."""
        # Anybody can send garbage as often as they like: it is no event for the log.
        log.debug("a request could not be read", extra={"remote": request.remote, "cause": type(exc).__name__})
        code = "bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal"
        response = ApiError(status, code, code.replace("_", " ")).to_response()
        # What follows garbage on the same connection cannot be read as requests any more.
        response.force_close()
        return response

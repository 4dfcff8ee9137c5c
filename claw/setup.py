"""Set-up without credentials: serves the operator's page alone, where a scan has DingTalk make the app.

Order of events: `main` opens the store, and looks there for what an earlier scan gave. Where there is nothing, the port
says in `/ready` what is missing, and the holder of the admin token begins a scan on the page (`POST /api/setup`). What
DingTalk gives is kept, durably, before anybody is told; then the port and the store close, and `claw run` goes on as
with any other credentials. A scan that ends without an app is told with its reason, and may be begun again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp import web

from claw import RELEASE
from claw.audit import API, AuditLog
from claw.checks import Check
from claw.clock import Clock
from claw.config.reader import load
from claw.config.settings import Credentials, Settings
from claw.credentials import ROBOT, CredentialGap, find_gap, keep, overlay, read_kept
from claw.dingtalk.registration import DeviceFlow, ScanCode, ScanEnd, ScanError, draw_image
from claw.errors import StoreError
from claw.http import page_files
from claw.http.health import Health
from claw.http.health import routes as health_routes
from claw.http.responses import json_response
from claw.http.server import Server
from claw.http_client import http_session
from claw.language import Bilingual
from claw.observe import logs
from claw.store.open import open_for_serving
from claw.store.ports import Store

STORE_RETRY_S: Final = 2.0
"""Seconds before a store that failed is asked again."""
LAST_LOOK_S: Final = 2.5
"""Seconds for which the page is still served after a scan: a little more than the page takes between two looks."""
MISSING: Final = Bilingual(
    "no credentials of a DingTalk app: open / of this port in a browser, enter CLAW_ADMIN_TOKEN, and scan the code;"
    " or set DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET",
    "还没有钉钉应用的凭证：在浏览器里打开本端口的 /，输入 CLAW_ADMIN_TOKEN，扫码创建；"
    "或设置 DINGTALK_CLIENT_ID 和 DINGTALK_CLIENT_SECRET",
)

T = TypeVar("T")

log: Final = logging.getLogger(__name__)


class SetupState(StrEnum):
    """Where the set-up stands; the page has a word for each."""

    STORE = "store"
    """The store has not told yet whether an earlier scan is kept there."""
    WAITING = "waiting"
    """Nobody scans."""
    STARTING = "starting"
    """DingTalk has been asked for a code."""
    SCANNING = "scanning"
    KEEPING = "keeping"
    """The app is made; its credentials are being kept."""
    DONE = "done"


_NEXT: Final[Mapping[SetupState, frozenset[SetupState]]] = {
    SetupState.STORE: frozenset({SetupState.WAITING, SetupState.DONE}),
    SetupState.WAITING: frozenset({SetupState.STARTING}),
    SetupState.STARTING: frozenset({SetupState.SCANNING, SetupState.WAITING}),
    SetupState.SCANNING: frozenset({SetupState.KEEPING, SetupState.WAITING}),
    SetupState.KEEPING: frozenset({SetupState.DONE}),
    SetupState.DONE: frozenset(),
}


@dataclass(frozen=True)
class _Code:
    code: ScanCode
    image: str
    expires_at: float
    """By the monotonic clock."""


class Setup:
    """One set-up, from a start without credentials until there are some."""

    def __init__(self, store: Store, gap: CredentialGap, http: aiohttp.ClientSession, endpoint: str) -> None:
        self._clock = Clock()
        self._store = store
        self._gap = gap
        self._flow = DeviceFlow(http, endpoint, self._clock)
        self._audit = AuditLog(store, self._clock)
        self._state = SetupState.STORE
        self._since = self._clock.wall()
        self._begun_at = self._clock.monotonic()
        self._code: _Code | None = None
        self._end: ScanError | None = None
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None
        self.found: asyncio.Future[Credentials] = asyncio.get_running_loop().create_future()
        """Done when there are credentials, and they are kept."""

    def transition(self, state: SetupState) -> None:
        """Go on to `state`; whatever else it may be, it is not reached by a way that does not exist."""
        if state not in _NEXT[self._state]:
            raise ValueError(f"{self._state} -> {state}")
        self._state, self._since = state, self._clock.wall()

    # --- what is kept --------------------------------------------------------------------------------------------

    async def find(self) -> None:
        """Look for what an earlier scan gave, until the store answers."""
        # Nobody scans before it has: a second app would be made beside one that is there.
        kept = await self._insist(lambda: read_kept(self._store))
        if kept is None:
            self.transition(SetupState.WAITING)
            log.warning("no credentials: the page waits for a scan", extra={"remedy": MISSING})
            return
        self.transition(SetupState.DONE)
        self.found.set_result(kept)

    async def _keep(self, credentials: Credentials) -> None:
        """Keep what DingTalk gave: it is given once, so that no outage of the store may lose it."""
        place = await self._insist(lambda: keep(credentials, self._gap, self._store))
        await self._audit.note(API, "setup", credentials.client_id, place)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the store until it answers."""
        while True:
            try:
                answer = await ask()
            except StoreError as error:
                if str(error) != self._trouble:
                    log.warning("set-up waits for the store", extra={"cause": str(error)})
                self._trouble = str(error)
            else:
                self._trouble = ""
                return answer
            await self._clock.sleep(STORE_RETRY_S)

    # --- the scan ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a scan, unless one runs or is over: two people at two pages see the same code."""
        # No await between this look and the new state: two requests in the same moment cannot both begin one.
        if self._state is not SetupState.WAITING:
            return
        self._end = None
        self.transition(SetupState.STARTING)
        self._task = asyncio.create_task(self._scan(), name="claw.setup.scan")

    async def _scan(self) -> None:
        try:
            app = await self._flow.run(self._show, lambda left: None)
        except ScanError as error:
            log.warning("the scan ended without an app", extra={"reason": error.reason.value, "cause": error.detail})
            self._end_without_app(error)
            return
        # Whatever it is: a set-up that no longer offers a scan would have to be restarted by hand.
        except Exception:
            log.exception("the scan failed")
            self._end_without_app(ScanError(ScanEnd.FAULT))
            return
        # The code has done its work: a page that is loaded now must not offer it for another scan.
        self._code = None
        self.transition(SetupState.KEEPING)
        credentials = Credentials(app.client_id, app.secret)
        await self._keep(credentials)
        self.transition(SetupState.DONE)
        self.found.set_result(credentials)

    def _end_without_app(self, error: ScanError) -> None:
        self._code, self._end = None, error
        self.transition(SetupState.WAITING)

    def _show(self, code: ScanCode) -> None:
        self._code = _Code(code, draw_image(code.address), self._clock.monotonic() + code.expires_in)
        self.transition(SetupState.SCANNING)

    async def close(self) -> None:
        """End a scan that still runs: what nobody has agreed to by now is asked for anew at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- what is told --------------------------------------------------------------------------------------------

    def check(self) -> Check:
        """Return why messages are not answered yet, for `/ready`."""
        reason = f"the store does not answer: {self._trouble}" if self._trouble else MISSING.both
        return Check(ok=False, state=self._state.value, reason=reason, since=self._since)

    def to_json(self) -> dict[str, Any]:
        """Return what the page shows. The address in it is for the token's holder: whoever opens it gets the app."""
        code = self._code
        shown = None
        if code is not None:
            shown = {
                "address": code.code.address,
                "user_code": code.code.user_code,
                "image": code.image,
                "expires_in_s": max(0, round(code.expires_at - self._clock.monotonic())),
            }
        end = self._end
        return {
            "version": RELEASE,
            "uptime_s": round(self._clock.monotonic() - self._begun_at, 1),
            "setup": {
                "state": self._state.value,
                "code": shown,
                "ended": None if end is None else {"reason": end.reason.value, "detail": end.detail},
                "trouble": self._trouble,
            },
        }

    def routes(self) -> list[web.RouteDef]:
        """Make the administrator's routes."""

        async def get_status(_: web.Request) -> web.Response:
            return json_response(self.to_json())

        async def post_setup(_: web.Request) -> web.Response:
            self.begin()
            return json_response(self.to_json(), status=202)

        return [web.get("/status", get_status), web.post("/api/setup", post_setup)]


def main(environ: Mapping[str, str], settings: Settings, gap: CredentialGap) -> Settings | None:
    """Serve the page until there are credentials; return the settings with them, None when asked to stop.

    Raises SettingsError.
    """
    secrets = (settings.http.admin_token, settings.store.password)
    logs.configure(settings.logs.level, settings.logs.format, secrets, language=settings.logs.language)
    # asyncio puts the system's own handler back, and that one does nothing in a container's first process: a stop that
    # comes before the whole claw listens for one would be lost.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        credentials = asyncio.run(_run(settings, gap))
    finally:
        signal.signal(signal.SIGTERM, handler)
    if credentials is None:
        return None
    # A file that was written is read as one from now on: its secret may be changed there while we run.
    if find_gap(environ) is None:
        return load(environ)
    return load(overlay(environ, credentials.client_id, credentials.client_secret.reveal()))


async def _run(settings: Settings, gap: CredentialGap) -> Credentials | None:
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not stopping.done():
            stopping.set_result(None)

    # Before the store is opened, for which a predecessor may make us wait. The loop's end takes the handlers away.
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop)
    store = await open_for_serving(settings.store, ROBOT, Clock(), stopping)
    if store is None:
        return None
    try:
        async with http_session() as http:
            setup = Setup(store, gap, http, settings.dingtalk.oapi_endpoint)
            return await _serve(settings, setup, stopping)
    finally:
        await store.close()


async def _serve(settings: Settings, setup: Setup, stopping: asyncio.Future[None]) -> Credentials | None:
    health = Health(Clock())
    health.add("credentials", setup.check)
    server = Server(
        settings.http.host,
        settings.http.port,
        public=[*health_routes(health), *page_files.routes()],
        admin=setup.routes(),
        admin_token=settings.http.read_admin_token,
    )
    finding = asyncio.create_task(setup.find(), name="claw.setup.find")
    ends: list[asyncio.Future[Any]] = [setup.found, stopping]
    try:
        # Credentials of an earlier scan need no page: the port opens once, for the whole claw.
        await asyncio.wait([finding, stopping], timeout=STORE_RETRY_S, return_when=asyncio.FIRST_COMPLETED)
        if not setup.found.done() and not stopping.done():
            await server.start()
            health.start()
            log.info("set-up serves", extra={"version": RELEASE, "port": server.port})
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if setup.found.done():
                # The person who scanned looks at the page: it must hear that it worked.
                await asyncio.wait([stopping], timeout=LAST_LOOK_S)
        # What serves next has the same port: a probe that comes in between is refused, as at any start.
        health.drain()
        if stopping.done() or not setup.found.done():
            return None
        return setup.found.result()
    finally:
        finding.cancel()
        await asyncio.gather(finding, return_exceptions=True)
        await setup.close()
        await server.stop()
        await health.stop()

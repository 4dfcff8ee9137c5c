"""The composition root: builds each part, owns each named task, and takes the house down in order.

Order of events: logs, telemetry, store (opened and locked), HTTP surface, then worker and stream as tasks; the model's
library is loaded once the rest serves. On SIGTERM, SIGINT or `POST /restart?scope=process`: readiness says no, nothing
new is claimed, the sockets close after their pending acks, running turns get `CLAW_DRAIN_TIMEOUT`, the store closes,
telemetry is flushed. A second signal skips the waiting. An owned task that ends by itself is a fault: liveness fails,
and the process leaves with 70.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import aiohttp

from claw import RELEASE, __version__
from claw.checks import Check
from claw.clock import Clock
from claw.config.settings import EXIT_BAD_SETTINGS, Settings, complain
from claw.dingtalk.client import BILLABLE, Api, CallCounter, month_of
from claw.dingtalk.media import PictureLoader
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.webhook import WebhookClient
from claw.errors import SettingsError, StoreBusyError, StoreError, StoreSchemaError
from claw.http.health import Health
from claw.http.server import Scope, Server
from claw.http.status import Status
from claw.inbox.accept import Acceptance
from claw.inbox.worker import Worker
from claw.observe import logs, telemetry
from claw.reply.sender import AnswerSender
from claw.store.ports import Depth, Store
from claw.store.sqlite.store import SqliteStore
from claw.stream.cards import UnknownCards
from claw.stream.gateway import Gateway
from claw.stream.supervisor import Supervisor
from claw.turn.access import AccessControl
from claw.turn.commands.handlers import AdminActions, CommandHandlers
from claw.turn.handler import MessageHandler, remedy_of
from claw.turn.model.client import ModelClient

log: Final = logging.getLogger(__name__)

STORE_LOCK_PATIENCE_S: Final = 15.0
"""Seconds to wait for a predecessor that is still draining to let go of the store."""
JANITOR_EVERY_S: Final = 60.0
"""Seconds between two cleanings of the store and two savings of the call counts."""
LOOK_EVERY_S: Final = 5.0
BEGIN_PATIENCE_S: Final = 2.0
"""Seconds to wait for the owner's name before serving all the same: a store may be away for long."""
SWITCH_INTERVAL_S: Final = 0.0005
CLOSING_PATIENCE_S: Final = 2.0
"""Seconds beyond the drain that each closing step may take before it is left behind."""


class Exit(IntEnum):
    """What the process tells its orchestrator."""

    ASKED = 0
    INTERNAL = 70
    RESTART = 75
    SETTINGS = EXIT_BAD_SETTINGS


@dataclass(frozen=True)
class House:
    """The parts, built and not yet started."""

    store: Store
    door: AccessControl
    worker: Worker
    supervisor: Supervisor
    model: ModelClient
    calls: CallCounter
    health: Health
    server: Server


class App:
    """One claw: built from settings, run once."""

    def __init__(self, settings: Settings, on_serving: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._on_serving = on_serving
        self._clock = Clock()
        self._exit: asyncio.Future[Exit] | None = None
        self._depth = Depth(0, 0, 0, 0.0)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drain_task: asyncio.Task[None] | None = None

    async def run(self) -> Exit:
        """Serve until asked to stop; returns how the process should end. Raises SettingsError."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(logs.asyncio_exception_handler)
        leaving: asyncio.Future[Exit] = loop.create_future()
        self._exit = leaving
        with self._signals():
            store = await self._opened_store(leaving)
            if store is None:
                return leaving.result()
            try:
                async with http_session() as http:
                    return await self._serve(self._built(store, http), leaving)
            finally:
                await store.close()

    # --- building: conversations and worker need each other, hence the two small functions inside ---------------------

    async def _opened_store(self, leaving: asyncio.Future[Exit]) -> Store | None:
        """The store, opened; None where we were asked to stop while somebody else held it."""
        shown = self._settings.store.path if not self._settings.store.in_redis else self._settings.store.shown
        store = self._new_store()
        deadline = self._clock.monotonic() + STORE_LOCK_PATIENCE_S
        while True:
            try:
                await store.open()
            except StoreBusyError as error:
                if self._clock.monotonic() >= deadline:
                    raise SettingsError([f"CLAW_STORE_URL: {error}; each claw needs a store of its own"]) from None
                log.warning("another claw holds the store, waiting for it to end")
                await asyncio.wait([leaving], timeout=1.0)
                if leaving.done():
                    return None
            except StoreSchemaError as error:
                raise SettingsError([f"CLAW_STORE_URL: {error}; start the newer version"]) from None
            except StoreError as error:
                raise SettingsError([f"CLAW_STORE_URL: {shown} cannot be used: {error}"]) from None
            else:
                return store

    def _new_store(self) -> Store:
        settings = self._settings
        if not settings.store.in_redis:
            return SqliteStore(settings.store.path, clock=self._clock)
        from claw.store.redis.store import RedisStore  # noqa: PLC0415 - 10 MB and 0.2 s, only where Redis is used

        return RedisStore(settings.store.url, settings.dingtalk.client_id, clock=self._clock)

    def _built(self, store: Store, http: aiohttp.ClientSession) -> House:
        """Build each part, and hand it what it needs of the others."""
        settings = self._settings
        clock = self._clock
        dingtalk = settings.dingtalk
        calls = CallCounter(clock)
        endpoints = (dingtalk.openapi_endpoint, dingtalk.oapi_endpoint)
        openapi = OpenApiClient(http, dingtalk.openapi_endpoint, dingtalk.credentials, clock, calls)
        sender = AnswerSender(WebhookClient(http, endpoints, calls), openapi, settings.logs.language, clock)
        model = ModelClient(
            settings.model, history_kept_elsewhere=settings.conversation.history_turns == 0, clock=clock
        )

        async def figures() -> dict[str, object]:
            depth = await store.depth()
            counted_now = await counted(month_of(clock.wall()))
            return {
                "model": settings.model.name,
                "stream": supervisor.check().state,
                "pending": depth.pending - depth.leased,
                "turns": worker.running,
                "dead": depth.dead,
                "calls": sum(count for api, count in counted_now.items() if api in BILLABLE),
                "version": __version__,
            }

        async def counted(month: str) -> Mapping[str, int]:
            kept = Counter(await store.calls(month))
            kept.update(calls.peek().get(month, {}))
            return kept

        async def stopped(session: str) -> bool:
            return await worker.stop_anywhere(session)

        def restarted(scope: str) -> bool:
            return self._restart(Scope(scope), supervisor)

        door = AccessControl(settings.access, store, clock)
        levers = AdminActions(stopped, restarted, figures, settings.model.name)
        conversations = MessageHandler(
            settings.conversation,
            model=model,
            history=store,
            door=door,
            orders=CommandHandlers(door, store, store, levers, clock),
            language=settings.logs.language,
            pictures=PictureLoader(http, openapi, endpoints).of,
        )
        worker = Worker(
            store,
            settings.inbox,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            think=conversations.answer,
            apologise=conversations.apology,
            remedy=remedy_of,
            send=sender.send,
            clock=clock,
        )
        gateway = Gateway(http, dingtalk.openapi_endpoint, dingtalk.credentials, clock=clock)
        supervisor = Supervisor(
            settings.stream,
            gateway,
            http,
            Acceptance(store, settings.conversation.group_session),
            UnknownCards(clock).log,
            clock=clock,
        )

        async def store_check() -> Check:
            try:
                await store.check()
            except StoreError as error:
                return Check(ok=False, state="FAILING", reason=str(error))
            return Check(ok=True, state="OPEN")

        health = Health(clock)
        health.add("stream", supervisor.check)
        health.add("store", store_check)
        status = Status(
            settings,
            started_at=clock.wall(),
            stream=supervisor.status,
            depth=store.depth,
            turns=lambda: worker.running,
            calls=counted,
            dead=store.dead,
            free=set(Api) - BILLABLE,
            more={"access": door.report},
            clock=clock,
        )
        server = Server(
            settings.http.host,
            settings.http.port,
            health,
            admin_token=settings.http.admin_token,
            on_restart=lambda scope: self._restart(scope, supervisor),
            status=status,
        )
        telemetry.gauge("claw.stream.connected", "{session}", "Open sessions", lambda: supervisor.connected)
        telemetry.gauge("claw.inbox.depth", "{message}", "Messages not yet answered", lambda: self._depth.pending)
        telemetry.gauge("claw.inbox.oldest_age", "s", "Age of the oldest message", lambda: self._depth.oldest_age)

        return House(store, door, worker, supervisor, model, calls, health, server)

    # --- serving -------------------------------------------------------------------------------------------------

    async def _serve(self, house: House, leaving: asyncio.Future[Exit]) -> Exit:
        server, health = house.server, house.health
        beginning = asyncio.create_task(self._begin(house.door), name="beginning")
        try:
            done, _ = await asyncio.wait([beginning], timeout=BEGIN_PATIENCE_S)
            for task in done:
                task.result()
            await server.start()
            health.start()
            log.info(
                "claw serves", extra={"version": RELEASE, "port": server.port, "store": self._settings.store.shown}
            )
            self._own("worker", house.worker.run(), health)
            self._own("stream", house.supervisor.run(), health)
            self._own("janitor", self._clean_for_ever(house.store, house.calls), health)
            self._own("gauges", self._look_for_ever(house.store), health)
            warming = asyncio.create_task(self._warm(house.model), name="warming")
            if self._on_serving is not None:
                self._on_serving()
            code = await leaving
            health.drain()
            await self._drain(house.supervisor, house.worker)
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
            return code
        finally:
            health.drain()
            beginning.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(beginning, *self._tasks.values(), return_exceptions=True)
            await _within("call counts", _save_calls(house.store, house.calls))
            await _within("model", house.model.close())
            await _within("http surface", server.stop())
            await health.stop()

    async def _begin(self, door: AccessControl) -> None:
        """Say who can become the owner, as soon as the store tells whether there is one."""
        while True:
            try:
                return await door.begin()
            except StoreError as error:
                log.warning("owner not known yet", extra={"cause": str(error)})
            await self._clock.sleep(LOOK_EVERY_S)

    @staticmethod
    async def _warm(model: ModelClient) -> None:
        """Load what the first question needs, and take all that is loaded out of the garbage collector's rounds.

        Modules make up nearly all of our objects and never become garbage; walking over them held up acks for 30 ms.
        """
        await model.warm()
        gc.collect()
        gc.freeze()

    def _own(self, name: str, work: Coroutine[Any, Any, None], health: Health) -> None:
        """Start a task that must live as long as we do; its end before we leave is a fault that a restart cures."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        health.own(task)

        def ended(done: asyncio.Task[None]) -> None:
            if not done.cancelled():
                done.exception()  # Health has logged it.
            self._leave(Exit.INTERNAL)

        task.add_done_callback(ended)

    # --- leaving -------------------------------------------------------------------------------------------------

    def _leave(self, code: Exit) -> bool:
        """Begin to leave; False where we do so already."""
        if self._exit is None or self._exit.done():
            return False
        self._exit.set_result(code)
        return True

    def _restart(self, scope: Scope, supervisor: Supervisor) -> bool:
        if scope is Scope.PROCESS:
            return self._leave(Exit.RESTART)
        leaving = self._exit is None or self._exit.done()
        return not leaving and supervisor.replace()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for sign in signals:
            loop.add_signal_handler(sign, self._asked_to_stop, sign.name)
        try:
            yield
        finally:
            for sign in signals:
                loop.remove_signal_handler(sign)

    def _asked_to_stop(self, name: str) -> None:
        log.info("asked to stop", extra={"signal": name})
        if not self._leave(Exit.ASKED) and self._drain_task is not None:
            log.warning("asked again: running turns are given back at once")
            self._drain_task.cancel()

    async def _drain(self, supervisor: Supervisor, worker: Worker) -> None:
        """Stop the intake and let running turns end, both at the same time, within the drain's timeout."""
        log.info("draining", extra={"turns": worker.running})
        intake = asyncio.create_task(supervisor.drain(), name="drain-stream")
        self._drain_task = asyncio.create_task(worker.drain(self._settings.inbox.drain_timeout), name="drain-worker")
        try:
            await asyncio.wait([intake, self._drain_task])
        finally:
            intake.cancel()
            self._drain_task.cancel()
            await asyncio.gather(intake, self._drain_task, return_exceptions=True)

    # --- upkeep --------------------------------------------------------------------------------------------------

    async def _look_for_ever(self, store: Store) -> None:
        """Keep the figures that metrics export: their reader is a thread, which must not look into the store."""
        while True:
            with contextlib.suppress(StoreError):
                self._depth = await store.depth()
            await self._clock.sleep(LOOK_EVERY_S)

    async def _clean_for_ever(self, store: Store, calls: CallCounter) -> None:
        while True:
            await self._clock.sleep(JANITOR_EVERY_S)
            try:
                await _save_calls(store, calls)
                await store.clean()
            except StoreError as error:
                log.warning("store not cleaned", extra={"cause": str(error)})


def http_session() -> aiohttp.ClientSession:
    """The one client for DingTalk's HTTP and WebSocket, without cookies; its callers name the proxy (proxy.py)."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
        headers={"User-Agent": f"claw/{__version__}"},
    )


async def _save_calls(store: Store, calls: CallCounter) -> None:
    taken = calls.take()
    for month in list(taken):
        try:
            await store.add_calls(month, taken[month])
        except StoreError:
            calls.put_back(taken)
            raise
        del taken[month]


async def _within(what: str, closing: Coroutine[Any, Any, None]) -> None:
    """One closing step, bounded: a step that hangs or fails must not keep the others from closing."""
    try:
        async with asyncio.timeout(CLOSING_PATIENCE_S):
            await closing
    except Exception as error:  # noqa: BLE001 - every later step must still run
        log.warning("not closed in order", extra={"part": what, "cause": str(error) or type(error).__name__})


def serve(settings: Settings, run: Callable[[], Coroutine[Any, Any, Exit]] | None = None) -> int:
    """Run one claw (or what `run` makes around it) in this process to its end; returns the exit code."""
    secrets = (
        settings.dingtalk.client_secret,
        settings.model.api_key,
        settings.http.admin_token,
        settings.store.password,
    )
    logs.configure(settings.logs.level, settings.logs.format, secrets)
    for warning in settings.warnings:
        log.warning(warning)
    providers = telemetry.setup()
    # The store's thread needs the interpreter for microseconds at a time, several times for each commit, and an ack
    # waits for it: with CPython's 5 ms those turns add up to the whole of ack latency under load.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        return int(asyncio.run((run or App(settings).run)()))
    except SettingsError as error:
        complain(error)
        return int(Exit.SETTINGS)
    except Exception:
        log.critical("claw ended by a fault of its own", exc_info=True)
        return int(Exit.INTERNAL)
    finally:
        providers.shutdown()

"""The process: opens the store, owns each named task, and takes everything down in order.

Order of events: logs, telemetry, store (opened and locked), the parts (components.py), HTTP surface, then worker and
stream as tasks; the model's library is loaded once the rest serves. On SIGTERM, SIGINT or a restart of the process:
readiness says no, nothing new is claimed, the sockets close after their pending acks, running turns get
`CLAW_DRAIN_TIMEOUT`, the store closes, telemetry is flushed. A second signal skips the waiting. An owned task that
ends by itself is a fault: liveness fails, and the process leaves with 70.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from enum import IntEnum
from functools import partial
from typing import Any, Final

from claw import RELEASE
from claw.clock import Clock
from claw.components import Components, build
from claw.config.reader import print_problems
from claw.config.settings import EXIT_BAD_SETTINGS, Settings
from claw.dingtalk.quota import BillableCalls, CallCounter
from claw.errors import SettingsError, StoreError
from claw.http.admin import Scope
from claw.http.health import is_stuck
from claw.http_client import http_session
from claw.inbox.operator_alerts import AlertKind, Trouble
from claw.language import choose
from claw.observe import logs, telemetry
from claw.policy import Switch
from claw.store.open import open_for_serving
from claw.store.ports import Store
from claw.store.values import Depth

log: Final = logging.getLogger(__name__)

JANITOR_INTERVAL_S: Final = 60.0
"""Seconds between two cleanings of the store and two savings of the call counts."""
GAUGE_INTERVAL_S: Final = 5.0
"""Seconds between two looks into the store for what gauges export."""
ANNOUNCE_RETRY_DELAY_S: Final = 5.0
"""Seconds before a store that failed is asked for the owner again."""
ANNOUNCE_TIMEOUT_S: Final = 2.0
"""Seconds to wait for the owner's name before serving all the same: a store may be away for long."""
SWITCH_INTERVAL_S: Final = 0.0005
"""Seconds after which CPython may give the interpreter to another thread."""
CLOSING_TIMEOUT_S: Final = 2.0
"""Seconds beyond the drain that each closing step may take before it is left behind."""


class Exit(IntEnum):
    """What the process tells its orchestrator."""

    ASKED = 0
    INTERNAL = 70
    RESTART = 75
    SETTINGS = EXIT_BAD_SETTINGS


class App:
    """One claw: built from settings, run once."""

    _parts: Components
    """Set once all parts are built. What asks for it, such as a restart, comes later."""

    def __init__(self, settings: Settings, on_serving: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._on_serving = on_serving
        self._clock = Clock()
        self._exit: asyncio.Future[Exit] | None = None
        self._depth = Depth(0, 0, 0, 0.0)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drain_task: asyncio.Task[None] | None = None

    async def run(self) -> Exit:
        """Serve until asked to stop; return how the process should end. Raises SettingsError."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(logs.asyncio_exception_handler)
        leaving: asyncio.Future[Exit] = loop.create_future()
        self._exit = leaving
        # Before anything slow: a signal that comes while another claw holds the store must end the waiting.
        with self._signals():
            settings = self._settings
            store = await open_for_serving(settings.store, settings.dingtalk.client_id, self._clock, leaving)
            if store is None:
                return leaving.result()
            try:
                async with http_session() as http:
                    self._parts = build(self._settings, store, http, self._clock, self._restart)
                    self._register_gauges()
                    return await self._serve(leaving)
            finally:
                # Last, and after the session: what still runs until here may want to write.
                await store.close()

    # --- serving -------------------------------------------------------------------------------------------------

    async def _serve(self, leaving: asyncio.Future[Exit]) -> Exit:
        parts = self._parts
        announcing = asyncio.create_task(self._announce_pairing(), name="claw.app.announce_pairing")
        try:
            # Before the first message can come in, so that the log says who may become the owner before somebody does.
            done, _ = await asyncio.wait([announcing], timeout=ANNOUNCE_TIMEOUT_S)
            for task in done:
                task.result()
            await parts.surface.server.start()
            parts.health.start()
            extra = {"version": RELEASE, "port": parts.surface.server.port, "store": self._settings.store.shown}
            log.info("claw serves", extra=extra)
            self._own("claw.inbox.worker", parts.worker.run())
            self._own("claw.stream.supervisor", parts.supervisor.run())
            self._own("claw.reply.outbound", parts.reply.outbound.run())
            self._own("claw.app.fleet", parts.fleet.run())
            self._own("claw.app.janitor", self._clean_for_ever())
            self._own("claw.app.gauges", self._read_depth_for_ever())
            # Last: loading takes half a second, for which the first connection need not wait.
            warming = asyncio.create_task(self._warm_up(), name="claw.app.warm_up")
            if self._on_serving is not None:
                self._on_serving()
            code = await leaving
            # First of all: from here on a probe must not call us ready, and the end of an owned task is no fault.
            parts.health.drain()
            parts.surface.streams.drain()
            await self._drain()
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
            return code
        finally:
            await self._close(announcing)

    async def _close(self, announcing: asyncio.Task[None]) -> None:
        """Cancel what still runs, then close the parts: those that write first, the surface last."""
        parts = self._parts
        await _close_within("signs", parts.reply.outbound.close())
        parts.surface.streams.drain()
        # Also after a start that failed: from here on the end of an owned task is no fault.
        parts.health.drain()
        tasks = [announcing, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _close_within("call counts", _save_calls(parts.store, parts.calls))
        await _close_within("usage", parts.desks.usage.save())
        await _close_within("run mark", parts.desks.marks.end())
        await _close_within("model", parts.model.close())
        await _close_within("http surface", parts.surface.server.stop())
        await parts.health.stop()

    async def _announce_pairing(self) -> None:
        """Say who can become the owner, as soon as the store tells whether there is one."""
        while True:
            try:
                return await self._parts.access.announce_pairing()
            except StoreError as error:
                log.warning("owner not known yet", extra={"cause": str(error)})
            await self._clock.sleep(ANNOUNCE_RETRY_DELAY_S)

    async def _warm_up(self) -> None:
        """Load what the first question needs, and take all that is loaded out of the garbage collector's rounds.

        Modules make up nearly all of our objects and never become garbage; walking over them held up acks for 30 ms.
        """
        await self._parts.model.warm()
        gc.collect()
        gc.freeze()

    def _own(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that must live as long as we do; its end before we leave is a fault that a restart cures."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        # Logs the end at once, by the task's name, and fails liveness.
        self._parts.health.own(task)

        def leave(done: asyncio.Task[None]) -> None:
            if not done.cancelled():
                done.exception()  # Retrieved, or asyncio would log it a second time.
            self._leave(Exit.INTERNAL)

        task.add_done_callback(leave)

    # --- leaving -------------------------------------------------------------------------------------------------

    def _leave(self, code: Exit) -> bool:
        """Begin to leave; return False if we do so already."""
        # The first reason wins: tasks that end while we drain, and a signal after a restart, change no exit code.
        if self._exit is None or self._exit.done():
            return False
        self._exit.set_result(code)
        return True

    def _restart(self, scope: Scope) -> bool:
        if scope is Scope.PROCESS:
            return self._leave(Exit.RESTART)
        # A process that leaves closes its sockets: one that was opened now would be closed under its first message.
        leaving = self._exit is None or self._exit.done()
        return not leaving and self._parts.supervisor.replace()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for sign in signals:
            loop.add_signal_handler(sign, self._on_signal, sign.name)
        try:
            yield
        finally:
            for sign in signals:
                loop.remove_signal_handler(sign)

    def _on_signal(self, name: str) -> None:
        log.info("asked to stop", extra={"signal": name})
        if not self._leave(Exit.ASKED) and self._drain_task is not None:
            log.warning("asked again: running turns are given back at once")
            self._drain_task.cancel()

    async def _drain(self) -> None:
        """Stop the intake and let running turns end, both at the same time, within the drain's timeout."""
        supervisor, worker = self._parts.supervisor, self._parts.worker
        log.info("draining", extra={"turns": worker.running})
        # First: sessions wait for their pending acks, which must not wait for a store that is away.
        self._parts.accept.drain()
        intake = asyncio.create_task(supervisor.drain(), name="claw.app.drain_stream")
        timeout = self._settings.inbox.drain_timeout
        self._drain_task = asyncio.create_task(worker.drain(timeout), name="claw.app.drain_worker")
        try:
            await asyncio.wait([intake, self._drain_task])
        finally:
            intake.cancel()
            self._drain_task.cancel()
            await asyncio.gather(intake, self._drain_task, return_exceptions=True)

    # --- upkeep --------------------------------------------------------------------------------------------------

    def _register_gauges(self) -> None:
        supervisor = self._parts.supervisor
        telemetry.gauge("claw.stream.connected", "{session}", "Open sessions", lambda: supervisor.connected)
        telemetry.gauge("claw.inbox.depth", "{message}", "Messages not yet answered", lambda: self._depth.pending)
        telemetry.gauge("claw.inbox.oldest_age", "s", "Age of the oldest message", lambda: self._depth.oldest_age)
        health = self._parts.model.health
        telemetry.gauge("claw.model.up", "1", "1 if the model's server did its work when last asked", health.read_up)
        for quota in BillableCalls._fields:
            if not getattr(self._parts.reply.budget.quotas, quota):
                continue  # Unlimited.
            read_left = partial(self._parts.reply.budget.read_left, quota)
            telemetry.gauge("claw.budget.left", "{call}", "Calls left this month", read_left, {"quota": quota})
            read_limit = partial(getattr, self._parts.reply.budget.quotas, quota)
            telemetry.gauge("claw.budget.limit", "{call}", "Calls of a month", read_limit, {"quota": quota})
        telemetry.gauge("claw.inbox.stuck", "1", "1: messages wait, nobody works", lambda: is_stuck(self._depth))
        telemetry.gauge("claw.dead_letters", "{message}", "Messages that were given up", lambda: self._depth.dead)

    async def _read_depth_for_ever(self) -> None:
        """Keep the figures that metrics export: their reader is a thread, which must not look into the store."""
        parts = self._parts
        store_trouble = Trouble(AlertKind.STORE, parts.alerts, self._clock)
        # However short: messages are lost to the robot meanwhile, and DingTalk tells nobody.
        rejected = Trouble(AlertKind.REJECTED, parts.alerts, self._clock, lasted_s=0.0)
        is_marked = False
        while True:
            try:
                self._depth = await parts.store.depth()
                await parts.desks.book.refresh()
                # Not at the start: a store that is away then must not keep us from serving.
                if not is_marked:
                    await self._mark_running()
                    is_marked = True
                await store_trouble.note("")
            except StoreError as error:
                await store_trouble.note(str(error))
            # Between two tries the state is another: it is over when a session is there, and not before.
            if (cause := parts.supervisor.rejection) or parts.supervisor.connected:
                await rejected.note(cause)
            await self._clock.sleep(GAUGE_INTERVAL_S)

    async def _mark_running(self) -> None:
        """Mark this process as running, and tell of one that ended without a word. Raises StoreError."""
        marks, store = self._parts.desks.marks, self._parts.store
        left = [] if await marks.begin() else [socket.gethostname()]
        # Who shares the store is taken to live for some seconds after its last beat: that is the janitor's to find.
        if not store.shared:
            left += await marks.find_left()
        if left:
            await self._parts.alerts.tell(AlertKind.UNCLEAN_STOP, ", ".join(left))

    async def _clean_for_ever(self) -> None:
        while True:
            await self._clock.sleep(JANITOR_INTERVAL_S)
            try:
                await _save_calls(self._parts.store, self._parts.calls)
                await self._parts.desks.usage.save()
                if left := await self._parts.desks.marks.find_left():
                    await self._parts.alerts.tell(AlertKind.UNCLEAN_STOP, ", ".join(left))
                await self._parts.store.clean()
                await self._parts.reply.desk.end_orphans(self._parts.store.place)
                await self._parts.budget_alerts.check()
            except StoreError as error:
                log.warning("upkeep not finished: the store failed", extra={"cause": str(error)})


async def _save_calls(store: Store, calls: CallCounter) -> None:
    # Taken, so that a call that is counted while the store writes is neither lost nor saved twice.
    taken = calls.take()
    for month in list(taken):
        try:
            await store.add_calls(month, taken[month])
        except StoreError:
            calls.put_back(taken)
            raise
        del taken[month]


async def _close_within(what: str, closing: Coroutine[Any, Any, None]) -> None:
    """Run one closing step, bounded: a step that hangs or fails must not keep the others from closing."""
    try:
        async with asyncio.timeout(CLOSING_TIMEOUT_S):
            await closing
    except Exception as error:  # noqa: BLE001 - every later step must still run
        log.warning("not closed in order", extra={"part": what, "cause": str(error) or type(error).__name__})


def serve(settings: Settings, run: Callable[[], Coroutine[Any, Any, Exit]] | None = None) -> int:
    """Run one claw (or what `run` makes around it) in this process to its end; return the exit code."""
    secrets = (
        settings.dingtalk.client_secret,
        settings.model.api_key,
        settings.http.admin_token,
        settings.store.password,
    )
    logs.configure(settings.logs.level, settings.logs.format, secrets, language=settings.logs.language)
    for warning in settings.warnings:
        log.warning(choose(warning, settings.logs.language))
    providers = telemetry.setup(scraped=settings.http.metrics is Switch.ON)
    # The store's thread needs the interpreter for microseconds at a time, several times for each commit, and an ack
    # waits for it: with CPython's 5 ms those turns add up to the whole of ack latency under load.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        return int(asyncio.run((run or App(settings).run)()))
    except SettingsError as error:
        print_problems(error, settings.logs.language)
        return int(Exit.SETTINGS)
    except Exception:
        log.critical("claw ended by a fault of its own", exc_info=True)
        return int(Exit.INTERNAL)
    finally:
        providers.shutdown()

"""Health: whether a restart would help (liveness), and whether messages would be answered (readiness).

Order of events: `app` gives every task that must not end to `own`, and every part that can be unready to `add`.
`start` begins the watch on the event loop. Each probe asks `liveness` or `readiness`; the answers of checks are cached
for a moment, so that many probes cost as much as one. `drain` makes readiness false at once and for good; from then on
owned tasks may end. Liveness never depends on DingTalk, the model or the store: a restart cures none of them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web

from claw.checks import Check
from claw.clock import Clock, format_rfc3339
from claw.errors import ClawError, StoreError
from claw.http.responses import json_response
from claw.observe.redact import redact
from claw.store.ports import Store
from claw.store.values import Depth

CHECK_TIMEOUT_S: Final = 2.0
"""Seconds for one check; kubelet gives a probe 1 s by default, the chart sets 3 s."""
CACHE_S: Final = 0.2
"""Seconds for which a round of checks answers later probes too."""
STALL_S: Final = 30.0
"""Seconds without a turn of the event loop after which the threads' stacks are written."""
STALL_TICKS: Final = 30
"""Looks of the watchdog in that time."""
REASON_CHARS: Final = 300
"""Characters of a reason; a probe's answer is read in an event's one line."""

T = TypeVar("T")
CheckCall = Callable[[], Check | Awaitable[Check]]

log: Final = logging.getLogger(__name__)


def reason_of(error: BaseException) -> str:
    """Return an error as one short line without secrets, for readers who may not see our logs."""
    text = " ".join(redact(f"{type(error).__name__}: {error}").split()).removesuffix(":")
    return text if len(text) <= REASON_CHARS else text[: REASON_CHARS - 3] + "..."


class NoAnswerError(ClawError):
    """A part that was asked about itself failed, or took too long; `reason` may be shown to anybody."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def ask(call: Callable[[], T | Awaitable[T]], timeout: float) -> T:
    """Return what `call`, a plain or a coroutine function, says within `timeout` seconds. Raises NoAnswerError."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            answer = call()
            return await answer if inspect.isawaitable(answer) else answer
    except asyncio.CancelledError:
        # Either we are cancelled, or what the part waited for was: only the former is a wish to stop.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise NoAnswerError("what it waits for was cancelled") from None
    except Exception as error:
        reason = f"no answer within {timeout:g} s" if limit.expired() else reason_of(error)
        raise NoAnswerError(reason) from error


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a probe: `ok` decides between 200 and 503, `status` is its word."""

    ok: bool
    status: str
    checks: dict[str, Check]

    def to_json(self) -> dict[str, Any]:
        """Return the body of an answer (docs/architecture.md); every check has the same four fields."""
        return {
            "status": self.status,
            "checks": {
                name: {
                    "ok": check.ok,
                    "state": check.state,
                    # A check may quote an error; anybody may ask.
                    "reason": redact(check.reason),
                    "since": format_rfc3339(check.since),
                }
                for name, check in self.checks.items()
            },
        }


class Health:
    """What probes are told, and the watch on the loop. Belongs to one event loop."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        check_timeout: float = CHECK_TIMEOUT_S,
        stall_after: float = STALL_S,
    ) -> None:
        self._clock = clock or Clock()
        self._check_timeout = check_timeout
        self._checks: dict[str, CheckCall] = {}
        self._round = asyncio.Lock()
        self._cached: tuple[float, dict[str, Check]] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loss: Check | None = None
        self._serving_since = self._clock.wall()
        self._draining_since: float | None = None
        self._watchdog = _Watchdog(stall_after)

    def add(self, name: str, check: CheckCall) -> None:
        """Ask `check` at each readiness probe. It may be a coroutine function; a plain one must not block."""
        self._checks[name] = check
        # A probe that comes at once must not be answered without the new check.
        self._cached = None

    def own(self, task: asyncio.Task[Any]) -> None:
        """Fail liveness when `task` ends before `drain`: only a restart brings it back."""
        # Held by us as well: the loop keeps only weak references to tasks.
        self._tasks.add(task)
        task.add_done_callback(self._on_task_end)

    def _on_task_end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Asked for in any case: asyncio complains of errors that nobody fetched.
        error = None if task.cancelled() else task.exception()
        if self._draining_since is not None:
            if error is not None:
                log.warning("a task failed while draining", extra={"task": task.get_name()}, exc_info=error)
            return
        how = "was cancelled" if task.cancelled() else ("returned" if error is None else f"failed: {reason_of(error)}")
        log.critical("a task ended that must not end", extra={"task": task.get_name(), "how": how}, exc_info=error)
        # The first loss is kept: what falls later is mostly its consequence.
        self._loss = self._loss or Check(
            ok=False, state="LOST", reason=f"{task.get_name()} {how}", since=self._clock.wall()
        )

    def drain(self) -> None:
        """Make readiness false from now on, and let owned tasks end."""
        if self._draining_since is None:
            self._draining_since = self._clock.wall()

    def liveness(self) -> Report:
        """Report for `/health`; that it can be asked at all proves that the loop turns."""
        tasks = self._loss or Check(ok=True, state="RUNNING", since=self._serving_since)
        return Report(tasks.ok, "ok" if tasks.ok else "failing", {"tasks": tasks})

    async def readiness(self) -> Report:
        """Report for `/ready`. All checks run at the same time, and each ends within `check_timeout` seconds."""
        # A copy: the cached round is shared with other probes.
        checks = dict(await self._run_checks())
        if self._draining_since is None:
            checks["drain"] = Check(ok=True, state="SERVING", since=self._serving_since)
        else:
            checks["drain"] = Check(ok=False, state="DRAINING", reason="stopping", since=self._draining_since)
        ready = all(check.ok for check in checks.values())
        return Report(ready, "ready" if ready else "not ready", checks)

    async def _run_checks(self) -> dict[str, Check]:
        async with self._round:  # Whoever waits here finds the answers of the round before.
            if self._cached is None or self._clock.monotonic() - self._cached[0] >= CACHE_S:
                # A copy, since `add` may be called while these run.
                calls = dict(self._checks)
                answers = await asyncio.gather(*(self._ask(call) for call in calls.values()))
                # The time after the round, not before it: a slow one would be stale at once.
                self._cached = self._clock.monotonic(), dict(zip(calls, answers, strict=True))
            return self._cached[1]

    async def _ask(self, call: CheckCall) -> Check:
        try:
            return await ask(call, self._check_timeout)
        except NoAnswerError as error:
            return Check(ok=False, state="UNKNOWN", reason=error.reason)

    def start(self) -> None:
        """Watch the running loop from a thread."""
        self._watchdog.start()

    async def stop(self) -> None:
        """End the watch; without `start` this does nothing."""
        await self._watchdog.stop()


async def check_store(store: Store) -> Check:
    """Say whether the store takes writes, would be found again by a restart, and whether its messages are worked on.

    The last is more than the store's own fault: what was acked and is claimed by nobody is never answered, while
    everything else looks well.
    """
    try:
        await store.check()
        depth = await store.depth()
    except StoreError as error:
        return Check(ok=False, state="FAILING", reason=str(error))
    if is_stuck(depth):
        age = round(depth.oldest_age)
        reason = f"{depth.pending} messages wait, the oldest for {age} s, and nobody works on them"
        return Check(ok=False, state="STUCK", reason=reason)
    return Check(ok=True, state="OPEN")


def is_stuck(depth: Depth) -> bool:
    """Whether messages have waited for long and nobody works on any."""
    return bool(getattr(depth, "stuck", False))


def routes(health: Health) -> list[web.RouteDef]:
    """Make the routes of the probes, which answer everybody: `/health` and `/ready` with the aliases in use."""

    async def get_liveness(_: web.Request) -> web.Response:
        return _respond(health.liveness())

    async def get_readiness(_: web.Request) -> web.Response:
        return _respond(await health.readiness())

    return [
        *(web.get(path, get_liveness) for path in ("/health", "/livez", "/healthz")),
        *(web.get(path, get_readiness) for path in ("/ready", "/readyz")),
    ]


def _respond(report: Report) -> web.Response:
    return json_response(report.to_json(), status=200 if report.ok else 503)


class _Watchdog:
    """A thread that writes all threads' stacks, once for each stall of the loop, and never kills.

    It counts its own looks instead of comparing times: a process that was frozen as a whole (SIGSTOP, a throttled
    container) does not look either, hence has not stalled.
    """

    def __init__(self, stall_after: float) -> None:
        self._stall_after = stall_after
        self._interval = stall_after / STALL_TICKS
        # Written by the loop's thread only, read by ours: an int needs no lock for that.
        self._turns = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._pulse: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._stopped.clear()
        self._pulse = asyncio.create_task(self._beat(), name="claw.http.pulse")
        # A daemon: a thread that is stuck in a write must not keep the process alive.
        self._thread = threading.Thread(target=self._watch, name="claw.http.watchdog", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._stopped.set()
        if self._pulse is not None:
            # Cancelled and awaited here, so that no task is left when the loop closes.
            self._pulse.cancel()
            await asyncio.wait([self._pulse])
            self._pulse = None
        if self._thread is not None:
            # Long enough for a look; a thread that writes to a blocked stderr must not hold up the end.
            self._thread.join(timeout=1)
            self._thread = None

    async def _beat(self) -> None:
        while True:
            self._turns += 1
            # Twice per look, so that a healthy loop is never seen standing.
            await asyncio.sleep(self._interval / 2)

    def _watch(self) -> None:
        seen, looks = self._turns, 0
        while not self._stopped.wait(self._interval):
            if self._turns != seen:
                if looks >= STALL_TICKS:
                    log.warning("the event loop turns again", extra={"stalled_s": round(looks * self._interval, 1)})
                seen, looks = self._turns, 0
                continue
            looks += 1
            # Exactly once per stall: the stacks are long, and the next ones would be the same.
            if looks == STALL_TICKS:
                log.critical(
                    "the event loop does not turn", extra={"stalled_s": self._stall_after, "stacks": _read_stacks()}
                )


def _read_stacks() -> dict[str, str]:
    """Return every thread's stack by the thread's name: code only, no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    # Without ours, which only ever stands here.
    own = threading.get_ident()
    return {
        f"{names.get(ident, 'unknown')} ({ident})": "".join(traceback.format_stack(frame))
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - documented, in spite of its name
        if ident != own
    }

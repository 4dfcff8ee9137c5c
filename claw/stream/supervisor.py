"""Keeps sessions serving: state, retry, make-before-break, rotation (docs/architecture.md).

A `Supervisor` has `CLAW_STREAM_CONNECTIONS` lanes; each lane keeps one session serving. Order of events in a lane:
register, open, serve. A session that ends after 5 s of service is followed by a new one at once; one that ends
earlier, or an attempt that fails, by tenacity's full jitter, for ever. A session that is to be replaced (DingTalk's
`disconnect`, rotation, an operator) goes on reading until its successor serves, and 10 s beyond. Only a lane opens
sessions, one at a time, so there is one path by which a connection can come about.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_never, wait_random_exponential

from claw.checks import Check
from claw.clock import Clock, format_rfc3339
from claw.config.settings import Credentials, StreamSettings
from claw.errors import ClawError, GatewayError, SessionLostError
from claw.messages import Delivery
from claw.observe import telemetry
from claw.retry import Verdict, verdict
from claw.stream.gateway import Gateway, Registration, explain
from claw.stream.session import HANDSHAKE_TIMEOUT_S, SessionConfig, SessionCounters, SessionEnd, open_session

log: Final = logging.getLogger(__name__)

JITTER_S: Final = 0.1
"""Seconds, at most, before a connection that served well is followed by the next one."""
BACKOFF_BASE_S: Final = 0.5
BACKOFF_CEILING_S: Final = 10.0
REJECTED_WAIT_S: Final = (30.0, 60.0)
CREDENTIALS_POLL_S: Final = 1.0
AT_ONCE_S: Final = 0.5
"""Seconds of life below which a `disconnect` says more of the gateway than of the connection's age."""
LEAVE_S: Final = 10.0
"""Seconds for which a replaced session reads and acks; DingTalk closes after 10 s (docs/protocol.md section 4)."""
ROTATE_SPREAD: Final = 0.1
GRACE_S: Final = 5.0
"""Seconds without a session that readiness does not speak of."""
SETTLE_S: Final = 2.0
"""Seconds that deliveries under way get when we stop."""
FAILURES_LOGGED: Final = 5
FAILURES_LOGGED_EACH: Final = 20

_jitter: Final = wait_random_exponential(multiplier=BACKOFF_BASE_S, max=BACKOFF_CEILING_S)


class SlotState(Enum):
    """What a lane, or all of them together, is at. In order: the further up, the better for the people."""

    OPEN = "OPEN"
    REPLACING = "REPLACING"
    """A session still reads while its successor is being opened."""
    CONNECTING = "CONNECTING"
    BACKOFF = "BACKOFF"
    """Since the first attempt that failed, until one succeeds."""
    REJECTED = "REJECTED"
    """DingTalk refuses us, and only a person can cure it."""
    CLOSED = "CLOSED"


class Reason:
    """Why a session is replaced while it serves, or opened at first; the other reasons are `session.EndKind`."""

    START: Final = "start"
    DISCONNECT: Final = "disconnect"
    ROTATION: Final = "rotation"


class Serving(Protocol):
    """What a lane needs of a session."""

    @property
    def farewell(self) -> asyncio.Event: ...

    @property
    def lived(self) -> float: ...

    async def run(self) -> SessionEnd: ...

    async def close(self) -> None: ...

    async def drain(self) -> None: ...

    def abort(self) -> None: ...


Opener = Callable[[Registration, SessionCounters], Awaitable[Serving]]
Register = Callable[[Credentials], Awaitable[Registration]]


@dataclass(frozen=True, slots=True, eq=False)
class _Live:
    """A session and the task that runs it."""

    session: Serving
    task: asyncio.Task[SessionEnd]


class Slot:
    """Keeps one session serving. `changed` is called after each transition, `serving` tells what came of it."""

    def __init__(
        self,
        number: int,
        *,
        register: Register,
        opener: Opener,
        credentials: Callable[[], Credentials],
        rotate: float,
        clock: Clock,
        changed: Callable[[], None] = lambda: None,
        draw: random.Random | None = None,
    ) -> None:
        self.number: Final = number
        self.state = SlotState.CONNECTING
        self.since = clock.wall()
        self.traffic: Final = SessionCounters()
        self.reconnects: Final[Counter[str]] = Counter()
        self.last_error: ClawError | None = None
        self._register = register
        self._opener = opener
        self._credentials = credentials
        self._used: Credentials | None = None
        self._rotate = rotate
        self._clock = clock
        self._changed = changed
        self._draw = draw or random.Random()  # noqa: S311 - jitter, no secret
        self._effort = SlotState.CONNECTING
        """What the search for the next session is at; OPEN: none is going on."""
        self._live: _Live | None = None
        self._leaving: dict[_Live, asyncio.Task[None]] = {}
        self._reason: str = Reason.START
        self._called_away = 0
        """Sessions in a row that DingTalk asked to leave as soon as they were open."""
        self._wanted = asyncio.Event()
        self._drain_asked = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether there is a session that DingTalk pushes messages to."""
        return self._live is not None and not self._live.session.farewell.is_set()

    @property
    def age(self) -> float:
        """Seconds since the present session was opened; 0 where there is none."""
        return 0.0 if self._live is None else self._live.session.lived

    async def run(self) -> None:
        """Serve until `drain` is called; a cancellation cuts every connection at once."""
        serve = asyncio.create_task(self._serve(), name=f"claw.stream.lane{self.number}.serve")
        asked = asyncio.create_task(self._drain_asked.wait(), name=f"claw.stream.lane{self.number}.drain")
        try:
            await asyncio.wait({serve, asked}, return_when=asyncio.FIRST_COMPLETED)
            if serve.done():
                serve.result()  # it never ends by itself: this raises what is wrong with us
            await _stop(serve)
            lives = [*self._leaving, *([self._live] if self._live else [])]
            await asyncio.gather(*(live.session.drain() for live in lives))
        finally:
            lives = [*self._leaving, *([self._live] if self._live else [])]
            for live in lives:
                # A task that is cancelled before its first step does not run its `finally`.
                live.session.abort()
            await _stop(serve, asked, *self._leaving.values(), *(live.task for live in lives))
            self._live = None
            self._search(SlotState.CLOSED)

    def drain(self) -> None:
        """Have `run` end: no new session, and those that are there close after their pending acks."""
        self._drain_asked.set()

    def replace(self, reason: str) -> bool:
        """Open a new session in place of the present one, or try again now where there is none.

        False: that is under way already.
        """
        busy = self._effort is SlotState.CONNECTING or self.state in {SlotState.REPLACING, SlotState.CLOSED}
        if busy or self._wanted.is_set():
            return False
        self._reason = reason
        self._wanted.set()
        return True

    # --- state ---------------------------------------------------------------------------------------------------

    def _search(self, effort: SlotState) -> None:
        """Tell how the search for a session goes; while one still reads, that is REPLACING."""
        self._effort = effort
        searching = effort not in {SlotState.OPEN, SlotState.CLOSED}
        self.transition(SlotState.REPLACING if searching and self._live is not None else effort)

    def transition(self, state: SlotState) -> None:
        """Be in `state` from now on; the only place where a lane's state changes."""
        if state is not self.state:
            fields = {"lane": self.number, "from_state": self.state.value, "to_state": state.value}
            log.info("connection state changed", extra=fields)
            self.state, self.since = state, self._clock.wall()
        self._changed()

    # --- sessions, one after the other ---------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            try:
                # A new object for each outage: its count of attempts is the outage's.
                async for attempt in self._retrying():
                    with attempt:
                        await self._hold()
            except SessionLostError:
                # It had served well (a short-lived one is retried above): nothing says that the next one would not.
                await self._clock.sleep(self._draw.uniform(0, JITTER_S))

    async def _hold(self) -> None:
        """Open a session and stay with it until it shall be replaced; it goes on reading then.

        Raises GatewayError or HandshakeError where none opened, SessionLostError where it ended by itself.
        """
        if self._effort not in {SlotState.BACKOFF, SlotState.REJECTED}:
            self._search(SlotState.CONNECTING)
        self._used = self._credentials()
        registration = await self._register(self._used)
        live = self._install(await self._opener(registration, self.traffic))
        reason = await self._until_replaced(live)
        if live.task.done():
            end = live.task.result()
            self._reason = end.kind
            self._called_away = 0
            raise SessionLostError(end.kind, lived=end.lived)
        self._reason = reason
        lived = live.session.lived
        self._called_away = self._called_away + 1 if reason == Reason.DISCONNECT and lived < AT_ONCE_S else 0
        if self._called_away > 1:
            # A gateway that sends each new session away again must not be asked in a tight circle.
            raise SessionLostError(reason, lived=lived)

    def _install(self, session: Serving) -> _Live:
        task = asyncio.create_task(session.run(), name=f"claw.stream.lane{self.number}.session")
        live, old = _Live(session, task), self._live
        self._live = live
        task.add_done_callback(lambda _: self._ended(live))
        if old is not None:
            leave = asyncio.create_task(self._see_off(old), name=f"claw.stream.lane{self.number}.leave")
            self._leaving[old] = leave
            leave.add_done_callback(lambda _: self._leaving.pop(old, None))
        if self._reason != Reason.START:
            self.reconnects[self._reason] += 1
            telemetry.stream_reconnects.add(1, {"reason": self._reason})
        log.info("connection open", extra={"lane": self.number, "reason": self._reason})
        self.last_error = None
        self._wanted.clear()
        self._search(SlotState.OPEN)
        return live

    async def _until_replaced(self, live: _Live) -> str:
        """Return when `live` has ended or shall be replaced, with the reason for the latter."""
        waits: dict[str, Coroutine[Any, Any, object]] = {
            "wanted": self._wanted.wait(),
            Reason.DISCONNECT: live.session.farewell.wait(),
        }
        if self._rotate:
            spread = self._draw.uniform(1 - ROTATE_SPREAD, 1 + ROTATE_SPREAD)
            waits[Reason.ROTATION] = self._clock.sleep(self._rotate * spread)
        first = await _first(waits, live.task)
        if first == "wanted":
            # Used up here: an attempt that fails must not find it set, and skip its backoff.
            self._wanted.clear()
            return self._reason
        return first

    def _ended(self, live: _Live) -> None:
        """A session's task is done: by itself, by our close, or cancelled with the lane."""
        if live.task.cancelled() or live.task.exception() is not None:
            return
        end = live.task.result()
        fields = {"lane": self.number, "kind": end.kind, "detail": end.detail, "lived": round(end.lived, 1)}
        log.info("connection ended", extra=fields)
        if self._live is live:
            self._live = None
            self._reason = end.kind
            if not self._drain_asked.is_set():
                self._search(SlotState.CONNECTING if self._effort is SlotState.OPEN else self._effort)

    async def _see_off(self, old: _Live) -> None:
        """Let a replaced session read and ack until DingTalk closes it, for 10 s at most, and then say goodbye."""
        await _first({"time": self._clock.sleep(LEAVE_S)}, old.task)
        if not old.task.done():
            await old.session.close()
        await asyncio.wait({old.task})

    # --- attempts ------------------------------------------------------------------------------------------------

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(_is_worth_another_try),
            wait=self._wait,
            stop=stop_never,
            sleep=self._pause,
            before_sleep=self._failed,
            reraise=True,
        )

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt."""
        error = _error_of(state)
        if verdict(error) is Verdict.REJECTED:
            return self._draw.uniform(*REJECTED_WAIT_S)
        asked = error.retry_after if isinstance(error, ClawError) else None
        if asked:
            return max(_jitter(state), asked + self._draw.uniform(0, BACKOFF_BASE_S))
        return _jitter(state)

    def _failed(self, state: RetryCallState) -> None:
        error = _error_of(state)
        rejected = isinstance(error, GatewayError) and error.rejected
        if isinstance(error, ClawError):
            self.last_error = error
        tries = state.attempt_number
        if tries <= FAILURES_LOGGED or tries % FAILURES_LOGGED_EACH == 0:
            why = explain(error) if isinstance(error, GatewayError) and error.rejected else str(error)
            fields = {"lane": self.number, "reason": why, "tries": tries, "wait": round(state.upcoming_sleep, 3)}
            message = "dingtalk refuses the connection" if rejected else "connection attempt failed"
            log.log(logging.ERROR if rejected else logging.WARNING, message, extra=fields)
        self._search(SlotState.REJECTED if rejected else SlotState.BACKOFF)

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless an operator wants a try now, or there are other credentials than those that were refused."""
        waits: dict[str, Coroutine[Any, Any, object]] = {
            "time": self._clock.sleep(seconds),
            "wanted": self._wanted.wait(),
        }
        if self._effort is SlotState.REJECTED:
            waits["credentials"] = self._credentials_change()
        await _first(waits)
        self._wanted.clear()

    async def _credentials_change(self) -> None:
        while self._credentials() == self._used:
            await self._clock.sleep(CREDENTIALS_POLL_S)


class Supervisor:
    """All lanes, and what they are together."""

    def __init__(
        self,
        settings: StreamSettings,
        gateway: Gateway,
        http: aiohttp.ClientSession,
        deliver: Callable[[Delivery], Awaitable[None]],
        clock: Clock | None = None,
        *,
        handshake_timeout: float = HANDSHAKE_TIMEOUT_S,
        opener: Opener | None = None,
        draw: random.Random | None = None,
    ) -> None:
        self._clock = clock or Clock()
        wiring = SessionConfig(deliver, settings.heartbeat, self._clock, handshake_timeout=handshake_timeout)
        self._deliveries = wiring.deliveries

        async def opened(registration: Registration, traffic: SessionCounters) -> Serving:
            return await open_session(http, registration, wiring, traffic)

        self.slots: Final = tuple(
            Slot(
                number,
                register=gateway.register,
                opener=opener or opened,
                credentials=gateway.credentials,
                rotate=settings.rotate,
                clock=self._clock,
                changed=self._note,
                draw=draw,
            )
            for number in range(settings.connections)
        )
        self._state = SlotState.CONNECTING
        self._since = self._clock.wall()
        self._was_connected = False
        self._lost_at: float | None = None
        self._finished: asyncio.Event | None = None

    @property
    def connected(self) -> int:
        """How many sessions DingTalk pushes messages to."""
        return sum(slot.serving for slot in self.slots)

    @property
    def last_frame_at(self) -> float:
        """Seconds since the epoch at which the last frame was read; 0: none yet."""
        return max(slot.traffic.last_frame_at for slot in self.slots)

    async def run(self) -> None:
        """Serve until `drain` is called. Cancelling cuts all connections; nothing is left in either case."""
        self._finished = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                for slot in self.slots:
                    group.create_task(slot.run(), name=f"claw.stream.lane{slot.number}")
        finally:
            # What was read may still become durable; then DingTalk's repeat is known as one.
            if self._deliveries:
                await asyncio.wait(self._deliveries, timeout=SETTLE_S)
            await _stop(*self._deliveries)
            self._finished.set()

    async def drain(self) -> None:
        """Have the sessions stop reading after their pending acks and close (1000); returns when `run` has ended."""
        for slot in self.slots:
            slot.drain()
        if self._finished is not None:
            await self._finished.wait()

    def replace(self, reason: str) -> bool:
        """Replace all sessions without a gap, or try again now where there is none; False: already under way."""
        if any(slot.state is SlotState.REPLACING for slot in self.slots):
            return False
        begun = [slot.replace(reason) for slot in self.slots]
        return any(begun)

    def check(self) -> Check:
        """Good while DingTalk can push to us, and for 5 s beyond."""
        # DingTalk's farewell ends a session's service some turns of the loop before its lane says so.
        self._note()
        lost = self._lost_at is not None and self._clock.monotonic() - self._lost_at < GRACE_S
        ok = self._state is not SlotState.CLOSED and (self.connected > 0 or lost)
        return Check(ok, self._state.value, self._trouble(), self._since)

    def status(self) -> dict[str, Any]:
        """Everything an operator asks, as JSON."""
        reconnects: Counter[str] = Counter()
        for slot in self.slots:
            reconnects.update(slot.reconnects)
        return {
            "state": self._state.value,
            "since": format_rfc3339(self._since),
            "connected": self.connected,
            "lanes": [
                {
                    "state": slot.state.value,
                    "since": format_rfc3339(slot.since),
                    "age_s": round(slot.age, 1),
                    "frames": slot.traffic.frames,
                    "last_frame_at": format_rfc3339(slot.traffic.last_frame_at),
                }
                for slot in self.slots
            ],
            "reconnects": dict(reconnects),
            "refused_frames": sum(slot.traffic.refused for slot in self.slots),
            "last_frame_at": format_rfc3339(self.last_frame_at),
            "last_error": self._trouble(),
        }

    def _trouble(self) -> str:
        """Why some lane has no session, if so; a rejection first, in both languages."""
        errors = [slot.last_error for slot in self.slots if slot.last_error is not None]
        for error in errors:
            if isinstance(error, GatewayError) and error.rejected:
                return explain(error)
        return str(errors[0]) if errors else ""

    def _note(self) -> None:
        """A lane has changed: see what we are together, and whether an outage begins or ends."""
        order = list(SlotState)
        state = min((slot.state for slot in self.slots), key=order.index)
        if state is not self._state:
            self._state, self._since = state, self._clock.wall()
        connected = self.connected > 0
        if connected and not self._was_connected and self._lost_at is not None:
            telemetry.stream_outage_duration.record(self._clock.monotonic() - self._lost_at)
            self._lost_at = None
        elif self._was_connected and not connected:
            self._lost_at = self._clock.monotonic()
        self._was_connected = connected


def _is_worth_another_try(error: BaseException) -> bool:
    # CancelledError is FATAL by that table, as anything is that it does not name: tenacity must let it through.
    return verdict(error) in {Verdict.BACKOFF, Verdict.REJECTED}


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    return error or ClawError()


async def _first(waits: dict[str, Coroutine[Any, Any, object]], *others: asyncio.Task[Any]) -> str:
    """The name of the first wait that is over (empty: one of `others`, which go on); the other waits are ended."""
    tasks = {asyncio.create_task(wait, name=f"claw.stream.wait.{name}"): name for name, wait in waits.items()}
    try:
        done, _ = await asyncio.wait({*tasks, *others}, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            if task in done:
                return ""
        for task, name in tasks.items():
            if task in done:
                task.result()
                return name
        return ""
    finally:
        await _stop(*tasks)


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

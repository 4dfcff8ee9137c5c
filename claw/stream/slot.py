"""Keeps one session is_open: state, retry, make-before-break, rotation (docs/architecture.md).

Order of events in a slot: register, open, serve. A session that ends after 5 s of service is followed by a new one at
once; one that ends earlier, or an attempt that fails, by tenacity's full jitter, for ever. A session that is to be
replaced (DingTalk's `disconnect`, rotation, an operator) goes on reading until its successor serves, and 10 s beyond.
Only a slot opens sessions, one at a time, so there is one path by which a connection can come about.
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

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_never, wait_random_exponential

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.errors import ClawError, GatewayError, SessionLostError
from claw.observe import telemetry
from claw.retry import Verdict, verdict
from claw.stream.gateway import Registration, rejection_text
from claw.stream.session import SessionCounters, SessionEnd

log: Final = logging.getLogger(__name__)

JITTER_S: Final = 0.1
"""Seconds, at most, before a connection that served well is followed by the next one."""
BACKOFF_BASE_S: Final = 0.5
BACKOFF_CEILING_S: Final = 10.0
REJECTED_WAIT_S: Final = (30.0, 60.0)
CREDENTIALS_POLL_S: Final = 1.0
INSTANT_DISCONNECT_S: Final = 0.5
"""Seconds of life below which a `disconnect` says more of the gateway than of the connection's age."""
RETIRE_S: Final = 10.0
"""Seconds for which a replaced session reads and acks; DingTalk closes after 10 s (docs/protocol.md section 4)."""
ROTATE_SPREAD: Final = 0.1
FAILURES_LOGGED: Final = 5
FAILURES_LOGGED_EACH: Final = 20

_jitter: Final = wait_random_exponential(multiplier=BACKOFF_BASE_S, max=BACKOFF_CEILING_S)


class SlotState(Enum):
    """What a slot, or all of them together, is at. In order: the further up, the better for the people."""

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


class SessionLike(Protocol):
    """What a slot needs of a session."""

    @property
    def disconnect_requested(self) -> asyncio.Event: ...

    @property
    def lived(self) -> float: ...

    async def run(self) -> SessionEnd: ...

    async def close(self) -> None: ...

    async def drain(self) -> None: ...

    def abort(self) -> None: ...


Connect = Callable[[Registration, SessionCounters], Awaitable[SessionLike]]
Register = Callable[[Credentials], Awaitable[Registration]]


@dataclass(frozen=True, slots=True, eq=False)
class RunningSession:
    """A session and the task that runs it."""

    session: SessionLike
    task: asyncio.Task[SessionEnd]


class Slot:
    """Keeps one session serving. `on_change` is called after each transition, `is_open` tells what came of it."""

    def __init__(
        self,
        number: int,
        *,
        register: Register,
        connect: Connect,
        credentials: Callable[[], Credentials],
        rotate: float,
        clock: Clock,
        on_change: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self.number: Final = number
        self.state = SlotState.CONNECTING
        self.since = clock.wall()
        self.counters: Final = SessionCounters()
        self.reconnects: Final[Counter[str]] = Counter()
        self.last_error: ClawError | None = None
        self._register = register
        self._connect = connect
        self._credentials = credentials
        self._used: Credentials | None = None
        self._rotate = rotate
        self._clock = clock
        self._on_change = on_change
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._connect_state = SlotState.CONNECTING
        """What the search for the next session is at; OPEN: none is going on."""
        self._current: RunningSession | None = None
        self._retiring: dict[RunningSession, asyncio.Task[None]] = {}
        self._reason: str = Reason.START
        self._instant_disconnects = 0
        """Sessions in a row that DingTalk asked to leave as soon as they were open."""
        self._replace_requested = asyncio.Event()
        self._drain_requested = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether there is a session that DingTalk pushes messages to."""
        return self._current is not None and not self._current.session.disconnect_requested.is_set()

    @property
    def age(self) -> float:
        """Seconds since the present session was opened; 0 where there is none."""
        return 0.0 if self._current is None else self._current.session.lived

    async def run(self) -> None:
        """Serve until `drain` is called; a cancellation cuts every connection at once."""
        serve = asyncio.create_task(self._serve(), name=f"claw.stream.slot{self.number}.serve")
        asked = asyncio.create_task(self._drain_requested.wait(), name=f"claw.stream.slot{self.number}.drain")
        try:
            await asyncio.wait({serve, asked}, return_when=asyncio.FIRST_COMPLETED)
            if serve.done():
                serve.result()  # it never ends by itself: this raises what is wrong with us
            await stop_tasks(serve)
            lives = [*self._retiring, *([self._current] if self._current else [])]
            await asyncio.gather(*(live.session.drain() for live in lives))
        finally:
            lives = [*self._retiring, *([self._current] if self._current else [])]
            for live in lives:
                # A task that is cancelled before its first step does not run its `finally`.
                live.session.abort()
            await stop_tasks(serve, asked, *self._retiring.values(), *(live.task for live in lives))
            self._current = None
            self._set_connect_state(SlotState.CLOSED)

    def drain(self) -> None:
        """Have `run` end: no new session, and those that are there close after their pending acks."""
        self._drain_requested.set()

    def replace(self, reason: str) -> bool:
        """Open a new session in place of the present one, or try again now where there is none.

        False: that is under way already.
        """
        busy = self._connect_state is SlotState.CONNECTING or self.state in {SlotState.REPLACING, SlotState.CLOSED}
        if busy or self._replace_requested.is_set():
            return False
        self._reason = reason
        self._replace_requested.set()
        return True

    # --- state ---------------------------------------------------------------------------------------------------

    def _set_connect_state(self, state: SlotState) -> None:
        """Tell how the search for a session goes; while one still reads, that is REPLACING."""
        self._connect_state = state
        searching = state not in {SlotState.OPEN, SlotState.CLOSED}
        self.transition(SlotState.REPLACING if searching and self._current is not None else state)

    def transition(self, state: SlotState) -> None:
        """Be in `state` from now on; the only place where a slot's state changes."""
        if state is not self.state:
            fields = {"slot": self.number, "from_state": self.state.value, "to_state": state.value}
            log.info("connection state on_change", extra=fields)
            self.state, self.since = state, self._clock.wall()
        self._on_change()

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
                await self._clock.sleep(self._rng.uniform(0, JITTER_S))

    async def _hold(self) -> None:
        """Open a session and stay with it until it shall be replaced; it goes on reading then.

        Raises GatewayError or HandshakeError where none opened, SessionLostError where it ended by itself.
        """
        if self._connect_state not in {SlotState.BACKOFF, SlotState.REJECTED}:
            self._set_connect_state(SlotState.CONNECTING)
        self._used = self._credentials()
        registration = await self._register(self._used)
        live = self._install(await self._connect(registration, self.counters))
        reason = await self._until_replaced(live)
        if live.task.done():
            end = live.task.result()
            self._reason = end.kind
            self._instant_disconnects = 0
            raise SessionLostError(end.kind, lived=end.lived)
        self._reason = reason
        lived = live.session.lived
        instant = reason == Reason.DISCONNECT and lived < INSTANT_DISCONNECT_S
        self._instant_disconnects = self._instant_disconnects + 1 if instant else 0
        if self._instant_disconnects > 1:
            # A gateway that sends each new session away again must not be asked in a tight circle.
            raise SessionLostError(reason, lived=lived)

    def _install(self, session: SessionLike) -> RunningSession:
        task = asyncio.create_task(session.run(), name=f"claw.stream.slot{self.number}.session")
        live, old = RunningSession(session, task), self._current
        self._current = live
        task.add_done_callback(lambda _: self._on_ended(live))
        if old is not None:
            leave = asyncio.create_task(self._retire(old), name=f"claw.stream.slot{self.number}.leave")
            self._retiring[old] = leave
            leave.add_done_callback(lambda _: self._retiring.pop(old, None))
        if self._reason != Reason.START:
            self.reconnects[self._reason] += 1
            telemetry.stream_reconnects.add(1, {"reason": self._reason})
        log.info("connection open", extra={"slot": self.number, "reason": self._reason})
        self.last_error = None
        self._replace_requested.clear()
        self._set_connect_state(SlotState.OPEN)
        return live

    async def _until_replaced(self, live: RunningSession) -> str:
        """Return when `live` has ended or shall be replaced, with the reason for the latter."""
        waits: dict[str, Coroutine[Any, Any, object]] = {
            "wanted": self._replace_requested.wait(),
            Reason.DISCONNECT: live.session.disconnect_requested.wait(),
        }
        if self._rotate:
            spread = self._rng.uniform(1 - ROTATE_SPREAD, 1 + ROTATE_SPREAD)
            waits[Reason.ROTATION] = self._clock.sleep(self._rotate * spread)
        first = await wait_first(waits, live.task)
        if first == "wanted":
            # Used up here: an attempt that fails must not find it set, and skip its backoff.
            self._replace_requested.clear()
            return self._reason
        return first

    def _on_ended(self, live: RunningSession) -> None:
        """A session's task is done: by itself, by our close, or cancelled with the slot."""
        if live.task.cancelled() or live.task.exception() is not None:
            return
        end = live.task.result()
        fields = {"slot": self.number, "kind": end.kind, "detail": end.detail, "lived": round(end.lived, 1)}
        log.info("connection ended", extra=fields)
        if self._current is live:
            self._current = None
            self._reason = end.kind
            if not self._drain_requested.is_set():
                state = self._connect_state
                self._set_connect_state(SlotState.CONNECTING if state is SlotState.OPEN else state)

    async def _retire(self, old: RunningSession) -> None:
        """Let a replaced session read and ack until DingTalk closes it, for 10 s at most, and then say goodbye."""
        await wait_first({"time": self._clock.sleep(RETIRE_S)}, old.task)
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
            return self._rng.uniform(*REJECTED_WAIT_S)
        asked = error.retry_after if isinstance(error, ClawError) else None
        if asked:
            return max(_jitter(state), asked + self._rng.uniform(0, BACKOFF_BASE_S))
        return _jitter(state)

    def _failed(self, state: RetryCallState) -> None:
        error = _error_of(state)
        rejected = isinstance(error, GatewayError) and error.reason.is_rejection
        if isinstance(error, ClawError):
            self.last_error = error
        tries = state.attempt_number
        if tries <= FAILURES_LOGGED or tries % FAILURES_LOGGED_EACH == 0:
            why = rejection_text(error) if isinstance(error, GatewayError) and error.reason.is_rejection else str(error)
            fields = {"slot": self.number, "reason": why, "tries": tries, "wait": round(state.upcoming_sleep, 3)}
            message = "dingtalk refuses the connection" if rejected else "connection attempt failed"
            log.log(logging.ERROR if rejected else logging.WARNING, message, extra=fields)
        self._set_connect_state(SlotState.REJECTED if rejected else SlotState.BACKOFF)

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless an operator wants a try now, or there are other credentials than those that were refused."""
        waits: dict[str, Coroutine[Any, Any, object]] = {
            "time": self._clock.sleep(seconds),
            "wanted": self._replace_requested.wait(),
        }
        if self._connect_state is SlotState.REJECTED:
            waits["credentials"] = self._credentials_change()
        await wait_first(waits)
        self._replace_requested.clear()

    async def _credentials_change(self) -> None:
        while self._credentials() == self._used:
            await self._clock.sleep(CREDENTIALS_POLL_S)


def _is_worth_another_try(error: BaseException) -> bool:
    # CancelledError is FATAL by that table, as anything is that it does not name: tenacity must let it through.
    return verdict(error) in {Verdict.BACKOFF, Verdict.REJECTED}


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    return error or ClawError()


async def wait_first(waits: dict[str, Coroutine[Any, Any, object]], *others: asyncio.Task[Any]) -> str:
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
        await stop_tasks(*tasks)


async def stop_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""Keeps one session serving (docs/architecture.md, the connection).

A slot is one explicit loop: establish a session, hold it until it ends or is to be replaced, and again. tenacity
establishes only: it repeats registration and handshake until a session is open. A session that served for 5 s and then
broke is followed at once; one that ended earlier, or an attempt that failed, after a wait with full jitter, for ever.

A session that is to be replaced (DingTalk's `disconnect`, rotation, an operator) goes on reading until its successor
serves, and 10 s beyond. Only the loop opens sessions, one at a time, so there is one path by which a connection can
come about. No turn depends on any of this: what was read lives in the store.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_never

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.errors import ClawError, GatewayError, SessionLostError
from claw.observe import telemetry
from claw.retry import Verdict, full_jitter, verdict
from claw.stream.counters import SessionCounters
from claw.stream.gateway import Registration, rejection_text
from claw.stream.reason import Reason
from claw.stream.session import SessionEnd, next_turn
from claw.stream.state import MOVES, SlotState
from claw.stream.tasks import stop_tasks, wait_first

log: Final = logging.getLogger(__name__)

JITTER_S: Final = 0.1
"""Seconds, at most, before a connection that served well is followed by the next one."""
BACKOFF_BASE_S: Final = 0.5
BACKOFF_CEILING_S: Final = 5.0
REJECTED_WAIT_S: Final = (30.0, 60.0)
CREDENTIALS_POLL_S: Final = 1.0
INSTANT_END_S: Final = 0.5
"""Seconds of life below which a `disconnect` or a frame too large says more of the gateway than of the connection."""
RETIRE_S: Final = 10.0
"""Seconds for which a replaced session reads and acks; DingTalk closes after 10 s (docs/protocol.md section 4)."""
ROTATE_SPREAD: Final = 0.1
FAILURES_LOGGED: Final = 5
FAILURES_LOGGED_EACH: Final = 20


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
    """Keeps one session serving. `on_transition` is called after each change of state, with its reason.

    `rotate` is in seconds (0: never). `phase` (0 to 1) is the share of a period by which this slot's rotations come
    later than those of a slot with phase 0.
    """

    def __init__(
        self,
        number: int,
        *,
        register: Register,
        connect: Connect,
        credentials: Callable[[], Credentials],
        rotate: float,
        clock: Clock,
        phase: float = 0.0,
        on_transition: Callable[[Slot, Reason], None] = lambda _, __: None,
        rng: random.Random | None = None,
    ) -> None:
        self.number: Final = number
        self.state = SlotState.CONNECTING
        self.since = clock.wall()
        self.counters: Final = SessionCounters()
        self.reconnects: Final[Counter[str]] = Counter()
        self.last_error: ClawError | None = None
        """Why the latest attempt brought no session that stayed; None once one is open."""
        self._register = register
        self._connect = connect
        self._credentials = credentials
        self._credentials_used: Credentials | None = None
        self._rotate = rotate
        self._phase = phase
        self._clock = clock
        self._began = clock.monotonic()
        self._on_transition = on_transition
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._current: RunningSession | None = None
        self._retiring: dict[RunningSession, asyncio.Task[None]] = {}
        self._early_ends = 0
        """Sessions in a row that ended too early to say that the way to DingTalk is sound."""
        self._replace_requested = asyncio.Event()
        self._drain_requested = asyncio.Event()
        self._pause_requested, self._resume_requested = asyncio.Event(), asyncio.Event()
        """One of them is set at most. Two, since an event can be waited for in one direction only."""
        telemetry.stream_slots.add(1, {"state": self.state.value})

    @property
    def is_open(self) -> bool:
        """Whether there is a session that DingTalk pushes messages to."""
        return self._current is not None and not self._current.session.disconnect_requested.is_set()

    @property
    def age(self) -> float:
        """Seconds since the present session was opened; 0 where there is none."""
        return 0.0 if self._current is None else self._current.session.lived

    async def run(self) -> None:
        """Serve until `drain` is called; a cancellation cuts every connection at once. May be run again later."""
        if self.state is SlotState.CLOSED:
            self.transition(SlotState.CONNECTING, Reason.START)
        reason = Reason.START
        try:
            while await self._serve_until_asked(reason) is Reason.PAUSE:
                self._begin_pause()
                waits = {Reason.STOP: self._drain_requested.wait(), Reason.RESUME: self._resume_requested.wait()}
                if await wait_first(waits) is Reason.STOP:
                    break
                reason = Reason.RESUME
                self.transition(SlotState.CONNECTING, reason)
            await asyncio.gather(*(running.session.drain() for running in self._sessions()))
        finally:
            sessions = self._sessions()
            for running in sessions:
                # A task that is cancelled before its first step does not run its `finally`, and its socket would stay.
                running.session.abort()
            await stop_tasks(*self._retiring.values(), *(running.task for running in sessions))
            self._current = None
            # Here and not at the start of `run`: a drain that comes before the first step of `run` must not be lost.
            self._drain_requested.clear()
            self.transition(SlotState.CLOSED, Reason.STOP)

    def drain(self) -> None:
        """Have `run` end: no new session, and those that are there close after their pending acks."""
        self._drain_requested.set()

    def pause(self) -> None:
        """Have `run` close what is open, as a drain does, and open nothing until `resume`."""
        self._resume_requested.clear()
        self._pause_requested.set()

    def resume(self) -> None:
        """Have `run` serve again; sessions that still write their last acks do not hold up the next one."""
        self._pause_requested.clear()
        self._resume_requested.set()

    def replace(self) -> bool:
        """Open a new session in place of the present one, or try again now where there is none.

        False: that is under way already.
        """
        if self.state in {SlotState.CONNECTING, SlotState.REPLACING, SlotState.PAUSED, SlotState.CLOSED}:
            return False
        if self._replace_requested.is_set():
            return False
        self._replace_requested.set()
        return True

    def transition(self, to: SlotState, reason: Reason) -> None:
        """Be in `to` from now on; the only place where a slot's state changes.

        Raises RuntimeError for a move that makes no sense: that is a fault of ours, and hiding it would leave a slot
        that tells something else than it does.
        """
        before = self.state
        if to is before:
            return
        if to not in MOVES[before]:
            raise RuntimeError(f"a slot cannot go from {before.value} to {to.value} ({reason})")
        self.state, self.since = to, self._clock.wall()
        fields = {"slot": self.number, "from_state": before.value, "to_state": to.value, "reason": reason}
        log.info("connection state changed", extra=fields)
        telemetry.stream_slots.add(-1, {"state": before.value})
        telemetry.stream_slots.add(1, {"state": to.value})
        self._on_transition(self, reason)

    # --- the loop --------------------------------------------------------------------------------------------------

    async def _serve_until_asked(self, reason: Reason) -> Reason | None:
        """Serve until a drain (STOP) or a pause; what is open then still reads. Raises what is wrong with us."""
        if self._pause_requested.is_set():
            return Reason.PAUSE
        serve = asyncio.create_task(self._serve(reason), name=f"claw.stream.slot{self.number}.serve")
        try:
            waits = {Reason.STOP: self._drain_requested.wait(), Reason.PAUSE: self._pause_requested.wait()}
            asked = await wait_first(waits, serve)
        finally:
            # The loop ends first: it would take the close of its session for an outage, and open the next one.
            await stop_tasks(serve)
        if asked is None:
            serve.result()  # it never ends by itself: this raises
        return asked

    def _begin_pause(self) -> None:
        self._replace_requested.clear()
        if self._current is not None:
            self._begin_retirement(self._current)
            self._current = None
        self.transition(SlotState.PAUSED, Reason.PAUSE)

    async def _serve(self, reason: Reason) -> None:
        delay = 0.0
        while True:
            running = await self._establish_beside_old(reason, delay)
            reason = await self._hold(running)
            delay = self._delay_after(reason, running)
            self.transition(self._state_without_open_session(), reason)

    async def _establish_beside_old(self, reason: Reason, delay: float) -> RunningSession:
        """Return the next session, once it is open. One that is to be replaced reads on meanwhile."""
        establish = asyncio.create_task(self._establish(reason, delay), name=f"claw.stream.slot{self.number}.establish")
        try:
            while not establish.done():
                old = self._current
                await asyncio.wait(
                    {establish} if old is None else {establish, old.task}, return_when=asyncio.FIRST_COMPLETED
                )
                # Both may be over at once. Then the new one has taken the old one's place, and there is no outage.
                if old is not None and old is self._current and old.task.done():
                    end = self._forget(old)
                    self.transition(self._state_without_open_session(), end.kind)
            return establish.result()
        finally:
            await stop_tasks(establish)

    async def _hold(self, running: RunningSession) -> Reason:
        """Return when `running` has ended or is to be replaced, and why; in the latter case it goes on reading."""
        # First what leaves us without messages, should several come in the same turn of the loop.
        waits: dict[Reason, Coroutine[Any, Any, object]] = {
            Reason.DISCONNECT: running.session.disconnect_requested.wait(),
            Reason.RESTART: self._replace_requested.wait(),
        }
        if self._rotate:
            waits[Reason.ROTATION] = self._clock.sleep(self._rotation_delay())
        reason = await wait_first(waits, running.task)
        # Whatever came first, the next attempt answers the wish too. Left set, it would skip that attempt's backoff.
        self._replace_requested.clear()
        return self._forget(running).kind if reason is None else reason

    def _delay_after(self, reason: Reason, running: RunningSession) -> float:
        """Choose the seconds before the next attempt, and count what looks like a gateway in trouble."""
        lived = running.task.result().lived if running.task.done() else running.session.lived
        error = SessionLostError(reason, lived=lived)
        if self._current is running:
            # To be replaced, which is no failure; but a gateway that sends each new session away must not be asked in
            # a tight circle. Once is forgiven: a server that is being taken down accepts sessions to the last moment.
            instant = reason is Reason.DISCONNECT and lived < INSTANT_END_S
            self._early_ends = self._early_ends + 1 if instant else 0
            tries = self._early_ends - 1
        else:
            # One person's frame says nothing of the way. With a wait the next frame, or the repeat of this one, might
            # meet the other slot before we are back, and nobody would serve.
            is_theirs = reason is Reason.TOO_LARGE and lived >= INSTANT_END_S
            self._early_ends = 0 if is_theirs or verdict(error) is Verdict.NOW else self._early_ends + 1
            tries = self._early_ends
            if not tries:
                # The link broke, nothing says that it is down. The jitter keeps many claws from coming back in step.
                return self._rng.uniform(0, JITTER_S)
        if tries <= 0:
            return 0.0
        delay = full_jitter(tries, base=BACKOFF_BASE_S, ceiling=BACKOFF_CEILING_S, rng=self._rng)
        self._note_failure(error, tries, delay)
        return delay

    def _rotation_delay(self) -> float:
        """Seconds until this session is replaced for its age: by a grid of its own, so that no two slots meet.

        A timer from each session's start would drift, and a `disconnect` to all sessions would bring them in step.
        """
        now = self._clock.monotonic() - self._began
        turn = next_turn(now, self._rotate, self._phase, at_least=self._rotate / 2)
        spread = self._rng.uniform(-ROTATE_SPREAD, ROTATE_SPREAD) * self._rotate
        return turn + spread - now

    # --- sessions --------------------------------------------------------------------------------------------------

    def _install(self, session: SessionLike, reason: Reason) -> RunningSession:
        """Make `session` the present one, and begin to retire the one before, if it is still there."""
        task = asyncio.create_task(session.run(), name=f"claw.stream.slot{self.number}.session")
        running, old = RunningSession(session, task), self._current
        self._current = running
        # The old one is let go only now: from here on DingTalk pushes to the new one, and no message falls in between.
        if old is not None:
            self._begin_retirement(old)
        if reason is not Reason.START:
            self.reconnects[reason] += 1
            telemetry.stream_reconnects.add(1, {"reason": reason})
        log.info("connection open", extra={"slot": self.number, "reason": reason})
        self.last_error = None
        # A wish that came while we were at it is fulfilled.
        self._replace_requested.clear()
        self.transition(SlotState.OPEN, reason)
        return running

    def _begin_retirement(self, old: RunningSession) -> None:
        retire = asyncio.create_task(self._retire(old), name=f"claw.stream.slot{self.number}.retire")
        self._retiring[old] = retire
        retire.add_done_callback(lambda _: self._retiring.pop(old, None))

    async def _retire(self, old: RunningSession) -> None:
        """Let a replaced session read and ack until DingTalk closes it, for 10 s at most; then close it ourselves.

        DingTalk may have pushed messages to it up to the last moment, and their acks count on this socket only. In a
        pause it is closed as soon as those acks are written.
        """
        waits = {Reason.PAUSE: self._pause_requested.wait(), Reason.CLOSED: self._clock.sleep(RETIRE_S)}
        over = await wait_first(waits, old.task)
        if not old.task.done():
            # With a close frame: DingTalk goes on pushing to a socket that merely vanished.
            await (old.session.drain() if over is Reason.PAUSE else old.session.close())
        await asyncio.wait({old.task})
        self._log_end(old.task.result())

    def _forget(self, ended: RunningSession) -> SessionEnd:
        """Take note of the present session's end. Raises what its task raised, which is a fault of ours."""
        end = ended.task.result()
        self._log_end(end)
        self._current = None
        return end

    def _log_end(self, end: SessionEnd) -> None:
        fields = {"slot": self.number, "kind": end.kind, "detail": end.detail, "lived": round(end.lived, 1)}
        log.info("connection ended", extra=fields)

    def _sessions(self) -> list[RunningSession]:
        return [*self._retiring, *([self._current] if self._current else [])]

    # --- attempts --------------------------------------------------------------------------------------------------

    async def _establish(self, reason: Reason, delay: float) -> RunningSession:
        """Register and connect until a session is open, after `delay` seconds; never gives up."""
        if delay:
            await self._wait_to_retry(delay)
        # A new object for each outage: its count of attempts is the outage's.
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_worth_another_try),
            wait=self._retry_delay,
            stop=stop_never,
            sleep=self._wait_to_retry,
            before_sleep=self._on_failure,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                # Read for each attempt: the secret's file may have been changed, and a refused one is looked at again.
                self._credentials_used = self._credentials()
                registration = await self._register(self._credentials_used)
                session = await self._connect(registration, self.counters)
                # Nothing is awaited from here until it is ours: a cancellation in between would leave a socket behind.
                return self._install(session, reason)
        raise AssertionError("retried for ever")

    def _retry_delay(self, state: RetryCallState) -> float:
        error = _error_of(state)
        if verdict(error) is Verdict.REJECTED:
            return self._rng.uniform(*REJECTED_WAIT_S)
        # Full jitter: whatever broke for us broke for others too, and they must not come back in step.
        delay = full_jitter(state.attempt_number, base=BACKOFF_BASE_S, ceiling=BACKOFF_CEILING_S, rng=self._rng)
        asked = error.retry_after if isinstance(error, ClawError) else None
        return max(delay, asked + self._rng.uniform(0, BACKOFF_BASE_S)) if asked else delay

    def _on_failure(self, state: RetryCallState) -> None:
        error = _error_of(state)
        self._note_failure(error, state.attempt_number, state.upcoming_sleep)
        # While the old session reads there is no outage to tell; should it die, the state follows from this error.
        if self._current is None:
            rejected = verdict(error) is Verdict.REJECTED
            self.transition(self._state_without_open_session(), Reason.REJECTED if rejected else Reason.FAILED)

    def _note_failure(self, error: BaseException, tries: int, delay: float) -> None:
        """Keep the error for those who ask, and log it: the first five, then each twentieth, for hours of outage."""
        if isinstance(error, ClawError):
            self.last_error = error
        if tries > FAILURES_LOGGED and tries % FAILURES_LOGGED_EACH:
            return
        fields = {"slot": self.number, "reason": str(error), "tries": tries, "wait": round(delay, 3)}
        if isinstance(error, GatewayError) and error.reason.is_rejection:
            log.error("dingtalk refuses the connection", extra=fields | {"reason": rejection_text(error)})
        else:
            log.warning("connection attempt failed", extra=fields)

    def _state_without_open_session(self) -> SlotState:
        """Tell the state of a slot that looks for its next session, from how the looking goes."""
        if self._current is not None:
            return SlotState.REPLACING
        if self.last_error is None:
            return SlotState.CONNECTING
        return SlotState.REJECTED if verdict(self.last_error) is Verdict.REJECTED else SlotState.BACKOFF

    async def _wait_to_retry(self, seconds: float) -> None:
        """Sleep, unless an operator wants a try now, or there are other credentials than those that were refused."""
        waits: dict[str, Coroutine[Any, Any, object]] = {
            "time": self._clock.sleep(seconds),
            "replace": self._replace_requested.wait(),
        }
        if self.last_error is not None and verdict(self.last_error) is Verdict.REJECTED:
            waits["credentials"] = self._wait_for_other_credentials()
        await wait_first(waits)
        # Used up, or the same wish would cut short every wait from now on.
        self._replace_requested.clear()

    async def _wait_for_other_credentials(self) -> None:
        while self._credentials() == self._credentials_used:
            await self._clock.sleep(CREDENTIALS_POLL_S)


def _is_worth_another_try(error: BaseException) -> bool:
    # CancelledError is FATAL by that table, as anything is that it does not name: tenacity must let it through.
    return verdict(error) in {Verdict.BACKOFF, Verdict.REJECTED}


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    return error or ClawError()

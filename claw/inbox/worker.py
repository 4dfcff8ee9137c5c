"""The worker: takes messages out of the inbox, one turn at a time per conversation, many conversations at once.

Order of events for one message: claim (a lease, renewed while the turn runs) -> think (command or model) -> save the
answer -> send it, saving after each part -> ack. A model that fails is asked again after a growing wait, up to
`CLAW_MAX_ATTEMPTS`; then the person is told and the message goes to the dead letters. An answer that cannot be sent
is kept and tried again for SEND_PATIENCE_S: the model's work is paid for. `/stop` ends a turn that still thinks;
a drain gives back what is not finished in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from itertools import chain, repeat
from typing import Final

from opentelemetry.trace import Span, Status, StatusCode

from claw.clock import Clock
from claw.config.settings import InboxSettings
from claw.errors import ClawError, DingTalkError, LeaseLostError, ModelError, StoreError
from claw.messages import Answer, Inbound, Outcome
from claw.observe import telemetry
from claw.retry import full_jitter
from claw.secret import hash_id
from claw.store.ports import CLAIMS_MAX, Inbox, Lease

log: Final = logging.getLogger(__name__)

LEASE_TTL_S: Final = 30.0
"""Seconds after which another replica may take up a message whose holder fell silent (DESIGN section 2)."""
RENEW_EVERY_S: Final = LEASE_TTL_S / 3
STORE_PAUSE_S: Final = 1.0
"""Seconds before the store is asked again after it failed."""
THINK_BACKOFF_S: Final = (1.0, 30.0)
SEND_BACKOFF_S: Final = (1.0, 30.0)
"""Base and ceiling of the waits between tries."""
RETRY_AFTER_MAX_S: Final = 120.0
"""A model that asks us to wait longer than this gets its next try all the same: a person waits, too."""
RELEASE_PATIENCE_S: Final = 1.0
"""Seconds that giving back may take at the end of a drain."""
SEND_PATIENCE_S: Final = 3600.0
"""An answer that DingTalk does not take is tried again until its message is so old."""


class Phase(Enum):
    """How far a turn is; only a thinking one can be stopped without a part of the answer being out."""

    THINKING = "thinking"
    SENDING = "sending"


class Wish(Enum):
    """Why a turn's task was cancelled, if it was by us."""

    NONE = "none"
    STOP = "stop"
    RELEASE = "release"
    ABANDON = "abandon"


@dataclass(slots=True, eq=False)
class Run:
    """One turn in progress."""

    lease: Lease
    phase: Phase = Phase.THINKING
    wish: Wish = Wish.NONE
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def cancel(self, wish: Wish) -> None:
        self.wish = wish
        if self.task is not None:
            self.task.cancel()


Think = Callable[[Inbound], Awaitable[Answer]]
Apologise = Callable[[Inbound, Exception], Answer]
Remedy = Callable[[Exception], str]
Send = Callable[[Inbound, Answer, Callable[[Answer], Awaitable[None]]], Awaitable[None]]


class Worker:
    """Owns every turn's task. `run` is one named task of `app`; `drain` ends it."""

    def __init__(
        self,
        inbox: Inbox,
        settings: InboxSettings,
        *,
        owner: str,
        think: Think,
        apologise: Apologise,
        remedy: Remedy,
        send: Send,
        clock: Clock,
    ) -> None:
        self._inbox = inbox
        self._settings = settings
        self._owner = owner
        self._think = think
        self._apologise = apologise
        self._remedy = remedy
        self._send = send
        self._clock = clock
        self._runs: dict[str, Run] = {}
        self._slot_freed = asyncio.Event()
        self._claiming = True
        self._renewed_at = clock.monotonic()
        self._store_fault = ""
        """Why the last claim failed, as it was told."""
        inbox.on_interrupt(self._interrupted)

    @property
    def running(self) -> int:
        """How many turns are in progress."""
        return len(self._runs)

    # --- claiming ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and start turns until drained or cancelled; cancellation cancels every turn."""
        renewer = asyncio.create_task(self._renew_for_ever(), name="worker-renewer")
        try:
            while self._claiming:
                await self._claim_one()
            while self._runs:
                self._slot_freed.clear()
                await self._slot_freed.wait()
        finally:
            renewer.cancel()
            tasks = [run.task for run in self._runs.values() if run.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(renewer, *tasks, return_exceptions=True)

    async def _claim_one(self) -> None:
        # Cleared before anything is looked at: what is freed from here on is not slept through.
        self._slot_freed.clear()
        full = len(self._runs) >= self._settings.max_concurrency
        try:
            await self._renew_if_late()
            lease = await self._inbox.claim(self._owner, LEASE_TTL_S, urgent=full)
        except StoreError as error:
            # Once for each cause: an outage of the store is asked after every second.
            level = logging.DEBUG if str(error) == self._store_fault else logging.ERROR
            self._store_fault = str(error)
            log.log(level, "the store gives no messages", extra={"cause": str(error)})
            await self._clock.sleep(STORE_PAUSE_S)
            return
        self._store_fault = ""
        if lease is None:
            await self._wait_for_work(full=full)
        elif not self._claiming:
            await self._inbox.release(lease)
        else:
            self._start(lease)

    async def _wait_for_work(self, *, full: bool) -> None:
        """Return when a claim may succeed: something came, something ended, or somebody asked for a drain."""
        waits = [
            asyncio.create_task(self._inbox.wait(urgent=full), name="worker-wait-inbox"),
            asyncio.create_task(self._slot_freed.wait(), name="worker-wait-slot"),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _start(self, lease: Lease) -> None:
        run = Run(lease)
        self._runs[lease.queue] = run
        run.task = asyncio.create_task(self._turn(run), name=f"turn-{hash_id(lease.queue)[:12]}")

    # --- leases --------------------------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            await self._clock.sleep(RENEW_EVERY_S)
            try:
                await self._renew_all()
            except StoreError as error:
                log.error("lease not renewed", extra={"cause": str(error)})

    async def _renew_if_late(self) -> None:
        # A machine that slept wakes with every lease expired, as does one whose store was away, and the claimer may run
        # before the renewer does: it would claim a message whose turn still runs in this very process.
        if self._clock.monotonic() - self._renewed_at > LEASE_TTL_S / 2:
            await self._renew_all()

    async def _renew_all(self) -> None:
        """Raises StoreError at the first that fails: the rest would fail, too, each after its own time."""
        began = self._clock.monotonic()
        for run in list(self._runs.values()):
            try:
                await self._inbox.renew(run.lease, LEASE_TTL_S)
            except LeaseLostError:
                log.warning("lease lost: the turn is left to its new holder", extra={"seq": run.lease.seq})
                run.cancel(Wish.ABANDON)
        self._renewed_at = began

    # --- one turn ------------------------------------------------------------------------------------------------

    async def _turn(self, run: Run) -> None:
        lease = run.lease
        attributes: dict[str, str | int] = {
            telemetry.CLAW_QUEUE_WAIT_MS: max(0, round((self._clock.wall() - lease.received_at) * 1000)),
            telemetry.CLAW_ATTEMPT: lease.attempts + 1,
            telemetry.CLAW_CONVERSATION: hash_id(lease.inbound.chat_key),
        }
        began = self._clock.monotonic()
        try:
            with telemetry.tracer.start_as_current_span(
                telemetry.SPAN_TURN,
                telemetry.extract(lease.trace),
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    await self._take(run, span)
                except asyncio.CancelledError:
                    if run.wish is not Wish.RELEASE:
                        raise
                    await self._inbox.release(lease)
        except asyncio.CancelledError:
            if run.wish is Wish.NONE:
                raise
        except LeaseLostError:
            log.warning("lease lost: the turn is left to its new holder", extra={"seq": lease.seq})
        except StoreError as error:
            # The message is still in the inbox, and so is its answer if that was saved.
            log.error("turn not finished: the store failed", extra={"cause": str(error), "seq": lease.seq})
            await self._give_back(lease)
        finally:
            telemetry.turn_duration.record(self._clock.monotonic() - began)
            # A turn that lost its lease may end after the lane's next one has begun here.
            if self._runs.get(lease.queue) is run:
                del self._runs[lease.queue]
            self._slot_freed.set()

    async def _take(self, run: Run, span: Span) -> None:
        """Take a message from claim to ack, release or burial."""
        lease = run.lease
        answer = lease.answer
        if answer is None:
            answer = await self._thought(run, span)
            if answer is None:
                return
            run.phase = Phase.SENDING
            if answer.text:
                await self._kept(lease, partial(self._inbox.save_answer, lease, answer))
        run.phase = Phase.SENDING
        if not await self._sent(lease, answer, span):
            return
        span.set_attribute(telemetry.CLAW_OUTCOME, answer.outcome.value)
        if answer.outcome is Outcome.FAILED:
            await self._kept(lease, partial(self._inbox.bury, lease, answer.error))
        else:
            await self._kept(lease, partial(self._inbox.ack, lease, answer.exchange))
        if answer.text:
            telemetry.round_trip_duration.record(max(0.0, self._clock.wall() - lease.received_at))
        log.info(
            "turn ended",
            extra={"outcome": answer.outcome.value, "conversation": hash_id(lease.inbound.chat_key)},
        )

    async def _thought(self, run: Run, span: Span) -> Answer | None:
        """The answer; None where the message was given back for another try."""
        lease = run.lease
        if lease.stopped:
            return Answer.of("", Outcome.STOPPED)
        if lease.claims > CLAIMS_MAX:
            return self._apologise(lease.inbound, ClawError("the process died each time that it handled this message"))
        try:
            return await self._think(lease.inbound)
        except asyncio.CancelledError:
            if run.wish is not Wish.STOP:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return Answer.of("", Outcome.STOPPED)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault in one message must not end the worker
            return await self._failed_to_think(lease, error, span)

    async def _failed_to_think(self, lease: Lease, error: Exception, span: Span) -> Answer | None:
        known = isinstance(error, ClawError)
        attempt = lease.attempts + 1
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)
        again = (error.retryable if isinstance(error, ClawError) else True) and attempt < self._settings.max_attempts
        extra = {
            "cause": str(error),
            "remedy": self._remedy(error),
            "attempt": attempt,
            "again": again,
            "conversation": hash_id(lease.inbound.chat_key),
        }
        if isinstance(error, ModelError):
            extra |= {"fault": error.kind.value, "code": error.code}
        log.log(
            logging.WARNING if again else logging.ERROR, "turn failed", extra=extra, exc_info=None if known else error
        )
        if not again:
            answer = self._apologise(lease.inbound, error)
            return replace(answer, error=f"{answer.error} (try {attempt})")
        asked = error.retry_after if isinstance(error, ClawError) else None
        delay = max(
            full_jitter(attempt, base=THINK_BACKOFF_S[0], ceiling=THINK_BACKOFF_S[1]),
            min(asked or 0.0, RETRY_AFTER_MAX_S),
        )
        await self._inbox.release(lease, delay, failed=True)
        return None

    async def _sent(self, lease: Lease, answer: Answer, span: Span) -> bool:
        """Whether all of the answer is out; where it is not, the message was given back or buried."""

        async def progress(so_far: Answer) -> None:
            await self._kept(lease, partial(self._inbox.save_answer, lease, so_far))

        try:
            await self._send(lease.inbound, answer, progress)
        except StoreError:
            raise
        except Exception as error:
            known = isinstance(error, DingTalkError)
            again = isinstance(error, DingTalkError) and self._may_send_again(lease, error)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)
            log.log(
                logging.WARNING if again else logging.ERROR,
                "answer not delivered",
                extra={"cause": str(error), "again": again, "conversation": hash_id(lease.inbound.chat_key)},
                exc_info=None if known else error,
            )
            if again:
                asked = error.retry_after if isinstance(error, DingTalkError) else None
                delay = full_jitter(_send_tries(lease), base=SEND_BACKOFF_S[0], ceiling=SEND_BACKOFF_S[1])
                await self._inbox.release(lease, max(delay, asked or 0.0), failed=True)
            else:
                await self._inbox.bury(lease, f"not delivered: {error}"[:500])
            return False
        return True

    def _may_send_again(self, lease: Lease, error: DingTalkError) -> bool:
        if not error.retryable or self._clock.wall() - lease.received_at >= SEND_PATIENCE_S:
            return False
        # A call that broke off may have been delivered: each further try may show the answer once more.
        return not error.maybe_delivered or _send_tries(lease) < self._settings.max_attempts

    async def _kept(
        self, lease: Lease, write: Callable[[], Awaitable[None]], trouble: str = "what was done is not kept yet"
    ) -> None:
        """Write what has been done, as soon as the store can: forgotten, it would be paid for, or said, once more.

        `trouble` is what the log says, loudly once: each second would be a line for each turn. Raises LeaseLostError.
        """
        for level in chain([logging.WARNING], repeat(logging.DEBUG)):
            try:
                await write()
            except LeaseLostError:
                raise
            except StoreError as error:
                log.log(level, trouble, extra={"cause": str(error), "seq": lease.seq})
                await self._clock.sleep(STORE_PAUSE_S)
            else:
                return

    async def _give_back(self, lease: Lease) -> None:
        """Release, as soon as the store can: a lease that is merely left would block its conversation until it ends."""
        with suppress(LeaseLostError):
            await self._kept(lease, partial(self._inbox.release, lease, STORE_PAUSE_S), "message not given back yet")

    # --- from outside --------------------------------------------------------------------------------------------

    def stop(self, queue: str) -> bool:
        """End the turn that thinks in `queue`, for `/stop`; False where there is none to end."""
        run = self._runs.get(queue)
        if run is None or run.phase is not Phase.THINKING or run.wish is not Wish.NONE:
            return False
        run.cancel(Wish.STOP)
        return True

    async def stop_anywhere(self, queue: str) -> bool:
        """As `stop`, also where another process works on `queue`. Raises StoreError."""
        return self.stop(queue) if queue in self._runs else await self._inbox.interrupt(queue)

    def _interrupted(self, seq: int, fence: int) -> None:
        """Another process wants that lease's turn stopped; by now its lane may have gone on to another message."""
        for run in self._runs.values():
            if (run.lease.seq, run.lease.fence) == (seq, fence):
                self.stop(run.lease.queue)
                return

    async def drain(self, timeout: float) -> None:
        """Claim nothing more; give running turns `timeout` seconds, then give the rest back to the inbox."""
        self._claiming = False
        self._slot_freed.set()
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        left = list(self._runs.values())
        for run in left:
            run.cancel(Wish.RELEASE)
        if left:
            log.warning("turns given back at the end of the drain", extra={"turns": len(left)})
            await asyncio.wait([run.task for run in left if run.task is not None], timeout=RELEASE_PATIENCE_S)


def _send_tries(lease: Lease) -> int:
    """How often sending was tried, this time included: the store counts afresh once an answer is saved."""
    return 1 if lease.answer is None else lease.attempts + 1

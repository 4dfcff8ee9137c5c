"""One turn: what happens to a message between its claim and its end.

Order of events: a draft is begun, and goes to the handler with the message; the handler makes the answer. The answer
is stored, so that a crash from here on does not pay the model twice. The draft delivers it, and its progress is stored
after each part that is out. The message is acked, or buried when the answer tells of a failure. A handler that fails
is asked again after a growing wait, `CLAW_MAX_ATTEMPTS` times in all; then the person is told. An answer that DingTalk
does not take is kept and tried again until its message is DELIVERY_TIMEOUT_S old. All waits between tries are the
inbox's: a message that waits holds no slot, and survives a restart.
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
from claw.draft import BeginDraft, Draft
from claw.errors import ClawError, DingTalkError, LeaseLostError, ModelError, StoreError
from claw.messages import Answer, Inbound, Outcome, Route
from claw.observe import telemetry
from claw.retry import full_jitter
from claw.secret import hash_id
from claw.store.ports import CLAIMS_MAX, Inbox, Lease, RowKind

log: Final = logging.getLogger(__name__)

STORE_RETRY_DELAY_S: Final = 1.0
"""Seconds before the store is asked again after it failed."""
BACKOFF_BASE_S: Final = 1.0
BACKOFF_CEILING_S: Final = 30.0
"""The waits between tries, of the handler as of the delivery, are drawn below these."""
RETRY_AFTER_MAX_S: Final = 120.0
"""A model that asks us to wait longer than this gets its next try all the same: a person waits, too."""
DELIVERY_TIMEOUT_S: Final = 3600.0
"""An answer that DingTalk does not take is tried again until its message is so old."""
ERROR_CHARS: Final = 500
"""Characters of an error that a dead letter keeps."""


class Stage(Enum):
    """How far a turn is."""

    CLAIMED = "claimed"
    """Its task has not run yet."""
    GENERATING = "generating"
    RELEASING = "releasing"
    """The handler failed, and the message goes back for another try."""
    DELIVERING = "delivering"


_NEXT: Final = {
    Stage.CLAIMED: {Stage.GENERATING, Stage.DELIVERING},
    Stage.GENERATING: {Stage.RELEASING, Stage.DELIVERING},
    Stage.RELEASING: set[Stage](),
    Stage.DELIVERING: set[Stage](),
}
"""The stages that may follow; a row that came with its answer has nothing to generate."""


class CancelReason(Enum):
    """Why a turn's task was cancelled, if it was by us."""

    NONE = "none"
    STOP = "stop"
    """A person asked for it: the message is done with, without an answer."""
    RELEASE = "release"
    """A drain ran out of time: the message goes back to the inbox, and its try does not count."""
    ABANDON = "abandon"
    """The lease is another process's: nothing may be written or said any more."""


@dataclass(slots=True, eq=False)
class ActiveTurn:
    """One turn in progress."""

    lease: Lease
    stage: Stage = Stage.CLAIMED
    cancel_reason: CancelReason = CancelReason.NONE
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def transition(self, stage: Stage) -> None:
        """Go on to `stage`; there is no way back."""
        if stage not in _NEXT[self.stage]:
            raise RuntimeError(f"a turn does not go from {self.stage.value} to {stage.value}")
        self.stage = stage

    @property
    def can_stop(self) -> bool:
        """Whether `/stop` may end it: an answer is still to be made, and it is not being cancelled already."""
        generating = self.lease.answer is None and self.stage in {Stage.CLAIMED, Stage.GENERATING}
        return generating and self.cancel_reason is CancelReason.NONE

    def is_cancelled_to(self, reason: CancelReason) -> bool:
        """Return whether that is the last reason for which it was cancelled."""
        return self.cancel_reason is reason

    def cancel(self, reason: CancelReason) -> None:
        """End the turn. A later reason wins: what is stopped may still have to be released or abandoned."""
        self.cancel_reason = reason
        # A task that is cancelled before its first step runs no line of its coroutine, not even a `finally`: the turn
        # would keep its slot, and its lease would be renewed for ever. It finds the reason when it starts.
        if self.task is not None and self.stage is not Stage.CLAIMED:
            self.task.cancel()


Handle = Callable[[Inbound, Route, Draft], Awaitable[Answer]]
"""Makes the answer to a message, and tells the draft how it comes along.

Raises ClawError for what it knows. A StoreError does not count as a try.
"""
FailureReply = Callable[[Inbound, Exception], Answer]
"""Makes what the person is told when a message is given up."""
Remedy = Callable[[Exception], str]
"""Says what an operator can do about an error."""


class TurnRunner:
    """Runs turns, each within the task that the worker gave it."""

    def __init__(
        self,
        inbox: Inbox,
        *,
        max_attempts: int,
        handle: Handle,
        begin_draft: BeginDraft,
        failure_reply: FailureReply,
        remedy: Remedy,
        clock: Clock,
    ) -> None:
        self._inbox = inbox
        self._max_attempts = max_attempts
        self._handle = handle
        self._begin_draft = begin_draft
        self._failure_reply = failure_reply
        self._remedy = remedy
        self._clock = clock

    async def run(self, turn: ActiveTurn) -> None:
        """Run a turn to its end. Raises CancelledError only where the cancellation came from outside."""
        lease = turn.lease
        began = self._clock.monotonic()
        try:
            with telemetry.tracer.start_as_current_span(
                telemetry.SPAN_TURN,
                telemetry.extract(lease.trace),
                attributes=self._attributes(lease),
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    await self._process(turn, span)
                except asyncio.CancelledError:
                    if turn.cancel_reason is not CancelReason.RELEASE:
                        raise
                    await self._inbox.release(lease)
        except asyncio.CancelledError:
            # A turn that we cancelled ends quietly: an abandoned one, or one whose release was cut short. Any other
            # cancellation is the caller's and goes on up.
            if turn.cancel_reason is CancelReason.NONE:
                raise
        except LeaseLostError:
            log.warning("lease lost: the turn is left to its new holder", extra={"seq": lease.seq})
        except StoreError as error:
            # The message is still in the inbox, and so is its answer if that was saved.
            log.error("turn not finished: the store failed", extra={"cause": str(error), "seq": lease.seq})
            await self._release_when_possible(lease)
        finally:
            telemetry.turn_duration.record(self._clock.monotonic() - began)

    def _attributes(self, lease: Lease) -> dict[str, str | int]:
        return {
            telemetry.CLAW_QUEUE_WAIT_MS: max(0, round((self._clock.wall() - lease.received_at) * 1000)),
            telemetry.CLAW_ATTEMPT: lease.attempts + 1,
            telemetry.CLAW_CONVERSATION: _conversation(lease),
            telemetry.CLAW_KIND: lease.kind.value,
        }

    async def _process(self, turn: ActiveTurn, span: Span) -> None:
        """Take a message from claim to ack, release or dead letter.

        A row that has its answer, since a crash came after it or since it was put with it, is only delivered.
        """
        lease = turn.lease
        if turn.is_cancelled_to(CancelReason.RELEASE) or turn.is_cancelled_to(CancelReason.ABANDON):
            raise asyncio.CancelledError
        draft = self._begin_draft(lease.inbound)
        answer = lease.answer
        if answer is None:
            turn.transition(Stage.GENERATING)
            answer = await self._generate(turn, draft, span)
            if answer is None:
                return
        # Before the answer is stored: a `/stop` that comes while the store writes is too late. The write cannot be
        # taken back, and after a crash it would deliver what the person was told is stopped.
        turn.transition(Stage.DELIVERING)
        if lease.answer is None and answer.text:
            await self._persist(lease, partial(self._inbox.save_answer, lease, answer))
        if not await self._deliver(lease, draft, answer, span):
            return
        span.set_attribute(telemetry.CLAW_OUTCOME, answer.outcome.value)
        # The answer is out. If this write got lost the person would get all of it again, hence the patience.
        if answer.outcome is Outcome.FAILED:
            await self._persist(lease, partial(self._inbox.bury, lease, answer.error))
        else:
            await self._persist(lease, partial(self._inbox.ack, lease, answer.exchange))
        if answer.text and lease.kind is RowKind.MESSAGE:
            telemetry.round_trip_duration.record(max(0.0, self._clock.wall() - lease.received_at))
        log.info(
            "turn ended",
            extra={"outcome": answer.outcome.value, "kind": lease.kind.value, "conversation": _conversation(lease)},
        )

    # --- the answer ----------------------------------------------------------------------------------------------

    async def _generate(self, turn: ActiveTurn, draft: Draft, span: Span) -> Answer | None:
        """Return the answer, or None if the message was released for another try."""
        lease = turn.lease
        if lease.stopped or turn.is_cancelled_to(CancelReason.STOP):
            return Answer.of("", Outcome.STOPPED)
        if lease.claims > CLAIMS_MAX:
            # Not handled again: handling it is what kills the process, and every other turn with it.
            error = ClawError("the process died each time that it handled this message")
            return self._failure_reply(lease.inbound, error)
        try:
            return await self._handle(lease.inbound, lease.route, draft)
        except asyncio.CancelledError:
            if not turn.is_cancelled_to(CancelReason.STOP):
                raise
            task = asyncio.current_task()
            if task is not None:
                # The task goes on to ack its message. Whoever asks `cancelling()` on the way, as a TaskGroup does,
                # must not find the turn cancelled still.
                task.uncancel()
            return Answer.of("", Outcome.STOPPED)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault in one message must not end the worker
            return await self._on_generate_error(turn, error, span)

    async def _on_generate_error(self, turn: ActiveTurn, error: Exception, span: Span) -> Answer | None:
        """Release the message for another try and return None, or return what the person is told at the end."""
        lease = turn.lease
        attempt = lease.attempts + 1
        # An error that is not ours is a fault of the program, which may be one of the moment: it is tried again, too.
        again = (error.retryable if isinstance(error, ClawError) else True) and attempt < self._max_attempts
        self._log_generate_error(lease, error, span, again=again)
        if not again:
            answer = self._failure_reply(lease.inbound, error)
            return replace(answer, error=f"{answer.error} (try {attempt})")
        asked = error.retry_after if isinstance(error, ClawError) else None
        delay = max(_backoff(attempt), min(asked or 0.0, RETRY_AFTER_MAX_S))
        # Not to be stopped from here on: the write cannot be taken back, and the message would be handled once more
        # although the person was told that it is stopped.
        turn.transition(Stage.RELEASING)
        await self._inbox.release(lease, delay, failed=True)
        return None

    def _log_generate_error(self, lease: Lease, error: Exception, span: Span, *, again: bool) -> None:
        _mark(span, error)
        extra = {
            "cause": str(error),
            "remedy": self._remedy(error),
            "attempt": lease.attempts + 1,
            "again": again,
            "conversation": _conversation(lease),
        }
        if isinstance(error, ModelError):
            extra |= {"fault": error.kind.value, "code": error.code}
        # A traceback only for what nobody foresaw: a known error says all by its cause and remedy.
        trace = None if isinstance(error, ClawError) else error
        log.log(logging.WARNING if again else logging.ERROR, "turn failed", extra=extra, exc_info=trace)

    # --- delivery ------------------------------------------------------------------------------------------------

    async def _deliver(self, lease: Lease, draft: Draft, answer: Answer, span: Span) -> bool:
        """Return whether all of the answer is out; if not, the message was released or buried."""

        async def save_progress(so_far: Answer) -> None:
            await self._persist(lease, partial(self._inbox.save_answer, lease, so_far))

        try:
            await draft.finish(answer, save_progress)
        except StoreError:
            raise
        except Exception as error:
            _mark(span, error)
            again = isinstance(error, DingTalkError) and self._may_deliver_again(lease, error)
            log.log(
                logging.WARNING if again else logging.ERROR,
                "answer not delivered",
                extra={"cause": str(error), "again": again, "conversation": _conversation(lease)},
                exc_info=None if isinstance(error, DingTalkError) else error,
            )
            if again:
                asked = error.retry_after if isinstance(error, DingTalkError) else None
                delay = max(_backoff(_delivery_attempt(lease)), asked or 0.0)
                await self._inbox.release(lease, delay, failed=True)
            else:
                await self._inbox.bury(lease, f"not delivered: {error}"[:ERROR_CHARS])
            return False
        return True

    def _may_deliver_again(self, lease: Lease, error: DingTalkError) -> bool:
        if not error.retryable or self._clock.wall() - lease.received_at >= DELIVERY_TIMEOUT_S:
            return False
        # A call that broke off may have been delivered: each further try may show the answer once more.
        return not error.maybe_delivered or _delivery_attempt(lease) < self._max_attempts

    # --- the store -----------------------------------------------------------------------------------------------

    async def _persist(
        self, lease: Lease, write: Callable[[], Awaitable[None]], trouble: str = "what was done is not kept yet"
    ) -> None:
        """Write what has been done, as soon as the store can: forgotten, it would be paid for, or said, once more.

        `trouble` is what the log says, loudly once: each second would be a line for each turn. Raises LeaseLostError.
        """
        # No limit of time: while the turn runs its lease is renewed, or lost, and then `write` says so. A repeat is
        # harmless where the failed write has come through after all: an answer is stored as before, and a message
        # that is gone reports its lease as lost.
        for level in chain([logging.WARNING], repeat(logging.DEBUG)):
            try:
                await write()
            except LeaseLostError:
                raise
            except StoreError as error:
                log.log(level, trouble, extra={"cause": str(error), "seq": lease.seq})
                await self._clock.sleep(STORE_RETRY_DELAY_S)
            else:
                return

    async def _release_when_possible(self, lease: Lease) -> None:
        """Release, as soon as the store can: a lease that is merely left would block its conversation until it ends."""
        release = partial(self._inbox.release, lease, STORE_RETRY_DELAY_S)
        with suppress(LeaseLostError):
            await self._persist(lease, release, "message not released yet")


def _conversation(lease: Lease) -> str:
    return hash_id(lease.route.conversation_key)


def _mark(span: Span, error: Exception) -> None:
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)


def _backoff(attempt: int) -> float:
    return full_jitter(attempt, base=BACKOFF_BASE_S, ceiling=BACKOFF_CEILING_S)


def _delivery_attempt(lease: Lease) -> int:
    """Return how often delivering was tried, this time included: the store counts afresh once an answer is saved."""
    return 1 if lease.answer is None else lease.attempts + 1

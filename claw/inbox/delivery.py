"""Delivering an answer that is stored: to its end, to another try, or to the dead letters.

Order of events: the draft delivers what is not out yet, and its progress is stored after each part. When DingTalk does
not take a part, `plan_retry` says whether there is another try; the message is released for it, and holds no slot
while it waits. When there is none, whom it concerns is told, and the message is buried together with its answer.

Where somebody wants no more of an answer, the progress that is stored next ends its delivery: what is out stays, with
its receipts, the rest is never sent, and history keeps what people have seen, with a mark.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Final

from opentelemetry.trace import Span, Status, StatusCode

from claw.clock import Clock
from claw.draft import DeliveryStoppedError, Draft, Suspension
from claw.errors import DingTalkError, LeaseLostError, StoreError
from claw.inbox.persist import persist
from claw.inbox.retries import GiveUp, is_doubtful, plan_retry
from claw.messages import Answer, Markdown, Outcome
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.ports import Inbox
from claw.store.values import Lease

log: Final = logging.getLogger(__name__)

ERROR_CHARS: Final = 500
"""Characters of an error that a dead letter keeps."""

BeginDraft = Callable[[Lease], Draft]
"""Begins the answer to a message."""
STOPPED_MARK: Final = "[stopped here; the rest was not sent]"
"""What history keeps behind an answer whose sending was stopped."""


class DeliveryEnd(Enum):
    """How a delivery ended."""

    OUT = auto()
    """All of the answer is out."""
    CUT = auto()
    """Nobody wants more of it."""
    LEFT = auto()
    """The message was released for another try, or buried."""


OnUndelivered = Callable[[Lease, Answer, Exception], Awaitable[None]]
"""Tells whom it concerns that an answer is given up. Raises nothing."""


class Deliverer:
    """Delivers answers. Turns call it from their own tasks, with the lease that they hold."""

    def __init__(self, inbox: Inbox, on_undelivered: OnUndelivered, clock: Clock) -> None:
        self._inbox = inbox
        self._on_undelivered = on_undelivered
        self._clock = clock

    async def deliver(
        self,
        lease: Lease,
        draft: Draft,
        answer: Answer,
        span: Span,
        *,
        note_progress: Callable[[Answer], None],
        is_unwanted: Callable[[], bool],
    ) -> DeliveryEnd:
        """Deliver, and return how that ended. Raises StoreError.

        `note_progress` gets the answer as soon as a part of it is out, before the store has it; of one that was cut, it
        gets what is left to keep. `is_unwanted` says whether nothing more is to be sent.
        """
        stored = answer
        # The store counts afresh with each answer that it gets, the first as well as one that tells of progress.
        tries = 1 if lease.answer is None else lease.attempts + 1

        async def save_progress(so_far: Answer) -> None:
            nonlocal stored, tries
            note_progress(so_far)
            await persist(lease, partial(self._inbox.save_answer, lease, so_far), self._clock)
            stored, tries = so_far, 1
            # Between two parts, and after the first of them is known to be out.
            if is_unwanted():
                raise DeliveryStoppedError

        # While the answer was stored: nothing of it has been sent, or what an earlier try has.
        if is_unwanted():
            cut = cut_off(answer, "")
            note_progress(cut)
            if not answer.sent:
                # For what shows the answer so far: it says that nothing more comes.
                with suppress(DingTalkError):
                    await draft.finish(replace(cut, content=()), save_progress)
            await draft.suspend(Suspension.GIVEN_UP)
            return DeliveryEnd.CUT
        try:
            receipts = await draft.finish(answer, save_progress)
        except StoreError:
            raise
        except DeliveryStoppedError as stop:
            note_progress(cut_off(stored, stop.shown))
            return DeliveryEnd.CUT
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not end the worker
            if is_unwanted():
                # Nobody waits for another try of this part.
                note_progress(cut_off(stored, ""))
                await draft.suspend(Suspension.GIVEN_UP)
                return DeliveryEnd.CUT
            mark_error(span, error)
            if not await self._on_refused(lease, stored, error, tries):
                await draft.suspend(Suspension.GIVEN_UP)
            return DeliveryEnd.LEFT
        if receipts:
            # In memory only, for the ack: a later quote may name them.
            note_progress(replace(stored, receipts=receipts))
        return DeliveryEnd.OUT

    async def _on_refused(self, lease: Lease, answer: Answer, error: Exception, tries: int) -> bool:
        """Release the message for another try, or bury it; return whether there is another one."""
        if is_doubtful(error):
            # Stored, since the count bounds how often people may see the part again, also over restarts.
            answer = replace(answer, doubts=answer.doubts + 1)
            await persist(lease, partial(self._inbox.save_answer, lease, answer), self._clock)
        # From the answer's own time on: a message may have waited for hours before there was anything to deliver.
        age = max(0.0, self._clock.wall() - (answer.made_at or lease.received_at))
        plan = plan_retry(error, tries, age, doubts=answer.doubts)
        given_up = isinstance(plan, GiveUp)
        extra: dict[str, object] = {
            "cause": str(error),
            "again": not given_up,
            "conversation": hash_id(lease.route.conversation_key),
        }
        # A traceback only for what nobody foresaw.
        trace = None if isinstance(error, DingTalkError) else error
        log.log(logging.ERROR if given_up else logging.WARNING, "answer not delivered", extra=extra, exc_info=trace)
        if not isinstance(plan, GiveUp):
            await self._inbox.release(lease, plan.delay, failed=True)
            return True
        await self._bury(lease, answer, error, plan.value, max(tries, answer.doubts))
        return False

    async def give_up(self, lease: Lease, draft: Draft, answer: Answer, error: Exception, span: Span) -> None:
        """Bury an answer without another try. Raises StoreError."""
        mark_error(span, error)
        log.error("answer given up", extra={"cause": str(error), "seq": lease.seq})
        await self._bury(lease, answer, error, GiveUp.FINAL.value, lease.claims - 1)
        await draft.suspend(Suspension.GIVEN_UP)

    async def _bury(self, lease: Lease, answer: Answer, error: Exception, why: str, attempts: int) -> None:
        # Before it is buried: a crash in between tells it twice rather than never, and the notices bound themselves.
        await self._on_undelivered(lease, answer, error)
        cause = f"not delivered ({why}): {error}" + (f"; to say: {answer.error}" if answer.error else "")
        await self._inbox.bury(lease, cause[:ERROR_CHARS], attempts=attempts, merged=answer.merged)


@asynccontextmanager
async def suspend_at_end(draft: Draft, is_draining: Callable[[], bool]) -> AsyncIterator[Draft]:
    """Suspend the draft of a turn that ends without an answer; one that is finished takes no notice."""
    why = Suspension.RETRY
    try:
        yield draft
    except asyncio.CancelledError:
        why = Suspension.DRAIN if is_draining() else Suspension.LOST
        raise
    except LeaseLostError:
        why = Suspension.LOST
        raise
    finally:
        await draft.suspend(why)


def cut_off(answer: Answer, shown: str) -> Answer:
    """Return what is kept of an answer of which people have seen `shown`; empty: what its count of deliveries tells."""
    exchange = answer.exchange
    if exchange is not None:
        said = shown or (exchange.assistant if answer.sent else "")
        # Of an answer that nobody has seen nothing is remembered, as of one that was never made.
        exchange = replace(exchange, assistant=f"{said}\n\n{STOPPED_MARK}") if said else None
    # One that tells of a failure is buried with its cause all the same.
    outcome = answer.outcome if answer.outcome is Outcome.FAILED else Outcome.STOPPED
    return replace(answer, content=(Markdown(shown),) if shown else (), exchange=exchange, outcome=outcome)


def mark_error(span: Span, error: Exception) -> None:
    """Mark a turn's span as failed, by the error's type alone: its words may be private."""
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)

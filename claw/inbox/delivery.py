"""Delivering an answer that is stored: to its end, to another try, or to the dead letters.

Order of events: the draft delivers what is not out yet, and its progress is stored after each part. When DingTalk does
not take a part, `plan_retry` says whether there is another try; the message is released for it, and holds no slot
while it waits. When there is none, whom it concerns is told, and the message is buried together with its answer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

from opentelemetry.trace import Span, Status, StatusCode

from claw.clock import Clock
from claw.draft import Draft
from claw.errors import DingTalkError, StoreError
from claw.inbox.persist import persist
from claw.inbox.retries import GiveUp, is_doubtful, plan_retry
from claw.messages import Answer
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.ports import Inbox, Lease

log: Final = logging.getLogger(__name__)

ERROR_CHARS: Final = 500
"""Characters of an error that a dead letter keeps."""

OnUndelivered = Callable[[Lease, Answer, Exception], Awaitable[None]]
"""Tells whom it concerns that an answer is given up. Raises nothing."""


class Deliverer:
    """Delivers answers. Turns call it from their own tasks, with the lease that they hold."""

    def __init__(self, inbox: Inbox, on_undelivered: OnUndelivered, clock: Clock) -> None:
        self._inbox = inbox
        self._on_undelivered = on_undelivered
        self._clock = clock

    async def deliver(
        self, lease: Lease, draft: Draft, answer: Answer, span: Span, note_progress: Callable[[Answer], None]
    ) -> bool:
        """Return whether all of the answer is out; if not, the message was released or buried. Raises StoreError.

        `note_progress` gets the answer as soon as a part of it is out, before the store has it.
        """
        stored = answer
        # The store counts afresh with each answer that it gets, the first as well as one that tells of progress.
        tries = 1 if lease.answer is None else lease.attempts + 1

        async def save_progress(so_far: Answer) -> None:
            nonlocal stored, tries
            note_progress(so_far)
            await persist(lease, partial(self._inbox.save_answer, lease, so_far), self._clock)
            stored, tries = so_far, 1

        try:
            await draft.finish(answer, save_progress)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not end the worker
            mark_error(span, error)
            await self._on_refused(lease, stored, error, tries)
            return False
        return True

    async def _on_refused(self, lease: Lease, answer: Answer, error: Exception, tries: int) -> None:
        """Release the message for another try, or bury it."""
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
            return
        await self._bury(lease, answer, error, plan.value, max(tries, answer.doubts))

    async def give_up(self, lease: Lease, answer: Answer, error: Exception, span: Span) -> None:
        """Bury an answer without another try. Raises StoreError."""
        mark_error(span, error)
        log.error("answer given up", extra={"cause": str(error), "seq": lease.seq})
        await self._bury(lease, answer, error, GiveUp.FINAL.value, lease.claims - 1)

    async def _bury(self, lease: Lease, answer: Answer, error: Exception, why: str, attempts: int) -> None:
        # Before it is buried: a crash in between tells it twice rather than never, and the notices bound themselves.
        await self._on_undelivered(lease, answer, error)
        cause = f"not delivered ({why}): {error}" + (f"; to say: {answer.error}" if answer.error else "")
        await self._inbox.bury(lease, cause[:ERROR_CHARS], attempts=attempts)


def mark_error(span: Span, error: Exception) -> None:
    """Mark a turn's span as failed, by the error's type alone: its words may be private."""
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)

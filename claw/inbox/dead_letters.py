"""Dead letters as an operator handles them: looked at, tried again, dropped.

Order of events of another try: the letter is read; where the answer is there, which was paid for, it is only sent, and
otherwise the model is asked again. Letter and row change places in one step of the store, so that of two clicks one
counts, and a crash leaves either of them. Its session webhook is gone, so that the answer goes by the OpenAPI.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from claw.clock import Clock
from claw.inbox.routing import queue_of_own
from claw.messages import Answer, Inbound, Outcome, Route
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.operation import DeadLetters
from claw.store.values import DeadLetter, Requeued, Row, RowKind

log: Final = logging.getLogger(__name__)


def is_sendable(letter: DeadLetter) -> bool:
    """Whether a letter holds an answer to send: what tells of a failure is none."""
    answer = letter.answer
    return answer is not None and bool(answer.content) and answer.outcome is not Outcome.FAILED


@dataclass(frozen=True)
class DeadLetterDesk:
    """Handles dead letters; `route` routes a message of a person as acceptance does. Methods raise StoreError."""

    store: DeadLetters
    route: Callable[[Inbound], Route]
    clock: Clock

    async def list(self, limit: int) -> list[DeadLetter]:
        """Return the newest letters, newest first."""
        return await self.store.dead(limit)

    async def drop(self, letter_id: str) -> bool:
        """Remove a letter; False where there is none."""
        return await self.store.drop_dead(letter_id)

    async def retry(self, letter_id: str) -> Requeued:
        """Put a letter back into the inbox."""
        letter = await self.store.find_dead(letter_id)
        if letter is None:
            return Requeued.GONE
        answer = self._renew(letter) if is_sendable(letter) else None
        # A failure's own words were sent already: the question is asked again in their place.
        # Only what people wrote can be asked again.
        if letter.inbound is None or (answer is None and letter.kind is not RowKind.MESSAGE):
            return Requeued.UNREADABLE
        inbound = letter.inbound
        route = self.route(inbound) if letter.kind is RowKind.MESSAGE else queue_of_own(letter.kind, inbound)
        with telemetry.tracer.start_as_current_span(telemetry.SPAN_REQUEUE):
            row = Row(inbound, route, telemetry.inject(), letter.kind, answer)
            if not await self.store.requeue(letter_id, row):
                return Requeued.GONE
            how = Requeued.ASK if answer is None else Requeued.SEND
            log.info("dead letter put back", extra={"how": how.value, "key": hash_id(letter.key)})
        return how

    def _renew(self, letter: DeadLetter) -> Answer | None:
        """Return a letter's answer with an hour of tries before it; what is out of it stays out."""
        # What was answered along with it is buried as a letter of its own, by a number that means nothing any more.
        return letter.answer and replace(letter.answer, made_at=self.clock.wall(), doubts=0, merged=(), error="")

"""What programs have claw send (`POST /send`): as durable as a person's message, once for each idempotency key.

Order of events: the receipt is kept, then the row is put; whoever repeats the request finds both. A crash between the
two leaves a receipt without a row, which the repetition of the request mends: nobody was told yet that it is accepted.
The worker delivers the row like any answer, in order for each receiver; `note_sent` and `note_failed` end the receipt
before the row goes, so that no receipt is pending for ever.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from claw.clock import Clock
from claw.errors import DingTalkError, StoreError
from claw.inbox.routing import queue_of_own
from claw.messages import Answer, ChatKind, Conversation, Inbound, Outcome, Sender
from claw.observe import telemetry
from claw.store.operation import Sends
from claw.store.ports import Inbox
from claw.store.values import Lease, Row, RowKind, SendReceipt, SendState

log: Final = logging.getLogger(__name__)

ERROR_MAX_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class SendRequest:
    """What a program asks for. One of `user` (a staff id) and `conversation` (a group's id) is empty."""

    id: str
    user: str
    conversation: str
    markdown: str

    @property
    def digest(self) -> str:
        """What tells whether two requests of one id ask for the same."""
        told = "\0".join((self.user, self.conversation, self.markdown))
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class SendDesk:
    """Accepts what programs send, and tells what became of it. Methods raise StoreError."""

    receipts: Sends
    inbox: Inbox
    robot_code: str
    clock: Clock

    async def accept(self, send_id: str, receiver: tuple[str, str], markdown: str) -> SendReceipt | None:
        """Accept a text for a user or a conversation, or find what became of an earlier one of its id.

        None where that was another text, or for somebody else.
        """
        request = SendRequest(send_id, *receiver, markdown)
        now = self.clock.wall()
        fresh = SendReceipt(request.id, SendState.PENDING, now, digest=request.digest)
        # The race: two requests of one key at the same moment, perhaps at two replicas. The store lets one receipt win,
        # and both put the same row, of which one is a repeat.
        receipt = await self.receipts.begin_send(fresh)
        if receipt.digest != request.digest:
            return None
        if receipt.state is SendState.PENDING:
            # Also for a repetition: put again it is known as a repeat, unless a crash left it without its row.
            with telemetry.tracer.start_as_current_span(telemetry.SPAN_CREATE):
                await self.inbox.put(replace(self._make_row(request), trace=telemetry.inject()))
        return receipt

    async def find(self, send_id: str) -> SendReceipt | None:
        """Return what became of a request."""
        return await self.receipts.find_send(send_id)

    async def note_sent(self, lease: Lease, receipts: tuple[str, ...]) -> None:
        """Note that all is out, with DingTalk's names for it."""
        await self._end(lease, SendState.SENT, receipts, "")

    async def note_failed(self, lease: Lease, answer: Answer, error: Exception) -> None:
        """Note that it was given up."""
        cause = error.detail if isinstance(error, DingTalkError) else type(error).__name__
        await self._end(lease, SendState.FAILED, answer.receipts, cause[:ERROR_MAX_CHARS])

    async def _end(self, lease: Lease, state: SendState, receipts: tuple[str, ...], error: str) -> None:
        send_id, now = lease.inbound.msg_id.removeprefix(f"{RowKind.SEND.value}:"), self.clock.wall()
        # It may be gone: a text that waited for a week, or that somebody put back out of the dead letters.
        kept = await self.receipts.find_send(send_id) or SendReceipt(send_id, state, lease.received_at)
        await self.receipts.end_send(replace(kept, state=state, ended_at=now, receipts=receipts, error=error))

    def _make_row(self, request: SendRequest) -> Row:
        is_group = bool(request.conversation)
        where = Conversation(request.conversation or request.user, ChatKind.GROUP if is_group else ChatKind.DIRECT)
        inbound = Inbound(
            robot_code=self.robot_code,
            msg_id=f"{RowKind.SEND.value}:{request.id}",
            conversation=where,
            sender=Sender(request.user, request.user),
            msgtype="text",
            text="",
            created_at=self.clock.wall(),
        )
        answer = Answer.of(request.markdown, Outcome.ANSWERED)
        return Row(inbound, queue_of_own(RowKind.SEND, inbound), {}, RowKind.SEND, answer)


OnUndelivered = Callable[[Lease, Answer, Exception], Awaitable[None]]
"""As in inbox/delivery.py."""


def report_to(desk: SendDesk, alert: OnUndelivered) -> OnUndelivered:
    """Return what hears of an answer that is given up: the receipt, for a program's text, then whom it concerns."""

    async def on_undelivered(lease: Lease, answer: Answer, error: Exception) -> None:
        if lease.kind is RowKind.SEND:
            try:
                await desk.note_failed(lease, answer, error)
            except StoreError as failure:
                log.warning("receipt not ended", extra={"cause": str(failure)})
        await alert(lease, answer, error)

    return on_undelivered

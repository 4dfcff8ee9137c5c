"""One turn: what happens to a message between its claim and its end.

Order of events: a draft is begun, and goes to the handler with the message; the handler makes the answer. The answer
is stored, so that a crash from here on does not pay the model twice. The draft delivers it (delivery.py). The message
is acked, or buried when the answer tells of a failure.

A handler that fails is tried again as `plan_next_try` says (retries.py): `CLAW_MAX_ATTEMPTS` times in all, within
`CLAW_TURN_TIMEOUT` of work over all tries. A model's server that takes no work yet is waited for, up to
`CLAW_MODEL_PATIENCE`; that counts no attempt, and the person is told once. At the end the person is told what failed,
or gets what had come of the answer. All waits between tries are the inbox's: a message that waits holds no slot, keeps
its place in its queue, and survives a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from opentelemetry.trace import Span

from claw.clock import Clock
from claw.draft import Draft
from claw.errors import ClawError, LeaseLostError, ModelError, ModelErrorKind, StoreError
from claw.inbox.active import ActiveTurn, CancelReason, Cut, Stage
from claw.inbox.alerts import OncePer
from claw.inbox.delivery import BeginDraft, Deliverer, DeliveryEnd, OnUndelivered, mark_error, suspend_at_end
from claw.inbox.persist import STORE_RETRY_DELAY_S, persist
from claw.inbox.restore import is_gone, put_back
from claw.inbox.retries import Effort, GiveUp, Limits, Retry, plan_next_try
from claw.inbox.trips import Trip
from claw.messages import Answer, ChatKind, Inbound, Outcome, Route
from claw.observe import telemetry
from claw.parts import Words
from claw.secret import hash_id
from claw.store.ports import NOTICES_RETENTION_S, Inbox
from claw.store.values import Follower, KeptMessage, Lease, RowKind

log: Final = logging.getLogger(__name__)

POISON_ERROR: Final = "the process died each time that it worked on this message"
CLAIMS_MAX: Final = 4
"""A message that was claimed so often without an end, the last times alone, kills its process: the next gives it up."""
TIMEOUT_GRACE_S: Final = 1.0
"""Seconds beyond the rest of `CLAW_TURN_TIMEOUT` after which a handler is cut: the model's client, which keeps the same
time for its first try, then ends by itself and tells more."""
FOLLOWERS_MAX: Final = 9
"""Messages that are answered together with the one before them."""
PATIENCE_NOTICE_S: Final = 5.0
"""Seconds of waiting for the model's server before the person is told: a restart within these is not worth a call."""
NOTICE_TIMEOUT_S: Final = 15.0
"""Seconds that telling it may take: it must not hold up the next try."""
RELEASED: Final = "released"
"""Beside the values of Outcome, for `claw.turn.duration`: the message went back to the inbox for another try."""
UNDELIVERED: Final = "undelivered"
"""DingTalk did not take the answer, which is kept for another try or given up."""


class Handle(Protocol):
    """Makes the answer to a message, and to those that are answered with it, and tells the draft how it comes along.

    Raises ClawError for what it knows. A StoreError does not count as a try.
    """

    async def __call__(
        self, inbound: Inbound, route: Route, draft: Draft, followers: Sequence[Follower] = (), /
    ) -> Answer: ...


SelectFollowers = Callable[[Inbound, Sequence[Follower]], Awaitable[Sequence[Follower]]]
"""Says which of the messages behind one may be answered with it. Raises StoreError."""
FailureReply = Callable[[Inbound, Exception], Awaitable[Answer]]
"""Makes what the person gets when a message is given up, of what had come of the answer too (`ModelError.partial`)."""
PatienceReply = Callable[[Inbound], Awaitable[Answer]]
"""Makes what the person is told when it takes longer."""
InterruptedReply = Callable[[Inbound, Route], Answer]
"""Makes what is kept of a turn that its sender's next message ended."""
Remedy = Callable[[Exception], str]
"""Says what an operator can do about an error."""


@dataclass(frozen=True, kw_only=True)
class TurnHooks:
    """What turns need of the other rooms."""

    handle: Handle
    begin_draft: BeginDraft
    say: Callable[[Inbound, Answer], Awaitable[None]]
    """Sends a message beside the answer. Raises DingTalkError."""
    failure_reply: FailureReply
    patience_reply: PatienceReply
    interrupted_reply: InterruptedReply
    select_followers: SelectFollowers | None
    """None: each message has a turn of its own."""
    remedy: Remedy
    on_undelivered: OnUndelivered
    once_per: OncePer
    on_sent: Callable[[Lease, tuple[str, ...]], Awaitable[None]]
    """Hears, with DingTalk's receipts, that all of what a program sends is out. Raises StoreError."""
    on_given_up: Callable[[Exception], Awaitable[None]]
    """Hears why the model gave no answer. Raises nothing."""
    on_end: Callable[[Trip], None]
    """Hears of each message that is done with."""


class TurnRunner:
    """Runs turns, each within the task that the worker gave it."""

    def __init__(self, inbox: Inbox, hooks: TurnHooks, limits: Limits, clock: Clock) -> None:
        self._inbox = inbox
        self._hooks = hooks
        self._limits = limits
        self._clock = clock
        self._deliverer = Deliverer(inbox, hooks.on_undelivered, clock)

    async def run(self, turn: ActiveTurn) -> None:
        """Run a turn to its end. Raises CancelledError only where the cancellation came from outside."""
        lease = turn.lease
        began, outcome = self._clock.monotonic(), RELEASED
        turn.claimed_at = began
        try:
            with telemetry.tracer.start_as_current_span(
                telemetry.SPAN_TURN,
                telemetry.extract(lease.trace),
                attributes=self._attributes(lease),
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    async with suspend_at_end(self._hooks.begin_draft(lease), turn.is_draining) as draft:
                        outcome = await self._process(turn, draft, span)
                except asyncio.CancelledError:
                    if turn.cancel_reason is not CancelReason.RELEASE:
                        raise
                    await self._inbox.release(lease, waiting=is_waiting(lease), worked=self._count_work(turn))
        except asyncio.CancelledError:
            # A turn that we cancelled ends quietly: an abandoned one, or one whose release was cut short. Any other
            # cancellation is the caller's and goes on up.
            if turn.cancel_reason is CancelReason.NONE:
                raise
        except LeaseLostError as error:
            await self._on_lost(turn, error)
        except StoreError as error:
            # The message is still in the inbox, and so is its answer if that was saved.
            log.error("turn not finished: the store failed", extra={"cause": str(error), "seq": lease.seq})
            await self._release_when_possible(turn)
        finally:
            telemetry.turn_duration.record(self._clock.monotonic() - began, {"outcome": outcome})

    def _attributes(self, lease: Lease) -> dict[str, str | int]:
        return {
            telemetry.CLAW_QUEUE_WAIT_MS: max(0, round((self._clock.wall() - lease.received_at) * 1000)),
            telemetry.CLAW_ATTEMPT: lease.attempts + 1,
            telemetry.CLAW_CONVERSATION: _conversation(lease),
            telemetry.CLAW_KIND: lease.kind.value,
        }

    async def _process(self, turn: ActiveTurn, draft: Draft, span: Span) -> str:
        """Take a message from claim to ack, release or dead letter; return the outcome, as metrics tell it.

        A row that has its answer, since a crash came after it or since it was put with it, is only delivered.
        """
        lease = turn.lease
        if turn.is_cancelled_to(CancelReason.RELEASE) or turn.is_cancelled_to(CancelReason.ABANDON):
            raise asyncio.CancelledError
        answer = turn.answer = lease.answer
        if answer is not None and lease.stopped:
            # Its last holder was asked to end the sending, and died before it could.
            turn.cut = Cut.WANTED
        if answer is not None and lease.claims > CLAIMS_MAX:
            # Its delivery kills the process, and telling so by the same way might again.
            await self._deliverer.give_up(lease, draft, answer, ClawError(POISON_ERROR), span)
            return UNDELIVERED
        if answer is None:
            turn.transition(Stage.GENERATING)
            answer = await self._generate(turn, draft, span)
            if answer is None:
                return RELEASED
        # Before the answer is stored: a `/stop` that comes while the store writes must not cancel the write, which
        # cannot be taken back. From here on it cuts the delivery, and is told of when that is kept.
        turn.transition(Stage.DELIVERING)
        turn.delivered_from = self._clock.monotonic()
        if lease.answer is None and answer.text:
            answer = turn.answer = replace(answer, made_at=self._clock.wall())
            await persist(lease, partial(self._inbox.save_answer, lease, answer), self._clock)

        def note_progress(so_far: Answer) -> None:
            turn.answer = so_far

        delivery = await self._deliverer.deliver(
            lease, draft, answer, span, note_progress=note_progress, is_unwanted=turn.is_unwanted
        )
        if delivery is DeliveryEnd.LEFT:
            return UNDELIVERED
        if delivery is DeliveryEnd.CUT:
            turn.cut = Cut.DONE
        # All of it is out, or all that is wanted: were the message put back now, its exchange would be remembered and
        # nothing said again.
        answer = turn.answer or answer
        turn.answer = replace(answer, content=())
        span.set_attribute(telemetry.CLAW_OUTCOME, answer.outcome.value)
        # Before the row goes: a crash in between sends nothing again, and notes it again.
        if lease.kind is RowKind.SEND:
            await persist(lease, partial(self._hooks.on_sent, lease, answer.receipts), self._clock)
        # The answer is out. If this write got lost the person would get all of it again, hence the patience.
        if answer.outcome is Outcome.FAILED:
            bury = partial(self._inbox.bury, lease, answer.error, attempts=answer.tries or None, merged=answer.merged)
            await persist(lease, bury, self._clock)
        else:
            sent = _index(lease, answer, self._clock.wall())
            ack = partial(self._inbox.ack, lease, answer.exchange, sent=sent, merged=answer.merged)
            await persist(lease, ack, self._clock)
        if answer.text and lease.kind is RowKind.MESSAGE:
            took = max(0.0, self._clock.wall() - lease.received_at)
            telemetry.round_trip_duration.record(took, {"outcome": answer.outcome.value})
        self._hooks.on_end(self._make_trip(turn, answer))
        log.info(
            "turn ended",
            extra={"outcome": answer.outcome.value, "kind": lease.kind.value, "conversation": _conversation(lease)},
        )
        return answer.outcome.value

    def _make_trip(self, turn: ActiveTurn, answer: Answer) -> Trip:
        lease, now = turn.lease, self._clock.monotonic()
        where, began = lease.inbound.conversation, turn.claimed_at
        return Trip(
            ended_at=self._clock.wall(),
            outcome=answer.outcome.value,
            kind=lease.kind.value,
            chat=where.title if where.kind is ChatKind.GROUP else "",
            trace_id=telemetry.trace_id(),
            queue=max(0.0, self._clock.wall() - lease.received_at - (now - began)),
            model=turn.delivered_from - began,
            reply=now - turn.delivered_from,
            attempts=answer.tries or lease.attempts + 1,
        )

    # --- the answer ----------------------------------------------------------------------------------------------

    async def _generate(self, turn: ActiveTurn, draft: Draft, span: Span) -> Answer | None:
        """Return the answer, or None if the message was released for another try."""
        lease = turn.lease
        if lease.stopped or turn.is_cancelled_to(CancelReason.STOP):
            return Answer.of("", Outcome.STOPPED)
        if turn.is_cancelled_to(CancelReason.INTERRUPT):
            return self._hooks.interrupted_reply(lease.inbound, lease.route)
        if lease.claims > CLAIMS_MAX:
            # Not handled again: handling it is what kills the process, and every other turn with it.
            error = ClawError(POISON_ERROR)
            return replace(await self._hooks.failure_reply(lease.inbound, error), tries=lease.claims - 1)
        turn.began_at = self._clock.monotonic()
        try:
            try:
                return await self._handle(turn, draft)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - a fault in one message must not end the worker
                return await self._on_generate_error(turn, error, span)
        except asyncio.CancelledError:
            if turn.cancel_reason not in {CancelReason.STOP, CancelReason.INTERRUPT}:
                raise
            task = asyncio.current_task()
            if task is not None:
                # The task goes on to ack its message. Whoever asks `cancelling()` on the way, as a TaskGroup does,
                # must not find the turn cancelled still.
                task.uncancel()
            if turn.is_cancelled_to(CancelReason.INTERRUPT):
                return self._hooks.interrupted_reply(lease.inbound, lease.route)
            return Answer.of("", Outcome.STOPPED)

    async def _handle(self, turn: ActiveTurn, draft: Draft) -> Answer:
        """Run the handler within what is left of the turn's time. Raises what it raises, and ModelError.

        A handler that is cut keeps what had come of the answer, for `failure_reply`.
        """
        lease = turn.lease
        left = max(0.0, self._limits.turn_timeout - lease.worked)
        # By the loop's time, as the model's client: the person waits in real time.
        timeout = asyncio.timeout(left + TIMEOUT_GRACE_S)
        try:
            async with timeout:
                if self._hooks.select_followers is not None and not lease.route.urgent:
                    behind = await self._inbox.followers(lease, FOLLOWERS_MAX)
                    if behind:
                        turn.followers = tuple(await self._hooks.select_followers(lease.inbound, behind))
                        for each in turn.followers:
                            draft.join(each.inbound)
                return await self._hooks.handle(lease.inbound, lease.route, draft, turn.followers)
        except TimeoutError:
            if not timeout.expired():
                raise
            reason = f"no answer within {self._limits.turn_timeout:g} s of work over all tries"
            raise ModelError(ModelErrorKind.TIMEOUT, reason) from None

    def _count_work(self, turn: ActiveTurn) -> float:
        """Return the seconds that the handler has worked in this try."""
        return self._clock.monotonic() - turn.began_at if turn.stage is Stage.GENERATING and turn.began_at else 0.0

    async def _on_generate_error(self, turn: ActiveTurn, error: Exception, span: Span) -> Answer | None:
        """Release the message for another try and return None, or return what the person is told at the end."""
        lease = turn.lease
        took = self._count_work(turn)
        waited = max(0.0, self._clock.wall() - lease.waiting_since) if lease.waiting_since else 0.0
        effort = Effort(lease.attempts + 1, took=took, worked=lease.worked + took, waited=waited)
        plan = plan_next_try(error, effort, self._limits)
        self._log_generate_error(lease, error, span, plan, effort)
        if isinstance(plan, GiveUp):
            await self._hooks.on_given_up(error)
            answer = await self._hooks.failure_reply(lease.inbound, error)
            spent = f"try {effort.attempt}" + (f", waited {waited:.0f} s" if waited else "")
            return replace(answer, tries=effort.attempt, error=answer.error and f"{answer.error} ({spent})")
        if plan.waiting and waited >= PATIENCE_NOTICE_S:
            # Before the release: after it another try may answer, and the notice would come behind the answer. A
            # `/stop` meanwhile is not too late.
            await self._tell_waiting(lease)
        # Not to be stopped from here on: the write cannot be taken back, and the message would be handled once more
        # although the person was told that it is stopped.
        turn.transition(Stage.RELEASING)
        if plan.waiting:
            # Nothing was begun: the time that it took to find the server away is not the model's work.
            await self._inbox.release(lease, plan.delay, waiting=True)
        else:
            await self._inbox.release(lease, plan.delay, failed=True, worked=took)
        return None

    async def _tell_waiting(self, lease: Lease) -> None:
        """Tell the person, once for a message, that it takes longer. Best effort: its failure changes nothing."""
        try:
            if not await self._hooks.once_per(f"patience:{lease.inbound.key}", NOTICES_RETENTION_S):
                return
            answer = await self._hooks.patience_reply(lease.inbound)
            async with asyncio.timeout(NOTICE_TIMEOUT_S):
                # Beside the draft, which is for the answer. Nothing of it is stored.
                await self._hooks.say(lease.inbound, answer)
        except Exception as error:  # noqa: BLE001 - see above
            extra = {"cause": str(error) or type(error).__name__, "conversation": _conversation(lease)}
            log.warning("nobody told that the model is waited for", extra=extra)

    def _log_generate_error(
        self, lease: Lease, error: Exception, span: Span, plan: Retry | GiveUp, effort: Effort
    ) -> None:
        mark_error(span, error)
        again = isinstance(plan, Retry)
        extra = {
            "cause": str(error),
            "remedy": self._hooks.remedy(error),
            "attempt": effort.attempt,
            "again": again,
            "conversation": _conversation(lease),
        }
        if isinstance(error, ModelError):
            extra |= {"fault": error.kind.value, "code": error.code}
        if isinstance(plan, Retry) and plan.waiting:
            # Loudly once for each turn: a server that is away for minutes is asked very often.
            level = logging.DEBUG if lease.waiting_since else logging.WARNING
            log.log(level, "the model's server is waited for", extra=extra | {"waited_s": round(effort.waited)})
            return
        # A traceback only for what nobody foresaw: a known error says all by its cause and remedy.
        trace = None if isinstance(error, ClawError) else error
        log.log(logging.WARNING if again else logging.ERROR, "turn failed", extra=extra, exc_info=trace)

    # --- the store -----------------------------------------------------------------------------------------------

    async def _release_when_possible(self, turn: ActiveTurn) -> None:
        """Release, as soon as the store can: a lease that is merely left would block its conversation until it ends."""
        lease = turn.lease
        release = partial(self._inbox.release, lease, STORE_RETRY_DELAY_S, waiting=is_waiting(lease))
        try:
            await persist(lease, release, self._clock, "message not released yet")
        except LeaseLostError as error:
            await self._on_lost(turn, error)

    async def _on_lost(self, turn: ActiveTurn, error: LeaseLostError) -> None:
        """Leave the turn to its new holder, or put the message back where there is none."""
        lease, answer = turn.lease, turn.answer
        if not is_gone(error):
            log.warning("lease lost: the turn is left to its new holder", extra={"seq": lease.seq})
            return
        if await put_back(self._inbox, lease, answer, self._clock) or answer is None or not answer.content:
            return
        # Nobody else has the answer. Once, and nothing of it is stored: there is nowhere to store it.
        try:
            await self._hooks.say(lease.inbound, answer)
        except Exception as failure:  # noqa: BLE001 - the worker goes on
            extra = {"cause": str(failure) or type(failure).__name__, "conversation": _conversation(lease)}
            log.error("answer of a forgotten message not delivered", extra=extra)


def _conversation(lease: Lease) -> str:
    return hash_id(lease.route.conversation_key)


def _index(lease: Lease, answer: Answer, at: float) -> KeptMessage | None:
    """Return what the index keeps of an answer, for a later message that quotes it; None where nothing was said."""
    if not answer.text or lease.kind is RowKind.ALERT:
        return None
    words = (Words(answer.text),)
    return KeptMessage(lease.inbound.chat_key, answer.receipts, at, speaker="", by_robot=True, parts=words)


def is_waiting(lease: Lease) -> bool:
    """Whether it goes on waiting for the model's server: giving a message back does not begin its patience afresh."""
    # An answer that was saved meanwhile, of which this lease does not know, makes it meaningless.
    return lease.answer is None and lease.waiting_since > 0

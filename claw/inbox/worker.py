"""The worker: takes messages out of the inbox, one turn at a time per conversation, many conversations at once.

Order of events: while a slot is free the worker claims the oldest message that may be worked on, and starts its turn
as a task of its own (turns.py), unless it would take more than its share (fairness.py): then it goes back for a while.
When all slots are taken the worker claims urgent messages only, such as `/stop`, which have a few slots of their own.
When there is nothing to claim it waits for the inbox or for a slot. A drain claims nothing more, waits for the running
turns, and gives back what does not end in time.

A message that died with its process twice is a suspect: it waits for the running turns to end, and runs alone.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from claw.clock import Clock
from claw.errors import LeaseLostError, StoreError
from claw.inbox.active import ActiveTurn, CancelReason, Cut, Stage
from claw.inbox.fairness import URGENT_SLOTS, Fairness
from claw.inbox.leases import LeaseKeeper
from claw.inbox.persist import STORE_RETRY_DELAY_S, persist
from claw.inbox.restore import is_gone, put_back
from claw.inbox.retries import Limits
from claw.inbox.turns import TurnHooks, TurnRunner, is_waiting
from claw.messages import Inbound, Route
from claw.secret import hash_id
from claw.store.ports import Inbox
from claw.store.values import Interrupted, Lease
from claw.tasks import start_eternal

log: Final = logging.getLogger(__name__)

RELEASE_TIMEOUT_S: Final = 1.0
"""Seconds that giving back may take at the end of a drain."""
SUSPECT_CLAIMS: Final = 3
"""From this claim on a message runs alone. A crash counts one for each message in flight: two may be bad luck."""
CUT_TIMEOUT_S: Final = 2.0
"""Seconds for the part of an answer that is on its way when its sending is stopped; then it is said to be stopped: a
person who waits for that word would ask again."""
HELD_BACK_MAX: Final = 32
"""Messages that are on their way back to the inbox at the same time; the store commits them together."""


class Worker:
    """Owns every turn's task. `run` is one named task of `app`; `drain` ends it.

    `slots` is how many turns run at once, urgent ones apart; `owner` names this process in the store.
    """

    def __init__(
        self,
        inbox: Inbox,
        hooks: TurnHooks,
        limits: Limits,
        *,
        slots: int,
        owner: str,
        clock: Clock,
    ) -> None:
        self._inbox = inbox
        self._slots = slots
        self._clock = clock
        self._turns = TurnRunner(inbox, hooks, limits, clock)
        self._active: dict[str, ActiveTurn] = {}
        """The turns in progress, by their queues: a queue has one lease at a time, hence one turn."""
        self._fairness = Fairness(slots, clock)
        self._held_back: set[asyncio.Task[None]] = set()
        """Messages on their way back to the inbox."""
        self._interrupting: set[asyncio.Task[None]] = set()
        """Wishes to end turns, on their way."""
        self._leases = LeaseKeeper(inbox, owner, self._active.values, clock)
        self._slot_freed = asyncio.Event()
        self._claiming = True
        self._store_fault = ""
        """Why the last claim failed, as it was logged."""
        inbox.on_interrupt(self._on_interrupt)

    @property
    def running(self) -> int:
        """How many turns are in progress."""
        return len(self._active)

    # --- claiming ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and start turns until drained or cancelled; cancellation cancels every turn."""
        keeper = start_eternal(self._leases.run(), "claw.inbox.leases")
        try:
            while self._claiming:
                await self._claim_one()
            # Leases are still renewed here: a turn may use the whole of the drain.
            while self._active:
                self._slot_freed.clear()
                await self._slot_freed.wait()
        finally:
            keeper.cancel()
            tasks = [*self._tasks(), *self._held_back, *self._interrupting]
            for task in tasks:
                task.cancel()
            await asyncio.gather(keeper, *tasks, return_exceptions=True)

    async def _claim_one(self) -> None:
        # Cleared before anything is looked at: a slot that is freed while the store is asked sets the event again,
        # so that the wait below returns at once. Cleared later, that signal would be lost and the slot stay empty.
        self._slot_freed.clear()
        urgent = sum(turn.lease.route.urgent for turn in self._active.values())
        full = len(self._active) - urgent >= self._slots
        if full and urgent >= URGENT_SLOTS:
            await self._slot_freed.wait()
            return
        try:
            lease = await self._leases.claim(urgent=full)
        except StoreError as error:
            # Once for each cause: a store that is away is asked every second.
            level = logging.DEBUG if str(error) == self._store_fault else logging.ERROR
            self._store_fault = str(error)
            log.log(level, "the store gives no messages", extra={"cause": str(error)})
            await self._clock.sleep(STORE_RETRY_DELAY_S)
            return
        self._store_fault = ""
        if lease is None:
            await self._wait_for_work(full=full)
        elif not self._claiming:
            # The drain began while the store was asked: this turn would begin after the running ones were counted.
            await self._hold_back(lease, 0.0)
        elif lease.claims >= SUSPECT_CLAIMS:
            await self._run_alone(lease)
        elif delay := self._fairness.find_delay(lease, [turn.lease for turn in self._active.values()]):
            await self._hold_back(lease, delay)
        else:
            self._start(lease)

    async def _run_alone(self, lease: Lease) -> None:
        """Run a message that may kill the process while nothing else can die with it."""
        extra = {"seq": lease.seq, "claims": lease.claims, "conversation": hash_id(lease.route.conversation_key)}
        log.warning("a message that may have killed its process runs alone", extra=extra)
        # Among the active ones from now on, so that its lease is renewed while it waits.
        turn = self._active[lease.route.queue] = ActiveTurn(lease)
        while self._claiming and len(self._active) > 1:
            self._slot_freed.clear()
            await self._slot_freed.wait()
        if not self._claiming:
            del self._active[lease.route.queue]
            await self._hold_back(lease, 0.0)
            return
        # Nothing is claimed meanwhile, nothing urgent either: the caller is who claims.
        turn.task = self._create_task(turn)
        await asyncio.wait([turn.task])

    async def _hold_back(self, lease: Lease, delay: float) -> None:
        """Give a message back that has not begun. Waits only while many are on their way."""
        release = partial(self._inbox.release, lease, delay, waiting=is_waiting(lease))

        async def give_back() -> None:
            try:
                await persist(lease, release, self._clock, "message not released yet")
            except LeaseLostError as error:
                if is_gone(error):
                    await put_back(self._inbox, lease, lease.answer, self._clock)

        if len(self._held_back) >= HELD_BACK_MAX:
            await asyncio.wait(self._held_back, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(give_back(), name="claw.inbox.hold_back")
        self._held_back.add(task)
        task.add_done_callback(self._held_back.discard)

    async def _wait_for_work(self, *, full: bool) -> None:
        """Return when a claim may succeed: a message came, a turn ended, or a drain began."""
        waits = [
            asyncio.create_task(self._inbox.wait(urgent=full), name="claw.inbox.wait_message"),
            asyncio.create_task(self._slot_freed.wait(), name="claw.inbox.wait_slot"),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _start(self, lease: Lease) -> None:
        turn = self._active[lease.route.queue] = ActiveTurn(lease)
        turn.task = self._create_task(turn)

    def _create_task(self, turn: ActiveTurn) -> asyncio.Task[None]:
        name = f"claw.inbox.turn.{hash_id(turn.lease.route.queue)[:12]}"
        return asyncio.create_task(self._run_turn(turn), name=name)

    async def _run_turn(self, turn: ActiveTurn) -> None:
        try:
            await self._turns.run(turn)
        finally:
            # A turn that lost its lease may end after the next one of its queue has begun here: that one must stay.
            if self._active.get(turn.lease.route.queue) is turn:
                del self._active[turn.lease.route.queue]
            self._slot_freed.set()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [turn.task for turn in self._active.values() if turn.task is not None]

    # --- from outside --------------------------------------------------------------------------------------------

    def stop(
        self, queue: str, sender: str | None = None, *, unless: str = "", reason: CancelReason = CancelReason.STOP
    ) -> Interrupted:
        """End the turn of `queue`, or the sending of its answer: anybody's, or that of one sender (`Sender.key`).

        Not that of the message with the key `unless`. Of an answer that is being sent, the part that is on its way
        still goes out; whether more would have come is not known yet.
        """
        turn = self._active.get(queue)
        # The next message of a person is no word against the answer to the one before, which is being sent already.
        can_cut = turn is not None and turn.can_cut and reason is CancelReason.STOP
        # A turn that is cancelled already keeps its first reason.
        if turn is None or not (turn.can_stop or can_cut) or (unless and turn.lease.inbound.key == unless):
            return Interrupted.NOTHING
        if sender is not None and not turn.is_asked_by(sender):
            return Interrupted.OTHERS
        if turn.can_stop:
            turn.cancel(reason)
        else:
            turn.cut = Cut.WANTED
        return Interrupted.STOPPED

    async def stop_anywhere(
        self,
        queue: str,
        sender: str | None = None,
        *,
        unless: str = "",
        reason: CancelReason = CancelReason.STOP,
    ) -> Interrupted:
        """As `stop`, also where another process works on `queue`, or its head waits for its next try.

        Raises StoreError.
        """
        # A turn that is being given back for another try cannot be stopped, and its message would come again: it is
        # stopped when it waits. Writing that takes a moment.
        while (turn := self._active.get(queue)) is not None and turn.stage is Stage.RELEASING and turn.task is not None:
            await asyncio.wait([turn.task])
        if turn is not None:
            stopped = self.stop(queue, sender, unless=unless, reason=reason)
            if stopped and turn.cut is Cut.WANTED and turn.task is not None:
                # Until that is kept, and told truly: what was on its way may have been the last part.
                await asyncio.wait([turn.task], timeout=CUT_TIMEOUT_S)
                if turn.task.done() and not turn.was_cut:
                    return Interrupted.NOTHING
            return stopped
        return await self._inbox.interrupt(queue, sender=sender, unless=unless)

    def interrupt_for(self, inbound: Inbound, route: Route) -> None:
        """End the turn of the same sender that `inbound`, which was just accepted, takes the place of.

        Returns at once: nobody's ack waits for it.
        """

        async def interrupt() -> None:
            try:
                await self.stop_anywhere(
                    route.queue, inbound.sender.key, unless=inbound.key, reason=CancelReason.INTERRUPT
                )
            except StoreError as error:
                log.warning("turn not interrupted", extra={"cause": str(error)})

        task = asyncio.create_task(interrupt(), name="claw.inbox.interrupt")
        self._interrupting.add(task)
        task.add_done_callback(self._interrupting.discard)

    def _on_interrupt(self, seq: int, fence: int) -> None:
        """Stop the turn of a lease that another process names."""
        # By fence, not by queue: while the word was on its way the queue may have gone on to another message, which
        # nobody wants stopped.
        for turn in self._active.values():
            if (turn.lease.seq, turn.lease.fence) == (seq, fence):
                self.stop(turn.lease.route.queue)
                return

    async def drain(self, timeout: float) -> None:
        """Claim nothing more; give running turns `timeout` seconds, then give the rest back to the inbox.

        Cancelling it cuts the waiting short, not the giving back.
        """
        self._claiming = False
        # Wakes `run`, which may be waiting for work.
        self._slot_freed.set()
        try:
            if tasks := self._tasks():
                await asyncio.wait(tasks, timeout=timeout)
        finally:
            await self._release_all()

    async def _release_all(self) -> None:
        turns = self._tasks()
        for turn in self._active.values():
            turn.cancel(CancelReason.RELEASE)
        if turns:
            log.warning("turns given back at the end of the drain", extra={"turns": len(turns)})
        if left := [*turns, *self._held_back]:
            # Bounded: a store that hangs must not hold up the end. What is not given back in time is taken up when
            # its lease runs out.
            await asyncio.wait(left, timeout=RELEASE_TIMEOUT_S)

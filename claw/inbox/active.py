"""A turn in progress, as the worker, the leases and the turn's own task see it: how far it is, and who wants its end.

Order of events: a claimed turn generates, then delivers; or it is released for another try. Until it delivers, its task
may be cancelled. What is being delivered is never cancelled, since nobody would know then which part is out: `/stop`
asks for a cut, which the delivery makes between two parts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from claw.messages import Answer
from claw.store.values import Follower, Lease, RowKind


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


class Cut(Enum):
    """Whether a delivery ends before all of the answer is out."""

    NOT_WANTED = "not wanted"
    WANTED = "wanted"
    """A person asked for it: after the part that is on its way nothing more is sent."""
    DONE = "done"


class CancelReason(Enum):
    """Why a turn's task was cancelled, if it was by us."""

    NONE = "none"
    STOP = "stop"
    """A person asked for it: the message is done with, without an answer."""
    INTERRUPT = "interrupt"
    """Its sender's next message takes its place (CLAW_BUSY_MODE=interrupt)."""
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
    answer: Answer | None = field(default=None, repr=False)
    """What of its answer is not out yet, as far as there is one: more than the store may know."""
    is_forgotten: bool = False
    """The store does not know the message any more: there is no lease to renew."""
    followers: tuple[Follower, ...] = ()
    """Messages that are answered with it."""
    began_at: float = 0.0
    """When its handler began, by the monotonic clock; 0: not yet."""
    claimed_at: float = 0.0
    delivered_from: float = 0.0
    """When its task and its delivery began, by the monotonic clock."""

    cut: Cut = Cut.NOT_WANTED

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

    @property
    def can_cut(self) -> bool:
        """Whether `/stop` may end the sending of its answer: not of what claw sends of itself, nor twice."""
        delivering = self.stage is Stage.DELIVERING or (self.stage is Stage.CLAIMED and self.lease.answer is not None)
        # Twice would be told twice, and whoever asked first is the one who stopped it.
        is_free = self.cut is Cut.NOT_WANTED and self.cancel_reason is CancelReason.NONE
        return delivering and is_free and self.lease.kind is RowKind.MESSAGE

    def is_unwanted(self) -> bool:
        """Whether nothing more of its answer is to be sent."""
        return self.cut is Cut.WANTED

    @property
    def was_cut(self) -> bool:
        """Whether its answer was left before all of it was out."""
        return self.cut is Cut.DONE

    def is_asked_by(self, sender: str) -> bool:
        """Whether it answers this person (`Sender.key`)."""
        asked = (self.lease.inbound, *(each.inbound for each in self.followers))
        return any(each.sender.key == sender for each in asked)

    def is_cancelled_to(self, reason: CancelReason) -> bool:
        """Return whether that is the last reason for which it was cancelled."""
        return self.cancel_reason is reason

    def is_draining(self) -> bool:
        """Whether it was cancelled since the process ends."""
        return self.cancel_reason is CancelReason.RELEASE

    def cancel(self, reason: CancelReason) -> None:
        """End the turn. A later reason wins: what is stopped may still have to be released or abandoned."""
        self.cancel_reason = reason
        # A task that is cancelled before its first step runs no line of its coroutine, not even a `finally`: the turn
        # would keep its slot, and its lease would be renewed for ever. It finds the reason when it starts.
        if self.task is not None and self.stage is not Stage.CLAIMED:
            self.task.cancel()

"""The draft: an answer on its way from the model to the person, between thinking and sending.

Order of events: the worker opens a draft for a message and hands it to the handler; while the model speaks, the text
so far and what the agent is doing go to the draft; the finished answer is stored, then `finish` delivers it. A turn
that ends without an answer calls `suspend` instead. What the person sees of it before the end is the reply room's
business: a reaction, a card, or one line that says it takes longer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from claw.messages import Answer, Inbound

Persist = Callable[[Answer], Awaitable[None]]
"""Keeps an answer durably, its count of deliveries included. Raises DeliveryStoppedError after it was kept, where
somebody wants no more of it."""


class DeliveryStoppedError(Exception):
    """Raised by `persist`: what is out stays, and nothing more is to be sent.

    `shown` is what people have seen of the answer, as far as the draft can tell: it fills that in on the way up.
    """

    shown = ""


class ActivityKind(Enum):
    """What an agent does while it has not finished."""

    ASKED = auto()
    """It was asked, and has said nothing yet."""
    THINKING = auto()
    TOOL = auto()
    """It calls a tool."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What the agent is doing, as far as the model's stream tells. `name` is the tool's, as the server wrote it."""

    kind: ActivityKind
    name: str = ""


class Suspension(Enum):
    """Why a draft is left without an answer."""

    RETRY = auto()
    """The turn is tried again later."""
    DRAIN = auto()
    """The process ends; another one takes the turn up."""
    LOST = auto()
    """The turn is another process's already: nothing may be shown any more."""
    GIVEN_UP = auto()
    """Nothing more comes of its answer: it could not be delivered, or nobody wants more of it."""


class Draft(Protocol):
    """One answer in the making."""

    def join(self, inbound: Inbound) -> None:
        """Note that it answers this message as well (CLAW_BUSY_MODE=merge)."""
        ...

    def update(self, text: str) -> None:
        """Show the text so far, which replaces what was shown before. Never blocks, never fails."""
        ...

    def activity(self, activity: Activity) -> None:
        """Show what the agent is doing. Never blocks, never fails."""
        ...

    async def finish(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        """Deliver what of `answer` is not out yet; `persist` gets it after each delivery but the last.

        Returns DingTalk's receipts of all that is out, as far as it gave any.

        Raises DingTalkError, after which a `finish` of the last answer that `persist` got goes on from there; and
        whatever `persist` raises.
        """
        ...

    async def suspend(self, why: Suspension) -> None:
        """Stop showing: there is no answer yet, or none from here; nothing is done after a `finish` that went well, nor
        after GIVEN_UP.

        Raises nothing but cancellation.
        """
        ...

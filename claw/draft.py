"""The draft: an answer on its way from the model to the person, between thinking and sending.

Order of events: the worker opens a draft for a message and hands it to the handler; while the model speaks, the text
so far and what the agent is doing go to the draft; the finished answer is stored, then `finish` delivers it. What the
person sees of it before the end is the reply room's business: in markdown mode, nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from claw.messages import Answer, Inbound

Persist = Callable[[Answer], Awaitable[None]]
"""Keeps an answer durably, its count of deliveries included."""


class Draft(Protocol):
    """One answer in the making."""

    def update(self, text: str) -> None:
        """Show the text so far, which replaces what was shown before. Never blocks, never fails."""
        ...

    def activity(self, what: str) -> None:
        """Show what the agent is doing, such as a tool that it calls. Never blocks, never fails."""
        ...

    async def finish(self, answer: Answer, persist: Persist) -> None:
        """Deliver what of `answer` is not out yet; `persist` gets it after each delivery but the last.

        Raises DingTalkError, after which a `finish` of the last answer that `persist` got goes on from there; and
        whatever `persist` raises.
        """
        ...


BeginDraft = Callable[[Inbound], Draft]
"""Opens a draft in the conversation that a message came from."""

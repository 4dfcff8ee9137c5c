"""Outbound: begins the draft of each answer, in the form in which the person gets it.

Order of events: the worker begins a draft when a turn begins. A person's message gets an `AnswerDraft`; what claw says
of its own accord, and what a program has it say, is sent at once. `run` begins signs and cards when they are due.
"""

from __future__ import annotations

import asyncio

from claw.draft import Activity, Draft, Persist, Suspension
from claw.messages import Answer, Inbound, Route
from claw.reply.answer_draft import AnswerDraft
from claw.reply.delivering import Delivering, forget, settle
from claw.store.values import Lease, RowKind


class MessageDraft:
    """What claw says of its own accord, or a program has it say: messages, and no signs before them."""

    def __init__(self, tools: Delivering, lease: Lease) -> None:
        self._tools = tools
        self._lease = lease

    def join(self, inbound: Inbound) -> None:
        """There is nobody who waits."""

    def update(self, text: str) -> None:
        """Show nothing."""

    def activity(self, activity: Activity) -> None:
        """Show nothing."""

    async def finish(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        """Send what of `answer` is not out yet. Raises DingTalkError and whatever `persist` raises."""
        answer = await settle(self._tools.settler, self._lease.inbound, answer, persist)
        return await self._tools.sender.send(self._lease.inbound, answer, persist)

    async def suspend(self, why: Suspension) -> None:
        """There is nothing to stop."""


class Outbound:
    """Begins drafts. `run` is one named task of the process."""

    def __init__(self, tools: Delivering) -> None:
        self._tools = tools

    def begin(self, lease: Lease) -> Draft:
        """Begin the answer to a message; nothing is sent by that."""
        if lease.kind is not RowKind.MESSAGE:
            return MessageDraft(self._tools, lease)
        return AnswerDraft(self._tools, lease)

    def expect(self, inbound: Inbound, route: Route) -> None:
        """Note a message that was accepted: its person waits for a sign."""
        self._tools.signs.expect(inbound, route)

    async def say(self, inbound: Inbound, answer: Answer) -> None:
        """Say something beside an answer, as a message; nothing of it is kept. Raises DingTalkError."""
        await self._tools.sender.send(inbound, answer, forget)

    async def run(self) -> None:
        """Begin signs and cards when they are due, for ever."""
        # Two queues, since their calls are of two apis, each with its own 20 a second.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tools.signs.run(), name="claw.reply.signs")
            group.create_task(self._tools.due.run(), name="claw.reply.cards_due")

    async def close(self) -> None:
        """Let the reactions go that are being taken back."""
        await self._tools.signs.close()

"""Outbound: a draft for each answer, in the form in which the person gets it.

Order of events: the worker begins a draft when a turn begins; the handler tells it the text so far and what the agent
is doing; `finish` delivers the stored answer. In markdown mode nothing is shown before the end: DingTalk has no way to
change a message that is out, and each message counts against the month's calls (docs/protocol.md section 6.6).
"""

from __future__ import annotations

from claw.draft import Draft, Persist
from claw.messages import Answer, Inbound
from claw.reply.sender import AnswerSender


class MarkdownDraft:
    """An answer that is sent as markdown messages, once it is finished."""

    def __init__(self, sender: AnswerSender, inbound: Inbound) -> None:
        self._sender = sender
        self._inbound = inbound

    def update(self, text: str) -> None:
        """Show nothing."""

    def activity(self, what: str) -> None:
        """Show nothing."""

    async def finish(self, answer: Answer, persist: Persist) -> None:
        """Send what of `answer` is not out yet. Raises DingTalkError and whatever `persist` raises."""
        await self._sender.send(self._inbound, answer, persist)


class Outbound:
    """Begins drafts."""

    def __init__(self, sender: AnswerSender) -> None:
        self._sender = sender

    def begin(self, inbound: Inbound) -> Draft:
        """Begin an answer in the conversation that `inbound` came from; nothing is sent by that."""
        return MarkdownDraft(self._sender, inbound)

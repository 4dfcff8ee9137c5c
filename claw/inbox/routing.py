"""Whose conversation a message belongs to: the key of its queue, its memory and its `user` at the model."""

from __future__ import annotations

from claw.messages import ChatKind, Inbound
from claw.policy import GroupSession


def session_of(inbound: Inbound, groups: GroupSession) -> str:
    """The conversation's key; in groups with a session per user, one for each person. Ids are whole, never cut."""
    if groups is GroupSession.PER_USER and inbound.conversation.kind is ChatKind.GROUP:
        return f"{inbound.chat_key}:{inbound.sender.key}"
    return inbound.chat_key

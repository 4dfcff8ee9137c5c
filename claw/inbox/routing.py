"""Routing: which conversation a message belongs to, and in which queue it waits.

Order of events: acceptance asks `Router.route` once for each message, and the route is stored with the row. Whoever
handles the row later reads the stored route, so that a setting that was changed meanwhile splits no conversation.
"""

from __future__ import annotations

from collections.abc import Callable

from claw.chat_settings import ChatBook, ChatSettings, add_model
from claw.messages import ChatKind, Inbound, Route
from claw.policy import GroupSession
from claw.store.values import RowKind


def conversation_key(inbound: Inbound, groups: GroupSession) -> str:
    """Return the conversation's key; in groups with a session per user, one for each person.

    Ids are used whole: DingTalk's are opaque, and a cut one could join the conversations of two people.
    """
    if groups is GroupSession.PER_USER and inbound.conversation.kind is ChatKind.GROUP:
        return f"{inbound.chat_key}:{inbound.sender.key}"
    return inbound.chat_key


def queue_of_own(kind: RowKind, inbound: Inbound) -> Route:
    """Return the route of what claw sends of its own accord: one queue for each kind and receiver.

    It must hold up no conversation, nor wait for a turn of it.
    """
    queue = f"{inbound.robot_code}:{kind.value}:{inbound.conversation.id}"
    return Route(queue, queue)


class Router:
    """Routes messages by the policy for groups and the settings of chats.

    `is_urgent` tells which messages must not wait for a running turn.
    """

    def __init__(
        self, groups: GroupSession, is_urgent: Callable[[Inbound], bool], chats: ChatBook | None = None
    ) -> None:
        self._groups = groups
        self._is_urgent = is_urgent
        self._chats = chats

    async def load(self) -> None:
        """Get to know the settings of chats, which routes depend on. Raises StoreError."""
        if self._chats is not None:
            await self._chats.load()

    def route(self, inbound: Inbound) -> Route:
        """Return the message's route: an urgent one gets a queue of its own."""
        own = self._chats.current(inbound.conversation.id) if self._chats is not None else ChatSettings()
        groups = GroupSession(own.session) if own.session in set(GroupSession) else self._groups
        key = add_model(conversation_key(inbound, groups), own.model)
        # A queue hands out one lease at a time, so `/stop` in its conversation's queue would wait for the very turn
        # that it is to end. The name stays that of one message: two urgent ones do not wait for each other either.
        return Route(key, f"{key}!{inbound.msg_id}", urgent=True) if self._is_urgent(inbound) else Route(key, key)

"""Routing: which conversation a message belongs to, and where it waits."""

from __future__ import annotations

import pytest

from claw.inbox.routing import Router
from claw.messages import ChatKind, Conversation, Route, Sender
from claw.policy import GroupSession
from claw.turn.commands.parser import is_urgent
from tests.messages import inbound

SHARED, PER_USER = (Router(groups, is_urgent).route for groups in GroupSession)
GROUP = Conversation("cidG", ChatKind.GROUP)
ANN, BOB = Sender("$:LWCP_v1:$ann", "u-ann"), Sender("$:LWCP_v1:$bob")


@pytest.mark.parametrize("text", ["hello", "/policy"])
def test_messages_wait_in_their_conversation(text: str) -> None:
    """What is not urgent waits in the queue of its conversation."""
    message = inbound(text)
    assert SHARED(message) == Route(message.chat_key, message.chat_key)


def test_stop_has_a_queue_of_its_own() -> None:
    """`/stop` belongs to its conversation, but waits neither for the turn that it is to end nor for another `/stop`."""
    routes = [SHARED(inbound("/stop")) for _ in range(2)]
    assert all(route.urgent and route.conversation_key == inbound().chat_key for route in routes)
    assert len({inbound().chat_key, *(route.queue for route in routes)}) == 3


def test_group_is_one_conversation_or_many() -> None:
    """In a group everybody shares one conversation, or each person has one: by staff id, else by DingTalk's id."""
    messages = [inbound(conversation=GROUP, sender=sender) for sender in (ANN, BOB)]
    assert {SHARED(each).conversation_key for each in messages} == {"dingfakeclient:cidG"}
    keys = [PER_USER(each).conversation_key for each in messages]
    assert keys == ["dingfakeclient:cidG:u-ann", "dingfakeclient:cidG:$:LWCP_v1:$bob"]
    assert [PER_USER(each).queue for each in messages] == keys


def test_direct_chat_is_one_conversation() -> None:
    """A session per user changes nothing in direct chats."""
    assert PER_USER(inbound(sender=ANN)) == SHARED(inbound(sender=ANN))

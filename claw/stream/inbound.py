"""A robot frame -> `Inbound` (docs/protocol.md section 5).

Order of events: the common fields are read; the content becomes parts (content.py); the robot's own mention is taken
out of them, and who else is @-ed is read (mentions.py); the message that this one replies to is read (quotes.py). What
is merely odd is put right (a missing staff id, times as strings, lone surrogates), since a message is worth more than
its form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from dingtalk_stream.chatbot import ChatbotMessage

from claw.errors import FrameError
from claw.messages import ChatKind, Conversation, Inbound, Sender
from claw.parts import BLANKS, Part, Words, join_words
from claw.secret import Secret, hash_id
from claw.stream.content import ContentReader, to_parts
from claw.stream.frames import Frame
from claw.stream.lenient import loads, seconds_of, text_of
from claw.stream.mentions import RobotNames, read_people, strip
from claw.stream.quotes import read_quote

QUOTA_EXHAUSTED: Final = "20001"
"""DingTalk's word for a message without content, since the month's quota is used up (docs/protocol.md section 5.1)."""

ROBOT_NAMES: Final = RobotNames()
"""Learned from what comes, for this process."""


def to_inbound(frame: Frame, client_id: str) -> Inbound:
    """Read the message in a robot frame (docs/protocol.md section 5). Raises FrameError where nobody could be answered.

    A message needs to say where it was said or who said it; anything else may be missing or odd.
    """
    data = loads(frame.data, frame.size, frame.message_id)
    if not isinstance(data, dict):
        raise FrameError("a robot message is not a JSON object", size=frame.size, message_id=frame.message_id)
    # Every field is read leniently; what is caught here is what nobody thought of, and it may cost one message only.
    try:
        return _build(data, frame, client_id)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"a robot message is unusable ({type(error).__name__})"
        raise FrameError(reason, size=frame.size, message_id=frame.message_id) from None


_SCALARS: Final = (
    "chatbotUserId",
    "conversationId",
    "conversationTitle",
    "conversationType",
    "msgId",
    "robotCode",
    "senderId",
    "senderNick",
    "senderStaffId",
    "sessionWebhook",
)


def _build(data: dict[str, Any], frame: Frame, client_id: str) -> Inbound:
    message = ChatbotMessage.from_dict({name: text_of(data.get(name)) for name in _SCALARS})
    sender = Sender(message.sender_id or message.sender_staff_id, message.sender_staff_id, message.sender_nick)
    # A direct chat without its id is still one chat per person.
    conversation_id = message.conversation_id or sender.id
    if not conversation_id:
        raise FrameError(
            "a robot message names neither conversation nor sender", size=frame.size, message_id=frame.message_id
        )
    # Quoted messages spell it msgType, and some new kinds do so at the top as well.
    msgtype = text_of(data.get("msgtype")) or text_of(data.get("msgType"))
    kind, robot_id = _chat_kind(data), message.chatbot_user_id
    # In a direct chat nobody needs to call the robot: there a mention of it is one only if DingTalk lists it.
    in_at_list = kind is ChatKind.GROUP and data.get("isInAtList") is True
    mentions = read_people(data.get("atUsers"), robot_id, in_at_list=in_at_list)
    reader = ContentReader()
    reader.read(msgtype, data)
    items, people = strip(reader.finish(), mentions, robot_id, ROBOT_NAMES)
    parts = _trim(to_parts(items))
    text = join_words(parts)
    return Inbound(
        robot_code=message.robot_code or client_id,
        # The last resort is the same for a repeat, whose data is identical (docs/protocol.md section 9, V6).
        msg_id=message.message_id or frame.message_id or hash_id(frame.data),
        conversation=Conversation(conversation_id, kind, message.conversation_title),
        sender=sender,
        msgtype=msgtype,
        text=text,
        created_at=seconds_of(data.get("createAt")),
        # Text alone is kept once.
        parts=() if parts == (Words(text),) else parts,
        quote=read_quote(data, robot_id),
        people=people,
        webhook=Secret(_webhook(message.session_webhook)),
        webhook_expires=seconds_of(data.get("sessionWebhookExpiredTime")),
        quota_exhausted=QUOTA_EXHAUSTED in {text_of(data.get("errCode")), text_of(data.get("errorCode"))},
    )


def _chat_kind(data: Mapping[str, Any]) -> ChatKind:
    kind = text_of(data.get("conversationType"))
    if kind in {"1", "2"}:
        return ChatKind.GROUP if kind == "2" else ChatKind.DIRECT
    # A kind that is missing or new: only groups have a title, and a robot is @-ed in groups only.
    return ChatKind.GROUP if data.get("isInAtList") or data.get("conversationTitle") else ChatKind.DIRECT


def _trim(parts: list[Part]) -> tuple[Part, ...]:
    """Strip the blanks at both ends of what was said."""
    while parts and isinstance(first := parts[0], Words):
        if text := first.text.lstrip().lstrip(BLANKS):
            parts[0] = Words(text)
            break
        del parts[0]
    while parts and isinstance(last := parts[-1], Words):
        if text := last.text.rstrip().rstrip(BLANKS):
            parts[-1] = Words(text)
            break
        del parts[-1]
    return tuple(parts)


def _webhook(url: str) -> str:
    """Return the session webhook, if it is an address that can be posted to at all."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return ""
    return url if usable and not re.search(r"\s", url) else ""

"""The envelope of a frame and its ack, over dingtalk-stream's models (their names and constants; never their loop).

`parse` reads the envelope and tells its kind; `ack` writes the answer that a frame gets (docs/protocol.md sections 2
and 3.1). What comes in is hostile until proven otherwise: whatever it is, `parse` raises FrameError and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from dingtalk_stream.chatbot import ChatbotMessage
from dingtalk_stream.frames import AckMessage, CallbackMessage, EventMessage, Headers, SystemMessage
from dingtalk_stream.handlers import CallbackHandler

from claw.errors import FrameError
from claw.stream.lenient import compact, loads, text_of

ROBOT_TOPIC: Final[str] = ChatbotMessage.TOPIC
CARD_TOPIC: Final[str] = CallbackHandler.TOPIC_CARD_CALLBACK

OK: Final[int] = AckMessage.STATUS_OK
BAD_REQUEST: Final[int] = AckMessage.STATUS_BAD_REQUEST
NOT_FOUND: Final[int] = AckMessage.STATUS_NOT_IMPLEMENT

ROBOT_ACK: Final = '{"response":null}'
EVENT_ACK: Final = '{"status":"SUCCESS","message":"success"}'
"""Answers by kind (docs/protocol.md section 3.1)."""

LEGACY_TOPICS: Final = frozenset({"CONNECTED", "REGISTERED", "KEEPALIVE"})
"""SYSTEM topics that old servers sent for information only (docs/protocol.md section 2.2)."""


class FrameKind(Enum):
    """What a frame asks for."""

    PING = "ping"
    DISCONNECT = "disconnect"
    LEGACY = "legacy"
    ROBOT = "robot"
    CARD = "card"
    EVENT = "event"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Frame:
    """The envelope. `message_id` names this push, not the person's message; empty where it was missing.

    `data` is the text that the envelope carries, JSON as a rule, not yet looked at. `size` is the whole frame's length.
    """

    kind: FrameKind
    topic: str
    message_id: str
    data: str
    size: int


def parse(text: str) -> Frame:
    """Read an envelope. Raises FrameError, with the message id where that much could be read."""
    size = len(text)
    raw = loads(text, size)
    if not isinstance(raw, dict):
        raise FrameError("a frame is not a JSON object", size=size)
    # Unknown fields are let be: DingTalk adds some without notice.
    # One official sample spells `header` (docs/protocol.md section 2.1).
    given = next((raw[name] for name in ("headers", "header") if isinstance(raw.get(name), dict)), None)
    if given is None:
        raise FrameError("a frame has no headers", size=size)
    headers = _headers(given, size)
    # Read before the data: even a frame whose data is no use gets its answer, or DingTalk would repeat it.
    message_id: str = headers.message_id
    data = raw.get("data")
    # Not looked at yet: most of a frame's bytes are here, and pings and acks need none of it.
    if isinstance(data, dict | list):
        data = compact(data)
    elif data is None:
        data = ""
    elif not isinstance(data, str):
        raise FrameError("a frame's data is no text", size=size, message_id=message_id)
    return Frame(_kind(text_of(raw.get("type")), headers.topic), headers.topic, message_id, data, size)


def _headers(given: Mapping[str, Any], size: int) -> Headers:
    """Return the SDK's headers, of those fields that we use: it stumbles over a time that is no number."""
    try:
        return Headers.from_dict({name: text_of(given.get(name)) for name in ("messageId", "topic")})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FrameError("a frame's headers are unusable", size=size) from None


def _kind(frame_type: str, topic: str) -> FrameKind:
    if frame_type == SystemMessage.TYPE:
        if topic == "ping":
            return FrameKind.PING
        if topic == SystemMessage.TOPIC_DISCONNECT:
            return FrameKind.DISCONNECT
        return FrameKind.LEGACY if topic in LEGACY_TOPICS else FrameKind.UNKNOWN
    if frame_type == EventMessage.TYPE:
        return FrameKind.EVENT
    if frame_type == CallbackMessage.TYPE:
        return {ROBOT_TOPIC: FrameKind.ROBOT, CARD_TOPIC: FrameKind.CARD}.get(topic, FrameKind.UNKNOWN)
    return FrameKind.UNKNOWN


def ack(message_id: str, code: int, data: str, message: str = "OK") -> str:
    """Return the answer to the frame `message_id`; `data` is JSON text (docs/protocol.md section 3.1)."""
    answer = AckMessage()
    answer.code = code
    answer.message = message
    answer.headers.message_id = message_id
    answer.headers.content_type = Headers.CONTENT_TYPE_APPLICATION_JSON
    # The model would dump `data` anew, with blanks; a ping's data has to go back as it came. ASCII, since an id
    # with a lone surrogate could not be sent otherwise.
    return json.dumps(answer.to_dict() | {"data": data}, separators=(",", ":"))


def card_response(response: Mapping[str, Any]) -> str:
    """Write the answer to a card callback (docs/protocol.md section 7.6). Raises what json does for no JSON."""
    return json.dumps({"response": dict(response)}, separators=(",", ":"), allow_nan=False)


def disconnect_reason(frame: Frame) -> str:
    """Why the server asks us to leave, in its own words, for the log; empty where it says nothing usable."""
    # For the log only: what it says changes nothing about leaving.
    try:
        data = loads(frame.data, frame.size)
    except FrameError:
        return ""
    return text_of(data.get("reason"))[:100] if isinstance(data, dict) else ""

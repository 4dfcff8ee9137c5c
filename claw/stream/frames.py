"""Wire frames <-> values, over dingtalk-stream's own models (their names and constants; never their loop).

Order of events for a frame: `parse` reads the envelope and tells its kind; `to_inbound` makes an `Inbound` of a
robot frame; `ack` writes the answer that a frame gets (PROTOCOL sections 2, 3.1 and 5). What comes in is hostile
until proven otherwise: whatever it is, `parse` and `to_inbound` raise FrameError and nothing else. What is merely
odd is put right (a missing staff id, times as strings, lone surrogates), since a message is worth more than its form.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from dingtalk_stream.chatbot import ChatbotMessage
from dingtalk_stream.frames import AckMessage, CallbackMessage, EventMessage, Headers, SystemMessage
from dingtalk_stream.handlers import CallbackHandler

from claw.errors import FrameError
from claw.messages import ChatKind, Conversation, Inbound, Media, MediaKind, Sender
from claw.secret import Secret, hash_id

ROBOT_TOPIC: Final[str] = ChatbotMessage.TOPIC
CARD_TOPIC: Final[str] = CallbackHandler.TOPIC_CARD_CALLBACK

MENTIONED_MAX: Final = 50
TEXT_MAX: Final = 200_000
"""Characters of a message that are kept; what a person can type ends far below, a model's window as well."""
NODES_MAX: Final = 10_000
"""Nodes of a nested card, records of a forwarded chat and items of a rich text that are looked at."""
YEAR_9999_S: Final = 253_402_300_799.0

OK: Final[int] = AckMessage.STATUS_OK
BAD_REQUEST: Final[int] = AckMessage.STATUS_BAD_REQUEST
NOT_FOUND: Final[int] = AckMessage.STATUS_NOT_IMPLEMENT

ROBOT_ACK: Final = '{"response":null}'
CARD_ACK: Final = '{"response":{}}'
EVENT_ACK: Final = '{"status":"SUCCESS","message":"success"}'
"""Answers by kind (PROTOCOL section 3.1)."""

QUOTA_EXHAUSTED: Final = "20001"
"""DingTalk's word for a message without content, since the month's quota is used up (PROTOCOL section 5.1)."""
LEGACY_TOPICS: Final = frozenset({"CONNECTED", "REGISTERED", "KEEPALIVE"})
"""SYSTEM topics that old servers sent for information only (PROTOCOL section 2.2)."""

_BLANK: Final = "\\s\u200b\u2060\ufeff"
_EDGES: Final = re.compile(f"^[{_BLANK}]+|[{_BLANK}]+$")


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
    raw = _loads(text, size)
    if not isinstance(raw, dict):
        raise FrameError("a frame is not a JSON object", size=size)
    # One official sample spells `header` (PROTOCOL section 2.1).
    given = next((raw[name] for name in ("headers", "header") if isinstance(raw.get(name), dict)), None)
    if given is None:
        raise FrameError("a frame has no headers", size=size)
    headers = _headers(given, size)
    message_id: str = headers.message_id
    data = raw.get("data")
    if isinstance(data, dict | list):
        data = _compact(data)
    elif data is None:
        data = ""
    elif not isinstance(data, str):
        raise FrameError("a frame's data is no text", size=size, message_id=message_id)
    return Frame(_kind(_text(raw.get("type")), headers.topic), headers.topic, message_id, data, size)


def _headers(given: Mapping[str, Any], size: int) -> Headers:
    """The SDK's headers, of those fields that we use: it stumbles over a time that is no number."""
    try:
        return Headers.from_dict({name: _text(given.get(name)) for name in ("messageId", "topic")})
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
    """The answer to the frame `message_id`; `data` is JSON text (PROTOCOL section 3.1)."""
    answer = AckMessage()
    answer.code = code
    answer.message = message
    answer.headers.message_id = message_id
    answer.headers.content_type = Headers.CONTENT_TYPE_APPLICATION_JSON
    # The model would dump `data` anew, with blanks; a ping's data has to go back as it came. ASCII, since an id
    # with a lone surrogate could not be sent otherwise.
    return json.dumps(answer.to_dict() | {"data": data}, separators=(",", ":"))


def disconnect_reason(frame: Frame) -> str:
    """Why the server asks us to leave, in its own words, for the log; empty where it says nothing usable."""
    try:
        data = _loads(frame.data, frame.size)
    except FrameError:
        return ""
    return _text(data.get("reason"))[:100] if isinstance(data, dict) else ""


def to_inbound(frame: Frame, client_id: str) -> Inbound:
    """The message in a robot frame (PROTOCOL section 5). Raises FrameError where nobody could be answered.

    A message needs to say where it was said or who said it; anything else may be missing or odd.
    """
    data = _loads(frame.data, frame.size, frame.message_id)
    if not isinstance(data, dict):
        raise FrameError("a robot message is not a JSON object", size=frame.size, message_id=frame.message_id)
    try:
        return _inbound(data, frame, client_id)
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


def _inbound(data: dict[str, Any], frame: Frame, client_id: str) -> Inbound:
    message = ChatbotMessage.from_dict({name: _text(data.get(name)) for name in _SCALARS})
    sender = Sender(message.sender_id or message.sender_staff_id, message.sender_staff_id, message.sender_nick)
    # A direct chat without its id is still one chat per person.
    conversation_id = message.conversation_id or sender.id
    if not conversation_id:
        raise FrameError(
            "a robot message names neither conversation nor sender", size=frame.size, message_id=frame.message_id
        )
    msgtype = _text(data.get("msgtype")) or _text(data.get("msgType"))
    said = _Said(robot_id=message.chatbot_user_id)
    said.read(msgtype, data)
    quoted, quoted_media = _quoted(data)
    return Inbound(
        robot_code=message.robot_code or client_id,
        # The last resort is the same for a repeat, whose data is identical (PROTOCOL section 9, V6).
        msg_id=message.message_id or frame.message_id or hash_id(frame.data),
        conversation=Conversation(conversation_id, _chat_kind(data), message.conversation_title),
        sender=sender,
        msgtype=msgtype,
        text=said.text(),
        created_at=_seconds(data.get("createAt")),
        quoted=quoted,
        media=(*said.media, *quoted_media),
        webhook=Secret(_webhook(message.session_webhook)),
        webhook_expires=_seconds(data.get("sessionWebhookExpiredTime")),
        mentioned=_mentioned(data.get("atUsers"), message.chatbot_user_id),
        quota_exhausted=QUOTA_EXHAUSTED in {_text(data.get("errCode")), _text(data.get("errorCode"))},
    )


def _mentioned(at_users: Any, robot_id: str) -> tuple[str, ...]:
    """Staff ids of those who were @-ed; the robot has none, and is known by its own id (PROTOCOL section 5.1)."""
    users = [user for user in at_users if isinstance(user, dict)] if isinstance(at_users, list) else []
    ids = [_text(user.get("staffId")) for user in users if not robot_id or user.get("dingtalkId") != robot_id]
    return tuple(dict.fromkeys(each for each in ids if each))[:MENTIONED_MAX]


def _chat_kind(data: Mapping[str, Any]) -> ChatKind:
    kind = _text(data.get("conversationType"))
    if kind in {"1", "2"}:
        return ChatKind.GROUP if kind == "2" else ChatKind.DIRECT
    return ChatKind.GROUP if data.get("isInAtList") or data.get("conversationTitle") else ChatKind.DIRECT


class _Said:
    """What one message says, by its msgtype: pieces of text, and media in their order (PROTOCOL section 5.2)."""

    def __init__(self, robot_id: str = "") -> None:
        self.media: list[Media] = []
        self._pieces: list[str] = []
        self._robot_id = robot_id

    def text(self) -> str:
        return _EDGES.sub("", "".join(self._pieces)[:TEXT_MAX])

    def read(self, msgtype: str, body: Mapping[str, Any]) -> None:
        content = _opened(body.get("content"))
        match msgtype:
            case "richText":
                self._rich(content or _opened(body.get("richText")))
            case "picture" | "audio" | "video" | "file":
                self._file(MediaKind(msgtype), content)
            case "chatRecord":
                self._say(_record(content))
            case "interactiveCard":
                self._say(_card(content))
            case "unknownMsgType":
                self._say(_first(content, "unknownMsgType", "text", "content"))
            case _:
                # text, markdown, and what DingTalk may invent: look where text has been seen.
                for place in (_opened(body.get("text")), content, _opened(body.get("markdown"))):
                    found = _first(place, "content", "text")
                    if found:
                        self._say(found)
                        break

    def _say(self, text: str) -> None:
        self._pieces.append(text)

    def _file(self, kind: MediaKind, content: Any) -> None:
        code = _first(content, "downloadCode", "pictureDownloadCode")
        if isinstance(content, dict):
            self._say(_text(content.get("recognition")))
            if code:
                self.media.append(Media(kind, Secret(code), _text(content.get("fileName"))))

    def _rich(self, content: Any) -> None:
        items = content
        # `{richText: [...]}` today; `{richTextList: [...]}`, also inside of richText, in old layouts.
        for _ in range(3):
            if isinstance(items, dict):
                items = _opened(items.get("richText") or items.get("richTextList"))
        if isinstance(items, str):
            self._say(_text(items))
        for item in _some(items):
            if isinstance(item, dict):
                self._item(item)
            else:
                self._say(_text(item))

    def _item(self, item: Mapping[str, Any]) -> None:
        kind = _text(item.get("type")) or _text(item.get("msgType"))
        if kind == "at":
            who = _first(item, "atUserId", "dingtalkId", "userId")
            name = _first(item, "atName", "text", "content").lstrip("@")
            # The mention that called us says nothing; DingTalk strips it from plain text as well.
            calls_us = who == self._robot_id if who else not "".join(self._pieces).strip()
            if name and not calls_us:
                self._say(f"@{name} ")
            return
        code = _first(item, "downloadCode", "pictureDownloadCode")
        if code:
            media = {"audio": MediaKind.AUDIO, "video": MediaKind.VIDEO, "file": MediaKind.FILE}
            self.media.append(Media(media.get(kind, MediaKind.PICTURE), Secret(code), _text(item.get("fileName"))))
        if kind != "picture":
            self._say(_first(item, "text", "content", "name"))


def _quoted(data: Mapping[str, Any]) -> tuple[str, list[Media]]:
    """Text and pictures of the message that this one replies to (PROTOCOL section 5.3, undocumented by DingTalk).

    Pictures come along because "what is this?" is asked by quoting one.
    """
    places = (_opened(data.get("text")), _opened(data.get("content")), data)
    for place in places:
        replied = _opened(place.get("repliedMsg")) if isinstance(place, dict) else None
        if not isinstance(replied, dict):
            continue
        msgtype = _text(replied.get("msgType")) or _text(replied.get("msgtype"))
        content = _opened(replied.get("content"))
        if not content:
            content = _opened(replied.get("text"))
        said = _Said()
        if isinstance(content, str):
            return _EDGES.sub("", _text(content)[:TEXT_MAX]), []
        said.read(msgtype, {"content": content})
        text = said.text() or _first(content, "text", "content", "fileName", "summary", "title")
        return _EDGES.sub("", text), [media for media in said.media if media.kind is MediaKind.PICTURE]
    return "", []


def _record(content: Any) -> str:
    """A forwarded chat: its title and lines, or the summary where the lines do not come with it."""
    if not isinstance(content, dict):
        return _text(content)
    lines: list[str] = []
    for name in ("chatRecord", "records", "messages"):
        for record in _some(_opened(content.get(name))):
            if isinstance(record, dict):
                said = _opened(record.get("content")) or _opened(record.get("text"))
                line = _text(said) if isinstance(said, str) else _first(said, "content", "text", "recognition")
                nick = _first(record, "senderNick", "senderName", "nick")
                if line:
                    lines.append(f"{nick}: {line}" if nick else line)
    title, summary = _text(content.get("title")), _text(content.get("summary"))
    return "\n".join(part for part in (title, "\n".join(lines) or summary) if part)


def _card(content: Any) -> str:
    """The words on a shared card, in reading order; else its title; else where it leads to."""
    if not isinstance(content, dict):
        return _text(content)
    words: list[str] = []
    left = [_opened(content.get("cardContent"))]
    for _ in range(NODES_MAX):
        if not left:
            break
        node = left.pop()
        if isinstance(node, list):
            left.extend(reversed(node[:NODES_MAX]))
        elif isinstance(node, dict):
            words.append(_text(node.get("value")))
            left.append(node.get("children"))
        else:
            words.append(_text(node))
    return "\n".join(filter(None, words)) or _first(content, "title", "text", "biz_custom_action_url")


# --- taming: any JSON value -> what we can use -----------------------------------------------------------------


def _loads(text: str, size: int, message_id: str = "") -> Any:
    """JSON as standardised: no NaN, no number of 4 301 digits, no nesting beyond the interpreter's stack."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise FrameError("a frame is not JSON", size=size, message_id=message_id) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _opened(value: Any) -> Any:
    """An object or list that may have come as JSON text; a text that is none stays a text."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            opened = json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return value
        return opened if isinstance(opened, dict | list) else value
    return value


def _some(value: Any) -> Iterable[Any]:
    return value[:NODES_MAX] if isinstance(value, list) else ()


def _first(value: Any, *names: str) -> str:
    """The first of the named fields that holds text; a plain text stands for itself."""
    if isinstance(value, dict):
        return next(filter(None, (_text(value.get(name)) for name in names)), "")
    return _text(value)


def _text(value: Any) -> str:
    """A text that every store and socket can carry: bounded, and without lone surrogates."""
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return ""
    text: str = value[:TEXT_MAX]
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _seconds(milliseconds: Any) -> float:
    """Seconds since the epoch out of milliseconds, which come as a number or as text; 0 where they are no time."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float | str):
        return 0.0
    try:
        seconds = float(milliseconds) / 1000
    except (ValueError, OverflowError):
        return 0.0
    return seconds if math.isfinite(seconds) and 0 < seconds <= YEAR_9999_S else 0.0


def _webhook(url: str) -> str:
    """The session webhook, if it is an address that can be posted to at all."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return ""
    return url if usable and not re.search(r"\s", url) else ""

"""A robot frame -> `Inbound`: the message types that DingTalk sends (docs/protocol.md section 5).

What is merely odd is put right (a missing staff id, times as strings, lone surrogates), since a message is worth
more than its form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from dingtalk_stream.chatbot import ChatbotMessage

from claw.errors import FrameError
from claw.messages import ChatKind, Conversation, Inbound, Media, MediaKind, Sender
from claw.secret import Secret, hash_id
from claw.stream.frames import Frame
from claw.stream.lenient import NODES_MAX, TEXT_MAX_CHARS, as_list, first_text, loads, maybe_json, seconds_of, text_of

MENTIONED_MAX: Final = 50
QUOTA_EXHAUSTED: Final = "20001"
"""DingTalk's word for a message without content, since the month's quota is used up (docs/protocol.md section 5.1)."""

_BLANK: Final = "\\s\u200b\u2060\ufeff"
_EDGES: Final = re.compile(f"^[{_BLANK}]+|[{_BLANK}]+$")


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
    content = ContentReader(robot_id=message.chatbot_user_id)
    content.read(msgtype, data)
    quoted, quoted_media = _quote(data)
    return Inbound(
        robot_code=message.robot_code or client_id,
        # The last resort is the same for a repeat, whose data is identical (docs/protocol.md section 9, V6).
        msg_id=message.message_id or frame.message_id or hash_id(frame.data),
        conversation=Conversation(conversation_id, _chat_kind(data), message.conversation_title),
        sender=sender,
        msgtype=msgtype,
        text=content.text(),
        created_at=seconds_of(data.get("createAt")),
        quoted=quoted,
        media=(*content.media, *quoted_media),
        webhook=Secret(_webhook(message.session_webhook)),
        webhook_expires=seconds_of(data.get("sessionWebhookExpiredTime")),
        mentioned=_mentions(data.get("atUsers"), message.chatbot_user_id),
        quota_exhausted=QUOTA_EXHAUSTED in {text_of(data.get("errCode")), text_of(data.get("errorCode"))},
    )


def _mentions(at_users: Any, robot_id: str) -> tuple[str, ...]:
    """Ids of those who were @-ed: DingTalk's own of people without a staff id, and none of the robot (section 5.1)."""
    users = [user for user in at_users if isinstance(user, dict)] if isinstance(at_users, list) else []
    others = [user for user in users if not robot_id or user.get("dingtalkId") != robot_id]
    # Where the robot's id is not told, an entry without a staff id may be the robot.
    ids = [text_of(user.get("staffId")) or (text_of(user.get("dingtalkId")) if robot_id else "") for user in others]
    return tuple(dict.fromkeys(each for each in ids if each))[:MENTIONED_MAX]


def _chat_kind(data: Mapping[str, Any]) -> ChatKind:
    kind = text_of(data.get("conversationType"))
    if kind in {"1", "2"}:
        return ChatKind.GROUP if kind == "2" else ChatKind.DIRECT
    # A kind that is missing or new: only groups have a title, and a robot is @-ed in groups only.
    return ChatKind.GROUP if data.get("isInAtList") or data.get("conversationTitle") else ChatKind.DIRECT


class ContentReader:
    """What one message says, by its msgtype: pieces of text, and media in order (docs/protocol.md section 5.2)."""

    def __init__(self, robot_id: str = "") -> None:
        self.media: list[Media] = []
        self._pieces: list[str] = []
        self._robot_id = robot_id

    def text(self) -> str:
        return _EDGES.sub("", "".join(self._pieces)[:TEXT_MAX_CHARS])

    def read(self, msgtype: str, body: Mapping[str, Any]) -> None:
        content = maybe_json(body.get("content"))
        match msgtype:
            case "richText":
                self._read_rich_text(content or maybe_json(body.get("richText")))
            case "picture" | "audio" | "video" | "file":
                self._read_file(MediaKind(msgtype), content)
            case "chatRecord":
                self._add(_forwarded_chat(content))
            case "interactiveCard":
                self._add(_card_text(content))
            case "unknownMsgType":
                self._add(first_text(content, "unknownMsgType", "text", "content"))
            case _:
                # text, markdown, and what DingTalk may invent: look where text has been seen.
                for place in (maybe_json(body.get("text")), content, maybe_json(body.get("markdown"))):
                    found = first_text(place, "content", "text")
                    if found:
                        self._add(found)
                        break

    def _add(self, text: str) -> None:
        self._pieces.append(text)

    def _read_file(self, kind: MediaKind, content: Any) -> None:
        code = first_text(content, "downloadCode", "pictureDownloadCode")
        if isinstance(content, dict):
            # DingTalk's own speech recognition: the words count, the sound comes along.
            self._add(text_of(content.get("recognition")))
            if code:
                self.media.append(Media(kind, Secret(code), text_of(content.get("fileName"))))

    def _read_rich_text(self, content: Any) -> None:
        items = content
        # `{richText: [...]}` today; `{richTextList: [...]}`, also inside of richText, in old layouts.
        for _ in range(3):
            if isinstance(items, dict):
                items = maybe_json(items.get("richText") or items.get("richTextList"))
        if isinstance(items, str):
            self._add(text_of(items))
        for item in as_list(items):
            if isinstance(item, dict):
                self._read_item(item)
            else:
                self._add(text_of(item))

    def _read_item(self, item: Mapping[str, Any]) -> None:
        kind = text_of(item.get("type")) or text_of(item.get("msgType"))
        if kind == "at":
            who = first_text(item, "atUserId", "dingtalkId", "userId")
            name = first_text(item, "atName", "text", "content").lstrip("@")
            # The mention that called us says nothing; DingTalk strips it from plain text as well.
            calls_us = who == self._robot_id if who else not "".join(self._pieces).strip()
            if name and not calls_us:
                self._add(f"@{name} ")
            return
        code = first_text(item, "downloadCode", "pictureDownloadCode")
        if code:
            media = {"audio": MediaKind.AUDIO, "video": MediaKind.VIDEO, "file": MediaKind.FILE}
            self.media.append(Media(media.get(kind, MediaKind.PICTURE), Secret(code), text_of(item.get("fileName"))))
        if kind != "picture":
            self._add(first_text(item, "text", "content", "name"))


def _quote(data: Mapping[str, Any]) -> tuple[str, list[Media]]:
    """Text and pictures of the message that this one replies to (docs/protocol.md section 5.3, from logs).

    Pictures come along because "what is this?" is asked by quoting one.
    """
    # The quote stands where the reply's own words stand, which differs by the reply's type.
    places = (maybe_json(data.get("text")), maybe_json(data.get("content")), data)
    for place in places:
        replied = maybe_json(place.get("repliedMsg")) if isinstance(place, dict) else None
        if not isinstance(replied, dict):
            continue
        # One level only: a quote may hold a quote, for ever.
        msgtype = text_of(replied.get("msgType")) or text_of(replied.get("msgtype"))
        content = maybe_json(replied.get("content"))
        if not content:
            content = maybe_json(replied.get("text"))
        reader = ContentReader()
        if isinstance(content, str):
            return _EDGES.sub("", text_of(content)[:TEXT_MAX_CHARS]), []
        reader.read(msgtype, {"content": content})
        text = reader.text() or first_text(content, "text", "content", "fileName", "summary", "title")
        return _EDGES.sub("", text), [media for media in reader.media if media.kind is MediaKind.PICTURE]
    return "", []


def _forwarded_chat(content: Any) -> str:
    """Return a forwarded chat: its title and lines, or the summary where the lines do not come with it."""
    if not isinstance(content, dict):
        return text_of(content)
    lines: list[str] = []
    for name in ("chatRecord", "records", "messages"):
        for record in as_list(maybe_json(content.get(name))):
            if isinstance(record, dict):
                body = maybe_json(record.get("content")) or maybe_json(record.get("text"))
                line = text_of(body) if isinstance(body, str) else first_text(body, "content", "text", "recognition")
                nick = first_text(record, "senderNick", "senderName", "nick")
                if line:
                    lines.append(f"{nick}: {line}" if nick else line)
    title, summary = text_of(content.get("title")), text_of(content.get("summary"))
    return "\n".join(part for part in (title, "\n".join(lines) or summary) if part)


def _card_text(content: Any) -> str:
    """Return the words on a shared card, in reading order; else its title; else where it leads to."""
    if not isinstance(content, dict):
        return text_of(content)
    words: list[str] = []
    # A stack and not recursion: how deep the tree is, its sender decides.
    left = [maybe_json(content.get("cardContent"))]
    for _ in range(NODES_MAX):
        if not left:
            break
        node = left.pop()
        if isinstance(node, list):
            left.extend(reversed(node[:NODES_MAX]))
        elif isinstance(node, dict):
            words.append(text_of(node.get("value")))
            left.append(node.get("children"))
        else:
            words.append(text_of(node))
    return "\n".join(filter(None, words)) or first_text(content, "title", "text", "biz_custom_action_url")


def _webhook(url: str) -> str:
    """Return the session webhook, if it is an address that can be posted to at all."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return ""
    return url if usable and not re.search(r"\s", url) else ""

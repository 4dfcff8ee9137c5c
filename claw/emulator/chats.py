"""The people, the groups and what was said: everything that a DingTalk client would show.

Order of events: a person says something in a chat; it becomes a message with an id and, if the robot is meant, the
robot's copy of it (`build_robot_data`) with a session webhook. What the robot says back is a message of the same chat.

A session is not stored: its hex carries the chat, the message that it answers and its expiry under a keyed hash, so
that a bench with millions of messages needs no memory for their sessions.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import hashlib
import itertools
import json
import secrets
import time
from collections.abc import Iterable
from typing import Any, Final

from claw.emulator.bounds import trim
from claw.emulator.feed import Feed

SESSION_LIFETIME_S: Final = 90 * 60
"""docs/protocol.md section 5.1, sessionWebhookExpiredTime."""
CORP: Final = "dingfakecorp"
ROBOT_NAME: Final = "小助手"
"""What people write to mention the robot."""
ROBOT: Final = "robot"
"""Sender of the robot's messages."""
MAC_BYTES: Final = 16
QUOTES_MAX: Final = 3
"""Quotes within quotes that a message carries."""
QUOTED_TYPES: Final = {"card": "interactiveCard", "image": "picture"}
"""What the robot's messages are called when somebody quotes them."""
QUOTA_TEXT: Final = "受调用量超量影响，当前我的消息服务已经暂停。"


class UnknownError(LookupError):
    """No such person, chat or message."""


@dataclasses.dataclass(frozen=True)
class Person:
    id: str
    nick: str
    staff_id: str | None
    is_admin: bool = False

    @property
    def dingtalk_id(self) -> str:
        """The encrypted id, of no use in the OpenAPI (docs/protocol.md section 5.1)."""
        # From the id and not at random: the same person looks the same in every run, and traces can be compared.
        return "$:LWCP_v1:$" + base64.b64encode(hashlib.blake2s(self.id.encode(), digest_size=12).digest()).decode()

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "nick": self.nick, "staffId": self.staff_id, "isAdmin": self.is_admin}


@dataclasses.dataclass(eq=False)
class FakeMessage:
    id: str
    chat: str
    sender: str
    nick: str
    created_at: int
    """Milliseconds since the epoch."""
    msgtype: str
    text: str
    title: str = ""
    content: dict[str, Any] = dataclasses.field(default_factory=dict)
    at: list[str] = dataclasses.field(default_factory=list)
    quote: str | None = None
    reactions: list[str] = dataclasses.field(default_factory=list)
    card: str | None = None
    """`outTrackId` of a card."""
    card_view: dict[str, Any] | None = None
    """What a page needs to draw the card."""
    recalled: bool = False
    to_robot: bool = False
    delivered: bool = False
    via: str = ""
    receipt: str = ""
    """What the robot was told of its own message: `processQueryKey` or `carrierId`."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(eq=False)
class FakeChat:
    id: str
    """`direct:<person>` or a group's short name."""
    number: int
    conversation_id: str
    title: str
    person: str | None
    """Who a direct chat is with; None for a group."""
    messages: collections.deque[FakeMessage]

    @property
    def is_group(self) -> bool:
        return self.person is None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "conversationId": self.conversation_id,
            "title": self.title,
            "group": self.is_group,
            "person": self.person,
        }


@dataclasses.dataclass(frozen=True)
class FakeSession:
    chat: FakeChat
    number: int
    expires: int
    """Milliseconds since the epoch."""
    msg_id: str
    """The message whose robot copy carried the session."""


class Chats:
    """The directory of one invented organisation. `keep` bounds what each log remembers."""

    def __init__(self, *, robot_code: str, feed: Feed, keep: int) -> None:
        self.robot_code = robot_code
        # Not the robot code: mentions name the robot by an encrypted id of its own, which is good for nothing else.
        self.robot_id = "$:LWCP_v1:$" + base64.b64encode(robot_code.encode()[:12].ljust(12, b"0")).decode()
        self.people: dict[str, Person] = {}
        self.sessions_valid_from = 0
        """Sessions of messages with a lower number have expired (the `expire_sessions` action)."""
        self._feed = feed
        self._keep = keep
        # A new one in each process: a session of an earlier emulator on the same port has to be unknown.
        self._key = secrets.token_bytes(16)
        self._numbers = itertools.count(1)
        self._last_number = 0
        self._chats: dict[str, FakeChat] = {}
        # Sessions have room for a number, not for a name.
        self._by_number: list[FakeChat] = []
        self._messages: dict[str, FakeMessage] = {}
        self.clear()

    def adopt_robot_code(self, robot_code: str) -> None:
        """Take over the client id of the first client as the robot's code; ids that were given out stay."""
        self.robot_code = robot_code

    def clear(self) -> None:
        """Forget everything but the people and groups that every emulator begins with."""
        self.people.clear()
        self._chats.clear()
        self._messages.clear()
        # One of each sort that a robot has to tell apart: an admin, members, and somebody from outside.
        for person in (
            Person("u-1001", "林小雨", "u-1001", is_admin=True),
            Person("u-1002", "王大伟", "u-1002"),
            Person("u-1003", "Ann", "u-1003"),
            Person("x-2001", "陈客户（外部）", None),
        ):
            self.add_person(person)
        self.add_group("g-team", "产品研发群")
        self.add_group("g-ops", "Ops on call")

    def add_person(self, person: Person) -> Person:
        self.people[person.id] = person
        self._add_chat(f"direct:{person.id}", title=person.nick, person=person.id)
        return person

    def add_group(self, group_id: str, title: str) -> FakeChat:
        return self._add_chat(group_id, title=title, person=None)

    def _add_chat(self, chat_id: str, *, title: str, person: str | None) -> FakeChat:
        if chat_id in self._chats:
            # Somebody is added again under another name: what was said in the chat stays.
            self._chats[chat_id].title = title
            return self._chats[chat_id]
        # From the names: after a restart of the emulator a service still knows its conversations by their ids.
        digest = hashlib.blake2s(f"{self.robot_code}/{chat_id}".encode(), digest_size=16).digest()
        conversation_id = "cid" + base64.b64encode(digest).decode()
        chat = FakeChat(
            chat_id, len(self._by_number), conversation_id, title, person, collections.deque(maxlen=self._keep)
        )
        # Sessions name a chat by its number: the list only grows, also over clear().
        self._by_number.append(chat)
        self._chats[chat_id] = self._chats[conversation_id] = chat
        return chat

    def list_all(self) -> list[FakeChat]:
        # Every chat stands in the dict twice, under its id and under its conversationId.
        return list(dict.fromkeys(self._chats.values()))

    def person(self, person_id: str) -> Person:
        try:
            return self.people[person_id]
        except KeyError:
            raise UnknownError(f"no person {person_id!r}") from None

    def chat(self, ref: str, person: Person | None = None) -> FakeChat:
        """Find a chat by its id, by its conversationId, or `direct` with a person. Raises UnknownError."""
        if ref == "direct" and person is not None:
            ref = f"direct:{person.id}"
        try:
            return self._chats[ref]
        except KeyError:
            raise UnknownError(f"no chat {ref!r}") from None

    def message(self, msg_id: str) -> FakeMessage | None:
        return self._messages.get(msg_id)

    def next_number(self) -> int:
        # Remembered here, since a counter cannot be asked what it gave last.
        self._last_number = next(self._numbers)
        return self._last_number

    def expire_sessions(self) -> None:
        # By the number that each session carries: they are not stored, so none could be struck off a list.
        self.sessions_valid_from = self._last_number + 1

    def make_msg_id(self, number: int) -> str:
        """Make the id of the n-th message, `msg…==` (docs/protocol.md section 5.1)."""
        # Computed and not drawn: a session carries the number, and the id of the message follows from it.
        digest = hashlib.blake2s(number.to_bytes(8, "big"), key=self._key, digest_size=16).digest()
        return "msg" + base64.b64encode(digest).decode()

    def add(self, message: FakeMessage) -> FakeMessage:
        self._chats[message.chat].messages.append(message)
        self._messages[message.id] = message
        trim(self._messages, self._keep)
        return message

    def publish(self, message: FakeMessage) -> None:
        """Show a new or changed message on the pages."""
        self._feed.publish("message", lambda: {"message": message.to_dict()})

    def issue_session(self, chat: FakeChat, number: int, *, life: float = SESSION_LIFETIME_S) -> tuple[str, int]:
        """Issue a session of the chat: its hex, and its expiry in milliseconds since the epoch."""
        expires = int((time.time() + life) * 1000)
        # Fixed widths need no separators: 4 bytes for the chat, 6 for the message, 6 for the time.
        payload = chat.number.to_bytes(4, "big") + number.to_bytes(6, "big") + expires.to_bytes(6, "big")
        return (payload + self._mac(payload)).hex(), expires

    def open_session(self, session: str) -> FakeSession | None:
        """Read a session's hex; None if it was never issued or has expired."""
        try:
            raw = bytes.fromhex(session)
        except ValueError:
            return None
        payload, mac = raw[:16], raw[16:]
        if len(payload) != 16 or not secrets.compare_digest(mac, self._mac(payload)):
            return None
        # Nothing of the payload is believed before this line: the caller may send any hex.
        number, expires = int.from_bytes(payload[4:10], "big"), int.from_bytes(payload[10:], "big")
        if expires < time.time() * 1000 or number < self.sessions_valid_from:
            return None
        chat = self._by_number[int.from_bytes(payload[:4], "big")]
        return FakeSession(chat, number, expires, self.make_msg_id(number))

    def _mac(self, payload: bytes) -> bytes:
        return hashlib.blake2s(payload, key=self._key, digest_size=MAC_BYTES).digest()

    def build_robot_data(
        self,
        person: Person,
        chat: FakeChat,
        *,
        number: int,
        base_url: str,
        msgtype: str = "text",
        body: dict[str, Any] | None = None,
        quote: str | None = None,
        bare_quote: bool = False,
        at: Iterable[Person] = (),
        over_quota: bool = False,
    ) -> dict[str, Any]:
        """Build what the robot is sent for one message (docs/protocol.md section 5.1, 5.2, vectors V5 and V7)."""
        session, expires = self.issue_session(chat, number)
        data: dict[str, Any] = {
            "senderPlatform": "Win",
            "conversationId": chat.conversation_id,
            "openThreadId": chat.conversation_id,
            "chatbotCorpId": CORP,
            "chatbotUserId": self.robot_id,
            "msgId": self.make_msg_id(number),
            "senderNick": person.nick,
            "isAdmin": person.is_admin,
            "sessionWebhookExpiredTime": expires,
            "createAt": int(time.time() * 1000),
            # Numbers in strings, as on the wire.
            "conversationType": "2" if chat.is_group else "1",
            "senderId": person.dingtalk_id,
            "sessionWebhook": f"{base_url}/robot/sendBySession?session={session}",
            "robotCode": self.robot_code,
            "msgtype": msgtype,
        }
        # Somebody outside of the organisation has no staff id: the OpenAPI cannot write to them, only the session can.
        if person.staff_id is not None:
            data |= {"senderStaffId": person.staff_id, "senderCorpId": CORP}
        if chat.is_group:
            data |= {"conversationTitle": chat.title, "isInAtList": True, "atUsers": [{"dingtalkId": self.robot_id}]}
            data["atUsers"] += [
                {"dingtalkId": each.dingtalk_id} | ({"staffId": each.staff_id} if each.staff_id else {}) for each in at
            ]
        if over_quota:
            # The message arrives and is to be acked, but what was said is not in it (docs/protocol.md section 5.1).
            return data | {"msgtype": "text", "errCode": "20001", "errMsg": QUOTA_TEXT}
        content = dict(body or {})
        if quote is not None:
            quoted = self._quote(quote)
            data["originalMsgId"] = quote
            if receipt := self.find(quote).receipt:
                data["originalProcessQueryKey"] = receipt
            # At times only the reference comes (docs/protocol.md section 5.3).
            content |= {"isReplyMsg": True} if bare_quote else {"isReplyMsg": True, "repliedMsg": quoted}
        # Only text has its body under its own name; every other type has it under `content`.
        return data | {"text" if msgtype == "text" else "content": content}

    def find(self, msg_id: str) -> FakeMessage:
        """Find a message. Raises UnknownError."""
        message = self._messages.get(msg_id)
        if message is None:
            raise UnknownError(f"no message {msg_id!r}")
        return message

    def id_of(self, sender: str) -> str:
        """Return the encrypted id of a message's sender; the robot's, where it is nobody else."""
        person = self.people.get(sender)
        return person.dingtalk_id if person else self.robot_id

    def _quote(self, msg_id: str, depth: int = 1) -> dict[str, Any]:
        """Build `repliedMsg` (docs/protocol.md section 5.3): what it quotes itself is nested, a few times at most."""
        message = self.find(msg_id)
        content: dict[str, Any] = spell_items(message.content) if message.content else {"text": message.text}
        if message.card:
            content = {"cardContent": {"elementType": "card", "children": [make_card_text(message.text)]}}
        if message.quote in self._messages and depth < QUOTES_MAX:
            content |= {"isReplyMsg": True, "repliedMsg": self._quote(str(message.quote), depth + 1)}
        return {
            "msgId": message.id,
            "msgType": QUOTED_TYPES.get(message.msgtype, message.msgtype),
            "senderId": self.id_of(message.sender),
            "createdAt": message.created_at,
            "content": content,
        }


def make_card_text(text: str) -> dict[str, Any]:
    """Make the element of a card that shows its words."""
    return {"elementType": "markdown", "value": text, "children": []}


def spell_items(content: dict[str, Any]) -> dict[str, Any]:
    """Spell the items of a rich text as quotes and forwarded chats do: `msgType` and `content` (vector V7)."""
    items = content.get("richText")
    if not isinstance(items, list):
        return dict(content)
    spelt: list[Any] = []
    for item in items:
        kind = item.get("type", "text") if isinstance(item, dict) else None
        if kind is None:
            spelt.append(item)
        elif kind == "text":
            spelt.append({"msgType": "text", "content": item.get("text", "")})
        else:
            names = ("type", "pictureDownloadCode")
            spelt.append({"msgType": kind} | {name: value for name, value in item.items() if name not in names})
    return {**content, "richText": spelt}


def describe_items(content: dict[str, Any], picture: str) -> str:
    """Describe a rich text in a line; `picture` stands for each picture."""
    items = [item for item in content.get("richText") or () if isinstance(item, dict)]
    return "".join(str(item.get("text", "" if item.get("type") == "at" else picture)) for item in items)


def describe_body(msgtype: str, body: dict[str, Any], text: str = "") -> str:
    """Describe a message in a line for the page; `text` is what its sender called it."""
    if msgtype in {"text", "markdown"}:
        return str(body.get("content", body.get("text", "")))
    signs = {
        "richText": describe_items(body, "🖼"),
        "picture": "🖼",
        "video": "🎞",
        "audio": f"🎤 {body.get('recognition') or '…'}",
        "file": f"📎 {body.get('fileName', '')}",
        "chatRecord": f"🗂 {body.get('title', '')}",
        "interactiveCard": f"📄 {text}",
    }
    return signs.get(msgtype) or text or json.dumps(body, ensure_ascii=False)

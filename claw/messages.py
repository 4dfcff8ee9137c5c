"""Frozen values that cross rooms: what came in, who said it where, and what is answered.

`Inbound` is what `stream` makes of a robot frame, what the store keeps, and what `turn` and `reply` read.
`Route` is decided once, when the message is accepted, and stored with it. `Answer` is what `turn` makes, what the
store keeps before it is sent, and what `reply` delivers.

Stored values are JSON by field name with a version `v`. A replica of another version may read them during a rolling
update, so fields that this version does not know are kept and written back as they came.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from claw.secret import Secret

CODEC_VERSION: Final = 1
"""Version of the JSON of stored values. Rows from before it have no `v`, and lists in place of some objects."""


class ChatKind(StrEnum):
    """DingTalk's `conversationType`: "1" or "2"."""

    DIRECT = "direct"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where something was said. `id` is DingTalk's conversationId, which the OpenAPI calls openConversationId."""

    id: str
    kind: ChatKind
    title: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who said it. `staff_id` is empty for people outside of the organisation; `id` is DingTalk's encrypted one."""

    id: str
    staff_id: str = ""
    nick: str = ""

    @property
    def key(self) -> str:
        return self.staff_id or self.id


class MediaKind(StrEnum):
    """What a download code stands for."""

    PICTURE = "picture"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Media:
    """A file that came with a message, not yet fetched. The code is good for a short time and for this robot only."""

    kind: MediaKind
    code: Secret
    name: str = ""


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message of a person to the robot (docs/protocol.md section 5), as kept in the inbox.

    `text` is what was said, mention stripped and trimmed: speech as recognised, rich text joined; empty where the
    message is only media. `webhook` answers it until `webhook_expires` (seconds since the epoch; 0: none).
    """

    robot_code: str
    msg_id: str
    conversation: Conversation
    sender: Sender
    msgtype: str
    text: str
    created_at: float = 0.0
    """Seconds since the epoch by DingTalk's clock; 0 where it was not told."""
    quoted: str = ""
    """The text of the message that this one replies to."""
    media: tuple[Media, ...] = ()
    webhook: Secret = Secret("")
    webhook_expires: float = 0.0
    mentioned: tuple[str, ...] = ()
    """Staff ids of the people @-ed in the message, `Sender.id` of those who have none; the robot is not among them."""
    quota_exhausted: bool = False
    """DingTalk delivered no content since the month's quota is used up (code 20001)."""
    unknown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields of another version's JSON."""

    @property
    def key(self) -> str:
        """The name under which a repeat is known: the same over DingTalk's re-pushes (docs/protocol.md section 3.4)."""
        return f"{self.robot_code}:{self.msg_id}"

    @property
    def chat_key(self) -> str:
        """The name of the chat, the same for everybody in it; whose conversation it is, `Route` says."""
        return f"{self.robot_code}:{self.conversation.id}"

    def to_json(self) -> str:
        fields = {
            "robotCode": self.robot_code,
            "msgId": self.msg_id,
            "conversation": {
                "id": self.conversation.id,
                "kind": self.conversation.kind.value,
                "title": self.conversation.title,
            },
            "sender": {"id": self.sender.id, "staffId": self.sender.staff_id, "nick": self.sender.nick},
            "msgtype": self.msgtype,
            "text": self.text,
            "createdAt": self.created_at,
            "quoted": self.quoted,
            "media": [{"kind": m.kind.value, "code": m.code.reveal(), "name": m.name} for m in self.media],
            "webhook": self.webhook.reveal(),
            "webhookExpires": self.webhook_expires,
            "mentioned": self.mentioned,
            "quotaExhausted": self.quota_exhausted,
        }
        return _to_json(fields, self.unknown)

    @classmethod
    def from_json(cls, text: str) -> Inbound:
        """Read a stored message. Raises ValueError, LookupError or TypeError for what is none."""
        fields: dict[str, Any] = json.loads(text)
        where = _named(fields.pop("conversation"), "id", "kind", "title")
        who = _named(fields.pop("sender"), "id", "staffId", "nick")
        media = [_named(each, "kind", "code", "name") for each in fields.pop("media")]
        return cls(
            robot_code=fields.pop("robotCode"),
            msg_id=fields.pop("msgId"),
            conversation=Conversation(where["id"], ChatKind(where["kind"]), where["title"]),
            sender=Sender(who["id"], who["staffId"], who["nick"]),
            msgtype=fields.pop("msgtype"),
            text=fields.pop("text"),
            created_at=fields.pop("createdAt"),
            quoted=fields.pop("quoted"),
            media=tuple(Media(MediaKind(each["kind"]), Secret(each["code"]), each["name"]) for each in media),
            webhook=Secret(fields.pop("webhook")),
            webhook_expires=fields.pop("webhookExpires"),
            mentioned=tuple(fields.pop("mentioned", ())),
            quota_exhausted=fields.pop("quotaExhausted"),
            unknown=_unknown(fields),
        )


@dataclass(frozen=True, slots=True)
class Route:
    """Which way a message takes through the inbox: decided once, stored with the row.

    `conversation_key` names the conversation: its history and its `user` at the model. `queue` is where the message
    waits: the conversation's queue, or one of its own where it must not wait (`urgent`: also when all slots are taken).
    """

    conversation_key: str
    queue: str
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange of a conversation, as the model is told of it later. `history_key` is the key of its history.

    `epoch` is that of the history when the model was asked: an answer that comes after its conversation was forgotten
    must not bring it back. Empty: appended whatever the epoch.
    """

    history_key: str
    user: str
    assistant: str
    epoch: str = field(default="", compare=False)


class Outcome(StrEnum):
    """How a turn ended: the value of `claw.outcome`."""

    ANSWERED = "answered"
    DENIED = "denied"
    COMMAND = "command"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Markdown:
    """Text as models write it; how DingTalk shows it is the reply room's business."""

    text: str

    def to_fields(self) -> dict[str, Any]:
        return {"kind": "markdown", "text": self.text}


@dataclass(frozen=True, slots=True)
class UnknownContent:
    """A kind of content that only another version can deliver; here it leaves a mark."""

    fields: Mapping[str, Any]

    def to_fields(self) -> dict[str, Any]:
        return dict(self.fields)


Content = Markdown | UnknownContent
"""What an answer is made of, in the order in which it is delivered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be delivered for a message.

    `sent` counts the deliveries that are out, so that a restart goes on after them; without `content` nothing is
    sent. `exchange` is what the conversation's history gets when all is out. `error` is the cause of a failed turn,
    for the dead letters, and `tries` how often the turn was tried.
    """

    content: tuple[Content, ...]
    outcome: Outcome
    sent: int = 0
    exchange: Exchange | None = None
    error: str = ""
    tries: int = 0
    made_at: float = 0.0
    """Seconds since the epoch at which it was stored; 0: with its row."""
    doubts: int = 0
    """Failed calls that may have delivered its next part all the same."""
    unknown: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields of another version's JSON."""

    @classmethod
    def of(
        cls, text: str, outcome: Outcome, sent: int = 0, exchange: Exchange | None = None, error: str = ""
    ) -> Answer:
        """Make an answer of one text; an empty one has no content."""
        return cls((Markdown(text),) if text else (), outcome, sent, exchange, error)

    @property
    def text(self) -> str:
        """All of its text."""
        return "\n\n".join(each.text for each in self.content if isinstance(each, Markdown))

    def with_sent(self, deliveries: int) -> Answer:
        """Return it with so many deliveries counted as out."""
        return replace(self, sent=deliveries, doubts=0)

    def to_json(self) -> str:
        exchange = self.exchange
        fields = {
            "content": [each.to_fields() for each in self.content],
            "outcome": self.outcome.value,
            "sent": self.sent,
            "exchange": None
            if exchange is None
            else {
                "historyKey": exchange.history_key,
                "user": exchange.user,
                "assistant": exchange.assistant,
                "epoch": exchange.epoch,
            },
            "error": self.error,
            "tries": self.tries,
            "madeAt": self.made_at,
            "doubts": self.doubts,
        }
        return _to_json(fields, self.unknown)

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """Read a stored answer. Raises ValueError, LookupError or TypeError for what is none."""
        fields: dict[str, Any] = json.loads(text)
        if "content" in fields:
            content = tuple(_content(each) for each in fields.pop("content"))
        else:  # From before CODEC_VERSION 1.
            content = Answer.of(fields.pop("text"), Outcome.ANSWERED).content
        told = fields.pop("exchange", None) or fields.pop("turn", None)
        exchange = _named(told, "historyKey", "user", "assistant") if told else None
        return cls(
            content,
            Outcome(fields.pop("outcome")),
            fields.pop("sent"),
            Exchange(exchange["historyKey"], exchange["user"], exchange["assistant"], exchange.get("epoch", ""))
            if exchange
            else None,
            fields.pop("error"),
            fields.pop("tries", 0),
            fields.pop("madeAt", 0.0),
            fields.pop("doubts", 0),
            _unknown(fields),
        )


def _content(fields: Mapping[str, Any]) -> Content:
    return Markdown(fields["text"]) if fields["kind"] == "markdown" else UnknownContent(fields)


def _named(value: Any, *names: str) -> dict[str, Any]:
    """Return an object's fields; before CODEC_VERSION 1 they stood in a list, in this order."""
    return value if isinstance(value, dict) else dict(zip(names, value, strict=True))


def _unknown(left: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in left.items() if name not in {"v", "turn"}}


def _to_json(fields: Mapping[str, Any], unknown: Mapping[str, Any]) -> str:
    return json.dumps({"v": CODEC_VERSION, **unknown, **fields}, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it came off a socket: `acknowledge` writes the ack on that very socket, or nowhere.

    `read_at` is the moment at which its frame was read, in seconds since the epoch.
    """

    inbound: Inbound
    read_at: float
    acknowledge: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CardCallback:
    """A button of a card that somebody pressed (docs/protocol.md section 7.6).

    `respond` writes the answer, which may change the card, on the socket that the callback came from; DingTalk uses
    it within 2 s only. Without a call of it the callback is acknowledged with an empty response.
    """

    card_id: str
    """`outTrackId`, the name that claw gave the card."""
    staff_id: str
    """Who pressed; empty where DingTalk names no member of the organisation."""
    conversation_id: str
    action_ids: tuple[str, ...]
    params: Mapping[str, str]
    respond: Callable[[Mapping[str, Any]], Awaitable[None]]

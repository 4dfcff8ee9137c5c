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

from claw.parts import (
    Media,
    MediaKind,
    Part,
    Person,
    Quote,
    Words,
    join_words,
    parts_from_fields,
    parts_to_fields,
    quote_from_fields,
    quote_to_fields,
)
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


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message of a person to the robot (docs/protocol.md section 5), as kept in the inbox.

    `text` is what the person said in words, without the mention of the robot, trimmed: speech as recognised, rich text
    joined; empty where the message has no words of theirs. `parts` is all of it in order; empty stands for `text`
    alone. `webhook` answers it until `webhook_expires` (seconds since the epoch; 0: none).
    """

    robot_code: str
    msg_id: str
    conversation: Conversation
    sender: Sender
    msgtype: str
    text: str
    created_at: float = 0.0
    """Seconds since the epoch by DingTalk's clock; 0 where it was not told."""
    parts: tuple[Part, ...] = ()
    quote: Quote | None = None
    people: tuple[Person, ...] = ()
    """Who is @-ed in the message; the robot is not among them."""
    webhook: Secret = Secret("")
    webhook_expires: float = 0.0
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

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """What it is made of, also where that is its text alone."""
        return self.parts or ((Words(self.text),) if self.text else ())

    @property
    def mentioned(self) -> tuple[str, ...]:
        """Staff ids of the people @-ed in the message, DingTalk's ids of those who have none."""
        return tuple(each.key for each in self.people)

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
            # Not twice: where there are parts, it is their words.
            "text": "" if self.parts and self.text == join_words(self.parts) else self.text,
            "createdAt": self.created_at,
            "parts": parts_to_fields(self.parts),
            "quote": quote_to_fields(self.quote),
            "people": [{"id": each.id, "staffId": each.staff_id, "name": each.name} for each in self.people],
            "webhook": self.webhook.reveal(),
            "webhookExpires": self.webhook_expires,
            "quotaExhausted": self.quota_exhausted,
        }
        return _to_json(fields, self.unknown)

    @classmethod
    def from_json(cls, text: str) -> Inbound:
        """Read a stored message. Raises ValueError, LookupError or TypeError for what is none."""
        fields: dict[str, Any] = json.loads(text)
        where = _named(fields.pop("conversation"), "id", "kind", "title")
        who = _named(fields.pop("sender"), "id", "staffId", "nick")
        said = fields.pop("text")
        parts, quote, people = _read_content(fields, said)
        # Left out where it is the parts' own words: a long message would be stored twice.
        said = said or join_words(parts)
        return cls(
            robot_code=fields.pop("robotCode"),
            msg_id=fields.pop("msgId"),
            conversation=Conversation(where["id"], ChatKind(where["kind"]), where["title"]),
            sender=Sender(who["id"], who["staffId"], who["nick"]),
            msgtype=fields.pop("msgtype"),
            text=said,
            created_at=fields.pop("createdAt"),
            parts=parts,
            quote=quote,
            people=people,
            webhook=Secret(fields.pop("webhook")),
            webhook_expires=fields.pop("webhookExpires"),
            quota_exhausted=fields.pop("quotaExhausted"),
            unknown=_unknown(fields),
        )


def _read_content(fields: dict[str, Any], said: str) -> tuple[tuple[Part, ...], Quote | None, tuple[Person, ...]]:
    """Take out of `fields` what was said, quoted and @-ed."""
    quoted, media, mentioned = fields.pop("quoted", ""), fields.pop("media", ()), fields.pop("mentioned", ())
    if "parts" in fields:
        people = tuple(Person(each["id"], each["staffId"], each["name"]) for each in fields.pop("people"))
        return parts_from_fields(fields.pop("parts")), quote_from_fields(fields.pop("quote")), people
    # From before 0.2.0: no order among text and media, and who is @-ed by one id.
    named = [_named(each, "kind", "code", "name") for each in media]
    files = tuple(Media(MediaKind(each["kind"]), Secret(each["code"]), each["name"]) for each in named)
    parts = ((Words(said),) if said else ()) + files if files else ()
    return parts, Quote(parts=(Words(quoted),)) if quoted else None, tuple(Person(each, each) for each in mentioned)


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
    media: tuple[Media, ...] = ()
    """Pictures of the person's half, so that the next question may be about them."""


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


class FileRole(StrEnum):
    """What a file is to its answer."""

    ATTACHMENT = "attachment"
    """The agent hands it over."""
    WHOLE = "whole"
    """The answer's own text, all of it: it is too long for messages."""


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file that is uploaded and becomes a message of its own. `file_type` is DingTalk's word, such as `pdf`."""

    media_id: str
    name: str
    file_type: str
    role: FileRole = FileRole.ATTACHMENT

    def to_fields(self) -> dict[str, Any]:
        told = {"mediaId": self.media_id, "name": self.name, "fileType": self.file_type, "role": self.role.value}
        return {"kind": "file", **told}


@dataclass(frozen=True, slots=True)
class CardText:
    """Text that a card shows already: an answer's first delivery."""

    text: str

    def to_fields(self) -> dict[str, Any]:
        return {"kind": "card", "text": self.text}


@dataclass(frozen=True, slots=True)
class UnknownContent:
    """A kind of content that only another version can deliver; here it leaves a mark."""

    fields: Mapping[str, Any]

    def to_fields(self) -> dict[str, Any]:
        return dict(self.fields)


Content = Markdown | CardText | SentFile | UnknownContent
"""What an answer is made of, in the order in which it is delivered."""


class MediaState(StrEnum):
    """Whether the pictures and files that an answer's text names are where the person can see them."""

    NAMED = "named"
    """As the model wrote it; nothing was looked for, or nothing was found."""
    SETTLED = "settled"
    """They are uploaded, as far as they can be: not to be done again."""


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
    receipts: tuple[str, ...] = ()
    """DingTalk's names for what is out (`processQueryKey`, `carrierId`), by which a later quote refers to it."""
    merged: tuple[int, ...] = ()
    """`seq` of the messages behind it in its queue that it answers as well (CLAW_BUSY_MODE=merge)."""
    media: MediaState = MediaState.NAMED
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
        return "\n\n".join(each.text for each in self.content if isinstance(each, Markdown | CardText))

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
                "media": parts_to_fields(exchange.media),
            },
            "error": self.error,
            "tries": self.tries,
            "madeAt": self.made_at,
            "doubts": self.doubts,
            "receipts": self.receipts,
            "merged": self.merged,
            "media": self.media.value,
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
        return cls(
            content,
            Outcome(fields.pop("outcome")),
            fields.pop("sent"),
            _read_exchange(fields.pop("exchange", None) or fields.pop("turn", None)),
            fields.pop("error"),
            fields.pop("tries", 0),
            fields.pop("madeAt", 0.0),
            fields.pop("doubts", 0),
            tuple(fields.pop("receipts", ())),
            tuple(fields.pop("merged", ())),
            # One that only a newer version knows: it has begun with it, at least.
            MediaState.NAMED if fields.pop("media", MediaState.NAMED) == MediaState.NAMED else MediaState.SETTLED,
            _unknown(fields),
        )


def _read_exchange(told: Any) -> Exchange | None:
    if not told:
        return None
    fields = _named(told, "historyKey", "user", "assistant")
    media = parts_from_fields(fields.get("media", ()))
    return Exchange(
        fields["historyKey"],
        fields["user"],
        fields["assistant"],
        fields.get("epoch", ""),
        tuple(each for each in media if isinstance(each, Media)),
    )


def _content(fields: Mapping[str, Any]) -> Content:
    match fields:
        case {"kind": "markdown", "text": text}:
            return Markdown(text)
        case {"kind": "card", "text": text}:
            return CardText(text)
        # One of a role that only another version knows is not guessed at.
        case {"kind": "file", "mediaId": media_id, "name": name, "fileType": file_type, "role": role} if role in set(
            FileRole
        ):
            return SentFile(media_id, name, file_type, FileRole(role))
    return UnknownContent({"kind": fields["kind"], **fields})


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

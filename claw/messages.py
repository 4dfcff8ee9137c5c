"""Frozen values that cross rooms: what came in, who said it where, and what is answered.

`Inbound` is what `stream` makes of a robot frame, what the store keeps as JSON, and what `turn` and `reply` read.
`Answer` is what `turn` makes, what the store keeps before it is sent, and what `reply` sends.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from claw.secret import Secret


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
    """One message of a person to the robot (PROTOCOL section 5), as kept in the inbox.

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
    """Staff ids of the people @-ed in the message; the robot is not among them."""
    quota_exhausted: bool = False
    """DingTalk delivered no content since the month's quota is used up (code 20001)."""

    @property
    def key(self) -> str:
        """The name under which a repeat is known: the same over DingTalk's re-pushes (PROTOCOL section 3.4)."""
        return f"{self.robot_code}:{self.msg_id}"

    @property
    def conversation_key(self) -> str:
        """The name of the conversation: of its queue, its history and its `user` at the model."""
        return f"{self.robot_code}:{self.conversation.id}"

    def to_json(self) -> str:
        fields = {
            "robotCode": self.robot_code,
            "msgId": self.msg_id,
            "conversation": [self.conversation.id, self.conversation.kind.value, self.conversation.title],
            "sender": [self.sender.id, self.sender.staff_id, self.sender.nick],
            "msgtype": self.msgtype,
            "text": self.text,
            "createdAt": self.created_at,
            "quoted": self.quoted,
            "media": [[m.kind.value, m.code.reveal(), m.name] for m in self.media],
            "webhook": self.webhook.reveal(),
            "webhookExpires": self.webhook_expires,
            "mentioned": self.mentioned,
            "quotaExhausted": self.quota_exhausted,
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Inbound:
        fields: dict[str, Any] = json.loads(text)
        conversation_id, chat_kind, title = fields["conversation"]
        return cls(
            robot_code=fields["robotCode"],
            msg_id=fields["msgId"],
            conversation=Conversation(conversation_id, ChatKind(chat_kind), title),
            sender=Sender(*fields["sender"]),
            msgtype=fields["msgtype"],
            text=fields["text"],
            created_at=fields["createdAt"],
            quoted=fields["quoted"],
            media=tuple(Media(MediaKind(kind), Secret(code), name) for kind, code, name in fields["media"]),
            webhook=Secret(fields["webhook"]),
            webhook_expires=fields["webhookExpires"],
            mentioned=tuple(fields.get("mentioned", ())),
            quota_exhausted=fields["quotaExhausted"],
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange of a conversation, as the model is told of it later. `history_key` is the key of its history."""

    history_key: str
    user: str
    assistant: str


class Outcome(StrEnum):
    """How a turn ended: the value of `claw.outcome`."""

    ANSWERED = "answered"
    DENIED = "denied"
    COMMAND = "command"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent for a message. `sent` counts the parts that are out, so that a restart goes on after them.

    An empty `text` sends nothing. `turn` is what the conversation's history gets when all is out. `error` is the
    cause of a failed turn, for the dead letters.
    """

    text: str
    outcome: Outcome
    sent: int = 0
    turn: Exchange | None = None
    error: str = ""

    def with_sent(self, parts: int) -> Answer:
        return replace(self, sent=parts)

    def to_json(self) -> str:
        turn = None if self.turn is None else [self.turn.history_key, self.turn.user, self.turn.assistant]
        fields = {
            "text": self.text,
            "outcome": self.outcome.value,
            "sent": self.sent,
            "turn": turn,
            "error": self.error,
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Answer:
        fields: dict[str, Any] = json.loads(text)
        turn = None if fields["turn"] is None else Exchange(*fields["turn"])
        return cls(fields["text"], Outcome(fields["outcome"]), fields["sent"], turn, fields["error"])


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it came off a socket: `acknowledge` writes the ack on that very socket, or nowhere.

    `read_at` is the moment at which its frame was read, in seconds since the epoch.
    """

    inbound: Inbound
    read_at: float
    acknowledge: Callable[[], Awaitable[None]]

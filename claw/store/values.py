"""What a store keeps and returns: rows, leases, dead letters, chats, replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from claw.messages import Answer, ChatKind, Inbound, Route
from claw.parts import Part


class RowKind(StrEnum):
    """Why something is to be delivered. Only a message may need a turn; the others are put with their answer."""

    MESSAGE = "message"
    """Somebody wrote to the robot."""
    SEND = "send"
    """A program asked for a text to be sent."""
    ALERT = "alert"
    """claw itself has something to tell an operator."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is put into the inbox. With an `answer` no turn is needed: it is only to be delivered."""

    inbound: Inbound
    route: Route
    trace: Mapping[str, str] = field(default_factory=dict)
    """The trace context that the turn continues (W3C `traceparent`, `tracestate`)."""
    kind: RowKind = RowKind.MESSAGE
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one message until it runs out. `fence` grows with each claim of the message.

    `attempts` counts failed tries of the current stage (model, then delivery). `claims` counts claims since the last
    release, this one included; a growing number means that the message crashes its process.
    """

    seq: int
    fence: int
    owner: str
    kind: RowKind
    route: Route
    inbound: Inbound
    trace: Mapping[str, str]
    """As it was put."""
    received_at: float
    """Seconds since the epoch at which the message was put."""
    attempts: int = 0
    claims: int = 1
    answer: Answer | None = None
    """The saved answer: what of it is not out yet is to be delivered."""
    stopped: bool = False
    """Its last holder was asked to stop, and died before it could; or it was stopped between two tries."""
    waiting_since: float = 0.0
    """Seconds since the epoch since which the message waits for the model's server; 0: it does not wait."""
    worked: float = 0.0
    """Seconds that the model has worked on it, over all tries."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits: messages not yet acked by a worker, and the age of the oldest in seconds."""

    pending: int
    leased: int
    dead: int
    oldest_age: float
    stuck: bool = False
    """Some message waits for more than STUCK_AGE_S without a delay, and nobody works on anything."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, with its cause. Times: seconds since the epoch."""

    id: str
    """The store's name for it; one that is put back and given up again gets another."""
    kind: RowKind
    key: str
    error: str
    attempts: int
    received_at: float
    buried_at: float
    inbound: Inbound | None = None
    """Without its webhook; None where the message cannot be read."""
    answer: Answer | None = None
    """What the model was paid for and DingTalk did not take."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A direct chat or group that the robot was written to in. Times: seconds since the epoch."""

    id: str
    kind: ChatKind
    title: str
    """The group's title, or the person's name in a direct chat, as last seen."""
    first_seen: float
    last_seen: float
    messages: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A claw of the fleet, as it last told of itself. Times: seconds since the epoch."""

    id: str
    version: str
    seen_at: float
    healthy: bool


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message as the index keeps it, for a later one that quotes it.

    `ids` are the names by which a quote may refer to it: DingTalk's msgId of what people wrote; the receipts of what
    the robot sent, if there are any. `parts` are shortened to INDEXED_MAX_CHARS.
    """

    chat_key: str
    ids: tuple[str, ...]
    at: float
    """Seconds since the epoch: as DingTalk tells of a person's message, our own clock for the robot's."""
    speaker: str
    """The person's name; empty for the robot."""
    by_robot: bool
    parts: tuple[Part, ...]


class Requeued(StrEnum):
    """What became of the wish to try a dead letter again."""

    ASK = "ask"
    """The model is asked again."""
    SEND = "send"
    """The answer was there, and is sent again."""
    GONE = "gone"
    """There is no such letter any more."""
    UNREADABLE = "unreadable"
    """Nobody can tell what it was."""


class SendState(StrEnum):
    """What became of a text that a program asked for."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """What a program is told of a text that it asked for. Times: seconds since the epoch."""

    id: str
    state: SendState
    accepted_at: float
    ended_at: float = 0.0
    """0: it is still pending."""
    receipts: tuple[str, ...] = ()
    """DingTalk's names for what is out (`processQueryKey`)."""
    error: str = ""
    digest: str = ""
    """Of what was asked for, so that the same idempotency key with another text is no repeat."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one person used in one chat on one day (`2026-11-27`), or what is to be added to it."""

    day: str
    person: str
    """`Sender.key`."""
    chat: str
    """The conversation's id."""
    name: str = ""
    """The person's name, as last seen; empty in what is added: unchanged."""
    title: str = ""
    questions: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    up: int = 0
    down: int = 0


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who changed what and when (seconds since the epoch)."""

    at: float
    actor: str
    """A staff id, or `api` for the holder of the admin token."""
    action: str
    target: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class KeptCard:
    """A card that shows an answer, kept before it is made: a crash must leave no card that nobody knows of.

    `id` is its `outTrackId`. `asker` is the `Sender.key` of the person whom it answers.
    """

    id: str
    key: str
    """Of the message that it answers (`Inbound.key`)."""
    queue: str
    robot_code: str
    asker: str
    language: str
    opened_at: float
    """Seconds since the epoch."""
    ended: bool = False
    """It shows its last text, or was never shown: nothing of it is typing any more."""


class RowPlace(Enum):
    """Where a message is."""

    WAITING = "waiting"
    """In its queue, and nobody works on it."""
    LEASED = "leased"
    GONE = "gone"
    """Answered, given up, or never put."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A message that waits right behind a leased one in its queue."""

    seq: int
    inbound: Inbound


class Interrupted(Enum):
    """What became of the wish to stop a queue's turn."""

    STOPPED = "stopped"
    NOTHING = "nothing"
    """No turn that could still be stopped."""
    OTHERS = "others"
    """The turn answers somebody else."""

    def __bool__(self) -> bool:
        """Whether something was stopped."""
        return self is Interrupted.STOPPED


class Risk(Enum):
    """A setting of a server that may lose what it was given; the value says what to do."""

    EVICTS = "set maxmemory-policy noeviction"
    FORGETS = "set appendonly yes"

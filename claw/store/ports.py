"""What claw asks of a store: an inbox that loses nothing, and the memory of conversations.

The order of events for one message: `put` (durable when it returns) -> `claim` -> `save_answer` (once, or again
after each part that is out) -> `ack` (history and removal in one transaction). A failed try goes `claim` ->
`release`; a hopeless one `claim` -> `bury`. One contract test (tests/store/contract.py) runs over every adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final, Protocol

from claw.messages import Answer, ChatKind, Exchange, Inbound, Route

SEEN_KEPT_S: Final = 24 * 3600.0
"""Seconds for which a message's key is remembered; DingTalk repeats after 60 s (docs/protocol.md section 3.3)."""
DEAD_KEPT_S: Final = 30 * 24 * 3600.0
DEAD_KEPT_MAX: Final = 10_000
"""Dead letters are kept for 30 days, the newest 10 000 at most."""
HISTORY_KEPT_S: Final = 90 * 24 * 3600.0
HISTORY_KEPT_TURNS: Final = 100
"""Turns are kept for 90 days, the newest 100 of a conversation at most."""
CHATS_KEPT_S: Final = 400 * 24 * 3600.0
"""Seconds after its last message for which a chat is listed."""
SPENT_KEPT_S: Final = 3 * 24 * 3600.0
"""Seconds for which a person's day is counted: in any time zone it is over by then."""
NOTICES_KEPT_S: Final = 24 * 3600.0
"""Seconds for which it is known that something was said; `first_in` may not ask for longer."""
CALLS_KEPT_MONTHS: Final = 13
CLAIMS_MAX: Final = 20
"""A message that was claimed so often without an end kills its process: who claims it then gives it up."""
REST_KEPT_MAX_S: Final = 3600.0
"""Longest rest that is believed: a clock that was set back must not park a message for ever."""
CHECK_TIMEOUT_S: Final = 2.0
"""Seconds that a probing write may take."""


class State(Enum):
    """Where the store is in its life."""

    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


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
    """What is put into the inbox. With an `answer` there is nothing to think about: it is only to be delivered."""

    inbound: Inbound
    route: Route
    trace: Mapping[str, str] = field(default_factory=dict)
    """The trace context to be continued by the turn (W3C `traceparent`, `tracestate`)."""
    kind: RowKind = RowKind.MESSAGE
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one message until it runs out. `fence` grows with each claim of the message.

    `attempts` counts the failed tries of what is to be done now: to think, or, once an answer is saved, to send.
    `claims` counts the claims, this one included, since the last that came to an orderly end: a message that kills its
    process can so be told from one that is only unlucky.
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
    stopped: bool = False
    """Its last holder was asked to stop, and died before it could."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits: messages not yet acked by a worker, and the age of the oldest in seconds."""

    pending: int
    leased: int
    dead: int
    oldest_age: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, with its cause."""

    key: str
    error: str
    attempts: int
    received_at: float
    buried_at: float


class Inbox(Protocol):
    """Messages accepted and not yet answered. A lane is a queue: one lease at a time, in order of arrival.

    Every method raises StoreError where the store fails; those that take a lease raise LeaseLostError where it is
    no longer held, and change nothing then.
    """

    async def put(self, row: Row) -> bool:
        """Keep a row durably; return False where its key was seen before (nothing is changed then).

        A message is counted to its chat; what claw sends of its own accord is not.
        """
        ...

    async def claim(self, owner: str, ttl: float, *, urgent: bool = False) -> Lease | None:
        """The oldest message that may be worked on, for `ttl` seconds; `urgent`: only one that was put so."""
        ...

    async def wait(self, *, urgent: bool = False) -> None:
        """Return when such a claim may have become possible: a hint, which may come early or for nothing."""
        ...

    async def renew(self, lease: Lease, ttl: float) -> None:
        """Hold the lease for `ttl` seconds from now; also one that has run out, if nobody has claimed it since."""
        ...

    async def save_answer(self, lease: Lease, answer: Answer) -> None:
        """Keep the answer durably, to be found in the next lease of this message; `attempts` counts afresh."""
        ...

    async def ack(self, lease: Lease, turn: Exchange | None = None) -> None:
        """Remove the message, and append `turn` to the history that it names, in one transaction."""
        ...

    async def release(self, lease: Lease, delay: float = 0.0, *, failed: bool = False) -> None:
        """Give the message back; its lane rests for `delay` seconds. `failed` counts the try."""
        ...

    async def bury(self, lease: Lease, error: str) -> None:
        """Put the message to the dead letters."""
        ...

    async def interrupt(self, queue: str) -> bool:
        """Ask whoever else works on `queue`, in another process, to stop; False where nobody thinks there now.

        True is told once for a message. The holder learns of it at once, or else when it next renews.
        """
        ...

    def on_interrupt(self, act: Callable[[int, int], object]) -> None:
        """Call `act` with the number and the fence of each lease of ours that another process wants stopped.

        Also with those of others, and more than once.
        """
        ...

    async def depth(self) -> Depth: ...

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        ...


class History(Protocol):
    """The memory of conversations, by a key (`Exchange.history_key`) that the caller chooses."""

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        """The newest `limit` turns since the memory was last forgotten, oldest first."""
        ...

    async def epoch(self, history_key: str) -> int:
        """How often the memory was forgotten."""
        ...

    async def forget(self, history_key: str) -> int:
        """Begin afresh: drop its turns and return the raised epoch."""
        ...


class Usage(Protocol):
    """How many calls of DingTalk were made in a calendar month (`2026-11`), by api: they are the user's money."""

    async def add_calls(self, month: str, calls: Mapping[str, int]) -> None: ...

    async def calls(self, month: str) -> dict[str, int]: ...


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


class ConfigStore(Protocol):
    """What was settled at run time: the owner, policies, lists.

    Entries are few and small (a name, a text), and any replica sees what another one entered.
    """

    async def items(self, prefix: str = "") -> dict[str, str]:
        """All entries whose name begins with `prefix`. Asked with every message, so it must be cheap."""
        ...

    async def set(self, name: str, value: str) -> None:
        """Set an entry, durably."""
        ...

    async def set_if_absent(self, name: str, value: str) -> str:
        """Set an entry unless there is one; what stands there afterwards. Of many at the same moment one wins."""
        ...

    async def delete(self, *names: str) -> None:
        """Remove entries; one that is not there is no error."""
        ...


class ChatDirectory(Protocol):
    """The chats that the robot was written to in, which `Inbox.put` enters by itself."""

    async def chats(self, limit: int = 50) -> list[Chat]:
        """The chats last written in, newest first."""
        ...


class QuotaStore(Protocol):
    """What people have used up: messages of a day, and notices that are not to be repeated at once."""

    async def consume_quota(self, person: str, day: str, key: str, limit: int) -> bool:
        """Count message `key` to a person's `day` (`2026-11-21`); False, and not counted, beyond `limit`.

        The same key counts once, so that another try of a message costs nothing.
        """
        ...

    async def once_per(self, name: str, seconds: float) -> bool:
        """Whether `name` was not said here within the last `seconds`; if so, it counts as said now."""
        ...


class Risk(Enum):
    """A setting of a server by which what it was given may be lost; the value says what to do."""

    EVICTS = "set maxmemory-policy noeviction"
    FORGETS = "set appendonly yes"


class Inspection(ChatDirectory, Protocol):
    """A look at a store from outside, beside a claw that may be using it. All of it raises StoreError as needed."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What a server tells of itself; empty for a file."""
        ...

    @property
    def risks(self) -> tuple[Risk, ...]:
        """What may lose messages, the graver first."""
        ...

    async def items(self, prefix: str = "") -> dict[str, str]:
        """As `ConfigStore.items`."""
        ...

    async def calls(self, month: str) -> dict[str, int]:
        """As `Usage.calls`."""
        ...

    async def depth(self) -> Depth: ...

    async def dead(self, limit: int = 100) -> list[DeadLetter]: ...

    async def check(self) -> None:
        """Return when a claw could write there now. Raises StoreBusyError where a running one holds it for itself."""
        ...


class Store(Inbox, History, ConfigStore, ChatDirectory, QuotaStore, Usage, Protocol):
    """One opened store; `close` leaves no thread, file or lock behind."""

    async def open(self) -> None:
        """Open, lock and migrate. Raises StoreBusyError, StoreSchemaError or StoreError."""
        ...

    async def check(self) -> None:
        """Return when the store can write; raise StoreError, with the cause, when it cannot."""
        ...

    async def clean(self) -> None:
        """Drop what is past its keeping time."""
        ...

    async def close(self) -> None: ...

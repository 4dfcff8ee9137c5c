"""What claw asks of a store: an inbox that loses nothing, and what is remembered between messages.

Order of events for one message: `put` returns when the message is durable. `claim` leases it to a worker, which calls
`save_answer` once, or again after each delivery, and at last `ack`: history and removal in one transaction. A failed
try ends with `release`, a hopeless one with `bury`. One contract (tests/store/contract.py) is tested over every
adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from claw.language import Bilingual
from claw.messages import Answer, Exchange
from claw.store.operation import Audit, DeadLetters, Sends, Usage
from claw.store.values import (
    Chat,
    DeadLetter,
    Depth,
    Follower,
    Interrupted,
    KeptCard,
    KeptMessage,
    Lease,
    Replica,
    Risk,
    Row,
    RowPlace,
)

SEEN_RETENTION_S: Final = 24 * 3600.0
"""Seconds for which a message's key is remembered; DingTalk repeats after 60 s (docs/protocol.md section 3.3).

They are counted by the times at which messages were written, as DingTalk tells them: a message that was written so long
before the newest one is taken for seen. Our own clock may be a day ahead, and would forget what is repeated next. It
counts only for messages that have no such time.
"""
CREATED_AHEAD_MAX_S: Final = 48 * 3600.0
"""Seconds by which our own clock may be behind; a message that was written later than that has no time."""
CLOCK_SKEW_S: Final = 60.0
"""Seconds by which DingTalk's clock and ours may differ for messages to be ordered by DingTalk's."""
PASSED_MAX: Final = 16
"""Messages of a queue that one which was written earlier, and arrives later, may go before."""
HISTORY_RETENTION_S: Final = 90 * 24 * 3600.0
HISTORY_EXCHANGES_MAX: Final = 100
"""Exchanges are kept for 90 days, the newest 100 of a conversation at most."""
CHATS_RETENTION_S: Final = 400 * 24 * 3600.0
"""Seconds after its last message for which a chat is listed."""
QUOTA_RETENTION_S: Final = 3 * 24 * 3600.0
"""Seconds for which a person's day is counted: in any time zone it is over by then."""
NOTICES_RETENTION_S: Final = 24 * 3600.0
"""Seconds for which a notice is remembered; `once_per` may not ask for longer."""
EPOCH_RETENTION_S: Final = 400 * 24 * 3600.0
"""Seconds for which the epoch of a history that nobody asks for is kept apart from that of new ones."""
EPOCH_TOUCH_S: Final = 24 * 3600.0
"""Seconds after which asking for an epoch is written down again: once a day, not with each message."""
LOST_REMEDY: Final = Bilingual(
    "put a copy of it back, or name the owner by CLAW_OWNER; `claw owner reset` begins anew",
    "放回备份，或用 CLAW_OWNER 指定主人；`claw owner reset` 重新配对",
)
INDEX_RETENTION_S: Final = 7 * 24 * 3600.0
INDEX_MAX: Final = 200
"""Messages are indexed for 7 days, the newest 200 of a chat at most."""
INDEXED_MAX_CHARS: Final = 4_000
"""What the index keeps of a message's words."""
INDEXED_MEDIA_MAX: Final = 8
"""Media of a message that the index keeps."""
PEOPLE_RETENTION_S: Final = 90 * 24 * 3600.0
CARDS_RETENTION_S: Final = 7 * 24 * 3600.0
"""Seconds for which a card is known, and its buttons with it."""
VOTES_MAX: Final = 500
"""People whose votes on one card are kept."""
PLACES_LOOKED_AT: Final = 64
"""Messages of a queue, from its head, among which one is looked for."""
DELAY_MAX_S: Final = 3600.0
"""Longest delay that is believed: a clock that was set back must not park a message for ever."""
CHECK_TIMEOUT_S: Final = 2.0
"""Seconds that a probing write may take."""
CHECK_FRESH_S: Final = 3.0
"""Seconds for which the last write that went well is taken as proof that the store takes writes."""
STUCK_AGE_S: Final = 120.0
"""Seconds after which a message that nobody takes up, though nothing else is worked on, is a fault."""
REPLICA_LIFE_S: Final = 15.0
"""Seconds after its last beat for which a replica is taken to live."""
STUCK_MAX: Final = 16
"""Messages, the oldest, that are looked at to say whether any is stuck."""


class Inbox(Protocol):
    """Messages accepted and not yet answered. A queue gives one lease at a time, in the order of what was said.

    That is the order of arrival, but for a message which overtook an earlier one on its way: the earlier one
    (`Inbound.created_at`) goes before it, unless it was claimed already.

    Every method raises StoreError where the store fails; those that take a lease raise LeaseLostError where it is
    no longer held, and change nothing then.
    """

    async def put(self, row: Row) -> bool:
        """Keep a row durably; return False where its key was seen before (nothing is changed then).

        A message is counted to its chat; what claw sends of its own accord is not.
        """
        ...

    async def claim(self, owner: str, ttl: float, *, urgent: bool = False) -> Lease | None:
        """Lease the oldest message that may be worked on for `ttl` seconds; `urgent`: only one that was put so."""
        ...

    async def wait(self, *, urgent: bool = False) -> None:
        """Return when such a claim may succeed. May wake spuriously.

        Returns at once if a claim has become possible since the last `wait` returned, or if a claim left more.
        A worker that cannot take what there is does not turn in a circle, therefore.
        """
        ...

    async def renew(self, lease: Lease, ttl: float) -> None:
        """Hold the lease for `ttl` seconds from now; also one that has run out, if nobody has claimed it since."""
        ...

    async def save_answer(self, lease: Lease, answer: Answer) -> None:
        """Keep the answer durably, for the next lease of this message; `attempts` starts again at 0, waiting ends."""
        ...

    async def ack(
        self,
        lease: Lease,
        exchange: Exchange | None = None,
        *,
        sent: KeptMessage | None = None,
        merged: Sequence[int] = (),
    ) -> None:
        """Remove the message, append `exchange` to the history that it names, and index `sent`, in one transaction.

        An exchange of another epoch than the history's is dropped: it was forgotten before it was there. `merged` are
        messages of the same queue behind it (`followers`) that were answered with it: they are removed as well; one
        that is not there any more is no error.
        """
        ...

    async def followers(self, lease: Lease, limit: int) -> list[Follower]:
        """Return the messages right behind the lease's in its queue, oldest first, `limit` at most.

        Ends before the first that is no message of a person, or that has an answer, or that is delayed. Nobody else
        can claim them as long as the lease is held.
        """
        ...

    async def release(
        self, lease: Lease, delay: float = 0.0, *, failed: bool = False, waiting: bool = False, worked: float = 0.0
    ) -> None:
        """Give the message back; its queue is blocked for `delay` seconds. `failed` counts the try.

        `waiting`: it waits for the model's server, from now on if it did not before; a release without it ends that.
        `worked`: seconds of the model's work in this try, which add up.
        """
        ...

    async def bury(self, lease: Lease, error: str, *, attempts: int | None = None, merged: Sequence[int] = ()) -> None:
        """Move the message to the dead letters, with its saved answer, and those `merged` into it as well.

        `attempts` is what the letter shows; None: the failed tries of the present stage that were released.
        """
        ...

    async def interrupt(self, queue: str, *, sender: str | None = None, unless: str = "") -> Interrupted:
        """Ask another process that works on `queue` to stop; NOTHING where no process is at work without an answer.

        `sender` (`Sender.key`): only a turn that answers this person; OTHERS where it is somebody else's. `unless`:
        NOTHING where it is the turn of the message with this key.
        Returns STOPPED once for a message. Its holder learns of it at once, or else when it next renews. A message that
        is delayed until its next try can be claimed at once then, and its lease says that it was stopped.
        """
        ...

    async def place(self, queue: str, key: str) -> RowPlace:
        """Say where the message with this key is; WAITING also where its queue is too long to be looked through."""
        ...

    def on_interrupt(self, act: Callable[[int, int], object]) -> None:
        """Call `act` with `seq` and `fence` of each lease that another process wants stopped.

        Also with those of other processes, and more than once.
        """
        ...

    async def depth(self) -> Depth: ...


class History(Protocol):
    """The exchanges of conversations, by a key (`Exchange.history_key`) that the caller chooses."""

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        """Return the newest `limit` exchanges since the history was last forgotten, oldest first."""
        ...

    async def epoch(self, history_key: str, *, idle_reset: float = 0.0) -> str:
        """Return a name for the time since the history was last forgotten.

        With `idle_reset` (seconds; 0: never) the history is forgotten first where nobody asked for its epoch for so
        long; then each asking is written down, which is otherwise done once a day.

        A store that was lost and made anew gives other names, by a random part of its own: the conversations that an
        agent keeps under the old ones must not come back. Stores from before 0.2.0 have no such part.

        A history that nobody asked for in EPOCH_RETENTION_S gets a new name when it is asked for again. No name ever
        comes twice: those that were dropped leave the highest of their numbers, and whoever has none begins above it.
        """
        ...

    async def forget(self, history_key: str) -> str:
        """Drop the exchanges and return the new epoch."""
        ...


class ConfigStore(Protocol):
    """What was settled at run time: the owner, policies, lists.

    Items are few and small (a name, a text), and any replica sees what another one set.
    """

    async def items(self, prefix: str = "") -> dict[str, str]:
        """Return all items whose name begins with `prefix`. Called for every message, so it must be cheap."""
        ...

    async def set(self, name: str, value: str) -> None:
        """Set an item, durably."""
        ...

    async def set_if_absent(self, name: str, value: str) -> str:
        """Set an item unless there is one; return what it is then. Of many calls at the same moment one wins."""
        ...

    async def delete(self, *names: str) -> None:
        """Remove items; one that is not there is no error."""
        ...


class ChatDirectory(Protocol):
    """The chats that the robot was written to in, which `Inbox.put` enters by itself."""

    async def chats(self, limit: int = 50) -> list[Chat]:
        """Return the chats last written in, newest first."""
        ...


class QuotaStore(Protocol):
    """What people have used up: messages of a day, and notices that are not to be repeated at once."""

    async def consume_quota(self, person: str, day: str, key: str, limit: int) -> bool:
        """Count message `key` to a person's `day` (`2026-11-21`); False, and not counted, beyond `limit`.

        The same key counts once, so that another try of a message costs nothing.
        """
        ...

    async def once_per(self, name: str, seconds: float) -> bool:
        """Return whether notice `name` is due: not given within the last `seconds`. If so, it counts as given now."""
        ...


class MessageIndex(Protocol):
    """What was said in chats lately, found by DingTalk's ids: for quotes that come without their words.

    `Inbox.put` enters each person's message by itself, `Inbox.ack` what was sent. Kept for INDEX_RETENTION_S, the
    newest INDEX_MAX of a chat at most.
    """

    async def find_message(self, chat_key: str, ids: Sequence[str]) -> KeptMessage | None:
        """Return the message of this chat that has one of the `ids`."""
        ...

    async def find_sent(self, chat_key: str, at: float, within: float) -> KeptMessage | None:
        """Return what the robot sent nearest to `at`, at most `within` seconds from it: webhooks give no receipt."""
        ...


class People(Protocol):
    """What is remembered of a person: the language they last wrote in. Kept for PEOPLE_RETENTION_S after a change."""

    async def language(self, person: str) -> str:
        """Return the remembered language; empty where there is none. Called for many messages: it must be cheap."""
        ...

    async def set_language(self, person: str, language: str) -> None: ...


class Cards(Protocol):
    """The cards that answers are shown in, kept for CARDS_RETENTION_S, and what people think of them."""

    async def keep_card(self, card: KeptCard) -> None:
        """Keep a card durably, in place of what was kept under its id."""
        ...

    async def find_card(self, card_id: str) -> KeptCard | None: ...

    async def open_cards(self, opened_until: float, limit: int) -> list[KeptCard]:
        """Return cards that have not ended and were opened until that time (seconds since the epoch), oldest first."""
        ...

    async def vote(self, card_id: str, person: str, vote: str) -> str:
        """Keep what a person thinks of a card; return what they thought before, empty for nothing."""
        ...


class Fleet(Protocol):
    """Who shares the store. A replica that cannot reach it hears of nobody, and is heard of by nobody."""

    async def beat(self, replica: str, version: str, healthy: bool) -> None:  # noqa: FBT001 - a fact like the others
        """Say that `replica` lives, for REPLICA_LIFE_S."""
        ...

    async def replicas(self) -> list[Replica]:
        """Return those that live, in order of their ids; where the store is not shared, ourselves only."""
        ...


class Inspection(ChatDirectory, Protocol):
    """A look at a store from outside, beside a claw that may be using it. Each method may raise StoreError."""

    @property
    def server_info(self) -> Mapping[str, str]:
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


class Store(
    Inbox,
    DeadLetters,
    History,
    ConfigStore,
    ChatDirectory,
    QuotaStore,
    MessageIndex,
    People,
    Cards,
    Usage,
    Sends,
    Audit,
    Fleet,
    Protocol,
):
    """One opened store; `close` leaves no thread, file or lock behind."""

    @property
    def shared(self) -> bool:
        """Whether other replicas can use it at the same time."""
        ...

    @property
    def lost(self) -> bool:
        """Whether a store that was here is gone, and nothing was settled in the new one yet.

        Nobody may become the owner by being first then: there was one, most likely.
        """
        ...

    async def open(self) -> None:
        """Open, lock and migrate. Raises StoreBusyError, StoreSchemaError or StoreError; may be called again then."""
        ...

    async def check(self) -> None:
        """Return when the store can write; raise StoreError, with the cause, when it cannot."""
        ...

    async def clean(self) -> None:
        """Drop what is past its retention; compare what is kept twice, and mend what differs."""
        ...

    async def close(self) -> None: ...

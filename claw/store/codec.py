"""What every store does with a value before it keeps it, and after it has read it, whatever keeps it.

Texts from outside are kept as bytes: they may hold half of a surrogate pair, which neither SQLite's TEXT nor UTF-8 can.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

from claw.messages import Answer, ChatKind, Inbound, Route
from claw.parts import Entry, Media, Part, Record, Words, parts_from_fields, parts_to_fields
from claw.secret import Secret
from claw.store.operation import CALLS_RETENTION_MONTHS, USAGE_RETENTION_DAYS
from claw.store.ports import INDEXED_MAX_CHARS, INDEXED_MEDIA_MAX, QUOTA_RETENTION_S
from claw.store.values import AuditEntry, KeptCard, KeptMessage, Lease, Row, RowKind, SendReceipt, SendState, UsageRow

E = TypeVar("E", bound=Exception)

DECODE_ERRORS: Final = (ValueError, LookupError, TypeError, AttributeError)
"""What reading a stored value raises where it is damaged, or of a version that nobody here knows."""
CREATED_MAX: Final = 1e11
"""Seconds since the epoch beyond which a time is none: what a frame says may be any number."""
UNREADABLE: Final = "the stored message cannot be read"
"""The cause with which such a message is buried."""


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


# --- rows ---------------------------------------------------------------------------------------------------------


class StoredRow(NamedTuple):
    """A row as it is kept. Until 0.1.0 there was no `conversation_key`, and every row was a message."""

    queue: str
    urgent: bool
    inbound: bytes
    trace: bytes
    kind: str = RowKind.MESSAGE.value
    conversation_key: bytes | None = None
    answer: bytes | None = None


def encode_row(row: Row) -> StoredRow:
    return StoredRow(
        row.route.queue,
        row.route.urgent,
        encode(row.inbound.to_json()),
        json.dumps(dict(row.trace)).encode(),
        row.kind.value,
        encode(row.route.conversation_key),
        None if row.answer is None else encode(row.answer.to_json()),
    )


def decode_row(stored: StoredRow) -> Row | None:
    """Return the row; None where it cannot be read."""
    try:
        inbound = Inbound.from_json(decode(stored.inbound))
        return Row(
            inbound,
            _decode_route(stored, inbound),
            json.loads(stored.trace),
            RowKind(stored.kind),
            None if stored.answer is None else Answer.from_json(decode(stored.answer)),
        )
    except DECODE_ERRORS:
        # Whoever claims it buries it: raised from here it would come back with every claim, and block its queue.
        return None


def _decode_route(stored: StoredRow, inbound: Inbound) -> Route:
    if stored.conversation_key is not None:
        return Route(decode(stored.conversation_key), stored.queue, stored.urgent)
    # Until 0.1.0 the queue was the conversation's key, to which an urgent message added its own id.
    key = stored.queue.removesuffix(f"!{inbound.msg_id}") if stored.urgent else stored.queue
    return Route(key, stored.queue, stored.urgent)


def lease_of(
    row: Row,
    *,
    seq: int,
    fence: int,
    owner: str,
    received_at: float,
    attempts: int,
    claims: int,
    stopped: bool = False,
    waiting_since: float = 0.0,
    worked: float = 0.0,
) -> Lease:
    """Return the lease of a row that was claimed."""
    return Lease(
        seq=seq,
        fence=fence,
        owner=owner,
        kind=row.kind,
        route=row.route,
        inbound=row.inbound,
        trace=row.trace,
        received_at=received_at,
        attempts=attempts,
        claims=claims,
        answer=row.answer,
        stopped=stopped,
        waiting_since=waiting_since,
        worked=worked,
    )


def decode_inbound(stored: bytes | None) -> Inbound | None:
    """Return the message; None where it cannot be read."""
    try:
        return Inbound.from_json(decode(stored or b""))
    except DECODE_ERRORS:
        return None


def decode_answer(stored: bytes | None) -> Answer | None:
    """Return the answer; None where there is none, or it cannot be read."""
    try:
        return Answer.from_json(decode(stored)) if stored else None
    except DECODE_ERRORS:
        return None


def strip_webhook(inbound: Inbound) -> bytes:
    """Return what an operator may want to look at later, without the address by which anybody could answer."""
    return encode(replace(inbound, webhook=Secret("")).to_json())


def strip_stored_webhook(inbound: bytes) -> bytes:
    """Do the same to a stored message; one that cannot be read is returned as it is."""
    try:
        return strip_webhook(Inbound.from_json(decode(inbound)))
    except DECODE_ERRORS:
        return inbound


def created_at(row: Row) -> float:
    """Return when DingTalk says that the message was written; 0 where it does not say, or nobody wrote it."""
    # What claw sends of its own accord has a time of our clock, which says nothing about DingTalk's.
    # Infinite, or not a number: what a frame says must not end in an error at each repeat of it.
    told = row.inbound.created_at
    return told if row.kind is RowKind.MESSAGE and 0 < told < CREATED_MAX else 0.0


class ChatRow(NamedTuple):
    """A chat as a message tells of it."""

    key: str
    id: bytes
    kind: str
    title: bytes


def chat_row(row: Row) -> ChatRow | None:
    """Return what the row tells of its chat; None where nobody wrote there."""
    if row.kind is not RowKind.MESSAGE:
        return None
    inbound = row.inbound
    chat = inbound.conversation
    # A direct chat has no title of its own: it is called by the person.
    title = inbound.sender.nick if chat.kind is ChatKind.DIRECT else chat.title
    # Not by the conversation's id alone: two robots in one chat have a chat each.
    return ChatRow(inbound.chat_key, encode(chat.id), chat.kind.value, encode(title))


# --- the index of messages -----------------------------------------------------------------------------------------


class StoredMessage(NamedTuple):
    """A message of the index as it is kept."""

    chat: str
    ids: tuple[str, ...]
    at: float
    by_robot: bool
    body: bytes


def message_of(row: Row, at: float) -> StoredMessage | None:
    """Return what the index keeps of a row that is put; None where nobody wrote it. `at`: now."""
    if row.kind is not RowKind.MESSAGE:
        return None
    inbound = row.inbound
    who = inbound.sender.nick or inbound.sender.staff_id
    return encode_message(
        KeptMessage(
            chat_key=inbound.chat_key,
            ids=(inbound.msg_id,),
            at=created_at(row) or at,
            speaker=who,
            by_robot=False,
            parts=inbound.all_parts,
        )
    )


def encode_message(message: KeptMessage) -> StoredMessage:
    fields = {"at": message.at, "speaker": message.speaker, "parts": parts_to_fields(shorten_parts(message.parts))}
    body = json.dumps({**fields, "byRobot": message.by_robot, "ids": message.ids}, ensure_ascii=False)
    return StoredMessage(message.chat_key, message.ids, message.at, message.by_robot, encode(body))


def decode_message(chat_key: str, body: bytes | None) -> KeptMessage | None:
    """Return a message of the index; None where there is none, or it cannot be read."""
    try:
        fields = json.loads(decode(body or b""))
        return KeptMessage(
            chat_key,
            tuple(fields["ids"]),
            fields["at"],
            fields["speaker"],
            fields["byRobot"],
            parts_from_fields(fields["parts"]),
        )
    except DECODE_ERRORS:
        return None


def shorten_parts(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the first of the words and media, as much as the index keeps; marks and order stay."""
    return tuple(_shorten(parts, [INDEXED_MAX_CHARS, INDEXED_MEDIA_MAX]))


def _shorten(parts: tuple[Part, ...], left: list[int]) -> Iterator[Part]:
    """Yield what there is room for; `left`: characters and media."""
    for part in parts:
        if isinstance(part, Words):
            if left[0] > 0:
                yield Words(part.text[: left[0]])
                left[0] -= len(part.text)
        elif isinstance(part, Media):
            if left[1] > 0:
                yield part
            left[1] -= 1
        elif isinstance(part, Record):
            entries = []
            for entry in part.entries:
                if left[0] <= 0:
                    break
                left[0] -= len(entry.speaker)
                entries.append(Entry(entry.speaker, tuple(_shorten(entry.parts, left))))
            yield Record(part.title, tuple(entries))
        else:
            yield part


def media_from_json(fields: Any) -> tuple[Media, ...]:
    """Read the media of an exchange, as JSON or as what it holds; none where they cannot be read."""
    try:
        parts = parts_from_fields(json.loads(fields) if isinstance(fields, bytes) else fields or ())
    except DECODE_ERRORS:
        return ()
    return tuple(each for each in parts if isinstance(each, Media))


def card_to_json(card: KeptCard) -> bytes:
    """Return a card as it is kept."""
    return json.dumps(asdict(card), ensure_ascii=False).encode("utf-8", "surrogatepass")


def card_from_json(body: bytes | None) -> KeptCard | None:
    """Read a card; None where there is none, or it cannot be read."""
    try:
        fields = json.loads(bytes(body or b"null").decode("utf-8", "surrogatepass"))
        return KeptCard(**{name: fields[name] for name in KeptCard.__slots__})
    except DECODE_ERRORS:
        return None


def send_to_json(receipt: SendReceipt) -> bytes:
    """Return a receipt as it is kept."""
    return encode(json.dumps(asdict(receipt), ensure_ascii=False))


def send_from_json(body: bytes | None) -> SendReceipt | None:
    """Read a receipt; None where there is none, or it cannot be read."""
    try:
        fields = json.loads(decode(bytes(body or b"null")))
        known = {name: fields[name] for name in SendReceipt.__slots__}
        return SendReceipt(**known | {"state": SendState(known["state"]), "receipts": tuple(known["receipts"])})
    except DECODE_ERRORS:
        return None


def audit_to_json(entry: AuditEntry) -> bytes:
    """Return an entry as it is kept."""
    return encode(json.dumps(asdict(entry), ensure_ascii=False))


def audit_from_json(body: bytes) -> AuditEntry | None:
    """Read an entry; None where it cannot be read."""
    try:
        fields = json.loads(decode(bytes(body)))
        return AuditEntry(**{name: fields[name] for name in AuditEntry.__slots__})
    except DECODE_ERRORS:
        return None


class StoredUsage(NamedTuple):
    """What is added to somebody's day, as it is kept."""

    day: str
    person: str
    chat: str
    name: bytes
    title: bytes
    questions: int
    tokens_in: int
    tokens_out: int
    up: int
    down: int


def usage_to_stored(row: UsageRow) -> StoredUsage:
    counts = (row.questions, row.tokens_in, row.tokens_out, row.up, row.down)
    return StoredUsage(row.day, row.person, row.chat, encode(row.name), encode(row.title), *counts)


def format_epoch(store_id: str, forgettings: int) -> str:
    """Return the name of an epoch: the store's random part, where it has one, and how often was forgotten."""
    return f"{store_id}.{forgettings}" if store_id else str(forgettings)


# --- what is kept for how long ------------------------------------------------------------------------------------


def oldest_day(now: float) -> str:
    """Return the first day of which quotas are kept."""
    # In UTC, though days are counted in the settings' time zone: the retention has room for the difference.
    return datetime.fromtimestamp(now - QUOTA_RETENTION_S, UTC).date().isoformat()


def oldest_usage_day(now: float) -> str:
    """Return the first day of which usage is kept."""
    return datetime.fromtimestamp(now - USAGE_RETENTION_DAYS * 24 * 3600.0, UTC).date().isoformat()


def oldest_month(now: float) -> str:
    """Return the first month of which calls are kept, the current one counted in."""
    today = datetime.fromtimestamp(now, UTC)
    years, month = divmod(today.year * 12 + today.month - CALLS_RETENTION_MONTHS, 12)
    return f"{years:04d}-{month + 1:02d}"


# --- errors -------------------------------------------------------------------------------------------------------


def copy_error(error: E) -> E:
    """Return the same error anew, its attributes included.

    Each caller of a batch gets one of its own: an exception that several tasks raise mixes up their tracebacks.
    """
    kind = type(error)
    # Not by calling the class: its arguments need not be those that `args` holds.
    fresh = kind.__new__(kind, *error.args)
    fresh.__dict__.update(error.__dict__)
    fresh.__cause__ = error.__cause__
    return fresh


def consume_exception(future: asyncio.Future[Any]) -> None:
    """Take note of the error of a call that nobody waits for, or asyncio would complain about it."""
    if not future.cancelled():
        future.exception()

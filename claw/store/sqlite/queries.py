"""The SQL: one function for each thing that the store does to its tables, run in the writer's thread.

Each takes the connection first and may be run again after a rollback, so none keeps anything outside of the file.
Times are seconds since the epoch.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from claw.errors import StoreError
from claw.messages import Answer, ChatKind, Inbound
from claw.store.codec import route_of, unpacked, without_webhook
from claw.store.ports import DEAD_KEPT_MAX, HISTORY_KEPT_TURNS, SEEN_KEPT_S, Chat, DeadLetter, Depth, Row, RowKind

CHUNK: Final = 500
"""Rows that one `drop_*` removes at most, so that a cleaning never keeps a message waiting for long."""
VACUUM_PAGES: Final = 256
"""Free pages (of 4 KiB) given back to the file system in one step."""
FREE_KEPT_PAGES: Final = 1024
"""Free pages that stay in the file for the next burst."""


def name(text: str) -> str:
    """An identifier as SQLite can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()


# --- inbox --------------------------------------------------------------------------------------------------


class Put(NamedTuple):
    """A row of the inbox, in the order of its columns in `put`."""

    queue: str
    urgent: bool
    received_at: float
    key: str
    trace: bytes
    inbound: bytes
    kind: str
    conversation_key: bytes
    answer: bytes | None


class Heard(NamedTuple):
    """A message as its chat is told of it: columns of `chats`, in the order of `put`."""

    key: str
    id: bytes
    kind: str
    title: bytes
    at: float


def put(connection: sqlite3.Connection, row: Put, heard: Heard | None) -> int | None:
    """The number of the new message; None where its key was seen within SEEN_KEPT_S, and nothing is changed."""
    fresh = connection.execute(
        "INSERT INTO seen (key, at) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = excluded.at WHERE at <= ?",
        (row.key, row.received_at, row.received_at - SEEN_KEPT_S),
    )
    if not fresh.rowcount:
        return None
    if heard is not None:
        connection.execute(
            "INSERT INTO chats (key, id, kind, title, first_seen, last_seen, messages)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1)"
            " ON CONFLICT (key) DO UPDATE SET last_seen = excluded.last_seen, messages = messages + 1,"
            " title = CASE length(excluded.title) WHEN 0 THEN title ELSE excluded.title END",
            heard,
        )
    return connection.execute(
        "INSERT INTO inbox (lane, urgent, received_at, key, trace, inbound, kind, conversation_key, answer)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    ).lastrowid


Waiting = tuple[int, str, int, float, float, int, int, int]
"""seq, lane, urgent, received_at, not_before, attempts, fence, claims."""


def waiting(connection: sqlite3.Connection, after: int, limit: int) -> list[Waiting]:
    """Messages beyond number `after`, in order, without their bodies. A negative `limit`: all."""
    return connection.execute(
        "SELECT seq, lane, urgent, received_at, not_before, attempts, fence, claims"
        " FROM inbox WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    ).fetchall()


def bodies(connection: sqlite3.Connection, seq: int, limit: int) -> dict[int, Row | None]:
    """The rows from number `seq` on; None for one that cannot be read."""
    rows = connection.execute(
        "SELECT seq, lane, urgent, inbound, trace, kind, conversation_key, answer"
        " FROM inbox WHERE seq >= ? ORDER BY seq LIMIT ?",
        (seq, limit),
    )
    return {number: _row(columns) for number, *columns in rows}


def _row(columns: list[Any]) -> Row | None:
    queue, urgent, inbound, trace, kind, conversation_key, answer = columns
    try:
        message = Inbound.from_json(unpacked(inbound))
        key = None if conversation_key is None else unpacked(conversation_key)
        return Row(
            message,
            route_of(queue, urgent=bool(urgent), conversation_key=key, msg_id=name(message.msg_id)),
            json.loads(trace),
            RowKind(kind),
            None if answer is None else Answer.from_json(unpacked(answer)),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def mark_claim(connection: sqlite3.Connection, seq: int, fence: int, claims: int) -> None:
    connection.execute("UPDATE inbox SET fence = ?, claims = ? WHERE seq = ?", (fence, claims, seq))


def save_answer(connection: sqlite3.Connection, seq: int, answer: bytes) -> None:
    changed = connection.execute("UPDATE inbox SET answer = ?, attempts = 0 WHERE seq = ?", (answer, seq))
    if not changed.rowcount:
        raise StoreError("the message is no longer in the file")


def release(connection: sqlite3.Connection, seq: int, not_before: float, failures: int) -> None:
    connection.execute(
        "UPDATE inbox SET not_before = ?, attempts = attempts + ?, fence = fence + 1, claims = 0 WHERE seq = ?",
        (not_before, failures, seq),
    )


def ack(connection: sqlite3.Connection, seq: int, turn: tuple[str, bytes, bytes] | None, at: float) -> None:
    """Remove the message, and append (memory, user, assistant) to its history.

    Once: an earlier ack whose commit was reported as failed may have reached the disk all the same.
    """
    removed = connection.execute("DELETE FROM inbox WHERE seq = ?", (seq,))
    if turn is None or not removed.rowcount:
        return
    history_key, user, assistant = turn
    connection.execute(
        "INSERT INTO history (memory, seq, at, user, assistant)"
        " SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4 FROM history WHERE memory = ?1",
        (history_key, at, user, assistant),
    )
    connection.execute(
        "DELETE FROM history WHERE memory = ?1 AND seq <= (SELECT max(seq) FROM history WHERE memory = ?1) - ?2",
        (history_key, HISTORY_KEPT_TURNS),
    )


def bury(connection: sqlite3.Connection, seq: int, error: bytes, at: float) -> int:
    """Move the message to the dead letters; how many were moved (0: it is not in the file)."""
    row = connection.execute("SELECT inbound FROM inbox WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        return 0
    connection.execute(
        "INSERT INTO dead (key, attempts, received_at, buried_at, error, inbound)"
        " SELECT key, attempts, received_at, ?, ?, ? FROM inbox WHERE seq = ?",
        (at, error, _without_webhook(row[0]), seq),
    )
    return connection.execute("DELETE FROM inbox WHERE seq = ?", (seq,)).rowcount


def _without_webhook(inbound: bytes) -> bytes:
    try:
        message = Inbound.from_json(unpacked(inbound))
    except (ValueError, LookupError, TypeError, AttributeError):
        return inbound  # What it says cannot be told, hence nothing can be taken from it.
    return without_webhook(message)


def depth(connection: sqlite3.Connection) -> Depth:
    """How much waits, as far as the file tells: it knows of no leases, and ages are by this machine's clock."""
    pending, oldest = connection.execute("SELECT count(*), min(received_at) FROM inbox").fetchone()
    age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
    return Depth(pending=pending, leased=0, dead=count_dead(connection), oldest_age=age)


def count_dead(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM dead").fetchone()
    return int(count)


def dead(connection: sqlite3.Connection, limit: int) -> list[DeadLetter]:
    rows = connection.execute(
        "SELECT key, error, attempts, received_at, buried_at FROM dead ORDER BY id DESC LIMIT ?", (limit,)
    )
    return [DeadLetter(key, unpacked(error), attempts, since, at) for key, error, attempts, since, at in rows]


# --- history --------------------------------------------------------------------------------------------------


def turns(connection: sqlite3.Connection, history_key: str, limit: int) -> list[tuple[str, str]]:
    """The newest `limit` exchanges, oldest first."""
    rows = connection.execute(
        "SELECT user, assistant FROM history WHERE memory = ? ORDER BY seq DESC LIMIT ?", (history_key, limit)
    ).fetchall()
    return [(unpacked(user), unpacked(assistant)) for user, assistant in reversed(rows)]


def epoch(connection: sqlite3.Connection, history_key: str) -> int:
    row = connection.execute("SELECT epoch FROM memory WHERE name = ?", (history_key,)).fetchone()
    return 0 if row is None else int(row[0])


def forget(connection: sqlite3.Connection, history_key: str) -> int:
    connection.execute("DELETE FROM history WHERE memory = ?", (history_key,))
    connection.execute(
        "INSERT INTO memory (name, epoch) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1",
        (history_key,),
    )
    return epoch(connection, history_key)


# --- ledger ---------------------------------------------------------------------------------------------------


def add_calls(connection: sqlite3.Connection, month: str, counts: Iterable[tuple[str, int]]) -> None:
    connection.executemany(
        "INSERT INTO calls (month, api, n) VALUES (?, ?, ?) ON CONFLICT (month, api) DO UPDATE SET n = n + excluded.n",
        [(month, api, n) for api, n in counts],
    )


def calls(connection: sqlite3.Connection, month: str) -> dict[str, int]:
    return dict(connection.execute("SELECT api, n FROM calls WHERE month = ? ORDER BY api", (month,)))


# --- registry -------------------------------------------------------------------------------------------------


def entries(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name, value FROM entries")
    return {unpacked(each): unpacked(value) for each, value in rows}


def enter(connection: sqlite3.Connection, entry: bytes, value: bytes) -> None:
    connection.execute(
        "INSERT INTO entries (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (entry, value),
    )


def enter_first(connection: sqlite3.Connection, entry: bytes, value: bytes) -> str:
    """What stands there afterwards."""
    connection.execute("INSERT INTO entries (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (entry, value))
    (stands,) = connection.execute("SELECT value FROM entries WHERE name = ?", (entry,)).fetchone()
    return unpacked(stands)


def strike(connection: sqlite3.Connection, names: Iterable[bytes]) -> None:
    connection.executemany("DELETE FROM entries WHERE name = ?", [(each,) for each in names])


def chats(connection: sqlite3.Connection, limit: int) -> list[Chat]:
    rows = connection.execute(
        "SELECT id, kind, title, first_seen, last_seen, messages FROM chats ORDER BY last_seen DESC, key LIMIT ?",
        (limit,),
    )
    return [
        Chat(unpacked(conversation), ChatKind(kind), unpacked(title), first, last, messages)
        for conversation, kind, title, first, last, messages in rows
    ]


def spend(connection: sqlite3.Connection, person: str, day: str, key: str, limit: int) -> bool:
    """Whether the key is counted to the person's day, now or before."""
    spent = (day, person, key)
    counted = connection.execute("SELECT 1 FROM spent WHERE day = ? AND person = ? AND key = ?", spent).fetchone()
    if counted is not None:
        return True
    added = connection.execute(
        "INSERT INTO spent (day, person, key) SELECT ?1, ?2, ?3"
        " WHERE (SELECT count(*) FROM spent WHERE day = ?1 AND person = ?2) < ?4",
        (*spent, limit),
    )
    return added.rowcount > 0


def first_in(connection: sqlite3.Connection, notice: str, at: float, seconds: float) -> bool:
    """Whether it was not said within `seconds` of `at`, before or after: a clock set back must not silence it."""
    said = connection.execute(
        "INSERT INTO notices (name, at) VALUES (?1, ?2)"
        " ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE abs(?2 - at) >= ?3",
        (notice, at, seconds),
    )
    return said.rowcount > 0


# --- upkeep -----------------------------------------------------------------------------------------------------


def probe(connection: sqlite3.Connection, at: float) -> None:
    """A write that harms nobody."""
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', ?)", (at,))


def drop_seen(connection: sqlite3.Connection, before: float) -> int:
    """How many were dropped; CHUNK: there may be more. So for each `drop_*`."""
    return connection.execute(
        "DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE at <= ? LIMIT ?)", (before, CHUNK)
    ).rowcount


def drop_history(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM history WHERE rowid IN (SELECT rowid FROM history WHERE at <= ? LIMIT ?)", (before, CHUNK)
    ).rowcount


def drop_dead(connection: sqlite3.Connection, before: float) -> int:
    """Those buried before a time, and the oldest beyond DEAD_KEPT_MAX."""
    return connection.execute(
        "DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE buried_at <= ?1"
        " OR id <= (SELECT id FROM dead ORDER BY id DESC LIMIT 1 OFFSET ?2) ORDER BY id LIMIT ?3)",
        (before, DEAD_KEPT_MAX, CHUNK),
    ).rowcount


def drop_chats(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM chats WHERE key IN (SELECT key FROM chats WHERE last_seen <= ? LIMIT ?)", (before, CHUNK)
    ).rowcount


def drop_spent(connection: sqlite3.Connection, before: str) -> int:
    """Those of the days before `before`."""
    return connection.execute(
        "DELETE FROM spent WHERE (day, person, key) IN (SELECT day, person, key FROM spent WHERE day < ? LIMIT ?)",
        (before, CHUNK),
    ).rowcount


def drop_notices(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM notices WHERE name IN (SELECT name FROM notices WHERE at <= ? LIMIT ?)", (before, CHUNK)
    ).rowcount


def drop_calls(connection: sqlite3.Connection, before: str) -> int:
    return connection.execute("DELETE FROM calls WHERE month < ?", (before,)).rowcount


def shrink(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the file system; False when enough was given. Outside of a transaction only."""
    free = _free_pages(connection)
    if free <= FREE_KEPT_PAGES:
        return False
    # Each step of this pragma frees one page and yields a row without columns: `execute` stops at the first.
    connection.executescript(f"PRAGMA incremental_vacuum({min(VACUUM_PAGES, free - FREE_KEPT_PAGES)})")
    return _free_pages(connection) < free  # A file that was not made by us may have no auto_vacuum.


def _free_pages(connection: sqlite3.Connection) -> int:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(free)


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the WAL into the file and empty it. Outside of a transaction only; a reader from outside may prevent it."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

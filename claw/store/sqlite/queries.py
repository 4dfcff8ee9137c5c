"""The SQL: one function for each thing that the store does to its tables, run in the writer's thread.

Each takes the connection first and may be run again after a rollback, so none keeps anything outside of the file.
Times are seconds since the epoch. Tables and columns keep the names of the first schema where the code has moved on:
`lane` is a queue, `memory` a history key, `entries` are the items, `spent` is the quota.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from claw.errors import StoreError
from claw.messages import ChatKind
from claw.store.codec import (
    ChatRow,
    StoredMessage,
    StoredRow,
    decode,
)
from claw.store.ports import (
    CREATED_AHEAD_MAX_S,
    HISTORY_EXCHANGES_MAX,
    SEEN_RETENTION_S,
)
from claw.store.sqlite import said
from claw.store.sqlite.epochs import epoch
from claw.store.sqlite.rows import CHUNK_ROWS, bytes_of
from claw.store.values import Chat, Depth

NEWEST_STEP_S: Final = 60.0
"""Seconds by which the newest time that is written down may lag: keys are kept for a day."""
VACUUM_PAGES: Final = 256
"""Free pages (of 4 KiB) given back to the file system in one step."""
FREE_KEPT_PAGES: Final = 1024
"""Free pages that stay in the file for the next burst."""


def to_sql_text(text: str) -> str:
    """Return an identifier as SQLite can hold it: its TEXT takes no half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode()


# --- inbox --------------------------------------------------------------------------------------------------


def put(
    connection: sqlite3.Connection,
    key: str,
    times: tuple[float, float],
    row: StoredRow,
    about: tuple[ChatRow | None, StoredMessage | None],
) -> int | None:
    """Add a row and return its number; None where its key was seen within SEEN_RETENTION_S: then nothing is changed.

    `times`: now by our clock, and when it was written by DingTalk's (0: not told). `about`: its chat, and what is
    indexed of it.
    """
    key, (at, created), (chat, message) = to_sql_text(key), times, about
    newest = newest_created(connection)
    # By DingTalk's clock, as far as it tells: ours may be a day ahead, and would forget what is repeated in a minute.
    until = min(newest, at) - SEEN_RETENTION_S
    if 0 < created < until:
        return None
    is_told = 0 < created <= at + CREATED_AHEAD_MAX_S
    # A key that is past its time may still be there, since cleaning is done once in a while.
    fresh = connection.execute(
        "INSERT INTO seen (key, at, told) VALUES (?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET at = excluded.at, told = excluded.told"
        " WHERE at <= CASE told WHEN 1 THEN ? ELSE ? END",
        (key, created if is_told else at, is_told, until, at - SEEN_RETENTION_S),
    )
    if not fresh.rowcount:
        return None
    if is_told and created > newest + NEWEST_STEP_S:
        connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('newest', ?)", (created,))
    if chat is not None:
        connection.execute(
            "INSERT INTO chats (key, id, kind, title, first_seen, last_seen, messages)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?5, 1)"
            " ON CONFLICT (key) DO UPDATE SET last_seen = excluded.last_seen, messages = messages + 1,"
            " title = CASE length(excluded.title) WHEN 0 THEN title ELSE excluded.title END",
            (to_sql_text(chat.key), chat.id, chat.kind, chat.title, at),
        )
    if message is not None:
        said.add(connection, message)
    return insert(connection, key, (at, created), row)


def insert(connection: sqlite3.Connection, key: str, times: tuple[float, float], row: StoredRow) -> int | None:
    """Add a row, whatever was seen, and return its number; `times` as for `put`."""
    return connection.execute(
        "INSERT INTO inbox (received_at, created_at, key, lane, urgent, inbound, trace, kind, conversation_key, answer)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*times, to_sql_text(key), to_sql_text(row.queue), *row[1:]),
    ).lastrowid


def newest_created(connection: sqlite3.Connection) -> float:
    """Return the newest time at which DingTalk says that a message was written; 0: it never said."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'newest'").fetchone()
    return 0.0 if row is None else float(row[0])


class IndexEntry(NamedTuple):
    """The place of a message that waits."""

    seq: int
    queue: str
    urgent: int
    received_at: float
    not_before: float
    attempts: int
    fence: int
    claims: int
    waiting_since: float
    worked: float
    created_at: float


def index(connection: sqlite3.Connection, after: int, limit: int) -> list[IndexEntry]:
    """Return the places of the messages beyond number `after`, in order. A negative `limit`: all."""
    found = connection.execute(
        "SELECT seq, lane, urgent, received_at, not_before, attempts, fence, claims, waiting_since, worked, created_at"
        " FROM inbox WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )
    return [IndexEntry(*entry) for entry in found]


def rows(connection: sqlite3.Connection, seq: int, limit: int, size: int) -> dict[int, StoredRow]:
    """Return the rows from number `seq` on; after the first one up to `limit` of them, and `size` bytes."""
    found: dict[int, StoredRow] = {}
    # Fetched one by one: what lies beyond the bytes is never read.
    for number, queue, urgent, *rest in connection.execute(
        "SELECT seq, lane, urgent, inbound, trace, kind, conversation_key, answer"
        " FROM inbox WHERE seq >= ? ORDER BY seq LIMIT ?",
        (seq, limit),
    ):
        row = found[number] = StoredRow(queue, bool(urgent), *rest)
        size -= bytes_of(row)
        if size <= 0:
            break
    return found


def mark_claim(connection: sqlite3.Connection, seq: int, fence: int, claims: int) -> None:
    connection.execute("UPDATE inbox SET fence = ?, claims = ? WHERE seq = ?", (fence, claims, seq))


def save_answer(connection: sqlite3.Connection, seq: int, answer: bytes) -> None:
    # An answer that nobody can find again must not be sent: after a crash it would be sent a second time.
    changed = connection.execute(
        "UPDATE inbox SET answer = ?, attempts = 0, waiting_since = 0 WHERE seq = ?", (answer, seq)
    )
    if not changed.rowcount:
        raise StoreError("the message is no longer in the file")


def release(
    connection: sqlite3.Connection, seq: int, delay: tuple[float, int], waiting_since: float, worked: float
) -> None:
    """Give a message back; `delay`: not before when, and how many failures to count."""
    connection.execute(
        "UPDATE inbox SET not_before = ?, attempts = attempts + ?, fence = fence + 1, claims = 0, waiting_since = ?,"
        " worked = worked + ? WHERE seq = ?",
        (*delay, waiting_since, worked, seq),
    )


class StoredExchange(NamedTuple):
    """An exchange as it is kept."""

    history_key: str
    epoch: str
    user: bytes
    assistant: bytes
    media: bytes | None


def ack(
    connection: sqlite3.Connection,
    seqs: tuple[int, ...],
    exchange: StoredExchange | None,
    sent: StoredMessage | None,
    at: float,
) -> None:
    """Remove a message, the first of `seqs`, with those that were answered with it; keep what was said."""
    removed = connection.execute("DELETE FROM inbox WHERE seq = ?", seqs[:1])
    # An earlier ack whose commit was reported as failed may have reached the disk: then the exchange is there already.
    if not removed.rowcount:
        return
    connection.executemany("DELETE FROM inbox WHERE seq = ?", [(seq,) for seq in seqs[1:]])
    if sent is not None:
        said.add(connection, sent)
    # Asked here, in the transaction: a `/new` that comes between asking and appending would not be seen.
    if exchange is None or (exchange.epoch and exchange.epoch != epoch(connection, exchange.history_key)[0]):
        return
    connection.execute(
        "INSERT INTO history (memory, seq, at, user, assistant, media)"
        " SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5 FROM history WHERE memory = ?1",
        (exchange.history_key, at, *exchange[2:]),
    )
    connection.execute(
        "DELETE FROM history WHERE memory = ?1 AND seq <= (SELECT max(seq) FROM history WHERE memory = ?1) - ?2",
        (exchange.history_key, HISTORY_EXCHANGES_MAX),
    )


def depth(connection: sqlite3.Connection) -> Depth:
    """Return how much waits, as far as the file tells: it knows of no leases, and ages are by this machine's clock."""
    pending, oldest = connection.execute("SELECT count(*), min(received_at) FROM inbox").fetchone()
    age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
    (dead,) = connection.execute("SELECT count(*) FROM dead").fetchone()
    return Depth(pending=pending, leased=0, dead=dead, oldest_age=age)


# --- history --------------------------------------------------------------------------------------------------


def exchanges(connection: sqlite3.Connection, history_key: str, limit: int) -> list[tuple[str, str, bytes | None]]:
    """Return user, assistant and media of the newest `limit` exchanges, oldest first."""
    rows = connection.execute(
        "SELECT user, assistant, media FROM history WHERE memory = ? ORDER BY seq DESC LIMIT ?", (history_key, limit)
    ).fetchall()
    return [(decode(user), decode(assistant), media) for user, assistant, media in reversed(rows)]


# --- usage ----------------------------------------------------------------------------------------------------


def add_calls(connection: sqlite3.Connection, month: str, counts: Iterable[tuple[str, int]]) -> None:
    connection.executemany(
        "INSERT INTO calls (month, api, n) VALUES (?, ?, ?) ON CONFLICT (month, api) DO UPDATE SET n = n + excluded.n",
        [(month, api, n) for api, n in counts],
    )


def calls(connection: sqlite3.Connection, month: str) -> dict[str, int]:
    return dict(connection.execute("SELECT api, n FROM calls WHERE month = ? ORDER BY api", (month,)))


# --- items, chats, quotas -----------------------------------------------------------------------------------


def items(connection: sqlite3.Connection) -> dict[str, str]:
    return {decode(name): decode(value) for name, value in connection.execute("SELECT name, value FROM entries")}


def is_lost(connection: sqlite3.Connection) -> bool:
    """Return whether this store stands in the place of one that is gone, and nothing was settled in it yet."""
    return connection.execute("SELECT 1 FROM meta WHERE name = 'lost'").fetchone() is not None


def _note_change(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM meta WHERE name = 'lost'")


def set_item(connection: sqlite3.Connection, name: bytes, value: bytes) -> None:
    connection.execute(
        "INSERT INTO entries (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
    _note_change(connection)


def set_item_if_absent(connection: sqlite3.Connection, name: bytes, value: bytes) -> str:
    """Set it unless it is there; return what it is then."""
    connection.execute("INSERT INTO entries (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, value))
    _note_change(connection)
    (stands,) = connection.execute("SELECT value FROM entries WHERE name = ?", (name,)).fetchone()
    return decode(stands)


def delete_items(connection: sqlite3.Connection, names: Iterable[bytes]) -> None:
    connection.executemany("DELETE FROM entries WHERE name = ?", [(each,) for each in names])
    _note_change(connection)


def chats(connection: sqlite3.Connection, limit: int) -> list[Chat]:
    rows = connection.execute(
        "SELECT id, kind, title, first_seen, last_seen, messages FROM chats ORDER BY last_seen DESC, key LIMIT ?",
        (limit,),
    )
    return [
        Chat(decode(conversation), ChatKind(kind), decode(title), first, last, messages)
        for conversation, kind, title, first, last, messages in rows
    ]


def consume_quota(connection: sqlite3.Connection, person: str, day: str, key: str, limit: int) -> bool:
    """Count the key to the person's day; return whether it is counted, now or before."""
    spent = (day, person, key)
    # Asked first: at the limit a key that was counted before is still good.
    counted = connection.execute("SELECT 1 FROM spent WHERE day = ? AND person = ? AND key = ?", spent).fetchone()
    if counted is not None:
        return True
    added = connection.execute(
        "INSERT INTO spent (day, person, key) SELECT ?1, ?2, ?3"
        " WHERE (SELECT count(*) FROM spent WHERE day = ?1 AND person = ?2) < ?4",
        (*spent, limit),
    )
    return added.rowcount > 0


def once_per(connection: sqlite3.Connection, notice: str, at: float, seconds: float) -> bool:
    """Return whether it was not given within `seconds` of `at`.

    Before or after: a clock that was set back must not silence it.
    """
    given = connection.execute(
        "INSERT INTO notices (name, at) VALUES (?1, ?2)"
        " ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE abs(?2 - at) >= ?3",
        (notice, at, seconds),
    )
    return given.rowcount > 0


# --- upkeep -----------------------------------------------------------------------------------------------------


def probe(connection: sqlite3.Connection, at: float) -> None:
    """Write something that harms nobody."""
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', ?)", (at,))


def drop_seen(connection: sqlite3.Connection, now: float) -> int:
    """Return how many were dropped; CHUNK_ROWS: there may be more. So does each `drop_*`."""
    # Those that have a time of DingTalk's go by its clock, which only goes on with what is written.
    newest = min(newest_created(connection), now)
    dropped = [
        connection.execute(
            "DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE told = ? AND at <= ? LIMIT ?)",
            (told, clock - SEEN_RETENTION_S, CHUNK_ROWS),
        ).rowcount
        for told, clock in ((1, newest), (0, now))
    ]
    return max(dropped)


def drop_history(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM history WHERE rowid IN (SELECT rowid FROM history WHERE at <= ? LIMIT ?)", (before, CHUNK_ROWS)
    ).rowcount


def drop_chats(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM chats WHERE key IN (SELECT key FROM chats WHERE last_seen <= ? LIMIT ?)", (before, CHUNK_ROWS)
    ).rowcount


def drop_spent(connection: sqlite3.Connection, before: str) -> int:
    """Drop those of the days before `before`."""
    return connection.execute(
        "DELETE FROM spent WHERE (day, person, key) IN (SELECT day, person, key FROM spent WHERE day < ? LIMIT ?)",
        (before, CHUNK_ROWS),
    ).rowcount


def drop_notices(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM notices WHERE name IN (SELECT name FROM notices WHERE at <= ? LIMIT ?)", (before, CHUNK_ROWS)
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

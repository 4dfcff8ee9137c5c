"""The epochs of histories: how often each was forgotten, as part of its name at the model (ports.py, `History.epoch`).

A row goes when nobody has asked for its epoch in EPOCH_RETENTION_S, and leaves its number behind in `epoch_floor`. A
history without a row begins there, above every number that was dropped: so no name comes twice, which would take up a
session that somebody has left. Those that are asked for have a row, and are not touched by the floor.
"""

from __future__ import annotations

import sqlite3

from claw.store.codec import format_epoch
from claw.store.sqlite.rows import CHUNK_ROWS


def epoch(connection: sqlite3.Connection, history_key: str) -> tuple[str, float]:
    """Return the epoch's name, and when it was last written down that somebody asked for it."""
    row = connection.execute("SELECT epoch, used_at FROM memory WHERE name = ?", (history_key,)).fetchone()
    number, used_at = row or (_epoch_floor(connection), 0.0)
    return format_epoch(store_id(connection), number), used_at


def touch_epoch(connection: sqlite3.Connection, history_key: str, at: float) -> str:
    """Write down that somebody asked for the epoch."""
    connection.execute(
        "INSERT INTO memory (name, epoch, used_at) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET used_at = excluded.used_at",
        (history_key, _epoch_floor(connection), at),
    )
    return epoch(connection, history_key)[0]


def use_epoch(connection: sqlite3.Connection, history_key: str, at: float, idle_reset: float) -> str:
    """Write down that somebody asked for the epoch; one that nobody asked for in `idle_reset` is forgotten first."""
    _, used_at = epoch(connection, history_key)
    if used_at and at - used_at >= idle_reset:
        return forget(connection, history_key, at)
    return touch_epoch(connection, history_key, at)


def forget(connection: sqlite3.Connection, history_key: str, at: float) -> str:
    connection.execute("DELETE FROM history WHERE memory = ?", (history_key,))
    # The epoch is part of the `user` at the model: an agent that keeps its own history begins a new one.
    connection.execute(
        "INSERT INTO memory (name, epoch, used_at) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1, used_at = excluded.used_at",
        (history_key, _epoch_floor(connection) + 1, at),
    )
    return epoch(connection, history_key)[0]


def store_id(connection: sqlite3.Connection) -> str:
    """Return the random part of this store's epochs; empty for one from before 0.2.0."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()
    return "" if row is None else str(row[0])


def _epoch_floor(connection: sqlite3.Connection) -> int:
    """Return the number with which a history begins that has none: above all that were dropped."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'epoch_floor'").fetchone()
    return 0 if row is None else int(row[0])


def drop_epochs(connection: sqlite3.Connection, before: float) -> int:
    """Drop those that nobody asked for since `before`; their histories begin above them when they come back."""
    found = connection.execute(
        "SELECT name, epoch FROM memory WHERE used_at <= ? LIMIT ?", (before, CHUNK_ROWS)
    ).fetchall()
    if found:
        # The floor and the removal are one transaction: a crash in between would give a name a second time.
        floor = max(_epoch_floor(connection), *(number + 1 for _, number in found))
        connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('epoch_floor', ?)", (floor,))
        connection.executemany("DELETE FROM memory WHERE name = ?", [(name,) for name, _ in found])
    return len(found)

"""Receipts of what programs sent, what people used, who changed what (ports.py: `Sends`, `Usage`, `Audit`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from claw.store.codec import StoredUsage, decode
from claw.store.operation import AUDIT_MAX, USAGE_DAY_MAX, USAGE_OTHERS, USAGE_ROWS_MAX
from claw.store.sqlite.queries import to_sql_text
from claw.store.sqlite.rows import CHUNK_ROWS
from claw.store.values import UsageRow


def begin_send(connection: sqlite3.Connection, send_id: str, at: float, body: bytes) -> bytes:
    """Keep a receipt unless there is one; return what stands."""
    name = to_sql_text(send_id)
    connection.execute(
        "INSERT INTO sends (id, at, body) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING", (name, at, body)
    )
    (stands,) = connection.execute("SELECT body FROM sends WHERE id = ?", (name,)).fetchone()
    return bytes(stands)


def end_send(connection: sqlite3.Connection, send_id: str, at: float, body: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO sends (id, at, body) VALUES (?, ?, ?)", (to_sql_text(send_id), at, body))


def find_send(connection: sqlite3.Connection, send_id: str) -> bytes | None:
    row = connection.execute("SELECT body FROM sends WHERE id = ?", (to_sql_text(send_id),)).fetchone()
    return None if row is None else bytes(row[0])


def drop_sends(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM sends WHERE id IN (SELECT id FROM sends WHERE at <= ? LIMIT ?)", (before, CHUNK_ROWS)
    ).rowcount


def add_usage(connection: sqlite3.Connection, rows: Sequence[StoredUsage]) -> None:
    for row in rows:
        # One by one: of two rows of a batch that are new, the second may be the one beyond the limit.
        day, person, chat = (to_sql_text(each) for each in row[:3])
        known = connection.execute(
            "SELECT 1 FROM used WHERE day = ? AND person = ? AND chat = ?", (day, person, chat)
        ).fetchone()
        if known is None:
            (count,) = connection.execute("SELECT count(*) FROM used WHERE day = ?", (day,)).fetchone()
            if count >= USAGE_DAY_MAX:
                person = chat = USAGE_OTHERS
        connection.execute(
            "INSERT INTO used (day, person, chat, name, title, questions, tokens_in, tokens_out, up, down)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, person, chat) DO UPDATE SET"
            " name = CASE length(excluded.name) WHEN 0 THEN name ELSE excluded.name END,"
            " title = CASE length(excluded.title) WHEN 0 THEN title ELSE excluded.title END,"
            " questions = questions + excluded.questions, tokens_in = tokens_in + excluded.tokens_in,"
            " tokens_out = tokens_out + excluded.tokens_out, up = up + excluded.up, down = down + excluded.down",
            (day, person, chat, *row[3:]),
        )


def usage(connection: sqlite3.Connection, since: str) -> list[UsageRow]:
    rows = connection.execute(
        "SELECT day, person, chat, name, title, questions, tokens_in, tokens_out, up, down FROM used"
        " WHERE day >= ? ORDER BY day DESC, person, chat LIMIT ?",
        (since, USAGE_ROWS_MAX),
    )
    return [
        UsageRow(day, person, chat, decode(name), decode(title), *counts)
        for day, person, chat, name, title, *counts in rows
    ]


def drop_usage(connection: sqlite3.Connection, before: str) -> int:
    """Drop the days before `before`."""
    return connection.execute(
        "DELETE FROM used WHERE (day, person, chat) IN (SELECT day, person, chat FROM used WHERE day < ? LIMIT ?)",
        (before, CHUNK_ROWS),
    ).rowcount


def append_audit(connection: sqlite3.Connection, at: float, body: bytes) -> None:
    number = connection.execute("INSERT INTO audit (at, body) VALUES (?, ?)", (at, body)).lastrowid
    # With each entry, and not by the janitor: an audit that is flooded must not fill the disk in a minute.
    connection.execute("DELETE FROM audit WHERE id <= ?", ((number or 0) - AUDIT_MAX,))


def audit(connection: sqlite3.Connection, limit: int) -> list[bytes]:
    rows = connection.execute("SELECT body FROM audit ORDER BY id DESC LIMIT ?", (limit,))
    return [bytes(body) for (body,) in rows]

"""Cards that show answers, and the votes on them (ports.py, `Cards`); where a message is that somebody asks for."""

from __future__ import annotations

import sqlite3

from claw.store.ports import VOTES_MAX
from claw.store.sqlite.queries import to_sql_text
from claw.store.sqlite.rows import CHUNK_ROWS


def keep(connection: sqlite3.Connection, card_id: str, at: float, ended: bool, body: bytes) -> None:  # noqa: FBT001
    connection.execute(
        "INSERT OR REPLACE INTO cards (id, at, ended, body) VALUES (?, ?, ?, ?)",
        (to_sql_text(card_id), at, ended, body),
    )


def find(connection: sqlite3.Connection, card_id: str) -> bytes | None:
    row = connection.execute("SELECT body FROM cards WHERE id = ?", (to_sql_text(card_id),)).fetchone()
    return None if row is None else bytes(row[0])


def list_open(connection: sqlite3.Connection, opened_until: float, limit: int) -> list[bytes]:
    rows = connection.execute(
        "SELECT body FROM cards WHERE at <= ? AND NOT ended ORDER BY at LIMIT ?", (opened_until, limit)
    )
    return [bytes(body) for (body,) in rows]


def vote(connection: sqlite3.Connection, card_id: str, person: str, word: str) -> str:
    """Keep a vote, unless VOTES_MAX others have voted; return the person's vote before."""
    card, who = to_sql_text(card_id), to_sql_text(person)
    row = connection.execute("SELECT vote FROM votes WHERE card = ? AND person = ?", (card, who)).fetchone()
    (count,) = connection.execute("SELECT count(*) FROM votes WHERE card = ?", (card,)).fetchone()
    if row is not None or count < VOTES_MAX:
        connection.execute("INSERT OR REPLACE INTO votes (card, person, vote) VALUES (?, ?, ?)", (card, who, word))
    return "" if row is None else str(row[0])


def drop_old(connection: sqlite3.Connection, before: float) -> int:
    """Drop cards of before a time; return how many (CHUNK_ROWS: there may be more)."""
    # Open ones as well: after a week there is nobody left who looks at them.
    ids = connection.execute("SELECT id FROM cards WHERE at <= ? LIMIT ?", (before, CHUNK_ROWS)).fetchall()
    connection.executemany("DELETE FROM votes WHERE card = ?", ids)
    connection.executemany("DELETE FROM cards WHERE id = ?", ids)
    return len(ids)


def find_seq(connection: sqlite3.Connection, key: str) -> int | None:
    """Return the number of the message with this key."""
    # Newest first: who asks has put it a moment ago, as a rule.
    query = "SELECT seq FROM inbox WHERE key = ? ORDER BY seq DESC LIMIT 1"
    row = connection.execute(query, (to_sql_text(key),)).fetchone()
    return None if row is None else int(row[0])

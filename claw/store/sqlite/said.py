"""The index of what was said in chats lately, and the language of people (ports.py, `MessageIndex` and `People`).

One row for a message, and one for each name by which a quote may refer to it. Each message adds to the commit that it
causes anyway; what is too much goes with the cleaning.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from claw.store.codec import StoredMessage
from claw.store.ports import INDEX_MAX
from claw.store.sqlite.rows import CHUNK_ROWS


def add(connection: sqlite3.Connection, message: StoredMessage) -> None:
    """Index a message."""
    chat = _to_text(message.chat)
    number = connection.execute(
        "INSERT INTO said (chat, at, by_robot, body) VALUES (?, ?, ?, ?)",
        (chat, message.at, message.by_robot, message.body),
    ).lastrowid
    # A name that comes again is a repeat that outlived its key: the newer message is the one to find.
    connection.executemany(
        "INSERT OR REPLACE INTO said_ids (chat, name, said) VALUES (?, ?, ?)",
        [(chat, _to_text(name), number) for name in message.ids if name],
    )


def find(connection: sqlite3.Connection, chat: str, names: Iterable[str]) -> bytes | None:
    """Return the body of the message of this chat that has one of the names."""
    for name in names:
        row = connection.execute(
            "SELECT body FROM said JOIN said_ids ON said.id = said_ids.said WHERE said_ids.chat = ? AND name = ?",
            (_to_text(chat), _to_text(name)),
        ).fetchone()
        if row is not None:
            return bytes(row[0])
    return None


def find_sent(connection: sqlite3.Connection, chat: str, at: float, within: float) -> bytes | None:
    """Return the body of what the robot sent nearest to a time."""
    row = connection.execute(
        "SELECT body FROM said WHERE chat = ?1 AND by_robot AND at BETWEEN ?2 - ?3 AND ?2 + ?3"
        " ORDER BY abs(at - ?2) LIMIT 1",
        (_to_text(chat), at, within),
    ).fetchone()
    return None if row is None else bytes(row[0])


def drop_old(connection: sqlite3.Connection, before: float) -> int:
    """Drop messages of before a time; return how many (CHUNK_ROWS: there may be more)."""
    return _drop(connection, "SELECT id FROM said WHERE at <= ? LIMIT ?", (before, CHUNK_ROWS))


def drop_surplus(connection: sqlite3.Connection, _: float) -> int:
    """Drop the oldest of chats that have more than INDEX_MAX messages; return how many."""
    return _drop(
        connection,
        "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY chat ORDER BY at DESC, id DESC) AS place FROM said"
        " WHERE chat IN (SELECT chat FROM said GROUP BY chat HAVING count(*) > ?1)) WHERE place > ?1 LIMIT ?2",
        (INDEX_MAX, CHUNK_ROWS),
    )


def _drop(connection: sqlite3.Connection, query: str, values: tuple[float, int]) -> int:
    numbers = connection.execute(query, values).fetchall()
    connection.executemany("DELETE FROM said_ids WHERE said = ?", numbers)
    connection.executemany("DELETE FROM said WHERE id = ?", numbers)
    return len(numbers)


def language(connection: sqlite3.Connection, person: str) -> str:
    row = connection.execute("SELECT language FROM people WHERE person = ?", (_to_text(person),)).fetchone()
    return "" if row is None else str(row[0])


def set_language(connection: sqlite3.Connection, person: str, word: str, at: float) -> None:
    connection.execute(
        "INSERT INTO people (person, language, at) VALUES (?, ?, ?)"
        " ON CONFLICT (person) DO UPDATE SET language = excluded.language, at = excluded.at",
        (_to_text(person), word, at),
    )


def drop_people(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM people WHERE person IN (SELECT person FROM people WHERE at <= ? LIMIT ?)", (before, CHUNK_ROWS)
    ).rowcount


def _to_text(name: str) -> str:
    """Return a name as SQLite can hold it (queries.to_sql_text)."""
    return name.encode("utf-8", "backslashreplace").decode()

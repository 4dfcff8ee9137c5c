"""Dead letters: messages that were given up, with cause and answer (ports.py, `DeadLetters`)."""

from __future__ import annotations

import sqlite3
from typing import Any

from claw.store.codec import StoredRow, decode, decode_answer, decode_inbound, strip_stored_webhook
from claw.store.operation import DEAD_LETTERS_MAX, DEAD_READ_BYTES
from claw.store.sqlite import queries
from claw.store.sqlite.rows import CHUNK_ROWS
from claw.store.values import DeadLetter, RowKind


def bury(connection: sqlite3.Connection, seqs: tuple[int, ...], error: bytes, attempts: int | None, at: float) -> int:
    """Move messages to the dead letters; return how many were moved (0: the first is not in the file)."""
    moved = 0
    for seq in seqs:
        row = connection.execute("SELECT inbound FROM inbox WHERE seq = ?", (seq,)).fetchone()
        if row is None and not moved:
            return 0
        if row is None:
            continue
        # The copy and the removal are one transaction, as everything that the writer does.
        connection.execute(
            "INSERT INTO dead (key, kind, attempts, received_at, answer, buried_at, error, inbound)"
            " SELECT key, kind, coalesce(?, attempts), received_at, answer, ?, ?, ? FROM inbox WHERE seq = ?",
            (attempts, at, error, strip_stored_webhook(row[0]), seq),
        )
        moved += connection.execute("DELETE FROM inbox WHERE seq = ?", (seq,)).rowcount
    return moved


def count(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM dead").fetchone()
    return int(count)


def newest(connection: sqlite3.Connection, limit: int) -> list[DeadLetter]:
    """Return the newest, newest first, within DEAD_READ_BYTES."""
    letters: list[DeadLetter] = []
    left = DEAD_READ_BYTES
    for row in connection.execute(f"{_select(connection)} ORDER BY id DESC LIMIT ?", (limit,)):
        left -= len(row[6]) + len(row[7] or b"")
        if letters and left < 0:
            break
        letters.append(_decode(row))
    return letters


def find(connection: sqlite3.Connection, letter_id: str) -> DeadLetter | None:
    row = connection.execute(f"{_select(connection)} WHERE id = ?", (_number(letter_id),)).fetchone()
    return None if row is None else _decode(row)


def drop(connection: sqlite3.Connection, letter_id: str) -> bool:
    return connection.execute("DELETE FROM dead WHERE id = ?", (_number(letter_id),)).rowcount > 0


def requeue(connection: sqlite3.Connection, letter_id: str, key: str, at: float, row: StoredRow) -> int | None:
    """Put a letter back as `row` and return its number; None where the letter is not there any more."""
    # Without a time of DingTalk's: by the one at which it was written it would go before all that waits.
    return queries.insert(connection, key, (at, 0.0), row) if drop(connection, letter_id) else None


def _select(connection: sqlite3.Connection) -> str:
    # A look from outside may find a file that its claw has not migrated yet.
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(dead)")}
    answer = "answer" if "answer" in columns else "NULL"
    kind = "kind" if "kind" in columns else "'message'"
    return f"SELECT id, key, error, attempts, received_at, buried_at, inbound, {answer}, {kind} FROM dead"  # noqa: S608 - words of ours


def _decode(row: tuple[Any, ...]) -> DeadLetter:
    number, key, error, attempts, since, at, inbound, answer, kind = row
    return DeadLetter(
        id=str(number),
        kind=RowKind(kind),
        key=key,
        error=decode(error),
        attempts=attempts,
        received_at=since,
        buried_at=at,
        inbound=decode_inbound(inbound),
        answer=decode_answer(answer),
    )


def _number(letter_id: str) -> int:
    """Return the number that an id is; -1, which none has, for what is no id."""
    return int(letter_id) if letter_id.isascii() and letter_id.isdigit() and len(letter_id) < 19 else -1


def drop_old(connection: sqlite3.Connection, before: float) -> int:
    """Drop those buried before a time, and the oldest beyond DEAD_LETTERS_MAX."""
    return connection.execute(
        "DELETE FROM dead WHERE id IN (SELECT id FROM dead WHERE buried_at <= ?1"
        " OR id <= (SELECT id FROM dead ORDER BY id DESC LIMIT 1 OFFSET ?2) ORDER BY id LIMIT ?3)",
        (before, DEAD_LETTERS_MAX, CHUNK_ROWS),
    ).rowcount

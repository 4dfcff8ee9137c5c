"""Cleaning: what is past its retention goes, a chunk at a time, and the room that it took is given back.

Order of events: rows that are due are dropped, in chunks between which other writes are committed. Then free pages are
given back to the file system, beyond those that the next burst will want, and the WAL is emptied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from claw.store.codec import oldest_day, oldest_month, oldest_usage_day
from claw.store.operation import DEAD_RETENTION_S, SENDS_RETENTION_S
from claw.store.ports import (
    CARDS_RETENTION_S,
    CHATS_RETENTION_S,
    EPOCH_RETENTION_S,
    HISTORY_RETENTION_S,
    INDEX_RETENTION_S,
    NOTICES_RETENTION_S,
    PEOPLE_RETENTION_S,
)
from claw.store.sqlite import cards, epochs, letters, queries, records, said
from claw.store.sqlite.rows import CHUNK_ROWS
from claw.store.sqlite.writer import JobKind, Writer

T = TypeVar("T")


async def clean(writer: Writer, now: float, on_letters_dropped: Callable[[int], None]) -> None:
    """Clean the file. `now`: seconds since the epoch; `on_letters_dropped` gets the number of each chunk."""
    await _drop(writer, queries.drop_seen, now)
    await _drop(writer, queries.drop_history, now - HISTORY_RETENTION_S)
    await _drop(writer, letters.drop_old, now - DEAD_RETENTION_S, on_letters_dropped)
    await writer.submit(queries.drop_calls, oldest_month(now))
    await _drop(writer, queries.drop_chats, now - CHATS_RETENTION_S)
    await _drop(writer, epochs.drop_epochs, now - EPOCH_RETENTION_S)
    await _drop(writer, queries.drop_spent, oldest_day(now))
    await _drop(writer, queries.drop_notices, now - NOTICES_RETENTION_S)
    await _drop(writer, said.drop_old, now - INDEX_RETENTION_S)
    await _drop(writer, said.drop_surplus, now)
    await _drop(writer, said.drop_people, now - PEOPLE_RETENTION_S)
    await _drop(writer, cards.drop_old, now - CARDS_RETENTION_S)
    await _drop(writer, records.drop_sends, now - SENDS_RETENTION_S)
    await _drop(writer, records.drop_usage, oldest_usage_day(now))
    while await writer.submit(queries.shrink, kind=JobKind.NO_TRANSACTION):
        pass
    await writer.submit(queries.checkpoint, kind=JobKind.NO_TRANSACTION)


async def _drop(
    writer: Writer,
    drop: Callable[[sqlite3.Connection, T], int],
    before: T,
    on_commit: Callable[[int], None] | None = None,
) -> None:
    while await writer.submit(drop, before, on_commit=on_commit) == CHUNK_ROWS:
        pass

"""The dead letters of the file, and how one of them gets back into the queues."""

from __future__ import annotations

from functools import partial

from claw.clock import Clock
from claw.store.codec import StoredRow, encode_row
from claw.store.sqlite import letters
from claw.store.sqlite.memory import SqliteMemory
from claw.store.sqlite.queue import QueuedMessage
from claw.store.sqlite.writer import JobKind
from claw.store.values import DeadLetter, Row


class SqliteDeadLetters(SqliteMemory):
    """That part of a `SqliteStore` which keeps what was given up. Their number is in memory, for `depth`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._dead = 0

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        return await self._read(letters.newest, max(limit, 0))

    async def find_dead(self, letter_id: str) -> DeadLetter | None:
        return await self._read(letters.find, letter_id)

    async def drop_dead(self, letter_id: str) -> bool:
        return await self._write(letters.drop, letter_id, on_commit=self._on_letters_dropped)

    async def requeue(self, letter_id: str, row: Row) -> bool:
        self._life.require_open()
        at = self._clock.wall()
        # Without a time of its own, as in the file (letters.py): after a restart it must have the same place.
        message = QueuedMessage(0, row.route.queue, row.route.urgent, at)
        stored = encode_row(row)
        seq = await self._writer.submit(
            letters.requeue,
            letter_id,
            row.inbound.key,
            at,
            stored,
            kind=JobKind.FLUSH,  # Somebody waits for the answer to a click.
            on_commit=partial(self._on_requeued, message, stored),
        )
        return seq is not None

    def _on_requeued(self, message: QueuedMessage, stored: StoredRow, seq: int | None) -> None:
        # The count first: whoever is woken by the message may ask at once how many letters there are.
        self._on_letters_dropped(int(seq is not None))
        self._on_put(message, stored, seq)

    def _on_put(self, message: QueuedMessage, row: StoredRow, seq: int | None) -> None:
        """Take a row into the queues, once it is on the disk; None: it is not."""
        raise NotImplementedError

    def _on_letters_dropped(self, count: int) -> None:
        self._dead -= count

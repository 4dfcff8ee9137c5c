"""Rows kept in memory as they lie in the file, so that a claim need not go to the disk; bounded by bytes.

Rows by number are no bound: a message may be 200 000 characters long. Bytes as they are stored are counted, not what
Python makes of them: one emoji makes a string of ASCII four times as large.
"""

from __future__ import annotations

from typing import Final

from claw.store.codec import StoredRow

CACHE_BYTES: Final = 8 << 20
"""Bytes of rows that are kept: several thousand usual ones, or a dozen of the largest."""
READ_AHEAD_BYTES: Final = 1 << 20
"""Bytes after which a read-ahead ends; the row that is wanted is read whatever its size."""
_ROW_BYTES: Final = 700
"""What a row takes besides its bytes."""


class RowCache:
    """Rows by number, in the order in which they came."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._rows: dict[int, StoredRow] = {}
        self.used = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, seq: int) -> StoredRow | None:
        return self._rows.get(seq)

    def add(self, seq: int, row: StoredRow) -> None:
        """Keep a row that was put, if there is room: under a backlog the first ones are claimed first."""
        if self.used + bytes_of(row) <= self._limit:
            self._keep(seq, row)

    def load(self, found: dict[int, StoredRow]) -> None:
        """Keep rows that were read. The oldest go for them; a claim that misses one reads it again."""
        for seq, row in found.items():
            # It may have been put between the question and its reply, and would be counted twice.
            self.pop(seq)
            self._keep(seq, row)
        while self.used > self._limit:
            self.pop(next(iter(self._rows)))

    def save_answer(self, seq: int, answer: bytes) -> None:
        """Follow what was saved in the file; a row that grows too large for it is read again when it is wanted."""
        row = self._rows.get(seq)
        if row is not None:
            # Taken out first: where the answer makes it too large it must not stay without it, or a claim after a crash
            # of its worker would answer twice.
            self.pop(seq)
            self.add(seq, row._replace(answer=answer))

    def pop(self, seq: int) -> None:
        row = self._rows.pop(seq, None)
        if row is not None:
            self.used -= bytes_of(row)

    def _keep(self, seq: int, row: StoredRow) -> None:
        self._rows[seq] = row
        self.used += bytes_of(row)


def bytes_of(row: StoredRow) -> int:
    """Return what a row takes in memory, roughly."""
    return _ROW_BYTES + len(row.inbound) + len(row.trace) + len(row.answer or b"")

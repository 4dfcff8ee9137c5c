"""The text that is read out of a file, up to a bound; used in the child process."""

from __future__ import annotations

import time
from typing import Final

TEXT_MAX_CHARS: Final = 120_000
"""Characters of a file that are read: some eighty pages. More would fill a model's context, and be paid for."""
WORK_MAX_S: Final = 6.0
"""Seconds of work on one file: what was read by then is given, before the process is ended with nothing."""


class FullError(Exception):
    """There is no room for more text, or no time."""


class Output:
    """Collects text. What adds to it raises FullError where a bound is reached; what fitted is kept."""

    def __init__(self, limit: int = TEXT_MAX_CHARS, work_s: float = WORK_MAX_S) -> None:
        self._pieces: list[str] = []
        self._left = limit
        self._until = time.process_time() + work_s
        self.has_words = False
        """Whether there is anything but blanks and our own marks."""

    def add(self, text: str) -> None:
        """Add a line or paragraph."""
        # Before it may be full: what fitted of it is there.
        self.has_words = self.has_words or bool(text.strip())
        self._append(text)

    def mark(self, text: str) -> None:
        """Add a mark of ours, such as a page's number."""
        self._append(text)

    def add_row(self, cells: list[str]) -> None:
        """Add a row of a table, its cells told apart."""
        if any(cells):
            self.add(" | ".join(cell.replace("\n", " ").replace("|", "\\|").strip() for cell in cells))

    def check_time(self) -> None:
        """Raise FullError where the file took all the time that it may."""
        if time.process_time() > self._until:
            raise FullError

    def _append(self, text: str) -> None:
        self.check_time()
        # One that ends exactly at the bound is whole: only a next one has no room.
        piece = text[: max(0, self._left)]
        if piece or not text:
            self._pieces.append(piece)
            self._left -= len(piece) + 1
        if len(piece) < len(text):
            raise FullError

    def text(self) -> str:
        return "\n".join(self._pieces).strip("\n")

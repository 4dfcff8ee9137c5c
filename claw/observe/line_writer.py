"""Writes log lines in a thread of its own, so that a reader of stderr that hangs never holds up the event loop.

Order of events: `put` appends a line to a bounded buffer and returns at once; the thread takes all lines that have
gathered and writes them; while the reader hangs the buffer fills, and what has no room is dropped and counted; once
the reader reads again the count is told in a line of its own. `close` gives the thread a moment to write the rest.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

BUFFER_CHARS_MAX: Final = 4 * 1024 * 1024
"""Characters of lines that wait for the reader; some seconds of a noisy log, and bounded memory."""
GATHER_S: Final = 0.02
"""Seconds for which lines gather before they are written: each wake-up of the thread costs the loop its turn."""
CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds that `close` waits for the reader; the exit code must not depend on whether somebody reads the log."""


class LineWriter:
    """Writes to the file descriptor `fd`. `describe_dropped` makes the line that tells how many were dropped."""

    def __init__(self, fd: int, describe_dropped: Callable[[int], str], *, chars_max: int = BUFFER_CHARS_MAX) -> None:
        self._fd = fd
        self._describe_dropped = describe_dropped
        self._chars_max = chars_max
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._chars = 0
        self._dropped = 0
        self._ready = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines without room that have not been told yet."""
        return self._dropped

    def put(self, line: str) -> None:
        """Take a line, without its line end, to be written soon. Never blocks, never raises."""
        with self._lock:
            if self._chars + len(line) > self._chars_max:
                self._dropped += 1
                return
            self._lines.append(line)
            self._chars += len(line)
            if self._thread is None and not self._closing:
                # Started by the first line: a process that only prints its settings' faults needs no thread.
                self._thread = threading.Thread(target=self._run, name="claw.log", daemon=True)
                self._thread.start()
        self._ready.set()

    def close(self, timeout: float = CLOSE_TIMEOUT_S) -> None:
        """Write the rest, as far as the reader takes it in `timeout` seconds."""
        if self._closing:
            return
        self._closing = True
        self._ready.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._ready.wait()
            if not self._closing:
                time.sleep(GATHER_S)
            # Cleared before the lines are taken: a line that comes in between sets it again.
            self._ready.clear()
            with self._lock:
                lines, self._lines = self._lines, []
            if lines:
                self._write("\n".join([*lines, ""]))
            with self._lock:
                # Counted until they are written, so that the bound holds for what is on its way as well.
                self._chars -= sum(map(len, lines))
                dropped, self._dropped = self._dropped, 0
            if dropped:
                self._write(self._describe_dropped(dropped) + "\n")
            with self._lock:
                if self._lines:
                    continue
                if self._closing:
                    return

    def _write(self, text: str) -> None:
        """Write to the descriptor itself: Python's stderr has a lock that a reader who hangs would keep for ever."""
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # Somebody who shares the descriptor made it non-blocking.
                select.select([], [self._fd], [])
            except OSError:  # Nobody reads any more: the log is gone, claw goes on without it.
                return

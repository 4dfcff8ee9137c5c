"""What keeps the emulator's memory and its clients' rates within bounds."""

from __future__ import annotations

import collections
import time
from collections.abc import MutableMapping
from typing import Any


def trim(mapping: MutableMapping[Any, Any], keep: int) -> None:
    """Drop the oldest entries above `keep`, so that a soak of days needs no more memory than a test."""
    while len(mapping) > keep:
        del mapping[next(iter(mapping))]


class RateWindow:
    """At most `limit` calls of each key within a sliding window; `keep` bounds the keys that are remembered."""

    def __init__(self, limit: int, window_s: float, *, keep: int) -> None:
        self._limit = limit
        self._window_s = window_s
        self._keep = keep
        self._calls: dict[str, collections.deque[float]] = {}

    def admit(self, key: str) -> bool:
        """Count a call, or refuse it; refused calls do not count (docs/protocol.md section 6.6)."""
        now = time.monotonic()
        # The deque holds the last `limit` calls: the first of them tells whether the window is full.
        calls = self._calls.setdefault(key, collections.deque(maxlen=self._limit))
        trim(self._calls, self._keep)
        if len(calls) == self._limit and calls[0] > now - self._window_s:
            return False
        calls.append(now)
        return True

    def forget(self) -> None:
        self._calls.clear()

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
    """At most so many calls of each key within a sliding window; `keep` bounds the keys that are remembered."""

    def __init__(self, window_s: float, *, keep: int) -> None:
        self._window_s = window_s
        self._keep = keep
        self._calls: dict[str, collections.deque[float]] = {}

    def admit(self, key: str, limit: int) -> bool:
        """Count a call, or refuse it; refused calls do not count (docs/protocol.md section 6.6)."""
        now = time.monotonic()
        calls = self._calls.setdefault(key, collections.deque())
        trim(self._calls, self._keep)
        while calls and calls[0] <= now - self._window_s:
            calls.popleft()
        # The limit is the caller's, each time anew: a switch may change it between two calls.
        if len(calls) >= limit:
            return False
        calls.append(now)
        return True

    def forget(self) -> None:
        self._calls.clear()


class RatePeaks:
    """The most calls of each key that came within any `window_s`, refused ones included: what a client did at worst."""

    def __init__(self, window_s: float, *, keep: int) -> None:
        self.peaks: dict[str, int] = {}
        self._window_s = window_s
        self._keep = keep
        self._calls: dict[str, collections.deque[float]] = {}

    def count(self, key: str) -> None:
        now = time.monotonic()
        # A sliding window and not the clock's seconds: a burst across the turn of a second is one burst.
        calls = self._calls.setdefault(key, collections.deque())
        while calls and calls[0] <= now - self._window_s:
            calls.popleft()
        calls.append(now)
        self.peaks[key] = max(self.peaks.get(key, 0), len(calls))
        trim(self._calls, self._keep)
        trim(self.peaks, self._keep)

    def forget(self) -> None:
        self.peaks.clear()
        self._calls.clear()

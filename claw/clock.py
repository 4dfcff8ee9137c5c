"""The time that waits and leases are measured by, handed in so that tests need not wait."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """The time of this machine. Tests hand in one that they move themselves (tests/clock.py)."""

    def monotonic(self) -> float:
        """Seconds that only grow; they may stand still while the machine sleeps."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch; they may jump."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def format_rfc3339(seconds: float) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC; None for 0, which stands for unknown."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""What changes in a draft, and the waits of the one task that shows it.

Order of events: `note` says that there is something new; a wait looks at its condition then, and not before. `close`
ends all waits: from then on each returns at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from claw.clock import Clock
from claw.dingtalk.pace import DueCall, DueQueue


class DraftChanges:
    """The changes of one draft. One task waits at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be shown."""
        return self._closed.is_set()

    def note(self) -> None:
        """Say that something changed. Never blocks."""
        self._changed.set()

    def close(self) -> None:
        """End all waits, those to come as well."""
        self._closed.set()
        self._changed.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end."""
        await self.wait_until(lambda: False, seconds)

    async def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        """Return when a condition holds that a change brings about, or after so many seconds, or at the end."""
        due = asyncio.Event()
        timer = None if timeout is None else asyncio.create_task(self._ring(due, timeout), name="claw.reply.pause")
        try:
            await self._wait(lambda: condition() or due.is_set())
        finally:
            if timer is not None:
                timer.cancel()
                await asyncio.gather(timer, return_exceptions=True)

    async def wait_for_turn(self, queue: DueQueue, seconds: float, condition: Callable[[], bool]) -> None:
        """As `wait_until`, with the time at which the queue begins what is due after `seconds`: in a crowd earlier."""
        due = asyncio.Event()

        def start() -> None:
            due.set()
            self._changed.set()

        call = DueCall(self._clock.monotonic() + seconds, start)
        queue.add(call)
        try:
            await self._wait(lambda: condition() or due.is_set())
        finally:
            queue.remove(call)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        # Cleared after the look and before the wait, without a turn of the loop in between: no change is missed.
        while not (condition() or self._closed.is_set()):
            self._changed.clear()
            await self._changed.wait()

    async def _ring(self, due: asyncio.Event, seconds: float) -> None:
        await self._clock.sleep(seconds)
        due.set()
        self._changed.set()

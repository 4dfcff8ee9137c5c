"""A clock that tests move by hand: sleepers wake when `advance` passes their time, and nobody waits for real."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from claw.clock import Clock

SETTLE_ROUNDS = 50
"""Turns of the loop that tasks get to do what has become due before time goes on."""


class FakeClock(Clock):
    """Starts at 1 000 s (monotonic), 1.8e9 s (wall); `jump` moves the wall clock alone, as a sleeping machine does."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._offset = 1_800_000_000.0 - self._now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._offset

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future

    def jump(self, seconds: float) -> None:
        self._offset += seconds

    async def settle(self) -> None:
        for _ in range(SETTLE_ROUNDS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking each sleeper at its own time and letting it act before the next one wakes."""
        end = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not future.done():
                future.set_result(None)
                await self.settle()
        self._now = end
        await self.settle()

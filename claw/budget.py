"""A budget of bytes for what strangers size: what is fetched and held at the same time stays within it.

A limit by number is none: four pictures of one message may take 40 MB, and thirty conversations do that at once. Order
of events: a holder reserves what it is going to need, waits its turn where that does not fit, and gives it back. Turns
are taken in order, so that a large one is not passed over for ever; one that is larger than the whole gets it alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Bytes that somebody holds."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget = budget
        self.size = size

    def shrink(self, size: int) -> None:
        """Give back what is beyond `size`: more was reserved than is needed."""
        surplus, self.size = self.size - min(size, self.size), min(size, self.size)
        if surplus:
            self._budget.give_back(surplus)


class ByteBudget:
    """`limit` bytes, shared by all tasks of the loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes that are reserved now; above `limit` only by one that is larger than the whole."""
        return self._used

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[Room]:
        """Hold `size` bytes of the budget; waits until they are free."""
        await self._acquire(size)
        room = Room(self, size)
        try:
            yield room
        finally:
            room.shrink(0)

    def give_back(self, size: int) -> None:
        """Let others have bytes that were reserved."""
        self._used -= size
        self._grant()

    async def _acquire(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self._used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # The race: granted and cancelled in the same turn of the loop. What was granted goes to the next.
            if turn.done() and not turn.cancelled():
                self._used -= size
            self._waiting = deque(each for each in self._waiting if each[1] is not turn)
            self._grant()
            raise

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self.limit

    def _grant(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._used += size
                turn.set_result(None)

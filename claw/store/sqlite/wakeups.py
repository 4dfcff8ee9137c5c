"""Waking workers when a claim may succeed: since something was put or ended, or since its time has come.

Order of events: a worker that found nothing to claim calls `wait`. Whoever changes the queues calls `wake`, which
resolves the waiters for whom the queues' version has grown. For what only time brings (a delay or a lease that ends)
one task sleeps until then; it is there only while somebody waits.
"""

from __future__ import annotations

import asyncio

from claw.clock import Clock
from claw.errors import StoreError
from claw.store.sqlite.queue import MessageQueues


class Wakeups:
    """The waiters of one store."""

    def __init__(self, queues: MessageQueues, clock: Clock) -> None:
        self._queues = queues
        self._clock = clock
        self._seen_version = {False: 0, True: 0}
        """The queues' version, of all and of the urgent, when `wait` last returned."""
        self._waiters: dict[bool, set[asyncio.Future[None]]] = {False: set(), True: set()}
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0
        self._is_closed = False

    async def wait(self, *, urgent: bool) -> None:
        """As `Inbox.wait`. Raises StoreError when the store is closed meanwhile."""
        self._queues.advance(self._clock.monotonic())
        # Compared with what the last `wait` saw, not with what is there now: a message that came between a worker's
        # claim and its `wait` must not be slept through.
        if self._seen_version[urgent] == self._queues.version(urgent=urgent):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[urgent].add(waiter)
            self._set_timer()
            try:
                await waiter
            finally:
                self._waiters[urgent].discard(waiter)
                if self._timer is not None and not any(self._waiters.values()):
                    self._timer.cancel()  # Nobody waits any more, and a closed store leaves no task behind.
                    self._timer = None
        self._seen_version[urgent] = self._queues.version(urgent=urgent)

    def wake(self) -> None:
        """Wake those who wait for what has become possible; see to it that the others wake in time."""
        for urgent, waiters in self._waiters.items():
            if not waiters:
                continue
            if self._seen_version[urgent] == self._queues.version(urgent=urgent):
                self._set_timer()
                continue
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def close(self) -> None:
        """Fail those who wait; from here on no timer is set, whatever the last writes bring."""
        self._is_closed = True
        for waiter in (*self._waiters[False], *self._waiters[True]):
            if not waiter.done():
                waiter.set_exception(StoreError("the store is closed"))

    def _set_timer(self) -> None:
        """Set the timer, unless it fires early enough. One that fires for nothing is set again."""
        due = self._queues.due
        if due is None or self._is_closed:
            return
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.create_task(self._fire(due), name="claw.store.timer")

    async def _fire(self, due: float) -> None:
        await self._clock.sleep(due - self._clock.monotonic())
        # Forgotten before `wake`, which may have to set the next one.
        self._timer = None
        self._queues.advance(self._clock.monotonic())
        self.wake()

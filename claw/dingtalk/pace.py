"""The pace of calls: DingTalk takes 20 a second of each API from an app (docs/protocol.md section 6.6).

Order of events: who wants to make a call waits until fewer than the share of this process may have come to DingTalk
within the last second, then makes it, and says when it has ended. When it came, nobody here knows: a first call opens a
connection, and one behind it overtakes it. It came before its answer did, and hardly later than TRANSIT_S after its
beginning. The next step of a card waits behind everything else: a later step, or the last one, makes up for it, while
people wait for a message.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from claw.clock import Clock

CALLS_MAX: Final = 18
"""Calls of an API that are begun within WINDOW_S by all claws together: two fewer than DingTalk takes."""
WINDOW_S: Final = 1.05
"""Somewhat more than DingTalk's second."""
TRANSIT_S: Final = 0.5
"""Seconds in which a call comes to DingTalk; its answer may take ten times as long."""
BUSY_S: Final = 1.0
"""Seconds of waiting from which on an API is busy."""
LOOK_INTERVAL_S: Final = 0.05
"""Seconds after which it is looked again whether a call has ended."""


@dataclass(slots=True, eq=False)
class PacedCall:
    """A call that was let through. Times are of the monotonic clock."""

    clock: Clock
    began_at: float
    came_until: float
    """The latest time at which it may have come to DingTalk."""

    def end(self) -> None:
        """Note that its answer is there, or never comes."""
        self.came_until = min(self.came_until, self.clock.monotonic())


@dataclass(slots=True)
class _Window:
    """The calls of one API."""

    calls: list[PacedCall] = field(default_factory=list)
    """Those that may have come to DingTalk within the last second."""
    waiting: int = 0
    """Calls that wait for room, steps not counted: those wait for everything."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by who waits for room, so that calls are begun in the order in which they were wanted."""
    steps: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one step that waits with the others: all other steps wait behind it."""


class CallPace:
    """Spreads calls over time. `share`: how many claws share the app."""

    def __init__(self, clock: Clock, share: Callable[[], int]) -> None:
        self._clock = clock
        self._share = share
        self._windows: dict[str, _Window] = {}

    async def wait(self, api: str, *, step: bool = False) -> PacedCall:
        """Return when a call of `api` may begin; it counts from then on, and the caller says when it ends."""
        window = self._windows.setdefault(api, _Window())
        if not step:
            # Not behind `steps`: a message of a person waits for other messages only.
            window.waiting += 1
            try:
                async with window.lock:
                    return await self._take(window)
            finally:
                window.waiting -= 1
        # In this order: the step that waits for `lock` keeps all later steps out of its queue, where they would be as
        # many places before a message.
        async with window.steps, window.lock:
            return await self._take(window)

    def is_busy(self, api: str) -> bool:
        """Whether a call of `api` would wait for more than BUSY_S: who has another way had better take that."""
        window = self._windows.get(api)
        return window is not None and window.waiting > BUSY_S * self._count_most()

    def _count_most(self) -> int:
        # Read anew each time: a replica that dies leaves its share to the others within seconds.
        return max(1, CALLS_MAX // max(1, self._share()))

    async def _take(self, window: _Window) -> PacedCall:
        while True:
            most = self._count_most()
            now = self._clock.monotonic()
            window.calls = [each for each in window.calls if each.came_until + WINDOW_S > now]
            if len(window.calls) < most:
                # It counts from its beginning, also if it fails: DingTalk counts what it receives.
                call = PacedCall(self._clock, now, now + TRANSIT_S)
                window.calls.append(call)
                return call
            wait = min(each.came_until for each in window.calls) + WINDOW_S - now
            # A call that has no answer yet may get it any moment, and frees its place the sooner.
            is_open = any(each.came_until > now for each in window.calls)
            await self._clock.sleep(min(wait, LOOK_INTERVAL_S) if is_open else wait)


@dataclass(slots=True, eq=False)
class DueCall:
    """A call that is due at a time of the monotonic clock. `start` begins it and returns at once."""

    due: float
    start: Callable[[], None]


class DueQueue:
    """Begins calls of one API as late as their deadlines allow: at once what many are due for at the same time.

    A crowd of 50 that is due in 2 s cannot be served in the last moment: DingTalk takes 20 a second. Most calls here
    are never needed, since what they are for has come by itself until then; hence as late as possible.
    """

    def __init__(self, clock: Clock, share: Callable[[], int]) -> None:
        self._clock = clock
        self._share = share
        self._calls: list[DueCall] = []
        """In the order in which they are due."""
        self._changed = asyncio.Event()

    def add(self, call: DueCall) -> None:
        """Begin a call when it is due, or earlier."""
        # Behind those of the same moment: who came first is begun first.
        bisect.insort(self._calls, call, key=lambda each: each.due)
        self._changed.set()

    def remove(self, call: DueCall) -> None:
        """Begin it not at all; one that has begun is not there any more."""
        if call in self._calls:
            self._calls.remove(call)

    async def run(self) -> None:
        """Begin calls for ever."""
        while True:
            # Before the look: what is added while this task sleeps sets it again, and is not missed.
            self._changed.clear()
            wait = self._find_wait()
            if wait is None:
                await self._changed.wait()
            elif wait > 0:
                await self._wait_changed(wait)
            else:
                self._calls.pop(0).start()

    def _find_wait(self) -> float | None:
        """Return the seconds until the first call has to begin; None: there is none."""
        if not self._calls:
            return None
        # Read anew each time, as by the pace itself: calls begin earlier as soon as there is less room for each claw.
        window = max(1, CALLS_MAX // max(1, self._share()))
        # Each window's first call tells for its window: those before it have to be gone by then.
        starts = (call.due - number * WINDOW_S for number, call in enumerate(self._calls[::window]))
        return min(starts) - self._clock.monotonic()

    async def _wait_changed(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

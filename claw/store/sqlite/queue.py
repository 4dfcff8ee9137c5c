"""Lanes: which message may be worked on now, and who holds it. Pure: no clock, no file, no await.

A lane is a queue with one lease at a time; its head is READY (it may be claimed), RESTING (it waits for a time) or HELD
(it is leased), and the others are QUEUED behind it. The order of events: `add` -> `claim` -> `remove`, or `claim` ->
`release` -> RESTING -> READY again. A lease that runs out makes its message READY; until somebody claims it, the old
holder may still write, since nobody else has begun.

Every step costs O(log n) of the lanes: nothing walks over the messages that wait. Times are monotonic seconds.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from claw.errors import LeaseLostError

_SLACK: Final = 64
"""Stale entries that the heap of expiries may hold beyond two for each lease, before it is built anew."""


class Place(Enum):
    """Where a message is on its way through its lane."""

    QUEUED = "queued"
    READY = "ready"
    RESTING = "resting"
    HELD = "held"


@dataclass(slots=True)
class Entry:
    """What is kept in memory of a message that waits; its body stays in the file."""

    seq: int
    queue: str
    urgent: bool
    received_at: float
    """Seconds since the epoch."""
    attempts: int = 0
    fence: int = 0
    """Grows with each claim and each release: what it was before is lost."""
    claims: int = 0
    """Claims since the last release."""
    rest_until: float = 0.0
    """0: may be claimed as soon as it is the head of its lane."""
    place: Place = Place.QUEUED


@dataclass(slots=True, eq=False)
class Hold:
    """A lease as the lanes see it. While `writes` are under way it does not run out: they were asked for in time."""

    entry: Entry
    expires: float
    writes: int = 0
    ending: bool = False
    """A write that ends the lease is under way: nothing may be written after it."""


class Lanes:
    """Every message that waits or is held, by lane, in order of `seq`."""

    def __init__(self) -> None:
        self._pending: dict[int, Entry] = {}
        self._lanes: dict[str, deque[Entry]] = {}
        self._ready: list[int] = []
        self._ready_urgent: list[int] = []
        self._resting: list[tuple[float, int]] = []
        self._holds: dict[int, Hold] = {}
        self._expiries: list[tuple[float, int]] = []
        self._news = 0
        self._urgent_news = 0

    def __len__(self) -> int:
        """Messages that wait or are held."""
        return len(self._pending)

    @property
    def held(self) -> int:
        return len(self._holds)

    @property
    def oldest(self) -> Entry | None:
        return next(iter(self._pending.values()), None)

    @property
    def due(self) -> float | None:
        """The time at which `settle` may have something to do next. It may come early, never late."""
        times = [heap[0][0] for heap in (self._resting, self._expiries) if heap]
        return min(times, default=None)

    def news(self, *, urgent: bool = False) -> int:
        """A number that grows whenever such a claim may have become possible."""
        return self._urgent_news if urgent else self._news

    def add(self, entry: Entry) -> None:
        """Append a message to its lane. Messages come in order of `seq`."""
        self._pending[entry.seq] = entry
        queue = self._lanes.get(entry.queue)
        if queue is None:
            self._lanes[entry.queue] = deque((entry,))
            self._come_up(entry)
        else:
            entry.queue = queue[0].queue  # One string for the whole lane: a backlog read from a file repeats it.
            queue.append(entry)

    def claim(self, now: float, ttl: float, *, urgent: bool = False) -> Hold | None:
        """Hold the oldest message whose turn it is until `now + ttl`; `urgent`: only one that was put so."""
        self.settle(now)
        seq = self._next(urgent=urgent)
        if seq is None:
            return None
        entry = self._pending[seq]
        entry.fence += 1
        entry.claims += 1
        hold = self._hold(entry, now + ttl)
        self._expect(hold)
        # Who claims one at a time is to come again as long as there is more.
        self._news += self._next() is not None
        self._urgent_news += self._next(urgent=True) is not None
        return hold

    def holding(self, seq: int, fence: int, now: float) -> Hold:
        """The hold that a lease stands for. Raises LeaseLostError where it was ended, or is another's."""
        entry = self._pending.get(seq)
        if entry is None or entry.fence != fence:
            raise LeaseLostError("the lease is no longer held")
        # None: it ran out and nobody came. It stays run out unless it is renewed now.
        return self._holds.get(seq) or self._hold(entry, now)

    def renew(self, hold: Hold, expires: float) -> None:
        hold.expires = expires
        self._expect(hold)

    def begin(self, hold: Hold, *, ending: bool = False) -> None:
        """A write for this lease is under way; `settled`, `release` or `remove` tells how it went."""
        if hold.ending:
            raise LeaseLostError("the lease is being given back")
        hold.writes += 1
        hold.ending = ending

    def settled(self, hold: Hold, now: float) -> None:
        """The write has ended and the lease goes on, unless its time has come meanwhile."""
        hold.writes -= 1
        if hold.writes:
            return
        hold.ending = False  # No write begins after one that ends the lease: that was it.
        if hold.expires <= now:
            self._give_back(hold)

    def release(self, hold: Hold, rest_until: float = 0.0, *, failed: bool = False) -> None:
        """End the lease; its message stays the head of the lane and rests until a time."""
        hold.entry.attempts += failed
        hold.entry.fence += 1
        hold.entry.claims = 0
        self._give_back(hold, rest_until)

    def undo(self, hold: Hold, rest_until: float = 0.0) -> None:
        """Take back a claim that nobody was told of."""
        hold.entry.claims -= 1
        self._give_back(hold, rest_until)

    def remove(self, hold: Hold) -> None:
        """End the lease and the message; the next of its lane comes up."""
        entry = hold.entry
        del self._holds[entry.seq]
        del self._pending[entry.seq]
        queue = self._lanes[entry.queue]
        queue.popleft()
        if queue:
            self._come_up(queue[0])
        else:
            del self._lanes[entry.queue]

    def settle(self, now: float) -> None:
        """Bring up what has rested enough and take back the leases that have run out."""
        while self._resting and self._resting[0][0] <= now:
            _, seq = heapq.heappop(self._resting)
            entry = self._pending[seq]
            entry.rest_until = 0.0
            self._come_up(entry)
        while self._expiries and self._expiries[0][0] <= now:
            _, seq = heapq.heappop(self._expiries)
            hold = self._holds.get(seq)
            if hold is None:
                continue  # Ended in time.
            if hold.expires > now:
                self._expect(hold)  # Renewed since.
            elif not hold.writes:
                self._give_back(hold)

    def _next(self, *, urgent: bool = False) -> int | None:
        """The oldest message that is READY."""
        heaps = (self._ready_urgent,) if urgent else (self._ready, self._ready_urgent)
        for heap in heaps:
            while heap and not self._is_ready(heap[0]):
                heapq.heappop(heap)
        return min((heap[0] for heap in heaps if heap), default=None)

    def _is_ready(self, seq: int) -> bool:
        entry = self._pending.get(seq)
        return entry is not None and entry.place is Place.READY

    def _come_up(self, head: Entry) -> None:
        if head.rest_until:
            head.place = Place.RESTING
            heapq.heappush(self._resting, (head.rest_until, head.seq))
            return
        head.place = Place.READY
        heapq.heappush(self._ready_urgent if head.urgent else self._ready, head.seq)
        self._news += 1
        self._urgent_news += head.urgent

    def _hold(self, entry: Entry, expires: float) -> Hold:
        # Its number stays in the heap of the ready: it is passed over there as long as it is not READY.
        entry.place = Place.HELD
        hold = self._holds[entry.seq] = Hold(entry, expires)
        return hold

    def _give_back(self, hold: Hold, rest_until: float = 0.0) -> None:
        del self._holds[hold.entry.seq]
        hold.entry.rest_until = rest_until
        self._come_up(hold.entry)

    def _expect(self, hold: Hold) -> None:
        heapq.heappush(self._expiries, (hold.expires, hold.entry.seq))
        if len(self._expiries) > 2 * len(self._holds) + _SLACK:
            self._expiries = [(held.expires, seq) for seq, held in self._holds.items()]
            heapq.heapify(self._expiries)

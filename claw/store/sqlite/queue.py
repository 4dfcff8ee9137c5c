"""The queues in memory: which message may be worked on now, and who holds it. Pure: no clock, no file, no await.

A queue gives one lease at a time. Its head is READY (it may be claimed), DELAYED (it waits for a time) or LEASED, and
the others are QUEUED behind it. Order of events: `add`, then `claim`, then `remove`; or `claim`, then `release`, after
which it is DELAYED and then READY again. A lease that runs out makes its message READY; until somebody claims it, the
old holder may still write, since nobody else has begun.

Every step costs O(log n) of the queues: nothing walks over the messages that wait. Times are monotonic seconds.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import islice, takewhile
from typing import Final

from claw.errors import LeaseLostError
from claw.store.ports import PASSED_MAX, STUCK_MAX
from claw.store.values import RowPlace

_STALE_MAX: Final = 64
"""Stale entries that the heap of expiries may hold beyond two for each lease, before it is built anew."""


class MessageState(Enum):
    """Where a message is on its way through its queue."""

    QUEUED = "queued"
    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"


@dataclass(slots=True)
class QueuedMessage:
    """What is kept in memory of every message that waits; the rest of its row stays in the file."""

    seq: int
    queue: str
    urgent: bool
    received_at: float
    """Seconds since the epoch."""
    attempts: int = 0
    fence: int = 0
    """Grows with each claim and each release: whoever has an older one has lost the message."""
    claims: int = 0
    """Claims since the last release."""
    delayed_until: float = 0.0
    """0: may be claimed as soon as it is the head of its queue."""
    waiting_since: float = 0.0
    """As in `Lease`."""
    worked: float = 0.0
    stopped: bool = False
    """It was stopped while it was DELAYED."""
    created: float = 0.0
    """When it was written, by DingTalk's clock; 0: it keeps its place of arrival."""
    state: MessageState = MessageState.QUEUED


@dataclass(slots=True, eq=False)
class ActiveLease:
    """A lease as the queues see it. While `writes` are under way it does not run out: they were asked for in time."""

    message: QueuedMessage
    expires: float
    writes: int = 0
    ending: bool = False
    """A write that ends the lease is under way: nothing may be written after it."""


class MessageQueues:
    """Every message that waits or is leased, by queue, in order of `seq`."""

    def __init__(self) -> None:
        self._messages: dict[int, QueuedMessage] = {}
        self._queues: dict[str, deque[QueuedMessage]] = {}
        # Heaps of numbers. What has left its state stays in them and is passed over when it comes up: taking it out
        # of the middle would cost a walk.
        self._ready: list[int] = []
        self._ready_urgent: list[int] = []
        self._delayed: list[tuple[float, int]] = []
        self._expiries: list[tuple[float, int]] = []
        self._leases: dict[int, ActiveLease] = {}
        self._version = 0
        self._urgent_version = 0

    def __len__(self) -> int:
        """Messages that wait or are leased."""
        return len(self._messages)

    @property
    def leased(self) -> int:
        return len(self._leases)

    @property
    def oldest(self) -> QueuedMessage | None:
        return next(iter(self._messages.values()), None)

    @property
    def due(self) -> float | None:
        """The time at which `advance` may have something to do next. It may come early, never late."""
        times = [heap[0][0] for heap in (self._delayed, self._expiries) if heap]
        return min(times, default=None)

    def is_stuck(self, received_until: float) -> bool:
        """Return whether nobody works, and one of the oldest was received by then and is not delayed."""
        # Not the oldest alone: it may be delayed for an hour, while others are forgotten behind its back.
        return not self._leases and any(
            message.received_at <= received_until and self._queues[message.queue][0].state is not MessageState.DELAYED
            for message in islice(self._messages.values(), STUCK_MAX)
        )

    def version(self, *, urgent: bool = False) -> int:
        """Return a number that grows whenever such a claim may have become possible."""
        return self._urgent_version if urgent else self._version

    def add(self, message: QueuedMessage) -> None:
        """Put a message into its queue, before those that it was overtaken by. Messages come in order of `seq`."""
        self._messages[message.seq] = message
        queue = self._queues.get(message.queue)
        if queue is None:
            self._queues[message.queue] = deque((message,))
            self._make_ready(message)
            return
        head = queue[0]
        message.queue = head.queue  # One string for the whole queue: a backlog read from a file repeats it.
        queue.insert(len(queue) - _count_later(queue, message), message)
        if queue[0] is message:
            # The old head stays in the heap of those that are ready, and is passed over there by its state.
            head.state = MessageState.QUEUED
            self._make_ready(message)

    def claim(self, now: float, ttl: float, *, urgent: bool = False) -> ActiveLease | None:
        """Lease the oldest message that is READY until `now + ttl`; `urgent`: only one that was put so."""
        self.advance(now)
        seq = self._oldest_ready(urgent=urgent)
        if seq is None:
            return None
        message = self._messages[seq]
        message.fence += 1
        message.claims += 1
        lease = self._lease(message, now + ttl)
        self._schedule_expiry(lease)
        # A worker claims one at a time, and waits in between: it is to come again as long as there is more.
        self._version += self._oldest_ready() is not None
        self._urgent_version += self._oldest_ready(urgent=True) is not None
        return lease

    def place(self, seq: int) -> RowPlace:
        """Say whether a message waits or is leased; GONE where it is not here any more."""
        if seq not in self._messages:
            return RowPlace.GONE
        return RowPlace.LEASED if seq in self._leases else RowPlace.WAITING

    def find(self, seq: int, fence: int, now: float) -> ActiveLease:
        """Return the lease with that fence. Raises LeaseLostError where it was ended, or is another's."""
        message = self._messages.get(seq)
        if message is None or message.fence != fence:
            raise LeaseLostError("the lease is no longer held")
        # None: it ran out and nobody has claimed since, or the fence would have grown. Its holder may go on: that is
        # better than doing the work twice. It counts as run out, though, unless it is renewed now.
        return self._leases.get(seq) or self._lease(message, now)

    def renew(self, lease: ActiveLease, expires: float) -> None:
        lease.expires = expires
        self._schedule_expiry(lease)

    def begin_write(self, lease: ActiveLease, *, ending: bool = False) -> None:
        """Note that a write for this lease is under way; `end_write`, `release` or `remove` says how it went."""
        if lease.ending:
            raise LeaseLostError("the lease is being given back")
        lease.writes += 1
        lease.ending = ending

    def end_write(self, lease: ActiveLease, now: float) -> None:
        """Note that a write has ended and the lease goes on, unless its time has come meanwhile."""
        lease.writes -= 1
        if lease.writes:
            return
        lease.ending = False  # No write begins after one that ends the lease, so it was that one, and it failed.
        if lease.expires <= now:
            self._return(lease)

    def release(self, lease: ActiveLease, delayed_until: float = 0.0, *, failed: bool = False) -> None:
        """End the lease; its message stays the head of the queue and is delayed until a time."""
        lease.message.attempts += failed
        lease.message.fence += 1
        lease.message.claims = 0
        self._return(lease, delayed_until)

    def find_delayed(self, queue: str, now: float) -> QueuedMessage | None:
        """Return the head of a queue while it waits for its next try."""
        self.advance(now)
        waiting = self._queues.get(queue)
        return waiting[0] if waiting and waiting[0].state is MessageState.DELAYED else None

    def stop(self, message: QueuedMessage) -> None:
        """End the delay of a DELAYED message; its next lease says that it was stopped."""
        message.stopped = True
        message.delayed_until = 0.0
        self._make_ready(message)

    def undo_claim(self, lease: ActiveLease, delayed_until: float = 0.0) -> None:
        """Undo a claim that was never returned to a caller."""
        lease.message.claims -= 1
        self._return(lease, delayed_until)

    def remove(self, lease: ActiveLease) -> None:
        """End the lease and the message; the next of its queue becomes its head."""
        message = lease.message
        del self._leases[message.seq]
        del self._messages[message.seq]
        queue = self._queues[message.queue]
        queue.popleft()
        if queue:
            self._make_ready(queue[0])
        else:
            del self._queues[message.queue]

    def behind(self, lease: ActiveLease, limit: int) -> list[QueuedMessage]:
        """Return the messages right behind a leased one in its queue, `limit` at most, up to one that is delayed."""
        queue = self._queues[lease.message.queue]
        # The leased one is the head, or was it: something written earlier may not go before what is worked on.
        waiting = takewhile(lambda message: not message.delayed_until, islice(queue, 1, 1 + limit))
        return list(waiting) if queue[0] is lease.message else []

    def drop(self, seq: int) -> bool:
        """Remove a message that is QUEUED, since it was answered with its head; False where it is not."""
        message = self._messages.get(seq)
        if message is None or message.state is not MessageState.QUEUED:
            return False
        del self._messages[seq]
        self._queues[message.queue].remove(message)
        return True

    def advance(self, now: float) -> None:
        """End the delays and the leases whose time has come."""
        while self._delayed and self._delayed[0][0] <= now:
            until, seq = heapq.heappop(self._delayed)
            message = self._messages.get(seq)
            if message is None or message.state is not MessageState.DELAYED or message.delayed_until != until:
                continue  # Its delay was ended before its time.
            message.delayed_until = 0.0
            self._make_ready(message)
        while self._expiries and self._expiries[0][0] <= now:
            _, seq = heapq.heappop(self._expiries)
            lease = self._leases.get(seq)
            if lease is None:
                continue  # Ended in time.
            if lease.expires > now:
                self._schedule_expiry(lease)  # Renewed since.
            elif not lease.writes:  # With a write under way, `end_write` comes back to it.
                self._return(lease)

    def _oldest_ready(self, *, urgent: bool = False) -> int | None:
        heaps = (self._ready_urgent,) if urgent else (self._ready, self._ready_urgent)
        for heap in heaps:
            while heap and not self._is_ready(heap[0]):
                heapq.heappop(heap)
        return min((heap[0] for heap in heaps if heap), default=None)

    def _is_ready(self, seq: int) -> bool:
        message = self._messages.get(seq)
        return message is not None and message.state is MessageState.READY

    def _make_ready(self, head: QueuedMessage) -> None:
        """Let the head of a queue be claimed, at once or when its delay ends."""
        if head.delayed_until:
            head.state = MessageState.DELAYED
            heapq.heappush(self._delayed, (head.delayed_until, head.seq))
            return
        head.state = MessageState.READY
        heapq.heappush(self._ready_urgent if head.urgent else self._ready, head.seq)
        self._version += 1
        self._urgent_version += head.urgent

    def _lease(self, message: QueuedMessage, expires: float) -> ActiveLease:
        message.state = MessageState.LEASED
        lease = self._leases[message.seq] = ActiveLease(message, expires)
        return lease

    def _return(self, lease: ActiveLease, delayed_until: float = 0.0) -> None:
        del self._leases[lease.message.seq]
        lease.message.delayed_until = delayed_until
        self._make_ready(lease.message)

    def _schedule_expiry(self, lease: ActiveLease) -> None:
        heapq.heappush(self._expiries, (lease.expires, lease.message.seq))
        # Each renewal leaves an entry behind: a turn of hours would grow the heap without end.
        if len(self._expiries) > 2 * len(self._leases) + _STALE_MAX:
            self._expiries = [(leased.expires, seq) for seq, leased in self._leases.items()]
            heapq.heapify(self._expiries)


def _count_later(queue: deque[QueuedMessage], message: QueuedMessage) -> int:
    """Return how many of the last in the queue were written later than the message, and were never claimed."""
    if not message.created:
        return 0
    last = islice(reversed(queue), PASSED_MAX)
    # A fence above 0: somebody has begun with it, and after a release it goes on where it was. So nothing goes before a
    # leased or a delayed one, which come up by themselves and must be the head then.
    return sum(1 for _ in takewhile(lambda other: other.created > message.created and not other.fence, last))

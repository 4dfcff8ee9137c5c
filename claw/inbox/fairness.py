"""Fairness: nobody takes the slots from all the others, by groups of their own or by urgent commands.

Order of events: the worker claims the oldest message that is ready, and asks `find_delay` whether it may start. One
that may not goes back to the inbox for a while, and the worker claims the next: others are not held up. Each time that
a message goes back it comes later than those of its person that went back before, so that however many there are, only
a few a second are claimed for nothing.

Nothing is held here for a message that is away: the inbox brings it again, to this process or to another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from claw.clock import Clock
from claw.store.values import Lease, RowKind

PERSON_SHARE: Final = 4
"""One person holds one in so many of the slots at most, and one in any case."""
URGENT_SLOTS: Final = 4
"""Slots of urgent messages, beyond the others: what they do takes a moment."""
URGENT_INTERVAL_S: Final = 1.0
"""Seconds between two urgent messages of one chat."""
HOLD_BACK_S: Final = 1.0
"""Seconds for which a message goes back at least."""
HOLD_BACK_STEP_S: Final = 0.05
"""Seconds by which each message of a person comes later than the one before: twenty a second are claimed in vain."""
_FORGET_S: Final = 60.0
"""Seconds after its last appointment for which a chat is remembered."""


@dataclass(slots=True)
class _Pace:
    """The urgent messages of one chat."""

    last: float
    """When the last one started or is to start, by the monotonic clock."""
    appointed: set[int] = field(default_factory=set)
    """Those that went back until their time: they do not queue up a second time when it has come."""


class Fairness:
    """Says which messages may not start yet. `slots` is how many turns run at once, urgent ones apart."""

    def __init__(self, slots: int, clock: Clock) -> None:
        self._share = max(1, slots // PERSON_SHARE)
        self._clock = clock
        self._held_until: dict[str, float] = {}
        """By person: when the last of their messages that went back comes again."""
        self._paces: dict[str, _Pace] = {}

    def find_delay(self, lease: Lease, active: Iterable[Lease]) -> float:
        """Return for how many seconds `lease` has to go back, beside those that are worked on; 0: it may start."""
        # What was stopped ends at once, and going back would forget that it was. A message that may have killed its
        # process keeps the count of that; of those there are no more than were worked on at its end.
        if lease.stopped or lease.claims > 1:
            return 0.0
        if lease.route.urgent:
            return self._find_urgent_delay(lease, active)
        if lease.kind is not RowKind.MESSAGE:
            return 0.0
        held = Counter(
            each.inbound.sender.key for each in active if each.kind is RowKind.MESSAGE and not each.route.urgent
        )
        person = lease.inbound.sender.key
        return self._hold_back(person) if held[person] >= self._share else 0.0

    def _find_urgent_delay(self, lease: Lease, active: Iterable[Lease]) -> float:
        now = self._clock.monotonic()
        chat = lease.inbound.chat_key
        pace = self._paces.get(chat)
        if pace is not None and lease.seq not in pace.appointed and now < pace.last + URGENT_INTERVAL_S:
            pace.last += URGENT_INTERVAL_S
            pace.appointed.add(lease.seq)
            return pace.last - now
        if sum(each.route.urgent for each in active) >= URGENT_SLOTS:
            return self._hold_back("")
        if pace is None:
            self._forget_old(now)
            self._paces[chat] = _Pace(now)
        else:
            pace.appointed.discard(lease.seq)
            pace.last = max(pace.last, now)
        return 0.0

    def _hold_back(self, person: str) -> float:
        """Return when the next message of a person comes again; "" stands for all urgent ones."""
        now = self._clock.monotonic()
        if person not in self._held_until:
            # Few people are above their share at a time: the slots are not enough for many.
            self._held_until = {each: until for each, until in self._held_until.items() if until > now}
        until = max(now + HOLD_BACK_S, self._held_until.get(person, 0.0) + HOLD_BACK_STEP_S)
        self._held_until[person] = until
        return until - now

    def _forget_old(self, now: float) -> None:
        # Oldest first, as they were entered; one that is still in use ends the round, and a later one goes on.
        while self._paces and next(iter(self._paces.values())).last + _FORGET_S < now:
            del self._paces[next(iter(self._paces))]

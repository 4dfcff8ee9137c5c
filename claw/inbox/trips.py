"""The last round trips, in memory: what an operator's page shows as bars, split into queue, model and reply."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from claw.clock import format_rfc3339

TRIPS_MAX: Final = 50
"""Round trips that are remembered."""
TITLE_MAX_CHARS: Final = 60


@dataclass(frozen=True, slots=True)
class Trip:
    """One message's way from its frame to its end. Durations in seconds."""

    ended_at: float
    """Seconds since the epoch."""
    outcome: str
    kind: str
    chat: str
    """The group's title; empty in a direct chat."""
    trace_id: str
    queue: float
    model: float
    reply: float
    attempts: int

    def to_json(self) -> dict[str, Any]:
        # Rounded to milliseconds: more digits would say more than the clocks can.
        return {
            "at": format_rfc3339(self.ended_at),
            "outcome": self.outcome,
            "kind": self.kind,
            "chat": self.chat[:TITLE_MAX_CHARS],
            "trace_id": self.trace_id,
            "queue_s": round(self.queue, 3),
            "model_s": round(self.model, 3),
            "reply_s": round(self.reply, 3),
            "total_s": round(self.queue + self.model + self.reply, 3),
            "attempts": self.attempts,
        }


class TripLog:
    """Remembers the last TRIPS_MAX."""

    def __init__(self) -> None:
        self._trips: deque[Trip] = deque(maxlen=TRIPS_MAX)

    def add(self, trip: Trip) -> None:
        """Remember a round trip."""
        # The oldest falls out at the other end: what is shown is the present, and history belongs to the traces.
        self._trips.appendleft(trip)

    def report(self) -> list[dict[str, Any]]:
        """Return them as JSON, newest first."""
        return [trip.to_json() for trip in self._trips]

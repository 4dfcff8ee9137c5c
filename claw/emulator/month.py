"""What the app has cost this month, by the quotas that DingTalk keeps (docs/protocol.md section 6.6 and 10a).

Order of events: each call or push that is billed is counted where it happens; where a quota is used up, the next one is
refused there. Limits are switches (`openapi_month_limit`, `stream_month_limit`, `webhook_month_cap`). There is no
calendar: a test sets the counts, and so makes any day of a month, or the first of the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from claw.emulator.faults import FaultError, Faults

COUNTS: Final = ("openapi", "webhook", "pushed")


class FakeMonth:
    """The counts: OpenAPI calls, webhook messages that were delivered, messages and events that were pushed."""

    def __init__(self, faults: Faults) -> None:
        self.openapi = 0
        self.webhook = 0
        self.pushed = 0
        self._faults = faults

    @property
    def is_openapi_used_up(self) -> bool:
        # Read, not taken: a limit holds until it is changed, a budget of uses would make no sense of it.
        limit = self._faults.openapi_month_limit
        return bool(limit) and self.openapi >= limit

    @property
    def is_stream_used_up(self) -> bool:
        """Webhook calls and pushes share one quota: what the robot answers empties the messages that it gets."""
        limit = self._faults.stream_month_limit
        return bool(limit) and self.webhook + self.pushed >= limit

    @property
    def is_capped(self) -> bool:
        """The administrator's own cap on this robot's webhooks is reached (docs/protocol.md section 10a)."""
        cap = self._faults.webhook_month_cap
        return bool(cap) and self.webhook >= cap

    def set(self, counts: Mapping[str, Any]) -> None:
        """Set the given counts, all or none. Raises FaultError naming the first that is wrong."""
        for name, count in counts.items():
            if name not in COUNTS:
                raise FaultError(f"unknown count {name!r}; known: {', '.join(COUNTS)}")
            # By the very type: True is an int to Python.
            if type(count) is not int or count < 0:
                raise FaultError(f"{name}: expected a number of calls of at least 0")
        # All are checked before the first is set: half a month would be one that nobody asked for.
        for name, count in counts.items():
            setattr(self, name, count)

    def forget(self) -> None:
        self.set(dict.fromkeys(COUNTS, 0))

    def to_dict(self) -> dict[str, int]:
        """Show the counts and their limits; a limit of 0 is none."""
        counts = {name: getattr(self, name) for name in COUNTS}
        limits = ("openapi_month_limit", "stream_month_limit", "webhook_month_cap")
        return counts | {name: getattr(self._faults, name) for name in limits}

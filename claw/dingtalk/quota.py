"""What DingTalk bills: which calls count, for which month, and how many claw has made.

Order of events: each call that DingTalk answered is counted in memory, flushed to the store periodically, and added
up for `/status`, for the chat command and for doctor by one function. The counts are claw's own: what other programs
of the organisation use up is not in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from typing import Final, NamedTuple

from claw.clock import Clock

DINGTALK_TIME: Final = timezone(timedelta(hours=8))
"""Asia/Shanghai, in which DingTalk's quota months begin; without summer time since 1991."""


class Api(StrEnum):
    """A call's short name: in errors, in `claw.dingtalk.calls{api}` and in the stored counts."""

    TOKEN = "token"  # noqa: S105 - a call's name
    WEBHOOK = "webhook"
    DIRECT = "direct"
    GROUP = "group"
    DOWNLOAD = "download"
    UPLOAD = "upload"
    REACTION = "reaction"
    CARD_CREATE = "card_create"
    CARD_STREAM = "card_stream"
    CARD_UPDATE = "card_update"
    RECEIPT = "receipt"
    """No call: a message that DingTalk pushed to us, which it bills as one."""


SENDS: Final = frozenset({Api.WEBHOOK, Api.DIRECT, Api.GROUP, Api.CARD_CREATE, Api.CARD_UPDATE})
"""Calls that show something to people, and that a trace shows; the steps of a card in between would be too many."""
FREE: Final = frozenset({Api.TOKEN})
"""Calls that no quota counts (docs/protocol.md section 6.6)."""


class BillableCalls(NamedTuple):
    """The billable calls of a month, by the two quotas that DingTalk keeps (docs/protocol.md section 6.6)."""

    openapi: int
    webhook: int

    @property
    def total(self) -> int:
        """The calls of both quotas."""
        return self.openapi + self.webhook


def sum_billable(calls: Mapping[str, int]) -> BillableCalls:
    """Add up the counts of one month, api -> calls."""
    webhook = calls.get(Api.WEBHOOK, 0) + calls.get(Api.RECEIPT, 0)
    # By what is free, not by what is billed: during a rolling update the store holds names that only the newer claw
    # knows, and those calls are paid for all the same.
    return BillableCalls(sum(count for api, count in calls.items() if api not in FREE) - webhook, webhook)


def month_of(seconds: float) -> str:
    """Return the calendar month in which DingTalk counts a call (China Standard Time), such as `2026-11`.

    `seconds`: since the epoch.
    """
    return datetime.fromtimestamp(seconds, DINGTALK_TIME).strftime("%Y-%m")


class CallCounter:
    """In-memory call counts, flushed to the store periodically.

    Counted is what DingTalk answered: not what was throttled or never arrived, as in its own accounts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, Counter[str]] = {}
        self._listeners: list[Callable[[str], None]] = []

    def count(self, api: str) -> None:
        """Count one call, for the month in which it ended."""
        # At a month's end DingTalk may count it for the other month than we do; nobody can tell from here.
        month = month_of(self._clock.wall())
        self._counts.setdefault(month, Counter())[str(api)] += 1
        for hear in self._listeners:
            hear(str(api))

    def listen(self, hear: Callable[[str], None]) -> None:
        """Call `hear` with each call's api, as soon as it is counted."""
        self._listeners.append(hear)

    def peek(self) -> dict[str, dict[str, int]]:
        """Return month (`2026-11`) -> api -> calls since the last `take`."""
        return {month: dict(counts) for month, counts in self._counts.items()}

    def take(self) -> dict[str, dict[str, int]]:
        """Return what `peek` gives and begin at 0: the caller stores it, or puts it back."""
        taken = self.peek()
        self._counts.clear()
        return taken

    def put_back(self, taken: Mapping[str, Mapping[str, int]]) -> None:
        """Count again what could not be stored; calls that were made meanwhile stay counted."""
        for month, counts in taken.items():
            self._counts.setdefault(month, Counter()).update(counts)

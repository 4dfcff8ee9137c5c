"""What people use, counted in memory and saved by the janitor: questions, tokens, votes, per person, chat and day.

A process that is killed loses what it counted since the last saving, a minute at most: it is a statistic, and a write
for each message would cost every person some of their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from claw.clock import Clock
from claw.messages import Inbound
from claw.store.operation import Usage
from claw.store.values import UsageRow

CountUsage = Callable[[Inbound, int, int], None]
"""Counts a question of a message's sender, with the tokens that went in and came out."""


@dataclass(frozen=True, slots=True)
class _Place:
    day: str
    person: str
    chat: str


class UsageCounter:
    """Counts; `timezone` is the operator's, for the days."""

    def __init__(self, store: Usage, timezone: str, clock: Clock) -> None:
        self._store = store
        self._zone = ZoneInfo(timezone)
        self._clock = clock
        self._rows: dict[_Place, UsageRow] = {}

    def count_question(self, inbound: Inbound, tokens_in: int, tokens_out: int) -> None:
        """Count an answered question."""
        who, where = inbound.sender, inbound.conversation
        self._add(
            UsageRow(self.today(), who.key, where.id, who.nick, where.title, 1, tokens_in, tokens_out),
        )

    def count_vote(self, person: str, chat: str, liked: bool) -> None:  # noqa: FBT001 - a fact like the others
        """Count a vote on an answer."""
        self._add(UsageRow(self.today(), person, chat, up=int(liked), down=int(not liked)))

    def today(self) -> str:
        """Return the operator's day."""
        return datetime.fromtimestamp(self._clock.wall(), self._zone).date().isoformat()

    async def save(self) -> None:
        """Save what was counted. Raises StoreError, and keeps it then."""
        # Taken before the store is asked, which takes its time: what is counted meanwhile belongs to the next saving.
        taken, self._rows = self._rows, {}
        if not taken:
            return
        try:
            await self._store.add_usage(list(taken.values()))
        except BaseException:
            # Cancelled as well: at a stop that runs out of time nothing is counted twice by the next one.
            self._add_all(taken.values())
            raise

    async def read(self, since: str) -> list[UsageRow]:
        """Return what was used from a day on, newest first, what is not saved yet included. Raises StoreError."""
        found = {_Place(row.day, row.person, row.chat): row for row in await self._store.usage(since)}
        # What another replica has counted and not saved yet is missing here, for a minute at most.
        for place, row in self._rows.items():
            if place.day >= since:
                found[place] = _sum(found[place], row) if place in found else row
        return sorted(found.values(), key=lambda row: row.day, reverse=True)

    def _add_all(self, rows: Iterable[UsageRow]) -> None:
        for row in rows:
            self._add(row)

    def _add(self, row: UsageRow) -> None:
        place = _Place(row.day, row.person, row.chat)
        self._rows[place] = _sum(self._rows[place], row) if place in self._rows else row


def _sum(first: UsageRow, then: UsageRow) -> UsageRow:
    return replace(
        first,
        name=then.name or first.name,
        title=then.title or first.title,
        questions=first.questions + then.questions,
        tokens_in=first.tokens_in + then.tokens_in,
        tokens_out=first.tokens_out + then.tokens_out,
        up=first.up + then.up,
        down=first.down + then.down,
    )

"""The month's budget: how many calls are left, and how richly answers may be shown so that they last.

DingTalk bills two quotas a calendar month (docs/protocol.md section 6.6): calls of the OpenAPI, and webhook calls
together with the messages that it pushes. Order of events: `refresh` reads what all replicas have made; `plan`, a pure
function, compares what is left with what the rest of the month needs at the pace so far, and says what an answer may
cost. Cards come first to get fewer steps, then reactions go, then cards: plain answers last to the month's last day.
When one quota runs ahead of its month, answers go the other way.
"""

from __future__ import annotations

import calendar
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

from claw.clock import Clock
from claw.dingtalk.quota import DINGTALK_TIME, Api, BillableCalls, month_of, sum_billable
from claw.errors import StoreError

log: Final = logging.getLogger(__name__)

REFRESH_S: Final = 60.0
"""Seconds for which the counts of the store are taken as they were read; our own calls since are added."""
SAFETY: Final = 0.05
"""Part of a quota that no card and no reaction may use: for downloads, for uploads, for other programs of the app."""
PLAIN_CARD_CALLS: Final = 3
"""OpenAPI calls of a card without steps: made, ended, put right."""
REACTION_CALLS: Final = 2
"""OpenAPI calls of a reaction: put and taken back."""
FULL_CALLS: Final = 7
"""OpenAPI calls for each answer from which on it may have all: a card, a reaction, two steps."""
STEPS_MAX: Final = 200
STEPS_S: Final = (8.0, 30.0)
"""Seconds between a card's steps, the last of them again and again. A client types what a step brings at its template's
own speed, so that many small ones gain nothing (docs/protocol.md section 10a): an answer of 30 s has one in between,
also where the month has plenty."""
FIRST_DAYS: Final = 2.0
"""Days of a month from which on its pace is believed; before, the month before counts, or a guess."""
ANSWERS_GUESS: Final = 20.0
"""Answers a day where nothing is known yet."""


class Richness(IntEnum):
    """How an answer may be shown, the poorest first."""

    MARKDOWN = 0
    """One message at its end."""
    CARD = 1
    """A card without a step in between, no reaction."""
    FEW_STEPS = 2
    """A card with a few steps, no reaction."""
    FULL = 3
    """A card with steps, and a reaction."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """Calls a month; 0: unlimited."""

    openapi: int
    webhook: int


@dataclass(frozen=True, slots=True)
class MonthSoFar:
    """What a month has cost so far."""

    used: BillableCalls
    answers: int
    days: float
    """Days since its beginning."""
    days_left: float
    answers_per_day_before: float = 0.0
    """Of the month before; 0: not known."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next answer may cost."""

    richness: Richness
    steps: int
    """Steps in between that its card may have."""
    intervals_s: tuple[float, ...]
    """Seconds between them, the last again and again."""
    reactions: bool
    by_openapi: bool
    """Plain answers go by the OpenAPI: the webhooks' quota runs ahead of its month, and the other one does not."""


def plan(quotas: Quotas, month: MonthSoFar) -> Plan:
    """Say what the next answer may cost, so that answers last to the month's last day."""
    expected = max(1.0, _answers_per_day(month) * month.days_left)
    openapi_left = _left(quotas.openapi, month.used.openapi)
    webhook_left = _left(quotas.webhook, month.used.webhook)
    # Each answer comes with a message that was pushed; it is sent by a webhook, unless these would not last.
    webhook_short = max(0.0, expected * 2 - webhook_left)
    by_openapi = webhook_short > 0 and openapi_left > webhook_short
    # What plain answers need of the OpenAPI is not for cards.
    per_answer = (openapi_left - (webhook_short if by_openapi else 0.0)) / expected
    # What a card costs anyway comes first; only what is left over may be spent on watching it grow.
    steps = int(min(per_answer - PLAIN_CARD_CALLS, STEPS_MAX))
    if per_answer >= FULL_CALLS:
        return Plan(Richness.FULL, steps - REACTION_CALLS, STEPS_S, reactions=True, by_openapi=by_openapi)
    if per_answer >= PLAIN_CARD_CALLS + 1:
        return Plan(Richness.FEW_STEPS, steps, STEPS_S, reactions=False, by_openapi=by_openapi)
    if per_answer >= PLAIN_CARD_CALLS:
        return Plan(Richness.CARD, 0, STEPS_S, reactions=False, by_openapi=by_openapi)
    return Plan(Richness.MARKDOWN, 0, STEPS_S, reactions=False, by_openapi=by_openapi)


def plan_reactions(quotas: Quotas, month: MonthSoFar) -> bool:
    """Whether plain answers may have a reaction each, where no cards are used."""
    expected = max(1.0, _answers_per_day(month) * month.days_left)
    webhook_short = max(0.0, expected * 2 - _left(quotas.webhook, month.used.webhook))
    return (_left(quotas.openapi, month.used.openapi) - webhook_short) / expected >= REACTION_CALLS


def _answers_per_day(month: MonthSoFar) -> float:
    # A mean of the month so far: a busy hour is no reason to take the cards away from all.
    if month.days >= FIRST_DAYS:
        return month.answers / month.days
    before = month.answers_per_day_before or ANSWERS_GUESS
    # A busy first day counts at once.
    return max(before, month.answers / FIRST_DAYS)


def _left(limit: int, used: int) -> float:
    # Beyond its limit a quota has nothing left, and not less than nothing: other programs' calls are not in our counts.
    return max(0.0, limit * (1 - SAFETY) - used) if limit else float("inf")


ReadCalls = Callable[[str], Awaitable[Mapping[str, int]]]
"""Returns the calls of a month (`2026-11`) by api, of all replicas, ours since the last saving included."""


class MonthlyBudget:
    """The month's budget of the app. `read_calls` may raise StoreError: once there are counts, these hold then."""

    def __init__(self, quotas: Quotas, read_calls: ReadCalls, clock: Clock) -> None:
        self._quotas = quotas
        self._read_calls = read_calls
        self._clock = clock
        self._calls: Mapping[str, int] = {}
        self._before: Mapping[str, int] = {}
        self._month = ""
        self._read_at = float("-inf")

    @property
    def quotas(self) -> Quotas:
        return self._quotas

    async def refresh(self) -> MonthSoFar:
        """Return the month so far, of REFRESH_S ago at most. Raises what `read_calls` raises while nothing is known."""
        now, month = self._clock.monotonic(), month_of(self._clock.wall())
        if month != self._month:
            before = datetime.fromtimestamp(self._clock.wall(), DINGTALK_TIME).replace(day=1) - timedelta(days=1)
            # Of the month that is over nothing changes any more.
            self._before = await self._read_calls(before.strftime("%Y-%m"))
            self._calls = await self._read_calls(month)
            # Last: where the store failed, whoever asks next reads again.
            self._month, self._read_at = month, now
        elif now - self._read_at >= REFRESH_S:
            # Before the reading: who asks meanwhile goes on with the counts that there are, and a store that is away is
            # asked again in a minute, not by each answer, which would wait for it.
            self._read_at = now
            with suppress(StoreError):
                calls = await self._read_calls(month)
                # The race: while the store read the old month, another reader may have begun the new one.
                if month == self._month:
                    self._calls = calls
        return self._sum_up()

    def count(self, api: str) -> None:
        """Add a call that was made since the counts were read, so that a burst within a minute is seen."""
        # A new mapping: the metrics' reader, which is a thread, may look at the old one right now.
        self._calls = {**self._calls, api: self._calls.get(api, 0) + 1}

    async def report(self) -> dict[str, object]:
        """Return the month as JSON, for `/status`. Raises what `read_calls` raises."""
        month = await self.refresh()
        chosen = plan(self._quotas, month)
        return {
            "month": self._month,
            "openapi": {"used": month.used.openapi, "limit": self._quotas.openapi or None},
            "webhook": {"used": month.used.webhook, "limit": self._quotas.webhook or None},
            "answers": month.answers,
            "plan": chosen.richness.name.lower(),
        }

    def read_left(self, quota: str) -> float:
        """Return the calls left of a quota (a field of BillableCalls), as last read; infinite where it is unlimited."""
        # By what was last read: a metric must not ask the store.
        limit, used = getattr(self._quotas, quota), getattr(sum_billable(self._calls), quota)
        return max(0, limit - used) if limit else float("inf")

    def used_part(self, month: MonthSoFar) -> tuple[float, float]:
        """Return what is used of the OpenAPI's quota and of the webhooks', from 0 to 1 and above."""
        openapi = month.used.openapi / self._quotas.openapi if self._quotas.openapi else 0.0
        webhook = month.used.webhook / self._quotas.webhook if self._quotas.webhook else 0.0
        return openapi, webhook

    def _sum_up(self) -> MonthSoFar:
        # In DingTalk's time, in which its months end, wherever this machine stands.
        local = datetime.fromtimestamp(self._clock.wall(), DINGTALK_TIME)
        begin = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        days = (local - begin).total_seconds() / 86_400
        length = calendar.monthrange(local.year, local.month)[1]
        last = begin - timedelta(days=1)
        before = count_answers(self._before) / calendar.monthrange(last.year, last.month)[1]
        return MonthSoFar(sum_billable(self._calls), count_answers(self._calls), days, length - days, before)


def count_answers(calls: Mapping[str, int]) -> int:
    """Return about how many answers the calls of a month were: each was sent by one call of these at least."""
    return sum(calls.get(api, 0) for api in (Api.WEBHOOK, Api.DIRECT, Api.GROUP, Api.CARD_CREATE))

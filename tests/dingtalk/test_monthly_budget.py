"""The month's budget: what an answer may cost, so that plain answers last to the month's last day."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

import pytest

from claw.dingtalk.budget import (
    REFRESH_S,
    MonthlyBudget,
    MonthSoFar,
    Plan,
    Quotas,
    Richness,
    count_answers,
    plan,
    plan_reactions,
)
from claw.dingtalk.quota import Api, BillableCalls, CallCounter, month_of
from claw.errors import StoreError
from tests.clock import FakeClock

STANDARD = Quotas(5_000, 3_000)
PROFESSIONAL = Quotas(200_000, 50_000)


def month(openapi: int, webhook: int, answers: int, days: float, before: float = 0.0) -> MonthSoFar:
    return MonthSoFar(BillableCalls(openapi, webhook), answers, days, 30 - days, before)


@pytest.mark.parametrize(
    ("quotas", "so_far", "richness"),
    [
        (STANDARD, month(0, 0, 0, 0.0), Richness.FULL),
        (STANDARD, month(0, 0, 0, 0.0, before=60.0), Richness.MARKDOWN),
        (STANDARD, month(0, 0, 0, 0.0, before=40.0), Richness.CARD),
        (STANDARD, month(2_000, 600, 300, 15.0), Richness.FULL),
        (STANDARD, month(3_500, 600, 300, 15.0), Richness.FEW_STEPS),
        (STANDARD, month(4_740, 600, 300, 15.0), Richness.MARKDOWN),
        (STANDARD, month(5_000, 600, 300, 29.9), Richness.MARKDOWN),
        (PROFESSIONAL, month(90_000, 9_000, 4_500, 15.0), Richness.FULL),
        (Quotas(0, 0), month(10**6, 10**6, 10**5, 29.0), Richness.FULL),
    ],
)
def test_what_an_answer_may_cost(quotas: Quotas, so_far: MonthSoFar, richness: Richness) -> None:
    """The poorer the rest of the month, the poorer the answer."""
    assert plan(quotas, so_far).richness is richness


def test_an_answer_of_thirty_seconds_has_one_step_in_between() -> None:
    """Also where there is plenty: many small steps gain nothing, and all claws share twenty of them a second."""
    for quotas in (STANDARD, PROFESSIONAL, Quotas(0, 0)):
        first, second, *_ = plan(quotas, month(100, 100, 50, 5.0)).intervals_s
        assert first <= 10
        assert first + second > 30


def test_plain_answers_go_by_the_openapi_where_webhooks_run_ahead() -> None:
    """A hundred answers a day would use up webhooks and pushes: some go the other way."""
    assert plan(STANDARD, month(100, 1_600, 800, 8.0)).by_openapi
    assert not plan(STANDARD, month(100, 160, 80, 8.0)).by_openapi


def cost(step: Plan) -> tuple[int, int]:
    """The calls of an answer of half a minute: of the OpenAPI, and of webhooks."""
    if step.richness is Richness.MARKDOWN:
        return (1, 0) if step.by_openapi else (0, 1)
    return 3 + min(step.steps, 1) + 2 * step.reactions, 0


@pytest.mark.parametrize("per_day", [1, 5, 20, 40, 60, 80, 100])
def test_a_month_ends_with_calls_left(per_day: int) -> None:
    """Whatever people ask in a month, up to what both quotas hold at all, its last answer is still delivered."""
    used_openapi = used_webhook = answers = 0
    for number in range(per_day * 30):
        used_webhook += 1  # The message that was pushed.
        openapi, webhook = cost(plan(STANDARD, month(used_openapi, used_webhook, answers, number / per_day)))
        used_openapi, used_webhook, answers = used_openapi + openapi, used_webhook + webhook, answers + 1
    assert used_openapi < STANDARD.openapi
    assert used_webhook <= STANDARD.webhook


def test_a_busy_month_after_a_quiet_one_is_noticed() -> None:
    """A hundred questions on the first day are not taken for the guess of twenty."""
    assert plan(STANDARD, month(500, 200, 100, 1.0)).richness < plan(STANDARD, month(5, 2, 1, 1.0)).richness


def test_reactions_of_plain_answers_go_before_plain_answers_do() -> None:
    """In markdown mode a reaction costs calls of the OpenAPI, which downloads need as well."""
    assert plan_reactions(STANDARD, month(1_000, 600, 300, 15.0))
    assert not plan_reactions(STANDARD, month(4_500, 600, 300, 15.0))


async def test_the_counts_of_all_replicas_are_read_once_a_minute() -> None:
    """Calls of others are seen within a minute, our own at once, and a new month begins at nothing."""
    clock = FakeClock()
    counts: dict[str, dict[str, int]] = {month_of(clock.wall()): {Api.WEBHOOK: 10, Api.DIRECT: 2}}
    asked: list[str] = []

    async def read(name: str) -> Mapping[str, int]:
        asked.append(name)
        return counts.get(name, {})

    budget = MonthlyBudget(STANDARD, read, clock)
    assert (await budget.refresh()).used == BillableCalls(2, 10)
    budget.count(Api.CARD_CREATE)
    assert (await budget.refresh()).used == BillableCalls(3, 10)
    reads = len(asked)
    await clock.advance(61)
    assert (await budget.refresh()).used == BillableCalls(2, 10)
    assert len(asked) == reads + 1
    clock.jump(32 * 86_400)
    assert (await budget.refresh()).used == BillableCalls(0, 0)
    assert (await budget.refresh()).answers_per_day_before > 0


def test_each_answer_is_counted_once() -> None:
    """A card's steps and a reaction are no answers."""
    calls: dict[str, int] = {
        Api.WEBHOOK: 3,
        Api.CARD_CREATE: 2,
        Api.CARD_STREAM: 9,
        Api.REACTION: 4,
        Api.RECEIPT: 7,
        Api.TOKEN: 1,
    }
    assert count_answers(calls) == 5


class Ledger:
    """The store's counts, which a test sets; fails and hangs as it says."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.asked: list[str] = []
        self.fault: StoreError | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self, month: str) -> Mapping[str, int]:
        self.asked.append(month)
        counts = self.counts.get(month, {})
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault
        return counts


def of(clock: FakeClock, openapi: int, webhook: int = 0) -> dict[str, dict[str, int]]:
    return {month_of(clock.wall()): {Api.DIRECT: openapi, Api.WEBHOOK: webhook}}


async def test_a_store_that_is_away_is_told_of_while_nothing_is_known() -> None:
    """Who asks then decides without; as soon as there are counts, these hold, and are read again in a minute."""
    clock, ledger = FakeClock(), Ledger()
    budget = MonthlyBudget(STANDARD, ledger.read, clock)
    ledger.fault = StoreError("away")
    for _ in range(2):
        with pytest.raises(StoreError):
            await budget.refresh()
    ledger.fault, ledger.counts = None, of(clock, 5)
    assert (await budget.refresh()).used.openapi == 5
    await clock.advance(REFRESH_S)
    ledger.fault = StoreError("away")
    asked = len(ledger.asked)
    for _ in range(3):
        assert (await budget.refresh()).used.openapi == 5
    assert len(ledger.asked) == asked + 1, "an answer does not wait for a store that was just asked"
    ledger.fault, ledger.counts = None, of(clock, 9)
    await clock.advance(REFRESH_S)
    assert (await budget.refresh()).used.openapi == 9


async def test_a_store_that_is_slow_holds_up_one_answer() -> None:
    """The others go on with the counts that there are."""
    clock, ledger = FakeClock(), Ledger()
    ledger.counts = of(clock, 5)
    budget = MonthlyBudget(STANDARD, ledger.read, clock)
    await budget.refresh()
    await clock.advance(REFRESH_S)
    ledger.answers.clear()
    slow = asyncio.create_task(budget.refresh())
    await clock.settle()
    assert (await budget.refresh()).used.openapi == 5
    ledger.answers.set()
    await slow


async def test_the_old_months_counts_come_too_late() -> None:
    """Read before midnight and there after it, they are not taken for the new month's."""
    clock, ledger = FakeClock(), Ledger()
    ledger.counts = of(clock, 4_000)
    budget = MonthlyBudget(STANDARD, ledger.read, clock)
    await budget.refresh()
    await clock.advance(REFRESH_S)
    ledger.answers.clear()
    late = asyncio.create_task(budget.refresh())
    await clock.settle()
    clock.jump(31 * 86_400)
    early, ledger.answers = ledger.answers, asyncio.Event()
    ledger.answers.set()
    assert (await budget.refresh()).used.openapi == 0
    early.set()
    await late
    assert (await budget.refresh()).used.openapi == 0


async def test_calls_are_seen_as_soon_as_they_are_made() -> None:
    """Between two readings, so that a burst within a minute does not run beyond the month."""
    clock, ledger = FakeClock(), Ledger()
    budget, calls = MonthlyBudget(STANDARD, ledger.read, clock), CallCounter(clock)
    calls.listen(budget.count)
    await budget.refresh()
    for _ in range(3):
        calls.count(Api.CARD_STREAM)
    calls.count(Api.RECEIPT)
    assert (await budget.refresh()).used == BillableCalls(3, 1)
    assert (budget.read_left("openapi"), budget.read_left("webhook")) == (4_997, 2_999)


async def test_what_is_left() -> None:
    """Never below nothing, and without end where there is no limit."""
    clock, ledger = FakeClock(), Ledger()
    ledger.counts = of(clock, 6_000, 10)
    limited, unlimited = (MonthlyBudget(quotas, ledger.read, clock) for quotas in (STANDARD, Quotas(0, 0)))
    assert limited.read_left("openapi") == 5_000, "nothing was read yet"
    for budget in (limited, unlimited):
        await budget.refresh()
    assert (limited.read_left("openapi"), limited.read_left("webhook")) == (0, 2_990)
    assert limited.used_part(await limited.refresh()) == (1.2, 10 / 3_000)
    assert math.isinf(unlimited.read_left("openapi"))
    assert unlimited.used_part(await unlimited.refresh()) == (0.0, 0.0)


async def test_the_report_of_a_month() -> None:
    """What /status and /usage say: used, limit, answers, and what answers may cost by that."""
    clock, ledger = FakeClock(), Ledger()
    ledger.counts = of(clock, 4_990, 10)
    assert await MonthlyBudget(STANDARD, ledger.read, clock).report() == {
        "month": month_of(clock.wall()),
        "openapi": {"used": 4_990, "limit": 5_000},
        "webhook": {"used": 10, "limit": 3_000},
        "answers": 5_000,
        "plan": "markdown",
    }
    report = await MonthlyBudget(Quotas(0, 0), ledger.read, clock).report()
    assert report["openapi"] == {"used": 4_990, "limit": None}
    assert report["plan"] == "full"
    ledger.fault = StoreError("away")
    with pytest.raises(StoreError):
        await MonthlyBudget(STANDARD, ledger.read, clock).report()

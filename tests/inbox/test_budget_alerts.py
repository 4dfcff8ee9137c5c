"""Telling the owner that the month's calls run out: once for each level, whatever fails in between."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from claw.dingtalk.budget import MonthlyBudget, Quotas
from claw.dingtalk.quota import Api
from claw.errors import StoreError
from claw.inbox.budget_alerts import ITEM_PREFIX, BudgetAlerts
from claw.messages import Answer, Outcome
from claw.store.sqlite.store import SqliteStore
from claw.store.values import RowKind
from tests.clock import FakeClock

QUOTAS = Quotas(1_000, 100)


class Wording:
    """Says what it was told."""

    def budget_alert(self, quota: str, used: int, limit: int) -> Answer:
        return Answer.of(f"{quota} {used}/{limit}", Outcome.ANSWERED)


class Kit:
    """Replicas over one store; a test sets the counts, and moves the clock."""

    def __init__(self, store: SqliteStore, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.openapi = self.webhook = 0
        self.owners = ["u-boss"]

    async def _read(self, _: str) -> Mapping[str, int]:
        return {Api.CARD_STREAM: self.openapi, Api.WEBHOOK: self.webhook}

    async def _find_owners(self) -> list[str]:
        return self.owners

    def make(self, replica: str = "a") -> BudgetAlerts:
        return BudgetAlerts(
            budget=MonthlyBudget(QUOTAS, self._read, self.clock),
            config=self.store,
            inbox=self.store,
            find_owners=self._find_owners,
            wording=Wording(),
            robot_code="dingfakeclient",
            replica=replica,
            clock=self.clock,
        )

    async def read_told(self) -> list[str]:
        """Take what was put into the inbox: to whom, and what."""
        told = []
        while (lease := await self.store.claim("test", 30.0)) is not None:
            assert lease.kind is RowKind.ALERT
            assert lease.answer is not None
            told.append(f"{lease.inbound.sender.staff_id} {lease.answer.text}")
            await self.store.ack(lease, None)
        return told


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "claw.db", clock=clock)
    await store.open()
    yield Kit(store, clock)
    await store.close()


async def minutes(kit: Kit, alerts: BudgetAlerts, count: int = 3) -> None:
    """Let the upkeep look, each minute."""
    for _ in range(count):
        await kit.clock.advance(60)
        await alerts.check()


async def test_nothing_is_told_while_there_is_enough(kit: Kit) -> None:
    """Up to 80 % of either quota."""
    kit.openapi, kit.webhook = 799, 79
    await minutes(kit, kit.make())
    assert await kit.read_told() == []


@pytest.mark.parametrize("quota", ["openapi", "webhook"])
async def test_each_level_is_told_once(kit: Kit, quota: str, caplog: pytest.LogCaptureFixture) -> None:
    """At 80 % and at 95 %, for each of the two quotas; a restart repeats nothing."""
    caplog.set_level(logging.WARNING)
    limit = getattr(QUOTAS, quota)
    setattr(kit, quota, limit * 80 // 100)
    await minutes(kit, kit.make())
    setattr(kit, quota, limit * 94 // 100)
    await minutes(kit, kit.make())
    assert await kit.read_told() == [f"u-boss {quota} {limit * 80 // 100}/{limit}"]
    setattr(kit, quota, limit * 95 // 100)
    await minutes(kit, kit.make())
    setattr(kit, quota, limit * 2)
    await minutes(kit, kit.make())
    assert await kit.read_told() == [f"u-boss {quota} {limit * 95 // 100}/{limit}"]
    assert caplog.messages == ["the month's calls run out"] * 2


async def test_both_levels_at_once_are_one_alert(kit: Kit) -> None:
    """The graver one is told; the other one is not told after it, should the counts be lost."""
    kit.openapi = 990
    await minutes(kit, kit.make())
    kit.openapi = 850
    await minutes(kit, kit.make())
    assert await kit.read_told() == ["u-boss openapi 990/1000"]


async def test_of_several_replicas_one_tells(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    """They look in the same minute; each owner gets one message, and one log has the line."""
    caplog.set_level(logging.WARNING)
    kit.openapi, kit.owners = 850, ["u-boss", "u-second"]
    replicas = [kit.make("a"), kit.make("b")]
    # Both have looked before either of them has noted it.
    first = replicas[0]
    month = await first.budget.refresh()
    for each in replicas:
        await each._tell("openapi", [0.8], month, kit.owners)
    for each in replicas:
        await minutes(kit, each)
    assert await kit.read_told() == ["u-boss openapi 850/1000", "u-second openapi 850/1000"]
    assert caplog.messages == ["the month's calls run out"]


async def test_a_store_that_fails_in_between_keeps_it_from_nobody(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next look tells it, and who was told already hears of it once."""
    kit.openapi, kit.owners = 850, ["u-boss", "u-second"]
    put, count = kit.store.put, 0

    async def fail_second(*args: object) -> bool:
        nonlocal count
        count += 1
        if count == 2:
            raise StoreError("away")
        return await put(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(kit.store, "put", fail_second)
    alerts = kit.make()
    with pytest.raises(StoreError):
        await alerts.check()
    await minutes(kit, alerts)
    assert sorted(await kit.read_told()) == ["u-boss openapi 850/1000", "u-second openapi 850/1000"]


async def test_a_new_month_is_told_anew(kit: Kit) -> None:
    """What was told in the old one is forgotten."""
    kit.openapi = 850
    alerts = kit.make()
    await minutes(kit, alerts)
    assert len(await kit.store.items(ITEM_PREFIX)) == 1
    kit.clock.jump(31 * 86_400)
    await minutes(kit, alerts)
    assert await kit.read_told() == ["u-boss openapi 850/1000"] * 2
    assert len(await kit.store.items(ITEM_PREFIX)) == 1


async def test_who_becomes_the_owner_later_is_told_then(kit: Kit) -> None:
    """Without an owner nothing counts as told."""
    kit.openapi, kit.owners = 850, []
    alerts = kit.make()
    await minutes(kit, alerts)
    assert await kit.store.items(ITEM_PREFIX) == {}
    kit.owners = ["u-late"]
    await minutes(kit, alerts)
    assert await kit.read_told() == ["u-late openapi 850/1000"]


async def test_unlimited_calls_are_never_used_up(kit: Kit) -> None:
    """0 means no limit."""
    kit.openapi = kit.webhook = 10**7
    alerts = kit.make()
    await BudgetAlerts(
        budget=MonthlyBudget(Quotas(0, 0), kit._read, kit.clock),
        config=kit.store,
        inbox=kit.store,
        find_owners=kit._find_owners,
        wording=Wording(),
        robot_code="dingfakeclient",
        replica="a",
        clock=kit.clock,
    ).check()
    assert await kit.read_told() == []
    await alerts.check()
    assert len(await kit.read_told()) == 2

"""Telling the owner that the month's budget runs out: once at 80 %, once at 95 %, for each of the two quotas.

Order of events: the janitor calls `check` each minute. The alert is a row of the inbox like any other (alerts.py), of
a name by which repeats are known: of all replicas one tells it. Then what was told is kept as an item, so that nothing
is repeated after the inbox has forgotten the row; the items of earlier months go.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from claw.clock import Clock
from claw.dingtalk.budget import MonthlyBudget, MonthSoFar
from claw.dingtalk.quota import BillableCalls, month_of
from claw.inbox.alerts import make_alert
from claw.messages import Answer
from claw.secret import hash_id
from claw.store.ports import ConfigStore, Inbox

log: Final = logging.getLogger(__name__)

LEVELS: Final = (0.95, 0.8)
"""Parts of a quota at which the owner is told, the graver first."""
ITEM_PREFIX: Final = "budget_told:"


class BudgetWording(Protocol):
    """What is said of it, in the operator's language."""

    def budget_alert(self, quota: str, used: int, limit: int) -> Answer:
        """Tell an owner that a part of a quota (a field of BillableCalls) is used up."""
        ...


@dataclass(frozen=True)
class BudgetAlerts:
    """Looks at the budget; `find_owners` returns the owners' staff ids, `replica` is this process' name."""

    budget: MonthlyBudget
    config: ConfigStore
    inbox: Inbox
    find_owners: Callable[[], Awaitable[Collection[str]]]
    wording: BudgetWording
    robot_code: str
    replica: str
    clock: Clock

    async def check(self) -> None:
        """Tell what is due. Raises StoreError."""
        month = await self.budget.refresh()
        for quota, part in zip(BillableCalls._fields, self.budget.used_part(month), strict=True):
            # Where both are passed at once the graver one is told, and the other one with it.
            passed = [level for level in LEVELS if part >= level]
            if not passed or await self._is_told(quota, passed[0]):
                continue
            # Without an owner nothing may be settled: whoever becomes the owner later in the month is told then.
            owners = await self.find_owners()
            if owners:
                await self._tell(quota, passed, month, owners)

    async def _tell(self, quota: str, passed: list[float], month: MonthSoFar, owners: Collection[str]) -> None:
        used, limit = getattr(month.used, quota), getattr(self.budget.quotas, quota)
        answer = self.wording.budget_alert(quota, used, limit)
        for owner in sorted(owners):
            # By its name a second row is known as a repeat: of several replicas that see it in the same minute, and of
            # one that dies between two lines here and looks again, each owner gets one.
            name = f"budget:{self._month}:{quota}:{passed[0]}:{hash_id(owner)}"
            await self.inbox.put(make_alert(self.robot_code, owner, name, answer, self.clock.wall()))
        # After the rows: were it noted first, a store that fails in between would keep the alert from everybody.
        won = await self.config.set_if_absent(self._name(quota, passed[0]), self.replica) == self.replica
        for level in passed[1:]:
            await self.config.set_if_absent(self._name(quota, level), self.replica)
        if won:
            log.warning("the month's calls run out", extra={"quota": quota, "used": used, "limit": limit})

    async def _is_told(self, quota: str, level: float) -> bool:
        """Return whether that was told this month; what was told in others is dropped."""
        told = await self.config.items(ITEM_PREFIX)
        if old := [name for name in told if not name.startswith(f"{ITEM_PREFIX}{self._month}:")]:
            await self.config.delete(*old)
        return self._name(quota, level) in told

    def _name(self, quota: str, level: float) -> str:
        return f"{ITEM_PREFIX}{self._month}:{quota}:{level}"

    @property
    def _month(self) -> str:
        return month_of(self.clock.wall())

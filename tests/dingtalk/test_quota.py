"""What DingTalk bills: the month of a call, counts that are not lost, and their sum."""

from __future__ import annotations

from claw.dingtalk.quota import Api, CallCounter, sum_billable
from tests.clock import FakeClock


def test_tokens_are_free_and_webhooks_have_a_quota_of_their_own() -> None:
    """The sum leaves out what costs nothing; a name that only a newer claw knows is counted."""
    calls = {"token": 9, "webhook": 5, "direct": 2, "group": 1, "download": 4, "card": 3}
    assert sum_billable(calls) == (10, 5)
    assert sum_billable(calls).total == 15
    assert sum_billable({}).total == 0


async def test_months_begin_in_shanghai(clock: FakeClock) -> None:
    """A call at 16:00 UTC on the last day of a month counts for the next one."""
    calls = CallCounter(clock)
    clock.jump(1_796_054_399 - clock.wall())  # 2026-11-30 15:59:59 UTC
    calls.count(Api.WEBHOOK)
    clock.jump(1)
    calls.count(Api.WEBHOOK)
    calls.count(Api.DIRECT)
    assert calls.peek() == {"2026-11": {"webhook": 1}, "2026-12": {"webhook": 1, "direct": 1}}


async def test_taken_counts_are_given_once_and_can_be_put_back(clock: FakeClock) -> None:
    """What the ledger could not keep is counted again."""
    calls = CallCounter(clock)
    calls.count(Api.GROUP)
    taken = calls.take()
    assert calls.take() == {}
    calls.put_back(taken)
    calls.count(Api.GROUP)
    assert calls.take() == {"2027-01": {"group": 2}}

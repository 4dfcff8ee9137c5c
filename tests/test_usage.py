"""What people used is counted once, whatever the store does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from claw.errors import StoreError
from claw.store.values import UsageRow
from claw.usage import UsageCounter
from tests.clock import FakeClock
from tests.messages import inbound


class Ledger:
    """A store that can fail."""

    def __init__(self) -> None:
        self.rows: list[UsageRow] = []
        self.away = False

    async def add_calls(self, month: str, calls: object) -> None:
        raise AssertionError

    async def calls(self, month: str) -> dict[str, int]:
        raise AssertionError

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        if self.away:
            raise StoreError("away")
        self.rows += rows

    async def usage(self, since: str) -> list[UsageRow]:
        return [row for row in self.rows if row.day >= since]


async def test_counts_are_saved_once() -> None:
    """What was saved is not saved again, and what could not be saved is kept for the next time."""
    ledger = Ledger()
    counter = UsageCounter(ledger, "Asia/Shanghai", FakeClock())
    asked = inbound("hello")
    counter.count_question(asked, 10, 3)
    ledger.away = True
    with pytest.raises(StoreError):
        await counter.save()
    counter.count_question(asked, 1, 1)
    ledger.away = False
    await counter.save()
    await counter.save()
    (row,) = ledger.rows
    assert (row.questions, row.tokens_in, row.tokens_out, row.person) == (2, 11, 4, asked.sender.key)


async def test_what_is_not_saved_yet_is_read() -> None:
    """A page shows a question at once: what is kept and what was counted since add up."""
    ledger = Ledger()
    counter = UsageCounter(ledger, "Asia/Shanghai", FakeClock())
    counter.count_question(inbound("one"), 1, 1)
    await counter.save()
    counter.count_question(inbound("two"), 1, 1)
    counter.count_vote(inbound("x").sender.key, inbound("x").conversation.id, True)
    (row,) = await counter.read(counter.today())
    assert (row.questions, row.up, row.down) == (2, 1, 0)
    assert await counter.read("9999-01-01") == []

"""Alerts to the owner: each kind once an hour, to every owner, once for one trouble, and nothing where they are off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claw.inbox.alerts import ALERT_INTERVAL_S
from claw.inbox.operator_alerts import LASTED_S, AlertKind, OperatorAlerts, RunMarks, Trouble
from claw.language import Language
from claw.store.sqlite.store import SqliteStore
from claw.store.values import RowKind
from claw.turn.languages import PersonalLanguages
from claw.turn.notices import Notices
from tests.clock import FakeClock

OWNERS = ["u-1", "u-2"]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "claw.db", clock=FakeClock())
    await made.open()
    yield made
    await made.close()


def alerts(store: SqliteStore, owners: list[str] | None = None) -> OperatorAlerts:
    async def find_owners() -> list[str]:
        return OWNERS if owners is None else owners

    notices = Notices(Language.EN, PersonalLanguages(store, Language.EN))
    return OperatorAlerts(store, store.once_per, find_owners, notices, "robot", store._clock)


async def told(store: SqliteStore) -> list[tuple[str, str]]:
    """Take all alerts out of the inbox: to whom, and what."""
    found = []
    while (lease := await store.claim("test", 30)) is not None:
        assert lease.kind is RowKind.ALERT
        assert lease.answer is not None
        found.append((lease.inbound.sender.staff_id, lease.answer.text))
        await store.ack(lease)
    return found


async def test_each_owner_is_told_once_an_hour(store: SqliteStore) -> None:
    """Of one kind one alert an hour, to each owner; another kind has an hour of its own."""
    made = alerts(store)
    for _ in range(3):
        await made.tell(AlertKind.MODEL_REFUSED, "unauthorized: check OPENAI_API_KEY")
    await made.tell(AlertKind.STORE, "disk full", 120)
    found = await told(store)
    assert sorted(who for who, _ in found) == ["u-1", "u-1", "u-2", "u-2"]
    assert sum("OPENAI_API_KEY" in text for _, text in found) == 2
    assert sum("for 2 min" in text for _, text in found) == 2
    clock = store._clock
    assert isinstance(clock, FakeClock)
    await clock.advance(ALERT_INTERVAL_S + 1)
    await made.tell(AlertKind.MODEL_REFUSED, "quota")
    assert len(await told(store)) == 2


async def test_without_an_owner_nothing_counts_as_told(store: SqliteStore) -> None:
    """Where alerts are off, or nobody owns the robot, nothing is put; who becomes the owner hears of the next time."""
    await alerts(store, []).tell(AlertKind.REJECTED, "wrong secret")
    assert await told(store) == []
    await alerts(store).tell(AlertKind.REJECTED, "wrong secret")
    assert len(await told(store)) == 2


@pytest.mark.parametrize("kind", AlertKind)
@pytest.mark.parametrize("cause", ["", "x" * 5000, "[a](http://h) <b> *c* `d`\n# e", "\ud83d", "{cause} {0}"])
async def test_whatever_the_cause_is_it_is_told(store: SqliteStore, kind: AlertKind, cause: str) -> None:
    """A cause in anybody's words breaks neither the sentence nor its markup."""
    await alerts(store).tell(kind, cause, 90)
    (_, text), _ = await told(store)
    assert text.startswith("⚠️")
    assert len(text) < 700
    assert "](http" not in text


async def test_trouble_is_told_at_its_end_if_it_lasted(store: SqliteStore) -> None:
    """What was over within a minute is no alert; what lasted is told once, with its time."""
    clock = store._clock
    assert isinstance(clock, FakeClock)
    trouble = Trouble(AlertKind.STORE, alerts(store), clock)
    await trouble.note("")
    await trouble.note("disk full")
    await clock.advance(LASTED_S - 1)
    await trouble.note("")
    assert await told(store) == []
    await trouble.note("disk full")
    await clock.advance(LASTED_S)
    await trouble.note("disk full, still")
    await clock.advance(240)
    assert await told(store) == []
    await trouble.note("")
    await trouble.note("")
    found = await told(store)
    assert len(found) == 2
    assert "for 5 min" in found[0][1]
    assert "still" in found[0][1]


async def test_a_mark_that_was_left_tells_of_an_end_without_a_word(store: SqliteStore) -> None:
    """An ordinary end takes the mark away; another process' mark is found once, one's own at the very start."""
    clock = store._clock
    first = RunMarks(store, store, "host:1", clock)
    assert await first.begin()
    await first.end()
    assert await first.begin()
    # Killed here. In a container the next process has the same name.
    assert not await RunMarks(store, store, "host:1", clock).begin()
    second = RunMarks(store, store, "host:2", clock)
    assert await second.begin()
    assert await second.find_left() == ["host:1"]
    assert await second.find_left() == []

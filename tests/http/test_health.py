"""Health: liveness is about us alone, readiness about everything, and both answer at once."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from claw.checks import Check
from claw.clock import format_rfc3339
from claw.errors import StoreError
from claw.http import health as module
from claw.http.health import CACHE_S, Health, check_store, reason_of
from claw.store.sqlite.store import SqliteStore
from tests.clock import FakeClock

OK = Check(ok=True, state="OPEN", since=1_800_000_000.5)


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> Health:
    return Health(clock, check_timeout=0.05)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "claw.db")
    await store.open()
    yield store
    await store.close()


# --- readiness ---------------------------------------------------------------------------------------------------


async def test_the_body_is_that_of_the_contract(health: Health) -> None:
    """A report has its word and every check with ok, state, reason and since (RFC 3339; null where unknown)."""
    health.add("stream", lambda: Check(ok=False, state="BACKOFF", reason="refused", since=1_800_000_000.0))
    health.add("store", lambda: Check(ok=True))
    report = await health.readiness()
    assert not report.ok
    assert report.to_json() == {
        "status": "not ready",
        "checks": {
            "stream": {"ok": False, "state": "BACKOFF", "reason": "refused", "since": "2027-01-15T08:00:00.000Z"},
            "store": {"ok": True, "state": "", "reason": "", "since": None},
            "drain": {"ok": True, "state": "SERVING", "reason": "", "since": "2027-01-15T08:00:00.000Z"},
        },
    }
    json.dumps(report.to_json())


async def test_reasons_of_checks_are_redacted(health: Health) -> None:
    """What a check says of itself is shown without secrets, since anybody may ask."""
    health.add("store", lambda: Check(ok=False, reason="at https://h/?access_token=abcdef"))
    report = (await health.readiness()).to_json()
    assert report["checks"]["store"]["reason"] == "at https://h/?access_token=***"


async def test_ready_when_all_checks_are(health: Health) -> None:
    """All checks ok: ready, plain ones and coroutines alike."""

    async def slow() -> Check:
        await asyncio.sleep(0)
        return OK

    health.add("stream", lambda: OK)
    health.add("store", slow)
    report = await health.readiness()
    assert (report.ok, report.status) == (True, "ready")
    assert report.checks["store"] is OK


class StrangeError(Exception):
    """An error nobody expects."""


async def cancelled() -> Check:
    future: asyncio.Future[Check] = asyncio.get_running_loop().create_future()
    future.cancel()
    return await future


async def silent() -> Check:
    await forever()
    return OK


async def failing(error: Exception) -> Check:
    raise error


def failing_at_once() -> Check:
    raise StrangeError("ticket=abcdef")


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (silent, "no answer within 0.05 s"),
        (cancelled, "what it waits for was cancelled"),
        (lambda: failing(TimeoutError("the disk is slow")), "TimeoutError: the disk is slow"),
        (lambda: failing(StoreError("disk\nfull")), "StoreError: disk full"),
        (lambda: failing(StrangeError()), "StrangeError"),
        (failing_at_once, "StrangeError: ticket=***"),
        (lambda: failing(StrangeError("x" * 999)), "StrangeError: " + "x" * 283 + "..."),
    ],
)
async def test_a_check_that_fails_is_an_answer(health: Health, check: Any, reason: str) -> None:
    """A check that hangs, raises or was cancelled is not ok, with one short line of cause and without secrets."""
    health.add("store", check)
    health.add("stream", lambda: OK)
    report = await health.readiness()
    assert not report.ok
    assert report.checks["store"] == Check(ok=False, state="UNKNOWN", reason=reason)
    assert report.checks["stream"].ok


async def test_checks_run_at_the_same_time(health: Health) -> None:
    """Checks do not queue behind each other: each may wait for the other one."""
    first, second = asyncio.Event(), asyncio.Event()

    async def one() -> Check:
        first.set()
        await second.wait()
        return OK

    async def two() -> Check:
        second.set()
        await first.wait()
        return OK

    health.add("one", one)
    health.add("two", two)
    assert (await health.readiness()).ok


async def test_many_probes_cost_one_round(health: Health, clock: FakeClock) -> None:
    """Probes at the same moment share one round of checks; the next moment has its own."""
    asked = 0
    gate = asyncio.Event()

    async def count() -> Check:
        nonlocal asked
        asked += 1
        await gate.wait()
        return OK

    health = Health(clock, check_timeout=30)
    health.add("store", count)
    probes = [asyncio.create_task(health.readiness()) for _ in range(100)]
    await clock.settle()
    gate.set()
    assert all([(await probe).ok for probe in probes])
    assert asked == 1
    await clock.advance(CACHE_S)
    await health.readiness()
    assert asked == 2


async def test_cancelling_a_probe_cancels_its_checks(clock: FakeClock) -> None:
    """A probe that is cancelled ends at once, takes its checks along, and the next one is answered."""
    ended = asyncio.Event()
    hang = True

    async def check() -> Check:
        try:
            if hang:
                await forever()
        finally:
            ended.set()
        return OK

    health = Health(clock, check_timeout=30)
    health.add("store", check)
    probe = asyncio.create_task(health.readiness())
    await clock.settle()
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    await ended.wait()
    hang = False
    assert (await health.readiness()).ok


async def test_draining_is_seen_at_once(health: Health, clock: FakeClock) -> None:
    """After `drain` no probe is told ready, not even from kept answers; `since` is its moment and stays."""
    health.add("stream", lambda: OK)
    assert (await health.readiness()).ok
    health.drain()
    since = clock.wall()
    await clock.advance(1)
    health.drain()
    report = await health.readiness()
    assert not report.ok
    assert report.checks["drain"] == Check(ok=False, state="DRAINING", reason="stopping", since=since)
    assert health.liveness().ok


async def test_the_store_is_asked_for_more_than_a_write(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes writes is open; one whose messages nobody works on is not ready, and the reason says so."""
    assert await check_store(store) == Check(ok=True, state="OPEN")

    async def depth() -> Any:
        return SimpleNamespace(pending=7, leased=0, dead=0, oldest_age=312.4, stuck=True)

    monkeypatch.setattr(store, "depth", depth)
    check = await check_store(store)
    assert (check.ok, check.state) == (False, "STUCK")
    assert check.reason == "7 messages wait, the oldest for 312 s, and nobody works on them"


async def test_a_store_that_fails_says_why(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of a store that would not be found again, or does not answer, is the store's own sentence."""
    reason = "the file /data/claw.db was replaced: a restart would open another one"

    async def check() -> None:
        raise StoreError(reason)

    monkeypatch.setattr(store, "check", check)
    assert await check_store(store) == Check(ok=False, state="FAILING", reason=reason)
    monkeypatch.undo()
    await store.close()
    assert await check_store(store) == Check(ok=False, state="FAILING", reason="the store is closed")


# --- liveness ----------------------------------------------------------------------------------------------------


async def test_alive_whatever_the_world_does(health: Health) -> None:
    """Liveness asks no check: DingTalk, the model and the store are no reason for a restart."""
    health.add("stream", lambda: Check(ok=False))
    health.add("store", failing_at_once)
    task = asyncio.create_task(forever(), name="supervisor")
    health.own(task)
    report = health.liveness()
    assert (report.ok, report.status) == (True, "ok")
    assert list(report.checks) == ["tasks"]
    task.cancel()
    await asyncio.wait([task])


async def crash() -> None:
    raise ValueError("session=abc")


async def leave() -> None:
    pass


@pytest.mark.parametrize(
    ("work", "how"), [(crash, "failed: ValueError: session=***"), (leave, "returned"), (forever, "was cancelled")]
)
async def test_an_owned_task_that_ends_fails_liveness(
    health: Health, work: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However an owned task ends, liveness fails for good with its name and cause, and the log says so."""
    task = asyncio.create_task(work(), name="worker.3")
    health.own(task)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    report = health.liveness()
    assert not report.ok
    assert report.to_json()["checks"]["tasks"]["reason"] == f"worker.3 {how}"
    assert report.status == "failing"
    record = next(record for record in caplog.records if record.name == "claw.http.health")
    assert (record.levelno, record.__dict__["task"]) == (logging.CRITICAL, "worker.3")


async def test_the_first_loss_is_told(health: Health) -> None:
    """Of several lost tasks the first one is named: the others are mostly its consequence."""
    first, second = asyncio.create_task(crash(), name="first"), asyncio.create_task(forever(), name="second")
    health.own(first)
    health.own(second)
    await asyncio.wait([first])
    second.cancel()
    await asyncio.wait([second])
    await asyncio.sleep(0)
    assert health.liveness().checks["tasks"].reason.startswith("first failed")


async def test_a_task_that_is_over_already_is_lost(health: Health) -> None:
    """A task that ended before it was handed over counts as lost all the same."""
    task = asyncio.create_task(leave(), name="early")
    await task
    health.own(task)
    await asyncio.sleep(0)
    assert not health.liveness().ok


@pytest.mark.parametrize("work", [crash, leave, forever])
async def test_tasks_may_end_while_draining(health: Health, work: Any) -> None:
    """While draining, owned tasks end as they like, and liveness stays: a kill would cut the drain short."""
    task = asyncio.create_task(work(), name="worker")
    health.own(task)
    health.drain()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert health.liveness().ok


# --- watchdog ----------------------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """Collects records and lets another thread wait for the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.first = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.first.set()


async def test_a_stalled_loop_is_told_once_with_its_stack() -> None:
    """A loop that does not turn gets every thread's stack written once, from outside of it."""
    heard = Heard()
    module.log.addHandler(heard)
    health = Health(stall_after=0.15)
    health.start()
    try:
        await asyncio.sleep(0)
        assert heard.first.wait(30), "the watchdog did not speak"
        threading.Event().wait(0.3)
        stalls = [record for record in heard.records if record.getMessage() == "the event loop does not turn"]
        assert len(stalls) == 1
        stacks = stalls[0].__dict__["stacks"]
        assert any("test_a_stalled_loop" in stack for stack in stacks.values())
        assert not any("_watch" in stack for stack in stacks.values())
    finally:
        await health.stop()
        module.log.removeHandler(heard)


async def test_the_watchdog_leaves_nothing() -> None:
    """After `stop` neither the thread nor the task is left; stopping twice or unstarted is no error."""
    before = set(threading.enumerate())
    health = Health()
    await health.stop()
    health.start()
    assert set(threading.enumerate()) - before
    await health.stop()
    await health.stop()
    assert set(threading.enumerate()) <= before
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- small things ------------------------------------------------------------------------------------------------


def test_reasons_and_times_are_readable() -> None:
    """Times are RFC 3339 in UTC with milliseconds; an error without text is only its type."""
    assert format_rfc3339(0.0) is None
    assert format_rfc3339(1.5) == "1970-01-01T00:00:01.500Z"
    assert reason_of(KeyError()) == "KeyError"

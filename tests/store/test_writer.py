"""The writer by itself: what shares a commit, what a failure undoes, and what callers are told."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from claw.errors import ClawError, StoreBusyError, StoreError
from claw.store.sqlite.schema import Database
from claw.store.sqlite.writer import BATCH_WINDOW_S, JobKind, Writer
from tests.clock import FakeClock


class Harness:
    """A writer over a file of its own, and what it has reconciled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reconciled: list[list[str]] = []
        self.writer = Writer(Database(path), FakeClock(), names, self.reconciled.append)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the thread busy with a batch of its own, so that what is submitted meanwhile is one batch."""
        began, go = threading.Event(), threading.Event()

        def block(_: sqlite3.Connection) -> None:
            began.set()
            go.wait(30)

        blocked = self.writer.submit(block, kind=JobKind.FLUSH)
        began.wait(30)
        yield
        go.set()
        assert not blocked.done(), "its callback needs the loop"


def add(connection: sqlite3.Connection, name: str) -> str:
    connection.execute("INSERT INTO meta VALUES (?, 1)", (name,))
    return name


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM meta WHERE name != 'store_id' ORDER BY name")]


@pytest_asyncio.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    threads = set(threading.enumerate())
    harness = Harness(tmp_path / "claw.db")
    await harness.writer.start()
    yield harness
    await harness.writer.stop()
    assert set(threading.enumerate()) <= threads


async def test_a_job_is_on_the_disk_when_its_future_is_resolved(harness: Harness) -> None:
    """Whoever reads the file from outside finds it then."""
    assert await harness.writer.submit(add, "a") == "a"
    with contextlib.closing(sqlite3.connect(harness.path)) as connection:
        assert names(connection) == ["a"]


async def test_what_gathers_is_one_commit_in_the_order_of_the_calls(harness: Harness) -> None:
    """Jobs that come while the thread is busy share one transaction, and are resolved in order."""
    done: list[str] = []
    with harness.busy():
        before = harness.writer.commits
        jobs = [harness.writer.submit(add, f"{n}", on_commit=done.append) for n in range(100)]
    assert await asyncio.gather(*jobs) == [f"{n}" for n in range(100)] == done
    assert harness.writer.commits - before <= 2, "one is of the job that kept the thread busy"


async def test_a_write_waits_for_company_and_a_flush_does_not(harness: Harness) -> None:
    """A write is committed with those of the next BATCH_WINDOW_S at the latest; a flush takes it along at once."""
    await harness.writer.submit(add, "first")
    before = harness.writer.commits
    waiting = harness.writer.submit(add, "waits")
    await harness.writer.submit(add, "flushes", kind=JobKind.FLUSH)
    assert waiting.done()
    assert harness.writer.commits == before + 1
    assert BATCH_WINDOW_S < 0.05, "DingTalk's ack may wait for one of these"


async def test_reads_alone_are_not_committed(harness: Harness) -> None:
    """A read costs no fsync, and sees what was written before it."""
    await harness.writer.submit(add, "a")
    before = harness.writer.commits
    assert await harness.writer.submit(names, kind=JobKind.READ) == ["a"]
    assert harness.writer.commits == before


async def test_a_job_without_a_transaction_keeps_its_place(harness: Harness) -> None:
    """What was submitted before it is committed before it runs."""

    def look(connection: sqlite3.Connection) -> tuple[bool, list[str]]:
        return connection.in_transaction, names(connection)

    with harness.busy():
        before = harness.writer.submit(add, "before")
        alone = harness.writer.submit(look, kind=JobKind.NO_TRANSACTION)
        after = harness.writer.submit(add, "after")
    assert await alone == (False, ["before"])
    await asyncio.gather(before, after)


async def test_a_failing_job_does_not_fail_its_batch(harness: Harness) -> None:
    """The good ones are kept, the bad one is undone as a whole and raises its own error."""
    told: list[str] = []

    def bad(connection: sqlite3.Connection) -> None:
        add(connection, "half")
        raise ValueError("bad")

    with harness.busy():
        first = harness.writer.submit(add, "a", on_commit=told.append)
        spoilt = harness.writer.submit(bad, on_error=lambda: told.append("error"))
        last = harness.writer.submit(add, "b", on_commit=told.append)
    with pytest.raises(StoreError, match="ValueError: bad"):
        await spoilt
    assert (await first, await last) == ("a", "b")
    assert told == ["a", "error", "b"]
    assert await harness.writer.submit(names, kind=JobKind.READ) == ["a", "b"]


async def test_a_broken_transaction_fails_all_and_the_next_is_fine(harness: Harness) -> None:
    """Each caller gets an error of its own; the memory is reconciled with the disk before anything else happens."""
    order: list[str] = []

    def broken(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with harness.busy():
        good = harness.writer.submit(add, "a", on_error=lambda: order.append("failed"))
        bad = harness.writer.submit(broken)
    errors = await asyncio.gather(good, bad, return_exceptions=True)
    assert all(isinstance(error, StoreError) and "disk I/O error" in str(error) for error in errors)
    assert errors[0] is not errors[1]
    assert harness.writer.committed_at is None
    await harness.writer.submit(add, "b", on_commit=order.append)
    assert order == ["failed", "b"]
    assert harness.reconciled == [[]], "read on the new connection, before b"
    assert harness.writer.committed_at is not None


async def test_an_error_of_ours_keeps_its_attributes(harness: Harness) -> None:
    """Callers get copies, and an error is more than its message."""

    class OddError(ClawError):
        def __init__(self, *, wait: float) -> None:
            super().__init__(f"wait {wait} s")
            self.retry_after = wait

    def odd(_: sqlite3.Connection) -> None:
        raise OddError(wait=7)

    with pytest.raises(OddError, match="wait 7 s") as caught:
        await harness.writer.submit(odd)
    assert caught.value.retry_after == 7


async def test_a_cancelled_caller_does_not_cancel_its_job(harness: Harness) -> None:
    """What was submitted is done, what follows from it too, and a failure that nobody waits for makes no noise."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    done: list[str] = []
    with harness.busy():
        kept = harness.writer.submit(add, "a", on_commit=done.append)
        failing = harness.writer.submit(
            lambda connection: connection.execute("SELECT nonsense()"), kind=JobKind.NO_TRANSACTION
        )
        kept.cancel()
        failing.cancel()
    assert await harness.writer.submit(names, kind=JobKind.READ) == ["a"]
    assert done == ["a"]
    assert not complaints


async def test_bookkeeping_that_fails_is_told_to_the_caller(harness: Harness) -> None:
    """A fault of ours after the commit is an error of that call, not the end of the thread."""

    def fail(_: str) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        await harness.writer.submit(add, "a", on_commit=fail)
    assert await harness.writer.submit(add, "b") == "b"


async def test_stop_does_what_is_queued(harness: Harness) -> None:
    """Jobs before the stop are done; after it nothing is taken, and a second stop returns."""
    jobs = [harness.writer.submit(add, f"{n}") for n in range(3)]
    await asyncio.gather(harness.writer.stop(), harness.writer.stop())
    assert await asyncio.gather(*jobs) == ["0", "1", "2"]
    with pytest.raises(StoreError, match="closed"):
        await harness.writer.submit(add, "late")
    harness.writer.post(add, "late")


async def test_a_file_that_another_holds_is_refused(harness: Harness) -> None:
    """`start` raises, leaves no thread, and so does what came in behind it."""
    other = Harness(harness.path)
    threads = set(threading.enumerate())
    starting = asyncio.create_task(other.writer.start())
    await asyncio.sleep(0)
    behind = other.writer.submit(add, "a")
    for refused in (starting, behind):
        with pytest.raises(StoreBusyError):
            await refused
    assert set(threading.enumerate()) <= threads

"""The database file under a running claw and between two: removed, replaced, cut, linked, lost; and what it costs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from claw.errors import StoreError
from claw.store.codec import StoredRow
from claw.store.sqlite import queries
from claw.store.sqlite.queries import NEWEST_STEP_S
from claw.store.sqlite.rows import READ_AHEAD_BYTES, RowCache, bytes_of
from claw.store.sqlite.store import SqliteStore
from claw.store.sqlite.writer import JobKind
from tests.clock import FakeClock
from tests.store.contract import TTL, claim, claimed_ids, inbound, put, row
from tests.store.test_sqlite import ROOT, SqliteWorld, wal


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[SqliteWorld]:
    world = SqliteWorld(tmp_path / "data" / "claw.db")
    await world.store.open()
    yield world
    await world.store.close()


# --- what a restart would find ---------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def replace_by_a_copy(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove_wal(path: Path) -> None:
    wal(path).unlink()


def replace_wal(path: Path) -> None:
    wal(path).unlink()
    wal(path).touch()


def empty_wal(path: Path) -> None:
    os.truncate(wal(path), 0)


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (remove, "cannot be found"),
        (replace_by_a_copy, "replaced by another file"),
        (empty, "was emptied"),
        (cut, "cut short|malformed|damaged"),
        (empty_wal, "overwritten"),
    ],
)
async def test_a_file_that_a_restart_would_not_find_fails_the_check(
    world: SqliteWorld, harm: Callable[[Path], None], words: str, busy: bool
) -> None:
    """The check says so with the reason, whether or not messages come in meanwhile, and goes on saying it."""
    for number in range(50):
        await world.store.put(row(inbound(number, "x" * 4000), f"lane{number}"))
    await world.store.clean()
    await put(world.store, "before")
    await world.store.check()
    harm(world.path)
    for number in range(3):
        if busy:
            await asyncio.gather(put(world.store, f"busy{number}"), return_exceptions=True)
        else:
            await world.later(60)
        if harm is empty_wal and not busy and number == 0:
            await world.store.check()  # Empty is what a cleaning leaves; the next write shows that it was not ours.
            continue
        with pytest.raises(StoreError, match=words):
            await world.store.check()


@pytest.mark.parametrize(
    ("harm", "words"),
    [(remove, "cannot be found"), (replace_by_a_copy, "replaced by another"), (empty, "was emptied")],
)
async def test_nothing_is_accepted_into_a_file_that_a_restart_would_not_find(
    world: SqliteWorld, harm: Callable[[Path], None], words: str
) -> None:
    """The first write after the harm fails, though SQLite says that it went well: it must not be acked to DingTalk."""
    await put(world.store, "before")
    harm(world.path)
    with pytest.raises(StoreError, match=words):
        await put(world.store, "after")


@pytest.mark.parametrize(("harm", "words"), [(remove_wal, "lost its -wal"), (replace_wal, "another -wal")])
async def test_a_lost_wal_fails_a_write_and_is_mended(
    world: SqliteWorld, harm: Callable[[Path], None], words: str
) -> None:
    """The write is refused, the connection closed, which moves what was lost into the file, and writes go on."""
    await put(world.store, "before")
    harm(world.path)
    with pytest.raises(StoreError, match=words):
        await put(world.store, "refused")
    await put(world.store, "after")
    await world.store.check()
    with closing(sqlite3.connect(world.path)) as outside:
        found = [bytes(inbound) for (inbound,) in outside.execute("SELECT inbound FROM inbox")]
    assert all(any(name in each for each in found) for name in (b"before", b"after"))


async def test_what_a_running_claw_does_itself_is_no_harm(world: SqliteWorld) -> None:
    """Growing, cleaning, shrinking and being looked at from outside: the check passes at any time."""
    for turn in range(3):
        puts = (world.store.put(row(inbound(f"{turn}.{n}", "x" * 4000), f"lane{n}")) for n in range(200))
        checks = (world.store.check() for _ in range(3))
        await asyncio.gather(*puts, *checks)
        with closing(sqlite3.connect(world.path)) as outside:
            assert outside.execute("SELECT count(*) FROM inbox").fetchone() == (200,)
        await world.store.check()
        while (lease := await world.store.claim("worker", TTL)) is not None:
            await world.store.ack(lease)
        await world.later(60)
        await asyncio.gather(world.store.clean(), world.store.check())
        await world.store.check()


async def test_a_failed_disk_makes_no_new_file(world: SqliteWorld) -> None:
    """A connection that has to be opened anew is not opened to another file that lies there by now."""
    await put(world.store, 1)
    world.path.rename(world.path.with_name("moved"))

    def break_down(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    await asyncio.gather(world.store._writer.submit(break_down), return_exceptions=True)
    with pytest.raises(StoreError, match="cannot be found"):
        await put(world.store, 2)
    assert not world.path.exists()
    world.path.with_name("moved").rename(world.path)
    assert await put(world.store, 2)
    await world.store.check()


# --- a store that is lost -------------------------------------------------------------------------------------------


async def reopened(world: SqliteWorld) -> SqliteStore:
    world.store = SqliteStore(world.path, clock=world.clock)
    await world.store.open()
    return world.store


def delete_database(path: Path) -> None:
    for each in (path, wal(path), path.with_name(f"{path.name}-shm")):
        each.unlink(missing_ok=True)


@pytest.mark.parametrize("harm", [delete_database, empty])
async def test_a_lost_store_is_not_a_new_one(
    world: SqliteWorld, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The lock beside it remembers that there was one: it is said, over restarts, until something is settled."""
    assert not world.store.lost
    await world.store.set("owner", "ann")
    before = await world.store.epoch("m")
    await world.store.close()
    harm(world.path)
    for _ in range(2):
        store = await reopened(world)
        assert store.lost
        assert await store.items() == {}
        assert await store.epoch("m") != before
        await put(store, 1)
        await store.close()
    assert [each.levelname for each in caplog.records if "store that was here" in each.message] == ["WARNING"] * 2
    store = await reopened(world)
    await store.set("owner", "bob")
    assert not store.lost
    await world.die()
    assert not world.store.lost
    await world.store.delete("owner")
    await world.die()
    assert not world.store.lost, "whoever deletes settings knows what he does"


async def test_a_start_that_was_broken_off_hides_no_loss(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between making the new file and writing its mark, the next start still knows."""
    await world.store.close()
    delete_database(world.path)
    with monkeypatch.context() as patch:
        patch.setattr("claw.store.sqlite.lock.LockFile.mark", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(StoreError, match="cannot open the store"):
            await SqliteStore(world.path).open()
    assert (await reopened(world)).lost


@pytest.mark.parametrize("how", ["new", "older", "copy"])
async def test_a_store_that_is_no_loss(world: SqliteWorld, how: str) -> None:
    """A first start, the file of a claw whose lock is empty, and a copy that was put back are as they should be."""
    await world.store.set("owner", "ann")
    await world.store.close()
    lock = world.path.with_name("claw.db.lock")
    if how == "new":
        delete_database(world.path)
        lock.unlink()
    elif how == "older":
        os.truncate(lock, 0)
    else:
        lock.write_text("0123456789abcdef")
    store = await reopened(world)
    assert not store.lost
    assert await store.items() == ({} if how == "new" else {"owner": "ann"})


# --- the lock --------------------------------------------------------------------------------------------------------

OPEN = (
    "import asyncio, sys; from pathlib import Path; from claw.store.sqlite.store import SqliteStore\n"
    "asyncio.run(SqliteStore(Path(sys.argv[1])).open())"
)


def open_elsewhere(path: Path) -> str:
    """What another process is told that opens it."""
    command = [sys.executable, "-c", OPEN, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stderr


@pytest.mark.parametrize("how", ["symlink", "hard link", "removed lock", "folder"])
async def test_the_file_itself_is_locked(world: SqliteWorld, tmp_path: Path, how: str) -> None:
    """By whatever name it is opened, and though the lock beside it is gone, the second is refused."""
    path = tmp_path / "other.db"
    if how == "symlink":
        path.symlink_to(world.path)
    elif how == "hard link":
        path.hardlink_to(world.path)
    elif how == "folder":
        (tmp_path / "link").symlink_to(world.path.parent)
        path = tmp_path / "link" / "claw.db"
    else:
        path = world.path
        path.with_name("claw.db.lock").unlink()
    complaint = await asyncio.to_thread(open_elsewhere, path)
    assert "StoreBusyError: another process holds the store" in complaint
    assert await put(world.store)
    await world.store.check()
    await world.store.close()
    assert await asyncio.to_thread(open_elsewhere, path) == ""


async def test_our_lock_does_not_hurt_those_of_sqlite(world: SqliteWorld) -> None:
    """While we hold the file, SQLite's own locks work as ever: an operator may read, and write between our writes."""
    await put(world.store, 1)
    script = (
        "import sqlite3, sys\n"
        "sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute(sys.argv[2]).fetchall()"
    )

    def run(sql: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, str(world.path), sql], capture_output=True, text=True, check=False
        )
        return done.stderr

    assert await asyncio.to_thread(run, "SELECT count(*) FROM inbox") == ""
    assert await asyncio.to_thread(run, "UPDATE meta SET value = value") == ""

    async def while_we_write() -> str:
        locked = asyncio.Event()
        loop = asyncio.get_running_loop()
        go = threading.Event()

        def hold(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE meta SET value = value")
            loop.call_soon_threadsafe(locked.set)
            go.wait(30)

        holding = world.store._writer.submit(hold)
        await locked.wait()
        complaint = await asyncio.to_thread(run, "UPDATE meta SET value = value")
        go.set()
        await holding
        return complaint

    assert "database is locked" in await while_we_write()
    await world.store.check()


# --- memory ---------------------------------------------------------------------------------------------------------

BACKLOG = """
import asyncio, resource, sys
from dataclasses import replace
from pathlib import Path
from claw.store.sqlite.store import SqliteStore
from tests.store.contract import inbound, row

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

async def main() -> None:
    text = "\\U0001f44d" + "x" * 199_999
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    await store.put(row(inbound("first")))
    before = resident()
    for first in range(0, 1024, 8):
        await asyncio.gather(*(store.put(row(inbound(n, text), f"lane{n}")) for n in range(first, first + 8)))
    waiting = resident()
    await store.close()
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    most = 0
    while (lease := await store.claim("worker", 30)) is not None:
        await store.ack(lease)
        most = max(most, resident())
    await store.close()
    print(waiting - before, most - before)

asyncio.run(main())
"""


async def test_a_backlog_costs_bytes_and_not_messages(tmp_path: Path) -> None:
    """1 024 waiting messages of 200 000 characters take some 30 MB at most, while they wait and while they go."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BACKLOG, str(tmp_path / "claw.db"), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    printed, _ = await child.communicate()
    waiting, going = (int(each) for each in printed.split())
    assert waiting < 30e6
    assert going < 30e6


async def test_reading_ahead_ends_with_the_bytes(world: SqliteWorld) -> None:
    """After the row that is wanted, whatever its size, others are read for READ_AHEAD_BYTES at most."""
    for number in range(8):
        await world.store.put(row(inbound(number, "x" * (READ_AHEAD_BYTES // 3)), f"lane{number}"))
    await world.die()
    await claim(world.store)
    assert len(world.store._rows) == 3
    await world.store.put(row(inbound("huge", "x" * 3 * READ_AHEAD_BYTES), "huge"))
    await world.die()
    assert (await claimed_ids(world.store))[-1] == "msghuge"


def test_the_cache_keeps_count() -> None:
    """First come, first kept; what is read pushes the oldest out; an answer that grows too large is read again."""
    stored = {n: stored_row(n) for n in range(6)}
    cache = RowCache(limit=3 * bytes_of(stored[0]))
    for number in range(4):
        cache.add(number, stored[number])
    assert [cache.get(n) is not None for n in range(4)] == [True, True, True, False]
    cache.load({3: stored[3], 4: stored[4]})
    assert [cache.get(n) is not None for n in range(5)] == [False, False, True, True, True]
    cache.load({4: stored[4]})
    cache.save_answer(4, b"x" * 10_000)
    cache.save_answer(9, b"x")
    assert cache.get(4) is None
    cache.save_answer(3, b"yes")
    assert cache.get(3) == stored[3]._replace(answer=b"yes")
    for number in range(6):
        cache.pop(number)
    assert (len(cache), cache.used) == (0, 0)


def stored_row(number: int) -> StoredRow:
    return StoredRow("lane", False, b"%d" % number * 100, b"{}")


async def test_the_newest_time_is_written_down_now_and_then(world: SqliteWorld) -> None:
    """Not with each message: that would be a write more for each."""

    def newest(connection: sqlite3.Connection) -> float:
        return queries.newest_created(connection)

    at = world.clock.wall()
    for number, seconds in enumerate((0.0, NEWEST_STEP_S / 2, NEWEST_STEP_S + 1, 5.0)):
        await world.store.put(row(replace(inbound(number), created_at=at + seconds)))
        found = await world.store._writer.submit(newest, kind=JobKind.READ)
        assert found == at + (NEWEST_STEP_S + 1 if number > 1 else 0)


async def test_a_clock_for_the_checks_is_not_needed(tmp_path: Path) -> None:
    """A store that was just opened and never written to is checked by a write."""
    store = SqliteStore(tmp_path / "claw.db", clock=FakeClock())
    await store.open()
    await store.check()
    (tmp_path / "claw.db").unlink()
    with pytest.raises(StoreError, match="cannot be found"):
        await store.check()
    await store.close()

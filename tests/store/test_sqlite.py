"""The SQLite store: the contract, and what a file, a disk and a process can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from claw.errors import StoreBusyError, StoreError, StoreSchemaError
from claw.messages import Exchange, Inbound
from claw.store.codec import encode_row, oldest_month
from claw.store.operation import DEAD_LETTERS_MAX, SENDS_RETENTION_S, USAGE_RETENTION_DAYS
from claw.store.ports import (
    CARDS_RETENTION_S,
    CHATS_RETENTION_S,
    DELAY_MAX_S,
    NOTICES_RETENTION_S,
    PEOPLE_RETENTION_S,
    Store,
)
from claw.store.sqlite import queries
from claw.store.sqlite import rows as rows_module
from claw.store.sqlite import store as sqlite
from claw.store.sqlite.rows import CACHE_BYTES, bytes_of
from claw.store.sqlite.schema import MIGRATIONS, Database
from claw.store.sqlite.store import SqliteStore
from claw.store.sqlite.writer import JobKind
from claw.store.values import KeptCard, SendReceipt, SendState, UsageRow
from tests.clock import FakeClock
from tests.store.contract import (
    ALONE,
    ANSWER,
    ROOM,
    TTL,
    StoreContract,
    World,
    claim,
    claimed_ids,
    inbound,
    put,
    row,
    write,
)
from tests.store.contract_operation import OperationContract
from tests.store.hardship import HardshipContract

ROOT = Path(__file__).parents[2]


class SqliteWorld(World):
    """A file in a folder of its own and a clock that the test moves."""

    store: SqliteStore

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.store = SqliteStore(path, clock=self.clock)
        self._dead: list[SqliteStore] = []

    async def later(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def die(self) -> None:
        """To the file, a store that is closed without another write is a process that died after its last commit."""
        await self.store.close()
        self.store = SqliteStore(self.path, clock=self.clock)
        await self.store.open()


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[SqliteWorld]:
    threads = set(threading.enumerate())
    world = SqliteWorld(tmp_path / "data" / "claw.db")
    await world.store.open()
    yield world
    await world.store.close()
    # None of ours is left. One of an earlier test's may have ended meanwhile, which is none of this one's.
    assert set(threading.enumerate()) <= threads
    assert asyncio.all_tasks() == {asyncio.current_task()}


class TestSqliteStore(StoreContract, OperationContract, HardshipContract):
    """Every promise of the contract."""


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def rows(path: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


# --- the file -------------------------------------------------------------------------------------------------------


async def test_the_file_is_for_its_owner_only(world: SqliteWorld) -> None:
    """The database, its WAL and its lock can be read by nobody else: they hold session webhooks."""
    await put(world.store)
    for path in world.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


async def test_a_file_that_others_can_read_is_narrowed(tmp_path: Path) -> None:
    """A database that was restored with a wide mode is narrowed at the start."""
    path = tmp_path / "claw.db"
    path.touch(mode=0o644)
    store = SqliteStore(path)
    await store.open()
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_second_process_is_refused(world: SqliteWorld) -> None:
    """Two processes cannot share one file by mistake: the second is told which file, and leaves nothing behind."""
    code = (
        "import asyncio, sys; from pathlib import Path; from claw.store.sqlite.store import SqliteStore\n"
        "asyncio.run(SqliteStore(Path(sys.argv[1])).open())"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(world.path), stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    _, complaint = await child.communicate()
    assert child.returncode == 1
    assert f"StoreBusyError: another process holds the store {world.path}" in complaint.decode()
    second = SqliteStore(world.path)
    for _ in range(2):
        with pytest.raises(StoreBusyError):
            await second.open()
    assert await put(world.store)
    await world.store.close()
    await second.open()
    assert (await claim(second)).inbound == inbound()
    await second.close()


async def test_the_lock_goes_with_close(world: SqliteWorld) -> None:
    """A closed store can be opened by another at once."""
    await world.store.close()
    second = SqliteStore(world.path)
    await second.open()
    await second.close()


@pytest.mark.parametrize("content", [b"this is no database " * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
async def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    """A corrupt file is a StoreError with its path and SQLite's own word; the file is left as it was."""
    path = tmp_path / "claw.db"
    path.write_bytes(content)
    store = SqliteStore(path)
    threads = threading.active_count()
    with pytest.raises(
        StoreError, match=r"cannot open the store .*claw\.db: .*(not a database|malformed|NOTADB|CORRUPT)"
    ):
        await store.open()
    assert threading.active_count() == threads
    assert path.read_bytes() == content


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Where the folder of the file is a file itself, the error says so."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot lock the store .*: (Not a directory|File exists)"):
        await SqliteStore(tmp_path / "file" / "claw.db").open()


async def test_open_is_for_once(world: SqliteWorld) -> None:
    """A second `open` is refused and harms nothing."""
    with pytest.raises(StoreError, match="opened before"):
        await world.store.open()
    assert await put(world.store)


# --- the schema -----------------------------------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE seen (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX seen_at ON seen (at);
CREATE TABLE inbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, lane TEXT NOT NULL, urgent INTEGER NOT NULL,
    received_at REAL NOT NULL, not_before REAL NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0, claims INTEGER NOT NULL DEFAULT 0, key TEXT NOT NULL, trace BLOB NOT NULL,
    inbound BLOB NOT NULL, answer BLOB);
CREATE TABLE dead (id INTEGER PRIMARY KEY, key TEXT NOT NULL, attempts INTEGER NOT NULL, received_at REAL NOT NULL,
    buried_at REAL NOT NULL, error BLOB NOT NULL, inbound BLOB NOT NULL);
CREATE INDEX dead_buried_at ON dead (buried_at);
CREATE TABLE memory (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE history (memory TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, user BLOB NOT NULL,
    assistant BLOB NOT NULL, PRIMARY KEY (memory, seq));
CREATE INDEX history_at ON history (at);
CREATE TABLE calls (month TEXT NOT NULL, api TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (month, api)) WITHOUT ROWID;
INSERT INTO seen VALUES ('robot:msg1', 1.8e9);
INSERT INTO inbox VALUES (7, 'lane', 0, 1.8e9, 0, 2, 8, 3, 'robot:msg1', x'7b7d', :inbound, :answer);
INSERT INTO dead VALUES (1, 'robot:msg0', 3, 1.8e9, 1.8e9, x'63617573', :inbound);
INSERT INTO memory VALUES ('m', 4);
INSERT INTO history VALUES ('m', 1, 1.8e9, x'75', x'61');
INSERT INTO calls VALUES ('2026-11', 'webhook', 12);
PRAGMA user_version = 1;
"""
"""A file as version 1 of the schema left it. Frozen: never follow the code here."""


async def test_a_file_of_version_1_is_taken_over(tmp_path: Path) -> None:
    """All that an older claw left is found again: messages with their answers, letters, memories, counts."""
    path = tmp_path / "claw.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        values = {"inbound": inbound(1).to_json().encode(), "answer": ANSWER.to_json().encode()}
        for statement in VERSION_1.split(";\n"):
            connection.execute(statement, values if ":" in statement and "INSERT" in statement else {})
        connection.commit()
    store = SqliteStore(path, clock=FakeClock())
    await store.open()
    lease = await claim(store)
    assert (lease.seq, lease.inbound, lease.answer) == (7, inbound(1), ANSWER)
    assert (lease.attempts, lease.claims, lease.fence) == (2, 4, 9)
    assert [letter.key for letter in await store.dead()] == ["robot:msg0"]
    assert (await store.epoch("m"), await store.exchanges("m", 9)) == ("4", [Exchange("m", "u", "a")])
    assert await store.calls("2026-11") == {"webhook": 12}
    assert not await put(store, 1)
    assert (await store.items(), await store.chats()) == ({}, [])
    assert await put(store, 2)
    assert await store.set_if_absent("owner", "ann") == "ann"
    assert [chat.messages for chat in await store.chats()] == [1]
    await store.close()
    assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert rows(path, "SELECT key, inbound FROM dead") == [("robot:msg0", values["inbound"])]


async def test_a_newer_file_is_refused_and_left_alone(world: SqliteWorld) -> None:
    """A file of a later claw is StoreSchemaError: going on could destroy what it means."""
    await world.store.close()
    with contextlib.closing(sqlite3.connect(world.path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreSchemaError, match=f"schema {len(MIGRATIONS) + 1}"):
        await SqliteStore(world.path).open()


# --- after a crash --------------------------------------------------------------------------------------------------


async def test_after_a_restart_a_claimed_message_is_free_at_once(world: SqliteWorld) -> None:
    """Leases die with the process: the next one does not wait for them to run out."""
    await put(world.store, 1, "a")
    await put(world.store, 2, "b")
    await claim(world.store)
    await world.die()
    assert await claimed_ids(world.store) == ["msg1", "msg2"]


async def test_a_wall_clock_that_was_set_back_parks_no_message(world: SqliteWorld) -> None:
    """A rest that seems to last for years is cut at the start."""
    await put(world.store)
    await world.store.release(await claim(world.store), 60)
    world.clock.jump(-10 * 365 * 86400)
    await world.die()
    await world.later(DELAY_MAX_S + 1)
    assert await claim(world.store)


CHILD = """
import asyncio, sys
from pathlib import Path
from claw.messages import Exchange
from claw.store.sqlite.store import SqliteStore
from tests.store.contract import put

async def main() -> None:
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    numbers = iter(range(1_000_000))
    async def producer() -> None:
        for number in numbers:
            await put(store, number, f"lane{number % 7}")
            print("put", number, flush=True)
    async def worker() -> None:
        while True:
            lease = await store.claim("child", 30)
            if lease is None:
                await store.wait()
                continue
            number = lease.inbound.msg_id.removeprefix("msg")
            print("ack?", number, flush=True)
            await store.ack(lease, Exchange("m" + number, "u", "a"))
            print("ack", number, flush=True)
    await asyncio.gather(*(producer() for _ in range(8)), worker())

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    """After SIGKILL under load: each put that returned is there or acked, each ack that returned is final."""
    path = tmp_path / "claw.db"
    told: dict[str, set[str]] = {"put": set(), "ack?": set(), "ack": set()}
    for _ in range(2):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert child.stdout is not None
        for _ in range(400):
            word, number = (await child.stdout.readline()).decode().split()
            told[word].add(number)
        child.send_signal(signal.SIGKILL)
        for line in (await child.stdout.read()).decode().splitlines():
            with contextlib.suppress(ValueError):
                word, number = line.split()
                told[word].add(number)
        await child.wait()
    store = SqliteStore(path)
    await store.open()  # The lock went with the process.
    waiting = set()
    while (lease := await store.claim("parent", TTL)) is not None:
        waiting.add(lease.inbound.msg_id.removeprefix("msg"))
        await store.ack(lease)
    assert told["put"] - told["ack?"] <= waiting
    assert not told["ack"] & waiting
    for number in told["ack"]:
        assert len(await store.exchanges("m" + number, 9)) == 1
    for number in told["put"]:
        assert not await put(store, number)
    await store.close()


# --- a disk that fails ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_file_grows(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes fail for this process, whoever runs it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_fails_is_told_and_recovered_from(world: SqliteWorld) -> None:
    """While nothing can be written each write raises StoreError and changes nothing; then all goes on."""
    await put(world.store, 1)
    await put(world.store, 2)
    await world.store.set("kept", "value")
    lease = await claim(world.store)
    await world.store.check()
    with no_file_grows(4096):
        for write in (
            put(world.store, 3),
            world.store.save_answer(lease, ANSWER),
            world.store.ack(lease, Exchange("m", "u", "a")),
            world.store.release(lease, 5, failed=True),
            world.store.bury(lease, "cause"),
            world.store.forget("m"),
            world.store.set("owner", "bob"),
            world.store.set_if_absent("owner", "bob"),
            world.store.delete("kept"),
            world.store.consume_quota("ann", "2027-01-15", "k1", 1),
            world.store.once_per("notice", 60),
            world.store.check(),
        ):
            with pytest.raises(StoreError, match=r"disk|full|I/O|open"):
                await write
        assert await world.store.items() == {"kept": "value"}
    await world.store.check()
    assert await put(world.store, 3)
    assert (await world.store.depth()).pending == 3
    assert [chat.messages for chat in await world.store.chats()] == [3]
    assert await world.store.items() == {"kept": "value"}
    assert await world.store.consume_quota("ann", "2027-01-15", "k2", 1)
    assert await world.store.once_per("notice", 60)
    assert await world.store.claim("worker", TTL) is None, "the lease was kept"
    await world.store.ack(lease, Exchange("m", "u", "a"))
    assert await world.store.exchanges("m", 9) == [Exchange("m", "u", "a")]
    assert await world.store.dead() == []
    await world.die()
    assert await claimed_ids(world.store) == ["msg2"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


async def test_a_full_disk_is_named_and_recovered_from(small_disk: Path) -> None:
    """A full disk is told by name to each writer and to `check`; what was told as kept is kept; room cures it."""
    clock = FakeClock()
    store = SqliteStore(small_disk / "claw.db", clock=clock)
    await store.open()
    ballast = small_disk / "ballast"
    kept = []
    ballast.write_bytes(b"x" * 350_000)
    with pytest.raises(StoreError, match="full"):  # noqa: PT012 - one of these meets the end of the disk
        for number in range(1000):
            await store.put(row(inbound(number, "x" * 2000), f"lane{number}"))
            kept.append(f"msg{number}")
    await clock.advance(60)
    ballast.unlink()
    assert await store.put(row(inbound("new"), "new"))
    await store.check()
    assert await claimed_ids(store) == [*kept, "msgnew"]
    await store.close()


async def test_a_read_only_disk_is_named_at_the_start(small_disk: Path) -> None:
    """A volume that is mounted read-only is told as such, not as a lock or a schema."""
    store = SqliteStore(small_disk / "claw.db")
    await store.open()
    await store.close()
    mount = await asyncio.create_subprocess_exec("mount", "-o", "remount,ro", str(small_disk))
    assert await mount.wait() == 0
    with pytest.raises(StoreError, match="Read-only file system"):
        await SqliteStore(small_disk / "claw.db").open()


async def test_a_store_that_became_read_only_fails_its_check(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` does not trust an old success once a write has failed, and trusts the next success."""
    await put(world.store)
    await world.store.check()
    connect = Database.connect

    def read_only(self: Database) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA query_only = ON")
        return connection

    monkeypatch.setattr(Database, "connect", read_only)
    await world.store._writer.submit(
        lambda connection: connection.execute("PRAGMA query_only = ON"), kind=JobKind.NO_TRANSACTION
    )
    for _ in range(3):
        with pytest.raises(StoreError, match=r"readonly database \(SQLITE_READONLY\)"):
            await put(world.store, 2)
        with pytest.raises(StoreError, match="readonly database"):
            await world.store.check()
    monkeypatch.undo()
    await world.store.check()
    assert await put(world.store, 2)


async def test_a_disk_that_hangs_fails_the_check(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not come back is told within the time of the check, and asked once, not once a probe."""
    monkeypatch.setattr(sqlite, "CHECK_TIMEOUT_S", 0.02)
    hang = threading.Event()
    hanging = world.store._writer.submit(lambda _: hang.wait(30))
    for _ in range(3):
        with pytest.raises(StoreError, match="does not answer"):
            await world.store.check()
    assert world.store._writer._queue.qsize() <= 1
    hang.set()
    await hanging
    monkeypatch.undo()
    await world.store.check()


class LyingConnection(sqlite3.Connection):
    """Commits, and says once that it could not: a disk that fails after the last byte was written."""

    lies = 1

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *args)
        if sql == "COMMIT" and LyingConnection.lies == 0:
            LyingConnection.lies = 1
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


async def test_a_commit_that_failed_and_took_place_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reached the disk although its put failed is worked on once; an ack that did so appends one turn."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **rest: connect(*args, **rest, factory=LyingConnection))
    store = SqliteStore(tmp_path / "claw.db", clock=FakeClock())
    await store.open()
    assert await put(store, 1, "a")
    LyingConnection.lies = 0
    with pytest.raises(StoreError, match="I/O"):
        await put(store, 2, "b")
    assert not await put(store, 2, "b"), "DingTalk's repeat is known"
    first, second = await claim(store), await claim(store)
    assert [first.inbound.msg_id, second.inbound.msg_id] == ["msg1", "msg2"]
    LyingConnection.lies = 0
    with pytest.raises(StoreError, match="I/O"):
        await store.ack(first, Exchange("m", "u", "a"))
    await store.ack(first, Exchange("m", "u", "a"))
    assert len(await store.exchanges("m", 9)) == 1
    assert (await store.depth()).pending == 1
    assert [chat.messages for chat in await store.chats()] == [2]
    await store.close()


async def test_an_entry_whose_commit_failed_and_took_place_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reached the disk although its writer was told of a failure is answered from the next work on."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **rest: connect(*args, **rest, factory=LyingConnection))
    store = SqliteStore(tmp_path / "claw.db", clock=FakeClock())
    await store.open()
    await store.set("policy", "open")
    await store.set("list", "ann")
    for hurt in (store.set("policy", "disabled"), store.set_if_absent("owner", "ann"), store.delete("list")):
        LyingConnection.lies = 0
        with pytest.raises(StoreError, match="I/O"):
            await hurt
    assert await store.set_if_absent("owner", "bob") == "ann"
    assert await store.items() == {"policy": "disabled", "owner": "ann"}
    await store.close()


async def test_a_body_that_cannot_be_read_does_not_stop_the_others(
    world: SqliteWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged message is buried, one that vanished is dropped, and the queue goes on."""
    for number in range(1, 5):
        await put(world.store, number)
    await world.store.close()
    with contextlib.closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute("UPDATE inbox SET inbound = x'7b7d' WHERE seq = 1")
    world.store = SqliteStore(world.path, clock=world.clock)
    await world.store.open()
    await world.store._writer.submit(lambda connection: connection.execute("DELETE FROM inbox WHERE seq = 2"))
    assert await world.store.claim("worker", TTL) is None  # Burying takes a moment.
    while not (lease := await world.store.claim("worker", TTL)):
        await world.store.wait()
    assert lease.inbound == inbound(3)
    assert [letter.key for letter in await world.store.dead()] == ["robot:msg1"]
    assert {record.message for record in caplog.records} >= {"message given up", "stored message is gone"}


# --- group commit ---------------------------------------------------------------------------------------------------


async def test_many_writes_share_a_commit(world: SqliteWorld) -> None:
    """Writes that gather while the thread is busy are one transaction, and keep their order."""
    before = world.store._writer.commits
    go = threading.Event()
    busy = world.store._writer.submit(lambda _: go.wait(30))
    puts = [asyncio.create_task(put(world.store, number, f"lane{number}")) for number in range(200)]
    await asyncio.sleep(0)
    go.set()
    assert all(await asyncio.gather(*puts))
    await busy
    assert world.store._writer.commits - before <= 2
    assert await claimed_ids(world.store) == [f"msg{number}" for number in range(200)]


async def test_the_next_of_a_queue_waits_for_the_commit_of_the_ack(world: SqliteWorld) -> None:
    """While an ack is on its way, its queue gives nothing, and its lease neither runs out nor takes more writes."""
    await put(world.store, 1)
    await put(world.store, 2)
    lease = await claim(world.store)
    go = threading.Event()
    busy = world.store._writer.submit(lambda _: go.wait(30))
    saving = asyncio.create_task(world.store.save_answer(lease, ANSWER))
    acking = asyncio.create_task(world.store.ack(lease))
    await asyncio.sleep(0)
    await world.later(TTL + 1)
    assert await world.store.claim("worker", TTL) is None
    with pytest.raises(StoreError):
        await world.store.save_answer(lease, ANSWER)
    go.set()
    await asyncio.gather(busy, saving, acking)
    assert (await claim(world.store)).inbound.msg_id == "msg2"


async def test_a_cancelled_ack_still_frees_the_queue(world: SqliteWorld) -> None:
    """The consequences of a write follow from its commit, not from its caller."""
    await put(world.store, 1)
    await put(world.store, 2)
    task = asyncio.create_task(world.store.ack(await claim(world.store)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.store.epoch("m")
    assert (await claim(world.store)).inbound.msg_id == "msg2"


# --- the registry ---------------------------------------------------------------------------------------------------


async def test_entries_are_answered_without_a_change_of_thread(world: SqliteWorld) -> None:
    """While the disk hangs entries are still told, as they were before what is on its way."""
    await world.store.set("owner", "ann")
    go = threading.Event()
    busy = world.store._writer.submit(lambda _: go.wait(30))
    entering = asyncio.create_task(world.store.set("owner", "bob"))
    await asyncio.sleep(0)
    assert await world.store.items() == {"owner": "ann"}
    go.set()
    await asyncio.gather(busy, entering)
    assert await world.store.items() == {"owner": "bob"}


async def test_concurrent_entries_are_made_in_the_order_of_their_calls(world: SqliteWorld) -> None:
    """What is called without waiting between gives what waiting would have given, in memory and on the disk."""
    told = await asyncio.gather(
        world.store.set("a", "1"),
        world.store.delete("a"),
        world.store.set_if_absent("a", "2"),
        world.store.set_if_absent("a", "3"),
        world.store.set("b", "4"),
        world.store.set("b", "5"),
        world.store.set("c", "6"),
        world.store.delete("c", "d"),
    )
    assert told[2:4] == ["2", "2"]
    for _ in range(2):
        assert await world.store.items() == {"a": "2", "b": "5"}
        await world.die()


async def test_a_cancelled_entry_is_made_all_the_same(world: SqliteWorld) -> None:
    """An entry whose caller was cancelled is in memory if it is on the disk."""
    task = asyncio.create_task(world.store.set("owner", "ann"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await world.store.set_if_absent("owner", "bob") == "ann"
    assert await world.store.items() == {"owner": "ann"}


async def test_a_chat_is_entered_with_its_message_or_not_at_all(world: SqliteWorld) -> None:
    """A message that cannot be kept leaves no chat behind, though others of its batch are kept."""

    def execute(connection: sqlite3.Connection, sql: str) -> None:
        connection.execute(sql)

    refuse = (
        "CREATE TRIGGER refuse BEFORE INSERT ON inbox WHEN new.key = 'robot:msg1' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    await world.store._writer.submit(execute, refuse)
    refused, kept = await asyncio.gather(
        write(world.store, 1, ROOM), write(world.store, 2, ALONE), return_exceptions=True
    )
    assert isinstance(refused, StoreError)
    assert kept is True
    assert [(chat.id, chat.messages) for chat in await world.store.chats()] == [(ALONE.id, 1)]
    await world.store._writer.submit(execute, "DROP TRIGGER refuse")
    assert await write(world.store, 1, ROOM), "its key was not taken for seen"


async def test_a_wall_clock_that_was_set_back_silences_no_notice(world: SqliteWorld) -> None:
    """A notice said in what is now the future is said again, unless that is within its time."""
    assert await world.store.once_per("notice", 60)
    world.clock.jump(-59)
    assert not await world.store.once_per("notice", 60)
    world.clock.jump(-365 * 86400)
    assert await world.store.once_per("notice", 60)
    assert await world.store.once_per("notice", 0), "no time at all is over at once"


# --- nothing grows for ever -----------------------------------------------------------------------------------------


async def test_a_backlog_is_not_kept_in_memory(world: SqliteWorld) -> None:
    """Beyond CACHE_BYTES rows stay in the file and are claimed from there, in order, before and after a restart."""
    text, count = "x" * 20_000, 600
    await asyncio.gather(*(world.store.put(row(inbound(n, text), f"lane{n}")) for n in range(count)))
    kept = CACHE_BYTES // bytes_of(encode_row(row(inbound(100, text), "lane100")))
    assert len(world.store._rows) == pytest.approx(kept, abs=2)
    assert 0.99 * CACHE_BYTES < world.store._rows.used <= CACHE_BYTES
    before = [await claim(world.store) for _ in range(count // 2)]
    await asyncio.gather(*(world.store.ack(lease) for lease in before))
    await world.die()
    assert len(world.store._rows) == 0
    after = await acked_ids(world.store)
    assert [lease.inbound.msg_id for lease in before] + after == [f"msg{number}" for number in range(count)]
    assert (len(world.store._rows), world.store._rows.used) == (0, 0)
    assert (await world.store.depth()).pending == 0


async def acked_ids(store: Store) -> list[str]:
    """Claim all that may be claimed, then ack it together."""
    leases = []
    while (lease := await store.claim("worker", TTL)) is not None:
        leases.append(lease)
    await asyncio.gather(*(store.ack(lease) for lease in leases))
    return [lease.inbound.msg_id for lease in leases]


async def test_a_load_that_fails_gives_the_claim_back(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the body cannot be fetched, the claim raises, counts for nothing, and its queue rests for a moment."""
    await put(world.store)
    await world.die()
    with monkeypatch.context() as patch:
        patch.setattr(queries, "rows", lambda connection, *_: connection.execute("SELECT nonsense()"))
        with pytest.raises(StoreError, match="nonsense"):
            await world.store.claim("worker", TTL)
    assert await world.store.claim("worker", TTL) is None
    await world.later(sqlite.FAULT_DELAY_S + 0.1)
    assert (await claim(world.store)).claims == 1


async def test_a_claim_that_is_cancelled_gives_the_message_back(world: SqliteWorld) -> None:
    """A claim that was cancelled while it read the body leaves the message to the next, uncounted."""
    await put(world.store)
    await world.die()
    task = asyncio.create_task(world.store.claim("worker", TTL))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await claim(world.store)).claims == 1


async def test_a_dead_letter_keeps_the_words_and_not_the_webhook(world: SqliteWorld) -> None:
    """An operator may read what was said; the address that anybody could answer by is gone from the file."""
    await put(world.store)
    await world.store.bury(await claim(world.store), "cause")
    await world.store.close()
    ((body,),) = rows(world.path, "SELECT inbound FROM dead")
    message = Inbound.from_json(body.decode())
    assert (message.text, message.webhook.reveal()) == ("hello", "")


async def test_cleaning_gives_the_room_back(world: SqliteWorld) -> None:
    """After a burst the file shrinks and the WAL is emptied; the rows that are due go, however many."""
    puts = (world.store.put(row(inbound(number, "x" * 4000), f"lane{number}")) for number in range(2500))
    assert all(await asyncio.gather(*puts))
    assert len(await acked_ids(world.store)) == 2500
    await world.store._writer.submit(queries.checkpoint, kind=JobKind.NO_TRANSACTION)
    before = size(world.path) or 0
    await world.store._writer.submit(queries.shrink, kind=JobKind.NO_TRANSACTION)
    await world.store._writer.submit(queries.checkpoint, kind=JobKind.NO_TRANSACTION)
    freed = (before - (size(world.path) or 0)) / 4096
    assert freed == pytest.approx(queries.VACUUM_PAGES, abs=2), "a step is many pages, not one"
    await world.later(8 * 86400)
    await world.store.put(row(replace(inbound("new"), created_at=world.clock.wall())))
    await world.store.clean()
    assert (size(world.path) or 0) / 4096 == pytest.approx(queries.FREE_KEPT_PAGES, rel=0.1)
    assert size(wal(world.path)) == 0
    await world.store.close()
    assert rows(world.path, "SELECT count(*) FROM seen") == [(1,)]


async def test_languages_of_people_are_forgotten(world: SqliteWorld) -> None:
    """Who has not written for a long time has no language any more, and takes no room."""
    await world.store.set_language("robot:ann", "en")
    await world.later(PEOPLE_RETENTION_S + 1)
    await world.store.clean()
    await world.die()
    assert await world.store.language("robot:ann") == ""


async def test_cards_are_forgotten_with_their_votes(world: SqliteWorld) -> None:
    """A week after it was opened a card takes no room any more, whether it has ended or not."""
    now = world.clock.wall()
    await world.store.keep_card(KeptCard("card", "robot:msg1", "q", "robot", "ann", "zh", now))
    await world.store.vote("card", "ann", "up")
    await world.later(CARDS_RETENTION_S + 1)
    await world.store.clean()
    assert await world.store.find_card("card") is None
    assert await world.store.open_cards(now + 1, 9) == []
    assert await world.store.vote("card", "ann", "up") == ""


async def test_the_registry_is_cleaned_however_much_is_due(world: SqliteWorld) -> None:
    """Chats, what was spent and notices go when they are past their time, more than one chunk of each."""
    await world.store.close()
    many = range(2 * rows_module.CHUNK_ROWS + 1)
    now = world.clock.wall()
    with contextlib.closing(sqlite3.connect(world.path)) as connection, connection:
        for at, letter in ((now, "new"), (now - NOTICES_RETENTION_S, "old")):
            connection.executemany("INSERT INTO notices VALUES (?, ?)", [(f"{letter}{n}", at) for n in many])
        for at, letter in ((now, "new"), (now - CHATS_RETENTION_S, "old")):
            connection.executemany(
                "INSERT INTO chats VALUES (?, x'', 'group', x'', 0, ?, 1)", [(f"{letter}{n}", at) for n in many]
            )
        for day in ("2027-01-15", "2027-01-12", "2027-01-11", "2026-12-31"):
            connection.executemany("INSERT INTO spent VALUES (?, 'ann', ?)", [(day, f"k{n}") for n in many])
    world.store = SqliteStore(world.path, clock=world.clock)
    await world.store.open()
    await world.store.clean()
    await world.store.close()
    for table in ("notices", "chats"):
        column = "name" if table == "notices" else "key"
        assert rows(world.path, f"SELECT substr({column}, 1, 3), count(*) FROM {table} GROUP BY 1") == [
            ("new", len(many))
        ]
    assert rows(world.path, "SELECT day, count(*) FROM spent GROUP BY day") == [
        ("2027-01-12", len(many)),
        ("2027-01-15", len(many)),
    ]


async def test_dead_letters_are_bounded(world: SqliteWorld) -> None:
    """No more than DEAD_LETTERS_MAX dead letters are kept, the newest."""
    await world.store.close()
    letters = [(number, "key", 0, 1.8e9, 1.8e9, b"", b"") for number in range(1, DEAD_LETTERS_MAX + 1201)]
    with contextlib.closing(sqlite3.connect(world.path)) as connection, connection:
        connection.executemany("INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?, ?, NULL, 'message')", letters)
    world.store = SqliteStore(world.path, clock=world.clock)
    await world.store.open()
    await world.store.clean()
    assert (await world.store.depth()).dead == DEAD_LETTERS_MAX
    await world.store.close()
    assert rows(world.path, "SELECT count(*), min(id) FROM dead") == [(DEAD_LETTERS_MAX, 1201)]


@pytest.mark.parametrize(
    ("now", "first"), [((2026, 11, 21), "2025-11"), ((2026, 1, 1), "2025-01"), ((2026, 12, 31), "2025-12")]
)
def test_the_ledger_keeps_thirteen_months(now: tuple[int, int, int], first: str) -> None:
    """The current month and the twelve before it stay."""
    assert oldest_month(datetime(*now, tzinfo=UTC).timestamp()) == first


async def test_old_months_are_cleaned(world: SqliteWorld) -> None:
    """A month beyond those that the ledger keeps is dropped."""
    await world.store.add_calls("2001-01", {"webhook": 1})
    await world.store.add_calls("2099-01", {"webhook": 1})
    await world.store.clean()
    assert await world.store.calls("2001-01") == {}
    assert await world.store.calls("2099-01") == {"webhook": 1}


# --- life -----------------------------------------------------------------------------------------------------------


async def test_close_finishes_what_is_queued(world: SqliteWorld) -> None:
    """A put that was called before close is kept, and two closes at once both return."""
    puts = [asyncio.create_task(put(world.store, number)) for number in range(10)]
    await asyncio.sleep(0)
    await asyncio.gather(world.store.close(), world.store.close())
    assert all(await asyncio.gather(*puts))
    assert size(wal(world.path)) is None
    assert rows(world.path, "SELECT count(*) FROM inbox") == [(10,)]


async def test_a_cancelled_close_goes_on_by_itself(world: SqliteWorld) -> None:
    """Whoever stops waiting for close does not stop the closing."""
    closing = asyncio.create_task(world.store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await world.store.close()
    second = SqliteStore(world.path)
    await second.open()
    await second.close()


async def test_a_store_that_was_never_opened_closes(tmp_path: Path) -> None:
    """Close before open does nothing and makes no file."""
    await SqliteStore(tmp_path / "claw.db").close()
    assert size(tmp_path / "claw.db.lock") is None


def test_the_adapter_is_a_store(tmp_path: Path) -> None:
    """The type checker sees that every method of the port is there."""
    store: Store = SqliteStore(tmp_path / "claw.db")
    assert store


async def test_receipts_and_usage_go_after_their_time(world: SqliteWorld) -> None:
    """Receipts go after SENDS_RETENTION_S, usage after USAGE_RETENTION_DAYS: nothing grows for ever."""
    now = world.clock.wall()
    today = datetime.fromtimestamp(now, UTC).date().isoformat()
    await world.store.begin_send(SendReceipt("old", SendState.PENDING, now))
    await world.store.add_usage([UsageRow(today, "p", "c", questions=1)])
    await world.later(SENDS_RETENTION_S + 1)
    await world.store.clean()
    assert await world.store.find_send("old") is None
    assert len(await world.store.usage("2000-01-01")) == 1
    await world.later(USAGE_RETENTION_DAYS * 24 * 3600.0)
    await world.store.clean()
    assert await world.store.usage("2000-01-01") == []


async def test_checks_at_the_same_time_do_not_disturb_each_other(world: SqliteWorld) -> None:
    """Whoever asks while the answer to others is on its way begins another look, and spoils nobody's."""

    async def ask_often() -> None:
        for turns in range(40):
            await world.store.check()
            for _ in range(turns % 4):
                await asyncio.sleep(0)

    await asyncio.gather(*(ask_often() for _ in range(8)))

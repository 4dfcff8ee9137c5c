"""The writer: one thread that owns the only connection and commits what has gathered in one transaction.

The order of events for a piece of work: `submit` puts it on a queue (the loop's side, at once) -> the thread takes
all that is queued -> BEGIN IMMEDIATE, each work, COMMIT -> one call back into the loop, which runs `kept` or `failed`
of each work in order and then resolves its future. While one commit waits for the disk, the next batch gathers, and on
a fast disk those that can wait do so for GATHER_S: so the cost of a commit is shared by as many as there are. The first
work after a pause waits for nobody.

A work that raises spoils none but itself: the batch is rolled back and done again, each work within a savepoint. If
the transaction fails (disk full, read-only, I/O error), each work of the batch fails with StoreError and the
connection is opened anew for the next batch.

A caller that is cancelled stops waiting; its work is done all the same, `kept` included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from claw.clock import Clock
from claw.errors import ClawError, StoreError
from claw.store.sqlite.schema import Database, words

log: Final = logging.getLogger(__name__)

T = TypeVar("T")

GATHER_S: Final = 0.004
"""Seconds from one commit to the next, as far as none of the works is in a hurry. Each commit costs two changes of
thread, a wake-up of the loop and an fsync: at 500 messages a second this halves the CPU time. It
must not slow down `put`, for which DingTalk waits, nor a read."""


class Kind(Enum):
    """What a work needs of the connection."""

    WRITE = "write"
    """May wait for others to share its commit, for GATHER_S at most."""
    PROMPT = "prompt"
    """A write that does not wait for others, and takes those along that do."""
    READ = "read"
    """A batch of these alone is not committed."""
    APART = "apart"
    """Cannot be done within a transaction."""


class Work(Generic[T]):
    """A function of the connection, and what follows from it in the loop."""

    __slots__ = ("args", "error", "failed", "function", "future", "kept", "kind", "result")

    def __init__(
        self,
        function: Callable[..., T],
        args: Sequence[Any] = (),
        *,
        kind: Kind = Kind.WRITE,
        kept: Callable[[T], None] | None = None,
        failed: Callable[[], None] | None = None,
        future: asyncio.Future[T] | None = None,
    ) -> None:
        self.function = function
        self.args = args
        self.kind = kind
        self.kept = kept
        self.failed = failed
        self.future = future
        self.result: T
        self.error: Exception | None = None

    def do(self, connection: sqlite3.Connection) -> None:
        self.result = self.function(connection, *self.args)
        self.error = None

    def settle(self) -> None:
        """In the loop: the consequences, then the answer, unless nobody waits for it any more."""
        try:
            if self.error is None:
                if self.kept is not None:
                    self.kept(self.result)
            elif self.failed is not None:
                self.failed()
        except Exception as error:
            log.exception("store bookkeeping failed")
            self.error = error
        if self.future is None or self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Works on `database`. `resume` is done first on each connection that replaces a failed one."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        resume: tuple[Callable[[sqlite3.Connection], T], Callable[[T], None]],
    ) -> None:
        self._database = database
        self._clock = clock
        self._resume = resume
        self._queue: queue.SimpleQueue[Work[Any] | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon, so that a process that ends without `stop` does end. What was told as kept is on the disk.
        self._thread = threading.Thread(target=self._run, name="claw-store-writer", daemon=True)
        self._ended: asyncio.Future[None] | None = None
        self._accepts = False
        self._gathered_at = -GATHER_S
        """When the thread last took a batch, by its own clock: this is about the CPU, not about the time of day."""
        self.commits = 0
        """Transactions that are on the disk."""
        self.committed_at: float | None = None
        """Monotonic seconds of the last commit; None where none was yet, or where a transaction failed since."""

    async def start(self) -> None:
        """Lock and open the file. Raises StoreBusyError, StoreSchemaError or StoreError; then no thread is left."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        opened = self._loop.create_future()
        self._queue.put(Work(lambda _: None, kind=Kind.APART, future=opened))
        self._accepts = True
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Do what is queued, close the file, unlock it and end the thread. Call it as often as you like."""
        if self._ended is None:
            return
        if self._accepts:
            self._accepts = False
            self._queue.put(None)
        # A shield: a caller that is cancelled must not cancel what others wait for.
        await asyncio.shield(self._ended)
        self._thread.join()

    def submit(
        self,
        function: Callable[..., T],
        *args: Any,
        kind: Kind = Kind.WRITE,
        kept: Callable[[T], None] | None = None,
        failed: Callable[[], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue `function(connection, *args)`, which may be called twice, after a rollback.

        Raises StoreError where the writer was stopped.
        """
        if not self._accepts or self._loop is None:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Work(function, args, kind=kind, kept=kept, failed=failed, future=future))
        return future

    def post(
        self,
        function: Callable[..., T],
        *args: Any,
        kept: Callable[[T], None] | None = None,
        failed: Callable[[], None] | None = None,
    ) -> None:
        """As `submit`, with nobody waiting for it."""
        if self._accepts:
            self._queue.put(Work(function, args, kept=kept, failed=failed))

    # --- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            try:
                self._database.lock()
                self._connection = self._database.connect()
            except StoreError as error:
                self._refuse_all(error)
                return
            while self._serve():
                pass
        finally:
            self._disconnect()
            self._database.unlock()
            self._call(self._end)

    def _refuse_all(self, error: Exception) -> None:
        """Nothing could be opened: `start` is told, and whoever came in behind it."""
        while (work := self._queue.get()) is not None:
            work.error = error
            self._call(work.settle)

    def _serve(self) -> bool:
        """One batch; False when it was the last."""
        batch: list[Work[Any]] = []
        ripe = self._gathered_at + GATHER_S
        work = self._queue.get()
        with contextlib.suppress(queue.Empty):
            while work is not None:
                batch.append(work)
                if work.kind is not Kind.WRITE:
                    ripe = 0.0
                early = ripe - time.monotonic()
                work = self._queue.get(timeout=early) if early > 0 else self._queue.get_nowait()
        if batch:
            done: list[Work[Any]] = []
            together: list[Work[Any]] = []
            for each in batch:
                if each.kind is Kind.APART:
                    self._transact(together, done)
                    self._apart(each, done)
                    together = []
                else:
                    together.append(each)
            self._gathered_at = time.monotonic()
            self._transact(together, done)
            self._call(self._settle, done)
        return work is not None

    def _transact(self, works: list[Work[Any]], done: list[Work[Any]]) -> None:
        if not works:
            return
        writes = any(work.kind in (Kind.WRITE, Kind.PROMPT) for work in works)
        try:
            connection = self._connected(done)
            if writes:
                connection.execute("BEGIN IMMEDIATE")
            self._each(connection, works)
            if writes:
                connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the thread outlives every failure; each caller is told of it
            self._fail(works, error)
        else:
            if writes:
                self._succeed()
        done.extend(works)

    def _each(self, connection: sqlite3.Connection, works: list[Work[Any]]) -> None:
        try:
            for work in works:
                work.do(connection)
        except Exception as error:
            if _spoils_all(error):
                raise
        else:
            return
        writes = connection.in_transaction
        if writes:
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
        for work in works:
            connection.execute("SAVEPOINT work")
            try:
                work.do(connection)
            except Exception as error:
                if _spoils_all(error):
                    raise
                connection.execute("ROLLBACK TO work")
                work.error = _as_store_error(error)
            connection.execute("RELEASE work")

    def _apart(self, work: Work[Any], done: list[Work[Any]]) -> None:
        try:
            work.do(self._connected(done))
        except Exception as error:  # noqa: BLE001 - as in _transact
            self._fail([work], error)
        done.append(work)

    def _connected(self, done: list[Work[Any]]) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._database.connect()
            read, kept = self._resume
            resume: Work[Any] = Work(read, kind=Kind.READ, kept=kept)
            resume.do(self._connection)
            done.append(resume)
        return self._connection

    def _succeed(self) -> None:
        if self.commits and self.committed_at is None:
            log.info("store writes again")
        self.commits += 1
        self.committed_at = self._clock.monotonic()

    def _fail(self, works: list[Work[Any]], error: Exception) -> None:
        for work in works:
            work.error = _as_store_error(error)
        if self.committed_at is not None or not self.commits:
            log.error("store failed", extra={"cause": str(works[0].error), "works": len(works)})
        self.committed_at = None
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Closing rolls back what is open and moves the WAL into the file, which can fail on a broken disk: the
            # WAL stays then, and the next connection reads it.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None  # noqa: S101 - `start` sets it before the thread
        # RuntimeError: the loop was closed without `stop`, and nobody is left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    # --- in the loop -------------------------------------------------------------------------------------------

    def _settle(self, works: list[Work[Any]]) -> None:
        for work in works:
            work.settle()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def _spoils_all(error: Exception) -> bool:
    """Whether the transaction is lost, or only the one work that raised."""
    own = sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, own)


def _as_store_error(error: Exception) -> Exception:
    """One error for one caller: an exception that several tasks raise mixes up their tracebacks."""
    if isinstance(error, ClawError):
        return type(error)(*error.args)
    cause = words(error) if isinstance(error, sqlite3.Error) else f"{type(error).__name__}: {error}"
    fresh = StoreError(f"the store did not write: {cause}")
    fresh.__cause__ = error
    return fresh

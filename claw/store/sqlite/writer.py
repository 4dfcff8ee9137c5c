"""The writer: one thread that owns the only connection and commits what has gathered in one transaction.

Order of events for a job: `submit` puts it on a queue, at once, on the loop's side. The thread takes all that is
queued as one batch and runs BEGIN IMMEDIATE, each job, COMMIT. One call back into the loop then runs `on_commit` or
`on_error` of each job, in order, and resolves its future. While one commit waits for the disk, the next batch gathers;
on a fast disk those jobs that can wait do so for BATCH_WINDOW_S. So the cost of a commit is shared by as many jobs as
there are, and the first job after a pause waits for nobody.

A failing job does not fail its batch: the batch is rolled back and run again, each job within a savepoint. If the
transaction fails (disk full, read-only, I/O error), every job of the batch fails with StoreError and the connection is
opened anew for the next batch.

Cancelling a caller does not cancel its job: it is done all the same, `on_commit` included.
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
from claw.store.codec import copy_error
from claw.store.sqlite.schema import Database, describe

log: Final = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_WINDOW_S: Final = 0.004
"""Seconds from one commit to the next, as far as no job is in a hurry. Each commit costs two changes of thread, a
wake-up of the loop and an fsync: at 500 messages a second this halves the CPU time. It must not slow down `put`, for
which DingTalk waits, nor a read."""


class JobKind(Enum):
    """What a job needs of the connection."""

    WRITE = "write"
    """May wait for others to share its commit, for BATCH_WINDOW_S at most."""
    FLUSH = "flush"
    """A write that is committed at once, with the writes that wait."""
    READ = "read"
    """A batch of these alone is not committed."""
    NO_TRANSACTION = "no transaction"
    """Cannot be done within a transaction."""


class Job(Generic[T]):
    """A function of the connection, and what follows from it in the loop."""

    __slots__ = ("args", "error", "function", "future", "kind", "on_commit", "on_error", "result")

    def __init__(
        self,
        function: Callable[..., T],
        args: Sequence[Any] = (),
        *,
        kind: JobKind = JobKind.WRITE,
        on_commit: Callable[[T], None] | None = None,
        on_error: Callable[[], None] | None = None,
        future: asyncio.Future[T] | None = None,
    ) -> None:
        self.function = function
        self.args = args
        self.kind = kind
        self.on_commit = on_commit
        self.on_error = on_error
        self.future = future
        self.result: T
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        self.result = self.function(connection, *self.args)
        self.error = None  # It may have failed before, in a batch that was rolled back.

    def resolve(self) -> None:
        """Do, in the loop, what follows; then answer the caller, unless it has stopped waiting.

        The bookkeeping comes first: whoever is woken by the answer must find the memory as the disk is.
        """
        try:
            if self.error is None:
                if self.on_commit is not None:
                    self.on_commit(self.result)
            elif self.on_error is not None:
                self.on_error()
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
    """Writes to `database`.

    `reload` is run first on each connection that replaces a failed one, and `reconcile` gets its result in the loop:
    a commit that was reported as failed may have reached the disk.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        reload: Callable[[sqlite3.Connection], T],
        reconcile: Callable[[T], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._reload = reload
        self._reconcile = reconcile
        # Not a SimpleQueue: its C code waits for ever where a timeout ends between two of its looks at the queue
        # (CPython 3.11, `_queue_SimpleQueue_get_impl`: what is left is negative then, which means no timeout). A batch
        # that was taken would lie there, unanswered, until the next job comes.
        self._queue: queue.Queue[Job[Any] | None] = queue.Queue()
        """None ends the thread."""
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon: a process that ends without `stop` must not hang. What was told as committed is on the disk.
        self._thread = threading.Thread(target=self._run, name="claw-store-writer", daemon=True)
        self._ended: asyncio.Future[None] | None = None
        self._accepts = False
        self._batched_at = -BATCH_WINDOW_S
        """When the thread last took a batch, by its own clock: this is about the CPU, not about the time of day."""
        self.commits = 0
        """Transactions that are on the disk."""
        self.damage = ""
        """What SQLite said when it found the file damaged. A new connection may see nothing of it for a while."""
        self.committed_at: float | None = None
        """Monotonic seconds of the last commit; None where none was yet, or where a transaction failed since."""

    async def start(self) -> None:
        """Lock and open the file. Raises StoreBusyError, StoreSchemaError or StoreError; then no thread is left."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        opened = self._loop.create_future()
        self._queue.put(Job(lambda _: None, kind=JobKind.NO_TRANSACTION, future=opened))
        self._accepts = True
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Do what is queued, close the file, unlock it and end the thread. May be called again."""
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
        kind: JobKind = JobKind.WRITE,
        on_commit: Callable[[T], None] | None = None,
        on_error: Callable[[], None] | None = None,
    ) -> asyncio.Future[T]:
        """Queue `function(connection, *args)`, which may be called twice, after a rollback.

        Raises StoreError where the writer was stopped.
        """
        # Not a coroutine: the job is queued before the caller first awaits, so jobs keep the order of the calls.
        if not self._accepts or self._loop is None:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(function, args, kind=kind, on_commit=on_commit, on_error=on_error, future=future))
        return future

    def post(
        self,
        function: Callable[..., T],
        *args: Any,
        on_commit: Callable[[T], None] | None = None,
        on_error: Callable[[], None] | None = None,
    ) -> None:
        """Queue a write that nobody waits for; a stopped writer drops it."""
        if self._accepts:
            self._queue.put(Job(function, args, on_commit=on_commit, on_error=on_error))

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

    def _refuse_all(self, error: StoreError) -> None:
        """Fail `start`, since nothing could be opened, and whatever came in behind it."""
        while (job := self._queue.get()) is not None:
            job.error = copy_error(error)
            self._call(job.resolve)

    def _serve(self) -> bool:
        """Run one batch; return False when it was the last."""
        batch, is_last = self._gather()
        if batch:
            done: list[Job[Any]] = []
            together: list[Job[Any]] = []
            for job in batch:
                if job.kind is JobKind.NO_TRANSACTION:
                    # What stands before it is committed first, so that the order of the calls holds for it, too.
                    self._transact(together, done)
                    self._run_alone(job, done)
                    together = []
                else:
                    together.append(job)
            # The window runs from here, not from the commit's end: a disk that takes longer than the window for a
            # commit has let the next batch gather already, and that one waits no more.
            self._batched_at = time.monotonic()
            self._transact(together, done)
            # One call for all: waking the loop costs more than most of what is done there.
            self._call(self._resolve, done)
        return not is_last

    def _gather(self) -> tuple[list[Job[Any]], bool]:
        """Wait for a job, and take those along that are queued or come within the window; True: the end was asked for.

        A job that cannot wait ends the window, not the taking: whatever is queued behind it is taken along for free.
        """
        batch: list[Job[Any]] = []
        flush_at = self._batched_at + BATCH_WINDOW_S
        job = self._queue.get()
        with contextlib.suppress(queue.Empty):
            while job is not None:
                batch.append(job)
                if job.kind is not JobKind.WRITE:
                    flush_at = 0.0
                left = flush_at - time.monotonic()
                job = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
        # On Empty `job` is still the last one that was taken; None came off the queue as the sign to end.
        return batch, job is None

    def _transact(self, jobs: list[Job[Any]], done: list[Job[Any]]) -> None:
        if not jobs:
            return
        writes = any(job.kind in (JobKind.WRITE, JobKind.FLUSH) for job in jobs)
        try:
            connection = self._connected(done)
            if writes:
                # IMMEDIATE takes the write lock before anything is done: an operator's `sqlite3` that holds it is
                # waited for here, and cannot fail a job in the middle.
                connection.execute("BEGIN IMMEDIATE")
            self._run_each(connection, jobs)
            if writes:
                connection.execute("COMMIT")
                # SQLite writes on into a file that was removed, and says that all is well: nobody may be told so.
                self._database.verify_place()
        except Exception as error:  # noqa: BLE001 - the thread outlives every failure; each caller is told of it
            self._fail(jobs, error)
        else:
            if writes:
                self._succeed()
        done.extend(jobs)

    def _run_each(self, connection: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        """Run the jobs; where one fails, run them all again, so that only that one is undone.

        Savepoints are not free, so they are not set before something has failed.
        """
        try:
            for job in jobs:
                job.run(connection)
        except Exception as error:
            if _is_transaction_lost(error):
                raise
        else:
            return
        if connection.in_transaction:
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            connection.execute("SAVEPOINT job")
            try:
                job.run(connection)
            except Exception as error:
                if _is_transaction_lost(error):
                    raise
                connection.execute("ROLLBACK TO job")
                job.error = _to_store_error(error)
            connection.execute("RELEASE job")

    def _run_alone(self, job: Job[Any], done: list[Job[Any]]) -> None:
        try:
            job.run(self._connected(done))
        except Exception as error:  # noqa: BLE001 - as in _transact
            self._fail([job], error)
        done.append(job)

    def _connected(self, done: list[Job[Any]]) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._database.connect()
            # A commit that failed may have reached the disk all the same. What it left is read before anything else
            # is written, and is reconciled in the loop in this very place of the order: after the callbacks of the
            # batch that failed, before those of the batch that comes next.
            reload: Job[Any] = Job(self._reload, kind=JobKind.READ, on_commit=self._reconcile)
            reload.run(self._connection)
            done.append(reload)
        return self._connection

    def _succeed(self) -> None:
        if self.commits and self.committed_at is None:
            log.info("store writes again")
        self.commits += 1
        self.committed_at = self._clock.monotonic()

    def _fail(self, jobs: list[Job[Any]], error: Exception) -> None:
        for job in jobs:
            job.error = _to_store_error(error)
        if self.committed_at is not None or not self.commits:  # Once for an outage, not once for each batch of it.
            log.error("store failed", extra={"cause": str(jobs[0].error), "jobs": len(jobs)})
        self.committed_at = None
        # Kept: the next connection may read other pages, and say that all is well.
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            self.damage = str(jobs[0].error)
        # After a failed COMMIT nobody knows what the connection's state is, so it is not used any more.
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

    def _resolve(self, jobs: list[Job[Any]]) -> None:
        for job in jobs:
            job.resolve()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def _is_transaction_lost(error: Exception) -> bool:
    """Return whether the whole transaction has failed, or only the job that raised."""
    of_one_job = sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, of_one_job)


def _to_store_error(error: Exception) -> Exception:
    """Return an error of our own tree, a new one for each caller."""
    if isinstance(error, ClawError):
        return copy_error(error)
    cause = describe(error) if isinstance(error, sqlite3.Error) else f"{type(error).__name__}: {error}"
    fresh = StoreError(f"the store failed: {cause}")
    fresh.__cause__ = error
    return fresh

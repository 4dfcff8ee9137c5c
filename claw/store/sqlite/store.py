"""The store in one SQLite file, for one process: what was put is on the disk before `put` returns.

Order of events: `open` locks and migrates the file and loads the index of what waits. `put` and the other writes go to
the writer's thread, which shares one commit among them. `claim` and `renew` are decided here, in memory (queue.py),
since nobody else holds the file; for the same reason items are answered from memory. After a crash everything that
waited may be claimed at once: the leases died with the process, and the file keeps only the count of those that began.

Each write is queued before its method first awaits, so the order of calls is the order on the disk. A lease is
looked at when the call is made: a write that was asked for in time counts, however long the disk then takes. One that
comes late counts too, unless somebody has claimed the message since: what was done is then done once.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from claw.clock import Clock
from claw.errors import StoreError
from claw.messages import Answer, Exchange
from claw.store.codec import (
    UNREADABLE,
    chat_row,
    consume_exception,
    encode,
    encode_row,
    lease_of,
)
from claw.store.lifecycle import State
from claw.store.ports import (
    CHECK_FRESH_S,
    CHECK_TIMEOUT_S,
    DELAY_MAX_S,
    DeadLetter,
    Depth,
    Lease,
    Row,
)
from claw.store.sqlite import queries
from claw.store.sqlite.cleaning import clean
from claw.store.sqlite.memory import SqliteMemory
from claw.store.sqlite.queries import to_sql_text
from claw.store.sqlite.queue import ActiveLease, MessageQueues, QueuedMessage
from claw.store.sqlite.schema import Database
from claw.store.sqlite.wakeups import Wakeups
from claw.store.sqlite.writer import JobKind, Writer

log: Final = logging.getLogger(__name__)

T = TypeVar("T")

CACHED_ROWS_MAX: Final = 1024
"""Rows kept in memory, so that a claim need not go to the disk."""
READ_AHEAD_ROWS: Final = 64
"""Rows read at once when one is not in memory: the next claims will mostly want the next ones."""
OPEN_CHUNK_ROWS: Final = 5_000
"""Entries of the index that are read at once at the start; the loop turns in between."""
FAULT_DELAY_S: Final = 1.0
"""Seconds for which a queue is blocked when its head could not be read, so that nobody claims it in a tight loop."""

_Disk = tuple[list[queries.IndexEntry], dict[str, str], int]
"""What is in memory as well as in the file: the index beyond what is known, the items, the number of dead letters."""


class SqliteStore(SqliteMemory):
    """`Store` (ports.py) in the file `path`, which is made where it is missing, with its folder."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        super().__init__(clock or Clock())
        self._path = path
        self._rows: dict[int, Row] = {}
        """Rows of messages by number, as they are in the file; not all, see CACHED_ROWS_MAX."""
        self._probe: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._queues = MessageQueues()
        self._wakeups = Wakeups(self._queues, self._clock)
        self._newest = 0
        """The highest `seq` that is known here."""
        self._dead = 0
        self._writer = Writer(Database(self._path), self._clock, self._reload_uncommitted, self._reconcile)

    # --- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._life.transition(State.OPENING)
        try:
            await self._writer.start()
            while await self._writer.submit(
                queries.index, self._newest, OPEN_CHUNK_ROWS, kind=JobKind.READ, on_commit=self._enqueue_all
            ):
                pass
            self._dead = await self._writer.submit(queries.count_dead, kind=JobKind.READ)
            self._items = await self._writer.submit(queries.items, kind=JobKind.READ)
        except BaseException:
            await self._writer.stop()
            if self._life.state is State.OPENING:
                self._reset()  # A thread can be started once only.
                self._life.transition(State.NEW)
            raise
        self._life.transition(State.OPEN)  # Raises where `close` came meanwhile: it has stopped the writer.
        if len(self._queues):
            log.info("store took up messages", extra={"pending": len(self._queues)})

    async def close(self) -> None:
        self._life.transition(State.CLOSED)
        self._wakeups.close()
        await self._writer.stop()

    async def check(self) -> None:
        self._life.require_open()
        if self._probe is None or self._probe.done():
            last = self._writer.committed_at
            if last is not None and self._clock.monotonic() - last < CHECK_FRESH_S:
                return
            self._probe = self._writer.submit(queries.probe, self._clock.wall(), kind=JobKind.FLUSH)
            self._probe.add_done_callback(consume_exception)
        # One probe for all callers while a disk hangs; `wait` leaves it alone when its time is over.
        done, _ = await asyncio.wait((self._probe,), timeout=CHECK_TIMEOUT_S)
        if not done:
            raise StoreError("the store does not answer")
        self._probe.result()

    async def clean(self) -> None:
        self._life.require_open()
        await clean(self._writer, self._clock.wall(), self._on_letters_dropped)

    # --- inbox ---------------------------------------------------------------------------------------------------

    async def put(self, row: Row) -> bool:
        self._life.require_open()
        at = self._clock.wall()
        message = QueuedMessage(0, row.route.queue, row.route.urgent, at)
        seq = await self._writer.submit(
            queries.put,
            row.inbound.key,
            at,
            encode_row(row),
            chat_row(row),
            kind=JobKind.FLUSH,  # DingTalk waits for the ack.
            on_commit=partial(self._on_put, message, row),
        )
        return seq is not None

    async def claim(self, owner: str, ttl: float, *, urgent: bool = False) -> Lease | None:
        self._life.require_open()
        while (active := self._queues.claim(self._clock.monotonic(), ttl, urgent=urgent)) is not None:
            message = active.message
            row = self._rows.get(message.seq) or await self._load(active, ttl)
            if row is None:
                continue  # Put away; the queue's next message is ready, or will be.
            # Nobody waits for this: the count is for a message that crashes the process, time and again.
            self._writer.post(queries.mark_claim, message.seq, message.fence, message.claims)
            self._wakeups.wake()
            return lease_of(
                row,
                seq=message.seq,
                fence=message.fence,
                owner=owner,
                received_at=message.received_at,
                attempts=message.attempts,
                claims=message.claims,
                waiting_since=message.waiting_since,
                worked=message.worked,
            )
        return None

    async def wait(self, *, urgent: bool = False) -> None:
        self._life.require_open()
        await self._wakeups.wait(urgent=urgent)

    async def renew(self, lease: Lease, ttl: float) -> None:
        # In memory only: the lease dies with the process, and nobody else can claim.
        self._queues.renew(self._find(lease), self._clock.monotonic() + ttl)
        self._wakeups.wake()

    async def save_answer(self, lease: Lease, answer: Answer) -> None:
        saved = encode(answer.to_json())
        await self._write_for(lease, queries.save_answer, saved, then=lambda active, _: self._on_saved(active, answer))

    async def ack(self, lease: Lease, exchange: Exchange | None = None) -> None:
        said = exchange and (to_sql_text(exchange.history_key), encode(exchange.user), encode(exchange.assistant))
        await self._write_for(
            lease, queries.ack, said, self._clock.wall(), ending=True, then=lambda active, _: self._on_removed(active)
        )

    async def release(
        self, lease: Lease, delay: float = 0.0, *, failed: bool = False, waiting: bool = False, worked: float = 0.0
    ) -> None:
        """As the port says; the delay begins when the release is on the disk."""
        now = self._clock.wall()
        waiting_since = (lease.waiting_since or now) if waiting else 0.0

        def then(active: ActiveLease, _: None) -> None:
            active.message.waiting_since = waiting_since
            active.message.worked += worked
            self._on_released(active, delay, failed=failed)

        until = now + delay if delay > 0 else 0.0
        await self._write_for(
            lease, queries.release, (until, int(failed)), waiting_since, worked, ending=True, then=then
        )

    async def bury(self, lease: Lease, error: str) -> None:
        await self._write_for(
            lease, queries.bury, encode(error), self._clock.wall(), ending=True, then=self._on_removed
        )

    async def _write_for(
        self,
        lease: Lease,
        query: Callable[..., T],
        *args: object,
        ending: bool = False,
        then: Callable[[ActiveLease, T], None],
    ) -> None:
        """Write what the holder of a lease asks for; `then` follows in memory, once it is on the disk."""
        active = self._find(lease)
        self._queues.begin_write(active, ending=ending)
        await self._writer.submit(
            query,
            lease.seq,
            *args,
            on_commit=partial(then, active),
            on_error=partial(self._on_write_failed, active),
        )

    def _find(self, lease: Lease) -> ActiveLease:
        self._life.require_open()
        return self._queues.find(lease.seq, lease.fence, self._clock.monotonic())

    async def interrupt(self, queue: str) -> bool:
        """As the port says: nobody else holds the file."""
        self._life.require_open()
        return False

    def on_interrupt(self, act: Callable[[int, int], object]) -> None:
        """As the port says: there is nobody who could want that."""

    async def depth(self) -> Depth:
        self._life.require_open()
        self._queues.advance(self._clock.monotonic())
        oldest = self._queues.oldest
        age = 0.0 if oldest is None else max(0.0, self._clock.wall() - oldest.received_at)
        return Depth(pending=len(self._queues), leased=self._queues.leased, dead=self._dead, oldest_age=age)

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        return await self._read(queries.dead, max(limit, 0))

    # --- what follows from a write, once it is on the disk -----------------------------------------------------------

    def _on_put(self, message: QueuedMessage, row: Row, seq: int | None) -> None:
        if seq is None:
            return
        # In the order of the commits, which is the order of the numbers: the queues count on it.
        message.seq = self._newest = seq
        if len(self._rows) < CACHED_ROWS_MAX:  # Under a backlog the first ones are claimed first: keep those.
            self._rows[seq] = row
        self._queues.add(message)
        self._wakeups.wake()

    def _on_saved(self, active: ActiveLease, answer: Answer) -> None:
        seq = active.message.seq
        active.message.attempts = 0
        active.message.waiting_since = 0.0
        if seq in self._rows:
            self._rows[seq] = replace(self._rows[seq], answer=answer)
        self._queues.end_write(active, self._clock.monotonic())
        self._wakeups.wake()

    def _on_released(self, active: ActiveLease, delay: float, *, failed: bool) -> None:
        self._queues.release(active, self._clock.monotonic() + delay if delay > 0 else 0.0, failed=failed)
        self._wakeups.wake()

    def _on_removed(self, active: ActiveLease, dead: int = 0) -> None:
        self._queues.remove(active)
        self._rows.pop(active.message.seq, None)
        self._dead += dead
        self._wakeups.wake()

    def _on_write_failed(self, active: ActiveLease) -> None:
        """Keep the lease: nothing was written, and its holder may try again."""
        self._queues.end_write(active, self._clock.monotonic())
        self._wakeups.wake()

    def _on_letters_dropped(self, count: int) -> None:
        self._dead -= count

    # --- loading -----------------------------------------------------------------------------------------------------

    def _reload_uncommitted(self, connection: sqlite3.Connection) -> _Disk:
        """Read, in the thread, what a commit of unknown outcome may have left on the disk.

        A message that was put so would be claimed by nobody, while its repeat is taken for seen; an item would not be
        seen before the next start. `_newest` may lag here, since the loop has not resolved every earlier batch yet:
        `_enqueue_all`, which comes after those, takes only what is new.
        """
        return queries.index(connection, self._newest, -1), queries.items(connection), queries.count_dead(connection)

    def _reconcile(self, disk: _Disk) -> None:
        """Take over what was read. The writer calls it in order: after the failed batch, before the next one."""
        index, self._items, self._dead = disk
        self._enqueue_all(index)

    def _enqueue_all(self, index: list[queries.IndexEntry]) -> None:
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        for seq, queue, urgent, received_at, not_before, attempts, fence, claims, waiting_since, worked in index:
            if seq <= self._newest:
                continue
            self._newest = seq
            # The file has wall time. A wall clock that was set back must not park a message for years.
            delay = min(not_before - wall, DELAY_MAX_S)
            delayed_until = monotonic + delay if delay > 0 else 0.0
            self._queues.add(
                QueuedMessage(
                    seq, queue, bool(urgent), received_at, attempts, fence, claims, delayed_until, waiting_since, worked
                )
            )
        self._wakeups.wake()

    async def _load(self, active: ActiveLease, ttl: float) -> Row | None:
        """Read the row of a message that was just claimed; None where it cannot be worked on, and was put away."""
        seq = active.message.seq
        # As a write: the lease must not run out while the disk is slow, or the message would be claimed twice.
        self._queues.begin_write(active)
        try:
            found = await self._writer.submit(
                queries.rows, seq, READ_AHEAD_ROWS, kind=JobKind.READ, on_commit=self._cache
            )
        except BaseException as error:
            # Nobody has got the lease. Where the store failed, its queue is blocked for a moment.
            delay = FAULT_DELAY_S if isinstance(error, StoreError) else 0.0
            self._queues.undo_claim(active, self._clock.monotonic() + delay)
            self._wakeups.wake()
            raise
        now = self._clock.monotonic()
        self._queues.renew(active, now + ttl)  # The lease begins when there is something to work on.
        self._queues.end_write(active, now)
        if (row := found.get(seq)) is not None:
            return row
        if seq in found:
            self._bury_unreadable(active)
        else:
            log.error("stored message is gone", extra={"seq": seq})
            self._on_removed(active)
        return None

    def _cache(self, found: dict[int, Row | None]) -> None:
        self._rows.update({seq: row for seq, row in found.items() if row is not None})
        # The oldest go; a claim that misses one reads it again.
        while len(self._rows) > CACHED_ROWS_MAX:
            del self._rows[next(iter(self._rows))]

    def _bury_unreadable(self, active: ActiveLease) -> None:
        """Bury a message that nobody can work on; its queue goes on when that is written."""
        log.error("message given up", extra={"seq": active.message.seq, "cause": UNREADABLE})
        self._queues.begin_write(active, ending=True)
        self._writer.post(
            queries.bury,
            active.message.seq,
            encode(UNREADABLE),
            self._clock.wall(),
            on_commit=partial(self._on_removed, active),
            on_error=partial(self._on_burial_failed, active),
        )

    def _on_burial_failed(self, active: ActiveLease) -> None:
        self._queues.undo_claim(active, self._clock.monotonic() + FAULT_DELAY_S)
        self._wakeups.wake()

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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from claw.clock import Clock
from claw.errors import StoreError
from claw.messages import Answer, Exchange
from claw.store.codec import (
    UNREADABLE,
    StoredRow,
    chat_row,
    consume_exception,
    created_at,
    decode_inbound,
    decode_row,
    encode,
    encode_message,
    encode_row,
    lease_of,
    message_of,
)
from claw.store.lifecycle import State
from claw.store.ports import CHECK_FRESH_S, CHECK_TIMEOUT_S, LOST_REMEDY, STUCK_AGE_S
from claw.store.sqlite import cards, letters, queries
from claw.store.sqlite.cleaning import clean
from claw.store.sqlite.dead_letters import SqliteDeadLetters
from claw.store.sqlite.entries import Disk, encode_exchange, order_of, queue_entry
from claw.store.sqlite.queue import ActiveLease, MessageQueues, QueuedMessage
from claw.store.sqlite.rows import READ_AHEAD_BYTES, RowCache
from claw.store.sqlite.schema import Database
from claw.store.sqlite.wakeups import Wakeups
from claw.store.sqlite.writer import JobKind, Writer
from claw.store.values import Depth, Follower, Interrupted, KeptMessage, Lease, Row, RowKind, RowPlace

log: Final = logging.getLogger(__name__)

T = TypeVar("T")

READ_AHEAD_ROWS: Final = 64
"""Rows read at once when one is not in memory: the next claims will mostly want the next ones."""
OPEN_CHUNK_ROWS: Final = 5_000
"""Entries of the index that are read at once at the start; the loop turns in between."""
FAULT_DELAY_S: Final = 1.0
"""Seconds for which a queue is blocked when its head could not be read, so that nobody claims it in a tight loop."""


class SqliteStore(SqliteDeadLetters):
    """`Store` (ports.py) in the file `path`, which is made where it is missing, with its folder."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        super().__init__(clock or Clock())
        self._path = path
        self._rows = RowCache()
        self._probe: asyncio.Future[bool] | None = None
        self._reset()

    def _reset(self) -> None:
        self._queues = MessageQueues()
        self._wakeups = Wakeups(self._queues, self._clock)
        self._newest = 0
        """The highest `seq` that is known here."""
        self._dead = 0
        self._database = Database(self._path)
        self._writer = Writer(self._database, self._clock, self._reload_uncommitted, self._reconcile)

    # --- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._life.transition(State.OPENING)
        try:
            await self._writer.start()
            while await self._writer.submit(
                queries.index, self._newest, OPEN_CHUNK_ROWS, kind=JobKind.READ, on_commit=self._enqueue_all
            ):
                pass
            self._dead = await self._writer.submit(letters.count, kind=JobKind.READ)
            self._items = await self._writer.submit(queries.items, kind=JobKind.READ)
            self._is_lost = await self._writer.submit(queries.is_lost, kind=JobKind.READ)
        except BaseException:
            await self._writer.stop()
            if self._life.state is State.OPENING:
                self._reset()  # A thread can be started once only.
                self._life.transition(State.NEW)
            raise
        self._life.transition(State.OPEN)  # Raises where `close` came meanwhile: it has stopped the writer.
        if self.lost:
            log.warning("the store that was here is gone", extra={"path": str(self._path), "remedy": LOST_REMEDY})
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
            is_fresh = last is not None and self._clock.monotonic() - last < CHECK_FRESH_S
            # The file is looked at in any case: one that was removed takes writes as before.
            kind = JobKind.READ if is_fresh else JobKind.FLUSH
            self._probe = self._writer.submit(self._verify, None if is_fresh else self._clock.wall(), kind=kind)
            self._probe.add_done_callback(consume_exception)
        # One probe for all callers while a disk hangs; `wait` leaves it alone when its time is over.
        # By a name of our own: while we wait to run again, somebody else may have begun the next probe.
        probe = self._probe
        done, _ = await asyncio.wait((probe,), timeout=CHECK_TIMEOUT_S)
        if not done:
            raise StoreError("the store does not answer")
        if self._writer.damage:
            raise StoreError(self._writer.damage)
        if probe.result():
            # A disk that failed for a while leaves half of a checkpoint behind; the other half is still in the WAL.
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._writer.submit(queries.checkpoint, kind=JobKind.NO_TRANSACTION)
                is_short = await self._writer.submit(self._verify, None, kind=JobKind.READ)
            if is_short:
                raise StoreError(f"the store {self._path} was cut short: a restart would lose what it keeps")

    def _verify(self, connection: sqlite3.Connection, at: float | None) -> bool:
        """Look at the file, in the thread, and write to it at a time, if one is given; True: it looks cut short."""
        is_short = self._database.verify()
        if at is not None:
            queries.probe(connection, at)
        return is_short

    @property
    def shared(self) -> bool:
        return False

    @property
    def lost(self) -> bool:
        return self._is_lost

    async def clean(self) -> None:
        self._life.require_open()
        await clean(self._writer, self._clock.wall(), self._on_letters_dropped)

    # --- inbox ---------------------------------------------------------------------------------------------------

    async def put(self, row: Row) -> bool:
        self._life.require_open()
        at, created = self._clock.wall(), created_at(row)
        message = QueuedMessage(0, row.route.queue, row.route.urgent, at, created=order_of(created, at))
        stored = encode_row(row)
        seq = await self._writer.submit(
            queries.put,
            row.inbound.key,
            (at, created),
            stored,
            (chat_row(row), message_of(row, at)),
            kind=JobKind.FLUSH,  # DingTalk waits for the ack.
            on_commit=partial(self._on_put, message, stored),
        )
        return seq is not None

    async def claim(self, owner: str, ttl: float, *, urgent: bool = False) -> Lease | None:
        self._life.require_open()
        while (active := self._queues.claim(self._clock.monotonic(), ttl, urgent=urgent)) is not None:
            message = active.message
            # Kept as bytes and decoded here: what Python makes of a text may be four times as large.
            stored = self._rows.get(message.seq) or await self._load(active, ttl)
            if stored is None:
                continue  # It is gone; the queue's next message is ready.
            row = decode_row(stored)
            if row is None:
                self._bury_unreadable(active)
                continue
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
                stopped=message.stopped,
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
        await self._write_for(lease, queries.save_answer, saved, then=lambda active, _: self._on_saved(active, saved))

    async def ack(
        self,
        lease: Lease,
        exchange: Exchange | None = None,
        *,
        sent: KeptMessage | None = None,
        merged: Sequence[int] = (),
    ) -> None:
        said = exchange and encode_exchange(exchange)
        stored = None if sent is None else encode_message(sent)
        await self._end(lease, queries.ack, merged, said, stored, self._clock.wall(), then=self._on_removed)

    async def followers(self, lease: Lease, limit: int) -> list[Follower]:
        active = self._find(lease)
        found: list[Follower] = []
        for message in self._queues.behind(active, limit):
            stored = self._rows.get(message.seq)
            if stored is None:
                stored = (await self._read(queries.rows, message.seq, 1, 0)).get(message.seq)
            row = None if stored is None else decode_row(stored)
            if row is None or row.kind is not RowKind.MESSAGE or row.answer is not None:
                break
            found.append(Follower(message.seq, row.inbound))
        return found

    async def place(self, queue: str, key: str) -> RowPlace:
        seq = await self._read(cards.find_seq, key)
        return RowPlace.GONE if seq is None else self._queues.place(seq)

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

    async def bury(self, lease: Lease, error: str, *, attempts: int | None = None, merged: Sequence[int] = ()) -> None:
        await self._end(lease, letters.bury, merged, encode(error), attempts, self._clock.wall(), then=self._on_removed)

    async def _end(
        self,
        lease: Lease,
        query: Callable[..., T],
        merged: Sequence[int],
        *args: object,
        then: Callable[[ActiveLease, T], None],
    ) -> None:
        """End a lease, and the messages of its queue that were merged into it."""
        # Only what waits behind it: what has been answered or buried meanwhile is not there any more.
        waiting = {each.seq for each in self._queues.behind(self._find(lease), len(merged))} if merged else set()
        along = tuple(seq for seq in merged if seq in waiting)

        def on_commit(active: ActiveLease, result: T) -> None:
            # Before the head goes, which makes the next one ready.
            for seq in along:
                if self._queues.drop(seq):
                    self._rows.pop(seq)
            then(active, result)

        await self._write_for(lease, query, *args, ending=True, then=on_commit, along=along)

    async def _write_for(
        self,
        lease: Lease,
        query: Callable[..., T],
        *args: object,
        ending: bool = False,
        then: Callable[[ActiveLease, T], None],
        along: tuple[int, ...] | None = None,
    ) -> None:
        """Write what the holder of a lease asks for; `then` follows in memory, once it is on the disk.

        `along`: numbers of other messages that the query takes with the lease's.
        """
        active = self._find(lease)
        self._queues.begin_write(active, ending=ending)
        await self._writer.submit(
            query,
            lease.seq if along is None else (lease.seq, *along),
            *args,
            on_commit=partial(then, active),
            on_error=partial(self._on_write_failed, active),
        )

    def _find(self, lease: Lease) -> ActiveLease:
        self._life.require_open()
        return self._queues.find(lease.seq, lease.fence, self._clock.monotonic())

    async def interrupt(self, queue: str, *, sender: str | None = None, unless: str = "") -> Interrupted:
        """As the port says. Nobody else holds the file: there is only what waits for its next try."""
        self._life.require_open()
        message = self._queues.find_delayed(queue, self._clock.monotonic())
        if message is None or message.stopped:
            return Interrupted.NOTHING
        fence = message.fence
        row = self._rows.get(message.seq) or (await self._read(queries.rows, message.seq, 1, 0)).get(message.seq)
        # While the file was read it may have been claimed: then it is its holder's to stop.
        if self._queues.find_delayed(queue, self._clock.monotonic()) is not message or message.fence != fence:
            return Interrupted.NOTHING
        if row is None or row.answer is not None:
            return Interrupted.NOTHING
        asked_by = decode_inbound(row.inbound)
        if unless and asked_by is not None and asked_by.key == unless:
            return Interrupted.NOTHING
        if sender is not None and (asked_by is None or asked_by.sender.key != sender):
            return Interrupted.OTHERS
        self._queues.stop(message)
        self._wakeups.wake()
        return Interrupted.STOPPED

    def on_interrupt(self, act: Callable[[int, int], object]) -> None:
        """As the port says: there is nobody who could want that."""

    async def depth(self) -> Depth:
        self._life.require_open()
        self._queues.advance(self._clock.monotonic())
        oldest = self._queues.oldest
        age = 0.0 if oldest is None else max(0.0, self._clock.wall() - oldest.received_at)
        stuck = self._queues.is_stuck(self._clock.wall() - STUCK_AGE_S)
        return Depth(len(self._queues), self._queues.leased, self._dead, oldest_age=age, stuck=stuck)

    # --- what follows from a write, once it is on the disk -----------------------------------------------------------

    def _on_put(self, message: QueuedMessage, row: StoredRow, seq: int | None) -> None:
        if seq is None:
            return
        # In the order of the commits, which is the order of the numbers: the queues count on it.
        message.seq = self._newest = seq
        self._rows.add(seq, row)
        self._queues.add(message)
        self._wakeups.wake()

    def _on_saved(self, active: ActiveLease, answer: bytes) -> None:
        active.message.attempts = 0
        active.message.waiting_since = 0.0
        self._rows.save_answer(active.message.seq, answer)
        self._queues.end_write(active, self._clock.monotonic())
        self._wakeups.wake()

    def _on_released(self, active: ActiveLease, delay: float, *, failed: bool) -> None:
        self._queues.release(active, self._clock.monotonic() + delay if delay > 0 else 0.0, failed=failed)
        self._wakeups.wake()

    def _on_removed(self, active: ActiveLease, dead: int | None = None) -> None:
        self._queues.remove(active)
        self._rows.pop(active.message.seq)
        self._dead += dead or 0
        self._wakeups.wake()

    def _on_write_failed(self, active: ActiveLease) -> None:
        """Keep the lease: nothing was written, and its holder may try again."""
        self._queues.end_write(active, self._clock.monotonic())
        self._wakeups.wake()

    # --- loading -----------------------------------------------------------------------------------------------------

    def _reload_uncommitted(self, connection: sqlite3.Connection) -> Disk:
        """Read, in the thread, what a commit of unknown outcome may have left on the disk.

        A message that was put so would be claimed by nobody, while its repeat is taken for seen; an item would not be
        seen before the next start. `_newest` may lag here, since the loop has not resolved every earlier batch yet:
        `_enqueue_all`, which comes after those, takes only what is new.
        """
        return queries.index(connection, self._newest, -1), queries.items(connection), letters.count(connection)

    def _reconcile(self, disk: Disk) -> None:
        """Take over what was read. The writer calls it in order: after the failed batch, before the next one."""
        index, self._items, self._dead = disk
        self._enqueue_all(index)

    def _enqueue_all(self, index: list[queries.IndexEntry]) -> None:
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        for entry in index:
            if entry.seq > self._newest:
                self._newest = entry.seq
                self._queues.add(queue_entry(entry, wall, monotonic))
        self._wakeups.wake()

    async def _load(self, active: ActiveLease, ttl: float) -> StoredRow | None:
        """Read the row of a message that was just claimed; None where it is gone, and was put away."""
        seq = active.message.seq
        # As a write: the lease must not run out while the disk is slow, or the message would be claimed twice.
        self._queues.begin_write(active)
        try:
            found = await self._writer.submit(
                queries.rows, seq, READ_AHEAD_ROWS, READ_AHEAD_BYTES, kind=JobKind.READ, on_commit=self._rows.load
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
        if seq not in found:
            log.error("stored message is gone", extra={"seq": seq})
            self._on_removed(active)
        return found.get(seq)

    def _bury_unreadable(self, active: ActiveLease) -> None:
        """Bury a message that nobody can work on; its queue goes on when that is written."""
        log.error("message given up", extra={"seq": active.message.seq, "cause": UNREADABLE})
        self._queues.begin_write(active, ending=True)
        self._writer.post(
            letters.bury,
            (active.message.seq,),
            encode(UNREADABLE),
            None,
            self._clock.wall(),
            on_commit=partial(self._on_removed, active),
            on_error=partial(self._on_burial_failed, active),
        )

    def _on_burial_failed(self, active: ActiveLease) -> None:
        self._queues.undo_claim(active, self._clock.monotonic() + FAULT_DELAY_S)
        self._wakeups.wake()

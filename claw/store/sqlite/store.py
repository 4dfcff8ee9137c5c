"""The store in one SQLite file, for one process: what was put is on the disk before `put` returns.

The order of events: `open` (lock, migrate, read the places of all that waits) -> `put` and the other writes go to the
writer's thread, which shares one commit among them -> `claim` and `renew` are decided here, in memory (lanes.py), since
nobody else holds the file -> `close`. For the same reason the registry's entries are answered from memory. After a
crash all that waited may be claimed at once: the leases died with the process, and the file keeps only the count of
those that began.

Each write is queued before its method first awaits, so the order of calls is the order on the disk. A lease is
looked at when the call is made: a write that was asked for in time counts, however long the disk then takes. One that
comes late counts too, unless somebody has claimed the message since: what was done is then done once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from claw.clock import Clock
from claw.errors import StoreError
from claw.messages import Answer, Exchange, Inbound
from claw.store.codec import chat_title, first_day, first_month, packed, retrieve
from claw.store.ports import (
    CHATS_KEPT_S,
    CHECK_TIMEOUT_S,
    DEAD_KEPT_S,
    HISTORY_KEPT_S,
    NOTICES_KEPT_S,
    REST_KEPT_MAX_S,
    SEEN_KEPT_S,
    Chat,
    DeadLetter,
    Depth,
    Lease,
    Row,
    RowKind,
    State,
)
from claw.store.sqlite import queries as tables
from claw.store.sqlite.queries import name
from claw.store.sqlite.queue import Entry, Hold, Lanes
from claw.store.sqlite.schema import Database
from claw.store.sqlite.writer import Kind, Writer

log: Final = logging.getLogger(__name__)

T = TypeVar("T")

BODIES_KEPT: Final = 1024
"""Bodies of messages kept in memory, so that a claim need not go to the disk."""
READ_AHEAD: Final = 64
"""Bodies read at once when one is not in memory: the next claims will mostly want the next ones."""
OPEN_CHUNK: Final = 5_000
"""Messages whose places are read at once at the start; the loop turns in between."""
REST_AFTER_FAULT_S: Final = 1.0
"""Seconds for which a lane rests when the store could not read its head, so that nobody claims it in a tight loop."""
CHECK_FRESH_S: Final = 5.0
"""Seconds for which a commit is taken as proof that the store can write."""


class SqliteStore:
    """`Store` (ports.py) in the file `path`, which is made where it is missing, with its folder."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._lanes = Lanes()
        self._bodies: dict[int, Row] = {}
        self._newest = 0
        """The highest `seq` that is known here."""
        self._dead = 0
        self._entries: dict[str, str] = {}
        """The registry's entries, as they are on the disk."""
        self._path = path
        self._writer = self._new_writer()
        self._state = State.NEW
        self._probe: asyncio.Future[None] | None = None
        self._told = {False: 0, True: 0}
        """`Lanes.news`, of all and of the urgent, when `wait` last returned."""
        self._waiters: dict[bool, set[asyncio.Future[None]]] = {False: set(), True: set()}
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0

    # --- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """As the port says; after an error it may be called again."""
        if self._state is not State.NEW:
            raise StoreError("the store was opened before")
        self._state = State.OPENING
        try:
            await self._writer.start()
            while await self._writer.submit(
                tables.waiting, self._newest, OPEN_CHUNK, kind=Kind.READ, kept=self._add_all
            ):
                pass
            self._dead = await self._writer.submit(tables.count_dead, kind=Kind.READ)
            self._entries = await self._writer.submit(tables.entries, kind=Kind.READ)
        except BaseException:
            await self._writer.stop()
            if self._state is State.OPENING:
                self._writer, self._lanes, self._newest = self._new_writer(), Lanes(), 0
                self._state = State.NEW
            raise
        if self._state is not State.OPENING:
            raise StoreError("the store was closed while it opened")
        self._state = State.OPEN
        if len(self._lanes):
            log.info("store took up messages", extra={"pending": len(self._lanes)})

    def _new_writer(self) -> Writer:
        return Writer(Database(self._path), self._clock, (self._read_ghosts, self._take_over))

    async def close(self) -> None:
        self._state = State.CLOSED
        for waiter in (*self._waiters[False], *self._waiters[True]):
            if not waiter.done():
                waiter.set_exception(StoreError("the store is closed"))
        await self._writer.stop()

    async def check(self) -> None:
        self._need_open()
        if self._probe is None or self._probe.done():
            last = self._writer.committed_at
            if last is not None and self._clock.monotonic() - last < CHECK_FRESH_S:
                return
            self._probe = self._writer.submit(tables.probe, self._clock.wall(), kind=Kind.PROMPT)
            self._probe.add_done_callback(retrieve)
        # One probe for all who ask while a disk hangs; `wait` leaves it alone when its time is over.
        done, _ = await asyncio.wait((self._probe,), timeout=CHECK_TIMEOUT_S)
        if not done:
            raise StoreError("the store does not answer")
        self._probe.result()

    async def clean(self) -> None:
        self._need_open()
        now = self._clock.wall()
        await self._drop(tables.drop_seen, now - SEEN_KEPT_S)
        await self._drop(tables.drop_history, now - HISTORY_KEPT_S)
        await self._drop(tables.drop_dead, now - DEAD_KEPT_S, kept=self._count_dropped)
        await self._writer.submit(tables.drop_calls, first_month(now))
        await self._drop(tables.drop_chats, now - CHATS_KEPT_S)
        await self._drop(tables.drop_spent, first_day(now))
        await self._drop(tables.drop_notices, now - NOTICES_KEPT_S)
        while await self._writer.submit(tables.shrink, kind=Kind.APART):
            pass
        await self._writer.submit(tables.checkpoint, kind=Kind.APART)

    # --- inbox ---------------------------------------------------------------------------------------------------

    async def put(self, row: Row) -> bool:
        self._need_open()
        at = self._clock.wall()
        inbound, route = row.inbound, row.route
        columns = tables.Put(
            name(route.queue),
            route.urgent,
            at,
            name(inbound.key),
            json.dumps(dict(row.trace)).encode(),
            packed(inbound.to_json()),
            row.kind.value,
            packed(route.conversation_key),
            None if row.answer is None else packed(row.answer.to_json()),
        )
        seq = await self._writer.submit(
            tables.put,
            columns,
            _heard(inbound, at) if row.kind is RowKind.MESSAGE else None,
            kind=Kind.PROMPT,
            kept=partial(self._add, Entry(0, route.queue, route.urgent, at), row),
        )
        return seq is not None

    async def claim(self, owner: str, ttl: float, *, urgent: bool = False) -> Lease | None:
        self._need_open()
        while (hold := self._lanes.claim(self._clock.monotonic(), ttl, urgent=urgent)) is not None:
            entry = hold.entry
            body = self._bodies.get(entry.seq) or await self._load(hold, ttl)
            if body is None:
                continue
            # Nobody waits for this: the count is for a message that kills the process, time and again.
            self._writer.post(tables.mark_claim, entry.seq, entry.fence, entry.claims)
            self._changed()
            return Lease(
                seq=entry.seq,
                fence=entry.fence,
                owner=owner,
                kind=body.kind,
                route=body.route,
                inbound=body.inbound,
                trace=body.trace,
                received_at=entry.received_at,
                attempts=entry.attempts,
                claims=entry.claims,
                answer=body.answer,
            )
        return None

    async def wait(self, *, urgent: bool = False) -> None:
        """Return at once if such a claim has become possible since the last `wait` returned, or was made and left more.

        So a worker that cannot take what there is does not turn in a circle.
        """
        self._need_open()
        self._lanes.settle(self._clock.monotonic())
        if self._told[urgent] == self._lanes.news(urgent=urgent):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[urgent].add(waiter)
            self._arm()
            try:
                await waiter
            finally:
                self._waiters[urgent].discard(waiter)
                if self._alarm is not None and not any(self._waiters.values()):
                    self._alarm.cancel()  # It rings for those who wait: after them no task is left.
                    self._alarm = None
        self._told[urgent] = self._lanes.news(urgent=urgent)

    async def renew(self, lease: Lease, ttl: float) -> None:
        hold = self._holding(lease)
        self._lanes.renew(hold, self._clock.monotonic() + ttl)
        self._changed()

    async def save_answer(self, lease: Lease, answer: Answer) -> None:
        hold = self._begin(lease)
        await self._writer.submit(
            tables.save_answer,
            lease.seq,
            packed(answer.to_json()),
            kept=lambda _: self._answered(hold, answer),
            failed=lambda: self._failed(hold),
        )

    async def ack(self, lease: Lease, turn: Exchange | None = None) -> None:
        hold = self._begin(lease, ending=True)
        said = None if turn is None else (name(turn.history_key), packed(turn.user), packed(turn.assistant))
        await self._writer.submit(
            tables.ack,
            lease.seq,
            said,
            self._clock.wall(),
            kept=lambda _: self._removed(hold),
            failed=lambda: self._failed(hold),
        )

    async def release(self, lease: Lease, delay: float = 0.0, *, failed: bool = False) -> None:
        """As the port says; the rest begins when the release is on the disk."""
        hold = self._begin(lease, ending=True)
        await self._writer.submit(
            tables.release,
            lease.seq,
            self._clock.wall() + delay if delay > 0 else 0.0,
            int(failed),
            kept=lambda _: self._released(hold, delay, failed=failed),
            failed=lambda: self._failed(hold),
        )

    async def bury(self, lease: Lease, error: str) -> None:
        hold = self._begin(lease, ending=True)
        await self._writer.submit(
            tables.bury,
            lease.seq,
            packed(error),
            self._clock.wall(),
            kept=lambda moved: self._removed(hold, dead=moved),
            failed=lambda: self._failed(hold),
        )

    async def interrupt(self, queue: str) -> bool:
        """As the port says: nobody else holds the file."""
        self._need_open()
        return False

    def on_interrupt(self, act: Callable[[int, int], object]) -> None:
        """As the port says: there is nobody who could want that."""

    async def depth(self) -> Depth:
        self._need_open()
        self._lanes.settle(self._clock.monotonic())
        oldest = self._lanes.oldest
        age = 0.0 if oldest is None else max(0.0, self._clock.wall() - oldest.received_at)
        return Depth(pending=len(self._lanes), leased=self._lanes.held, dead=self._dead, oldest_age=age)

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        self._need_open()
        return await self._writer.submit(tables.dead, max(limit, 0), kind=Kind.READ)

    # --- history -------------------------------------------------------------------------------------------------

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        self._need_open()
        if limit <= 0:
            return []
        said = await self._writer.submit(tables.turns, name(history_key), limit, kind=Kind.READ)
        return [Exchange(history_key, user, assistant) for user, assistant in said]

    async def epoch(self, history_key: str) -> int:
        self._need_open()
        return await self._writer.submit(tables.epoch, name(history_key), kind=Kind.READ)

    async def forget(self, history_key: str) -> int:
        self._need_open()
        return await self._writer.submit(tables.forget, name(history_key))

    # --- ledger --------------------------------------------------------------------------------------------------

    async def add_calls(self, month: str, calls: Mapping[str, int]) -> None:
        self._need_open()
        await self._writer.submit(tables.add_calls, name(month), [(name(api), n) for api, n in calls.items()])

    async def calls(self, month: str) -> dict[str, int]:
        self._need_open()
        return await self._writer.submit(tables.calls, name(month), kind=Kind.READ)

    # --- registry ------------------------------------------------------------------------------------------------

    async def items(self, prefix: str = "") -> dict[str, str]:
        """As the port says, without a change of thread: what was entered counts once it is on the disk."""
        self._need_open()
        return {each: value for each, value in self._entries.items() if each.startswith(prefix)}

    async def set(self, name: str, value: str) -> None:
        self._need_open()
        await self._writer.submit(
            tables.enter, packed(name), packed(value), kept=lambda _: self._entries.update({name: value})
        )

    async def set_if_absent(self, name: str, value: str) -> str:
        """As the port says. Not decided in memory, which does not know of a `strike` that is on its way."""
        self._need_open()
        return await self._writer.submit(
            tables.enter_first,
            packed(name),
            packed(value),
            kept=lambda stands: self._entries.update({name: stands}),
        )

    async def delete(self, *names: str) -> None:
        self._need_open()
        await self._writer.submit(tables.strike, [packed(each) for each in names], kept=lambda _: self._struck(names))

    async def chats(self, limit: int = 50) -> list[Chat]:
        self._need_open()
        return await self._writer.submit(tables.chats, max(limit, 0), kind=Kind.READ)

    async def consume_quota(self, person: str, day: str, key: str, limit: int) -> bool:
        self._need_open()
        return await self._writer.submit(tables.spend, name(person), name(day), name(key), limit)

    async def once_per(self, name: str, seconds: float) -> bool:
        self._need_open()
        return await self._writer.submit(tables.first_in, tables.name(name), self._clock.wall(), seconds)

    # --- what follows from a write, once it is on the disk ---------------------------------------------------------

    def _add(self, entry: Entry, body: Row, seq: int | None) -> None:
        if seq is None:
            return
        entry.seq = self._newest = seq
        if len(self._bodies) < BODIES_KEPT:  # Under a backlog the first come are claimed first: keep those.
            self._bodies[seq] = body
        self._lanes.add(entry)
        self._changed()

    def _answered(self, hold: Hold, answer: Answer) -> None:
        seq = hold.entry.seq
        hold.entry.attempts = 0
        if seq in self._bodies:
            self._bodies[seq] = replace(self._bodies[seq], answer=answer)
        self._lanes.settled(hold, self._clock.monotonic())
        self._changed()

    def _released(self, hold: Hold, delay: float, *, failed: bool) -> None:
        self._lanes.release(hold, self._clock.monotonic() + delay if delay > 0 else 0.0, failed=failed)
        self._changed()

    def _removed(self, hold: Hold, *, dead: int = 0) -> None:
        self._lanes.remove(hold)
        self._bodies.pop(hold.entry.seq, None)
        self._dead += dead
        self._changed()

    def _failed(self, hold: Hold) -> None:
        """Nothing was written: the lease stays, and its holder may try again."""
        self._lanes.settled(hold, self._clock.monotonic())
        self._changed()

    def _struck(self, names: Iterable[str]) -> None:
        for each in names:
            self._entries.pop(each, None)

    def _count_dropped(self, dropped: int) -> None:
        self._dead -= dropped

    # --- reading what waits ----------------------------------------------------------------------------------------

    def _read_ghosts(self, connection: sqlite3.Connection) -> tuple[list[tables.Waiting], dict[str, str]]:
        """In the thread, after a failure: what is on the disk although its commit was reported as failed.

        Nobody has claimed such messages, and a repeat would be taken for seen; such entries nobody would see before
        the next start. `_newest` may lag here by what is not settled yet; `_add_all`, which comes after that, takes
        only what is new.
        """
        return tables.waiting(connection, self._newest, -1), tables.entries(connection)

    def _take_over(self, ghosts: tuple[list[tables.Waiting], dict[str, str]]) -> None:
        """Between what was settled before the failure and what comes after it: the entries are those of that moment."""
        waiting, self._entries = ghosts
        self._add_all(waiting)

    def _add_all(self, rows: list[tables.Waiting]) -> None:
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        for seq, queue, urgent, received_at, not_before, attempts, fence, claims in rows:
            if seq <= self._newest:
                continue
            self._newest = seq
            rest = min(not_before - wall, REST_KEPT_MAX_S)
            rest_until = monotonic + rest if rest > 0 else 0.0
            self._lanes.add(Entry(seq, queue, bool(urgent), received_at, attempts, fence, claims, rest_until))
        self._changed()

    async def _load(self, hold: Hold, ttl: float) -> Row | None:
        """The body of a message that was just claimed. None: it has none to be read, and was put away."""
        seq = hold.entry.seq
        self._lanes.begin(hold)
        try:
            found = await self._writer.submit(tables.bodies, seq, READ_AHEAD, kind=Kind.READ, kept=self._keep_bodies)
        except BaseException as error:
            rest = REST_AFTER_FAULT_S if isinstance(error, StoreError) else 0.0
            self._lanes.undo(hold, self._clock.monotonic() + rest)
            self._changed()
            raise
        now = self._clock.monotonic()
        self._lanes.renew(hold, now + ttl)  # The lease begins when there is something to work on.
        self._lanes.settled(hold, now)
        if (body := found.get(seq)) is not None:
            return body
        if seq in found:
            self._give_up(hold, "the stored message cannot be read")
        else:
            log.error("stored message is gone", extra={"seq": seq})
            self._removed(hold)
        return None

    def _keep_bodies(self, found: dict[int, Row | None]) -> None:
        for seq, body in found.items():
            if body is not None:
                self._bodies[seq] = body
        while len(self._bodies) > BODIES_KEPT:
            del self._bodies[next(iter(self._bodies))]

    def _give_up(self, hold: Hold, error: str) -> None:
        """Bury a message that nobody works on; its lane goes on when that is written."""
        seq = hold.entry.seq
        log.error("message given up", extra={"seq": seq, "cause": error})
        self._lanes.begin(hold, ending=True)
        self._writer.post(
            tables.bury,
            seq,
            packed(error),
            self._clock.wall(),
            kept=lambda moved: self._removed(hold, dead=moved),
            failed=lambda: self._undone(hold),
        )

    def _undone(self, hold: Hold) -> None:
        self._lanes.undo(hold, self._clock.monotonic() + REST_AFTER_FAULT_S)
        self._changed()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Wake who waits for what has become possible; see to it that the others wake in time."""
        for urgent, waiters in self._waiters.items():
            if not waiters:
                continue
            if self._told[urgent] == self._lanes.news(urgent=urgent):
                self._arm()
                continue
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _arm(self) -> None:
        """Set the alarm, unless one rings early enough. One that rings for nothing is set again."""
        due = self._lanes.due
        if due is None or self._state is not State.OPEN:
            return
        if self._alarm is not None:
            if self._alarm_at <= due:
                return
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = asyncio.create_task(self._ring(due), name="store-alarm")

    async def _ring(self, due: float) -> None:
        await self._clock.sleep(due - self._clock.monotonic())
        self._alarm = None
        self._lanes.settle(self._clock.monotonic())
        self._changed()

    # --- guards ------------------------------------------------------------------------------------------------------

    def _need_open(self) -> None:
        if self._state is not State.OPEN:
            raise StoreError("the store is closed")

    def _holding(self, lease: Lease) -> Hold:
        self._need_open()
        return self._lanes.holding(lease.seq, lease.fence, self._clock.monotonic())

    def _begin(self, lease: Lease, *, ending: bool = False) -> Hold:
        hold = self._holding(lease)
        self._lanes.begin(hold, ending=ending)
        return hold

    async def _drop(
        self,
        drop: Callable[[sqlite3.Connection, T], int],
        before: T,
        *,
        kept: Callable[[int], None] | None = None,
    ) -> None:
        while await self._writer.submit(drop, before, kept=kept) == tables.CHUNK:
            pass


def _heard(inbound: Inbound, at: float) -> tables.Heard:
    """What the message tells of its chat."""
    where, title = inbound.conversation, packed(chat_title(inbound))
    return tables.Heard(name(inbound.chat_key), packed(where.id), where.kind.value, title, at)

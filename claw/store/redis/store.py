"""The store in Redis, for any number of processes: what was put is in Redis before `put` returns.

The order of events: `open` (connect, version, schema) -> each call is one script (redis_scripts.py), made by the link
(redis_link.py), with Redis' clock -> `close`. A lease is Redis' alone: when a process dies, any other one claims its
messages as soon as their leases have run out. A lease that has run out counts until somebody else claims, as in SQLite.

`wait` asks Redis whether something may be claimed, and asks again when it is told of news, when a lease or a rest ends,
and after POLL_S in any case: what is published is a hint. The registry's entries are kept here and asked for by the
token of their last change, so that what one process enters the others see with their next look.

One robot has one prefix, made from its client id: robots that share a Redis share nothing else. How durable it all is
is Redis' setting: `appendonly yes` and `maxmemory-policy noeviction` are what claw counts on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from claw.clock import Clock
from claw.errors import LeaseLostError, StoreError
from claw.messages import Answer, ChatKind, Exchange, Inbound
from claw.secret import Secret, hash_id
from claw.store.codec import chat_title, first_day, first_month, packed, retrieve, route_of, unpacked, without_webhook
from claw.store.ports import CHECK_TIMEOUT_S, Chat, DeadLetter, Depth, Lease, Risk, Row, RowKind, State
from claw.store.redis import scripts
from claw.store.redis.client import Facts, Link, Word

log: Final = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""Seconds after which who waits looks again, hint or no hint."""
CHECK_FRESH_S: Final = 5.0
"""Seconds for which a batch that went well is taken as proof that the store works."""
_STOP: Final = re.compile(rb"stop ([0-9]{1,19}) ([0-9]{1,19})")


def risks_of(facts: Facts) -> tuple[Risk, ...]:
    """What Redis tells of itself that an operator should change, the graver first."""
    found = []
    if facts.get("maxmemory", "0") != "0" and facts.get("maxmemory_policy", "noeviction") != "noeviction":
        found.append(Risk.EVICTS)
    if facts.get("aof_enabled") == "0":
        found.append(Risk.FORGETS)
    return tuple(found)


def prefix_of(robot: str) -> str:
    """What the keys of a robot begin with, by its client id; the braces keep them on one node of a cluster."""
    return f"{{claw:{hash_id(robot)[:16]}}}"


class RedisStore:
    """`Store` (ports.py) at `url`, `redis://` or `rediss://`, for the robot with that client id.

    With `read_only` it is an `Inspection`, whose only write is the probe of `check`. `now`, seconds since the epoch,
    takes the place of Redis' clock in tests.
    """

    def __init__(
        self,
        url: Secret,
        robot: str,
        *,
        clock: Clock | None = None,
        now: Callable[[], float] | None = None,
        read_only: bool = False,
    ) -> None:
        self._clock = clock or Clock()
        self._now = now
        self._read_only = read_only
        injected = None if now is None else lambda: round(now() * 1000)
        self._link = Link(url, prefix_of(robot), self._hear, clock=self._clock, time=injected, read_only=read_only)
        self._state = State.NEW
        self._bells: set[asyncio.Event] = set()
        """One for each `wait` in progress."""
        self._told = {False: b"", True: b""}
        """Redis' word for its news, of all and of the urgent, when `wait` last returned."""
        self._more = {False: False, True: False}
        """A claim of ours left something to claim, which `wait` has not told yet."""
        self._entries: dict[str, str] = {}
        self._version: bytes = b""
        self._on_interrupt: Callable[[int, int], object] | None = None

    # --- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """As the port says; after an error it may be called again.

        A Redis that cannot be reached is no error here: what needs it fails until it can.
        """
        if self._state is not State.NEW:
            raise StoreError("the store was opened before")
        self._state = State.OPENING
        try:
            await self._link.start()
        except BaseException:
            await self._link.stop()
            if self._state is State.OPENING:
                self._state = State.NEW
            raise
        if self._state is not State.OPENING:
            await self._link.stop()
            raise StoreError("the store was closed while it opened")
        self._state = State.OPEN
        for risk in () if self._read_only else self.risks:
            log.warning("store may lose messages", extra={"remedy": risk.value})

    async def close(self) -> None:
        self._state = State.CLOSED
        self._ring()
        await self._link.stop()

    async def check(self) -> None:
        self._need_open()
        last = self._link.proved_at
        if last is not None and self._clock.monotonic() - last < CHECK_FRESH_S:
            return
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._link.submit(scripts.PROBE)
        except TimeoutError:
            raise StoreError("the store does not answer") from None

    @property
    def facts(self) -> Facts:
        """What Redis tells of itself (`INFO`); empty where it was not reached, or does not tell."""
        return self._link.facts

    @property
    def risks(self) -> tuple[Risk, ...]:
        return risks_of(self.facts)

    async def clean(self) -> None:
        now = time.time() if self._now is None else self._now()
        while await self._call(scripts.CLEAN, first_day(now), first_month(now)) == scripts.CHUNK:
            pass

    # --- inbox ---------------------------------------------------------------------------------------------------

    async def put(self, row: Row) -> bool:
        inbound, route = row.inbound, row.route
        where = inbound.conversation
        chat: tuple[Word, ...] = ()
        if row.kind is RowKind.MESSAGE:
            chat = (packed(inbound.chat_key), packed(where.id), where.kind.value, packed(chat_title(inbound)))
        new, news = await self._call(
            scripts.PUT,
            packed(inbound.key),
            packed(route.queue),
            int(route.urgent),
            json.dumps(dict(row.trace)),
            packed(inbound.to_json()),
            row.kind.value,
            packed(route.conversation_key),
            b"" if row.answer is None else packed(row.answer.to_json()),
            *chat,
        )
        self._hear_own(news)
        return bool(new)

    async def claim(self, owner: str, ttl: float, *, urgent: bool = False) -> Lease | None:
        while True:
            reply = await self._call(scripts.CLAIM, _ms(ttl), int(urgent), orphaned=self._let_go)
            if reply is None:
                return None
            seq, *rest = reply
            if not rest:
                log.error("stored message is gone", extra={"seq": int(seq)})
                continue
            fields, more, more_urgent = rest
            self._more = {False: more > 0, True: more_urgent > 0}
            lease = _lease(int(seq), owner, fields)
            if lease is not None:
                return lease
            await self._give_up(int(seq), int(fields[0]), "the stored message cannot be read")

    async def wait(self, *, urgent: bool = False) -> None:
        """Return at once if such a claim has become possible since the last `wait` returned, or was made and left more.

        So a worker that cannot take what there is does not turn in a circle.
        """
        self._need_open()
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            while True:
                bell.clear()
                if self._more[urgent]:
                    self._more[urgent] = False
                    return
                any_news, urgent_news, due = await self._call(scripts.NEWS)
                news = urgent_news if urgent else any_news
                if self._told[urgent] != news:
                    self._told[urgent] = news
                    return
                seconds = POLL_S if due < 0 else min(due / 1000, POLL_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await bell.wait()
                self._need_open()
        finally:
            self._bells.discard(bell)

    async def renew(self, lease: Lease, ttl: float) -> None:
        """As the port says; a holder that was asked to stop, and did not hear of it, is told now."""
        if await self._held(scripts.RENEW, lease, _ms(ttl)) and self._on_interrupt is not None:
            self._on_interrupt(lease.seq, lease.fence)

    async def save_answer(self, lease: Lease, answer: Answer) -> None:
        await self._held(scripts.SAVE_ANSWER, lease, packed(answer.to_json()))

    async def ack(self, lease: Lease, turn: Exchange | None = None) -> None:
        said = () if turn is None else (packed(turn.history_key), packed(json.dumps([turn.user, turn.assistant])))
        self._hear_own((await self._held(scripts.ACK, lease, *said))[1])

    async def release(self, lease: Lease, delay: float = 0.0, *, failed: bool = False) -> None:
        self._hear_own((await self._held(scripts.RELEASE, lease, _ms(delay), int(failed)))[1])

    async def bury(self, lease: Lease, error: str) -> None:
        kept = without_webhook(lease.inbound)
        self._hear_own((await self._held(scripts.BURY, lease, packed(error), kept))[1])

    async def interrupt(self, queue: str) -> bool:
        return bool(await self._call(scripts.INTERRUPT, packed(queue)))

    def on_interrupt(self, act: Callable[[int, int], object]) -> None:
        self._on_interrupt = act

    async def depth(self) -> Depth:
        pending, leased, dead, age = await self._call(scripts.DEPTH)
        return Depth(pending=pending, leased=leased, dead=dead, oldest_age=max(0.0, age / 1000))

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        letters = await self._call(scripts.DEAD, max(limit, 0)) if limit > 0 else []
        return [
            DeadLetter(unpacked(key), unpacked(error), int(attempts), int(at) / 1000, int(buried) / 1000)
            for key, error, attempts, at, buried in letters
            if key is not None
        ]

    # --- history -------------------------------------------------------------------------------------------------

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        self._need_open()
        if limit <= 0:
            return []
        said = await self._call(scripts.TURNS, packed(history_key), limit)
        pairs = (json.loads(each.partition(b" ")[2]) for each in said)
        return [Exchange(history_key, user, assistant) for user, assistant in pairs]

    async def epoch(self, history_key: str) -> int:
        return int(await self._call(scripts.EPOCH, packed(history_key)))

    async def forget(self, history_key: str) -> int:
        return int(await self._call(scripts.FORGET, packed(history_key)))

    # --- ledger --------------------------------------------------------------------------------------------------

    async def add_calls(self, month: str, calls: Mapping[str, int]) -> None:
        counts = [word for api, count in calls.items() for word in (packed(api), count)]
        await self._call(scripts.ADD_CALLS, packed(month), *counts)

    async def calls(self, month: str) -> dict[str, int]:
        return {unpacked(api): int(count) for api, count in _pairs(await self._call(scripts.CALLS, packed(month)))}

    # --- registry ------------------------------------------------------------------------------------------------

    async def items(self, prefix: str = "") -> dict[str, str]:
        """As the port says: a short question to Redis, and the entries come only where they have changed."""
        changed = await self._call(scripts.ENTRIES, self._version)
        if changed is not None:
            version, flat = changed
            self._version = version
            self._entries = {unpacked(name): unpacked(value) for name, value in _pairs(flat)}
        return {name: value for name, value in self._entries.items() if name.startswith(prefix)}

    async def set(self, name: str, value: str) -> None:
        await self._call(scripts.ENTER, packed(name), packed(value))

    async def set_if_absent(self, name: str, value: str) -> str:
        return unpacked(await self._call(scripts.ENTER_FIRST, packed(name), packed(value)))

    async def delete(self, *names: str) -> None:
        await self._call(scripts.STRIKE, *(packed(name) for name in names))

    async def chats(self, limit: int = 50) -> list[Chat]:
        chats = await self._call(scripts.CHATS, limit) if limit > 0 else []
        return [
            Chat(unpacked(where), ChatKind(kind.decode()), unpacked(title), int(first) / 1000, int(last) / 1000, int(n))
            for where, kind, title, first, last, n in chats
            if where is not None
        ]

    async def consume_quota(self, person: str, day: str, key: str, limit: int) -> bool:
        return bool(await self._call(scripts.SPEND, packed(person), packed(day), packed(key), limit))

    async def once_per(self, name: str, seconds: float) -> bool:
        return bool(await self._call(scripts.FIRST_IN, packed(name), _ms(seconds)))

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _call(self, script: scripts.Script, *words: Word, orphaned: Callable[[Any], None] | None = None) -> Any:
        self._need_open()
        future = self._link.submit(script, *words, orphaned=orphaned)
        try:
            return await future
        except asyncio.CancelledError:
            # The reply may have come in the very turn of the loop in which we were cancelled.
            if orphaned is not None and not future.cancelled() and future.exception() is None:
                orphaned(future.result())
            raise

    async def _held(self, script: scripts.Script, lease: Lease, *words: Word) -> Any:
        """Call a script that needs the lease. Raises LeaseLostError where it was ended, or is another's."""
        reply = await self._call(script, lease.seq, lease.fence, *words)
        if reply is None:
            raise LeaseLostError("the lease is no longer held")
        return reply

    def _let_go(self, reply: Any) -> None:
        """Give back a message that was claimed for somebody who no longer waits."""
        if reply is None or len(reply) < 2:
            return
        with contextlib.suppress(StoreError):
            released = self._link.submit(scripts.RELEASE, reply[0], reply[1][0], 0, 0)
            released.add_done_callback(retrieve)

    async def _give_up(self, seq: int, fence: int, error: str) -> None:
        """Bury a message that nobody can work on."""
        log.error("message given up", extra={"seq": seq, "cause": error})
        await self._call(scripts.BURY, seq, fence, packed(error))

    def _need_open(self) -> None:
        if self._state is not State.OPEN:
            raise StoreError("the store is closed")

    # --- hints -----------------------------------------------------------------------------------------------------

    def _hear(self, word: bytes) -> None:
        """What a process has published: `news`, or `stop` with the number and the fence of a lease."""
        if word == b"news":
            self._ring()
        elif (stop := _STOP.fullmatch(word)) and self._on_interrupt is not None:
            self._on_interrupt(int(stop[1]), int(stop[2]))

    def _hear_own(self, news: int) -> None:
        """Not to wait for our own hint to come back."""
        if news:
            self._ring()

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()


def _pairs(flat: list[bytes]) -> zip[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _lease(seq: int, owner: str, fields: list[bytes | None]) -> Lease | None:
    """The lease out of what CLAIM tells; None where the message cannot be read."""
    fence, queue, inbound, trace, at, attempts, claims, answer, stop, urgent, kind, conversation_key = (
        field or b"" for field in fields
    )
    try:
        message = Inbound.from_json(unpacked(inbound))
        # A replica of version 0.1.0 puts neither the kind nor the conversation's key.
        key = unpacked(conversation_key) if conversation_key else None
        return Lease(
            seq=seq,
            fence=int(fence),
            owner=owner,
            kind=RowKind(kind.decode() or RowKind.MESSAGE),
            route=route_of(unpacked(queue), urgent=urgent == b"1", conversation_key=key, msg_id=message.msg_id),
            inbound=message,
            trace=json.loads(trace),
            received_at=int(at) / 1000,
            attempts=int(attempts),
            claims=int(claims),
            answer=Answer.from_json(unpacked(answer)) if answer else None,
            stopped=bool(stop),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None

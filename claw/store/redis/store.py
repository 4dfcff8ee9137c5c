"""The store in Redis, for any number of processes: what was put is in Redis before `put` returns.

Order of events: `open` connects and looks at version and schema. Each call is one script (scripts/), made by the client
(client.py), with Redis' clock. A lease is Redis' alone: when a process dies, any other one claims its messages as soon
as their leases have run out. A lease that has run out counts until somebody else claims, as in SQLite.

`wait` asks Redis whether something may be claimed. It polls again on a hint, when a lease or a delay ends, and after
POLL_S in any case. Items are kept here and asked for by the token of their last change, so that what one process sets
the others see with their next look.

One robot has one prefix, made from its client id: robots that share a Redis share nothing else. How durable it all is
is Redis' setting: `appendonly yes` and `maxmemory-policy noeviction` are what claw counts on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from claw.clock import Clock
from claw.errors import LeaseLostError, StoreError, StoreRefusedError
from claw.messages import Answer, Exchange
from claw.parts import parts_to_fields
from claw.secret import Secret, hash_id
from claw.store.codec import (
    UNREADABLE,
    StoredRow,
    chat_row,
    consume_exception,
    created_at,
    decode,
    decode_inbound,
    decode_row,
    encode,
    encode_message,
    encode_row,
    lease_of,
    message_of,
    oldest_day,
    oldest_month,
    strip_webhook,
)
from claw.store.lifecycle import State
from claw.store.ports import CHECK_FRESH_S, CHECK_TIMEOUT_S
from claw.store.redis import scripts
from claw.store.redis.client import Arg, RedisClient
from claw.store.redis.dead_letters import RedisDeadLetters
from claw.store.redis.memory import to_ms
from claw.store.redis.server import EVICTS, ServerInfo, risks_of
from claw.store.values import (
    Depth,
    Follower,
    Interrupted,
    KeptMessage,
    Lease,
    Risk,
    Row,
    RowKind,
    RowPlace,
)

log: Final = logging.getLogger(__name__)

LOSS_INTERVAL_S: Final = 15.0
"""Seconds after which `check` looks again whether Redis evicts, and whether the settings are there."""
SCAN_STEPS_MAX: Final = 10
"""Steps of SCAN_MAX keys that one cleaning searches; the next one goes on. A Redis may hold much that is not ours."""
POLL_S: Final = 1.0
"""Seconds after which a waiter looks again, hint or no hint."""
_INTERRUPTED: Final = (Interrupted.NOTHING, Interrupted.STOPPED, Interrupted.OTHERS)
_STOP: Final = re.compile(rb"stop ([0-9]{1,19}) ([0-9]{1,19})")


def prefix_of(robot: str) -> str:
    """Return what the keys of a robot begin with, by its client id; the braces keep them on one node of a cluster."""
    return f"{{claw:{hash_id(robot)[:16]}}}"


class RedisStore(RedisDeadLetters):
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
        super().__init__()
        self._clock = clock or Clock()
        self._now = now
        self._read_only = read_only
        injected = None if now is None else lambda: round(now() * 1000)
        self._client = RedisClient(
            url, prefix_of(robot), self._on_hint, clock=self._clock, time=injected, read_only=read_only
        )
        self._waiters: set[asyncio.Event] = set()
        """One for each `wait` in progress."""
        self._seen_version = {False: b"", True: b""}
        """Redis' version of what is ready, of all and of the urgent, when `wait` last returned."""
        self._left_more = {False: False, True: False}
        """A claim of ours left something to claim, which `wait` has not told yet."""
        self._looked_at = self._clock.monotonic()
        """When Redis was last asked, by the connection or by `check`, whether it loses what it was given."""
        self._scan_cursor = "0"
        """Where the search for messages that nobody counts goes on."""
        self._interrupt: Callable[[int, int], object] | None = None

    # --- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """As the port says. A Redis that cannot be reached is no error here: what needs it fails until it can."""
        self._life.transition(State.OPENING)
        try:
            await self._client.start()
            self._life.transition(State.OPEN)
        except BaseException:
            await self._client.stop()
            if self._life.state is State.OPENING:
                self._life.transition(State.NEW)
            raise
        for risk in () if self._read_only else self.risks:
            log.warning("store may lose messages", extra={"remedy": risk.value})

    async def close(self) -> None:
        self._life.transition(State.CLOSED)
        self._wake()
        await self._client.stop()

    async def check(self) -> None:
        self._life.require_open()
        last = self._client.proved_at
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                if last is None or self._clock.monotonic() - last >= CHECK_FRESH_S:
                    await self._client.submit(scripts.PROBE)
                if not self._read_only:
                    await self._check_loss()
        except TimeoutError:
            raise StoreError("the store does not answer") from None

    async def _check_loss(self) -> None:
        """Look whether Redis keeps what it was given. Raises StoreError where it does not, or has been told not to."""
        now = self._clock.monotonic()
        if now < self._looked_at + LOSS_INTERVAL_S:
            return
        # Writes go well where the settings are gone, and each message fails.
        await self.items()
        try:
            info = await self._client.ask_memory()
        except StoreRefusedError:
            info = {}  # A user that may not ask for INFO is no hindrance.
        if Risk.EVICTS in risks_of(info):
            raise StoreRefusedError(EVICTS.format(policy=info["maxmemory_policy"], where=self._client.where))
        self._looked_at = now  # Not before it is well: until then each check asks.

    @property
    def server_info(self) -> ServerInfo:
        """What Redis tells of itself (`INFO`); empty where it was not reached, or does not tell."""
        return self._client.server_info

    @property
    def risks(self) -> tuple[Risk, ...]:
        return risks_of(self.server_info)

    async def clean(self) -> None:
        now = time.time() if self._now is None else self._now()
        while await self._call(scripts.CLEAN, oldest_day(now), oldest_month(now)) == scripts.CHUNK_MAX:
            pass
        await self._mend()

    async def _mend(self) -> None:
        """Compare what is kept twice, a chunk at a time, and log what had to be mended."""
        missing = gone = queued = heads = 0
        # The messages first: a queue can be put right only when all that is pending is known.
        for _ in range(SCAN_STEPS_MAX):
            # A number for a new store, should this one turn out to be empty: Lua has no randomness of its own.
            identity = (secrets.token_hex(8), self._client.store_id or "")
            cursor, found = await self._call(scripts.MEND_MESSAGES, self._scan_cursor, *identity)
            self._scan_cursor, missing = decode(cursor), missing + found
            if self._scan_cursor == "0":
                break
        last = b"0"
        while last:
            last, *counts = await self._call(scripts.MEND_QUEUES, last)
            gone, queued, heads = (a + b for a, b in zip((gone, queued, heads), counts, strict=True))
        # Whatever it was, somebody has deleted keys of ours, and may do so again: that is for an operator to know.
        if missing or gone or queued or heads:
            found_wrong = {"missing": missing, "gone": gone, "queued": queued, "heads": heads}
            log.warning("store mended", extra=found_wrong)
            self._wake()

    @property
    def shared(self) -> bool:
        return True

    @property
    def lost(self) -> bool:
        return self._client.lost

    # --- inbox ---------------------------------------------------------------------------------------------------

    async def put(self, row: Row) -> bool:
        stored, chat = encode_row(row), chat_row(row)
        # Without a chat nobody wrote: the script leaves the list of chats alone then.
        about_chat = () if chat is None else (encode(chat.key), *chat[1:])
        message = message_of(row, time.time() if self._now is None else self._now())
        about_message = () if message is None else (encode(message.ids[0]), to_ms(message.at), message.body)
        new, ready = await self._call(
            scripts.PUT,
            encode(row.inbound.key),
            encode(stored.queue),
            int(stored.urgent),
            stored.trace,
            stored.inbound,
            stored.kind,
            stored.conversation_key or b"",
            stored.answer or b"",
            to_ms(created_at(row)),
            *about_chat,
            *about_message,
        )
        self._wake_if(ready)
        return bool(new)

    async def claim(self, owner: str, ttl: float, *, urgent: bool = False) -> Lease | None:
        while True:
            reply = await self._call(scripts.CLAIM, to_ms(ttl), int(urgent), on_abandoned=self._release_abandoned)
            if reply is None:
                return None  # Nothing is ready.
            seq, *rest = reply
            if not rest:
                log.error("stored message is gone", extra={"seq": int(seq)})
                continue
            fields, more, more_urgent = rest
            # A worker that takes one at a time comes again by `wait`, which must not sleep while there is more.
            self._left_more = {False: more > 0, True: more_urgent > 0}
            lease = _decode_lease(int(seq), owner, fields)
            if lease is not None:
                return lease
            log.error("message given up", extra={"seq": int(seq), "cause": UNREADABLE})
            await self._call(scripts.BURY, seq, fields[0], encode(UNREADABLE), b"", b"")

    async def wait(self, *, urgent: bool = False) -> None:
        self._life.require_open()
        woken = asyncio.Event()
        self._waiters.add(woken)
        try:
            while not await self._has_news(woken, urgent=urgent):
                self._life.require_open()
        finally:
            self._waiters.discard(woken)

    async def _has_news(self, woken: asyncio.Event, *, urgent: bool) -> bool:
        """Look once; where there is nothing, sleep until it is time to look again, and return False."""
        # Cleared before Redis is asked: a hint that comes while it answers is not slept through.
        woken.clear()
        if self._left_more[urgent]:
            self._left_more[urgent] = False
            return True
        any_version, urgent_version, due = await self._call(scripts.VERSION)
        version = urgent_version if urgent else any_version
        if self._seen_version[urgent] != version:
            self._seen_version[urgent] = version
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S if due < 0 else min(due / 1000, POLL_S)):
                await woken.wait()
        return False

    async def renew(self, lease: Lease, ttl: float) -> None:
        """As the port says; a holder that was asked to stop, and missed the hint, is told now."""
        if await self._call_with(lease, scripts.RENEW, to_ms(ttl)) and self._interrupt is not None:
            self._interrupt(lease.seq, lease.fence)

    async def save_answer(self, lease: Lease, answer: Answer) -> None:
        await self._call_with(lease, scripts.SAVE_ANSWER, encode(answer.to_json()))

    async def ack(
        self,
        lease: Lease,
        exchange: Exchange | None = None,
        *,
        sent: KeptMessage | None = None,
        merged: Sequence[int] = (),
    ) -> None:
        said: tuple[Arg, ...] = (b"", b"", b"")
        if exchange is not None:
            told: list[Any] = [exchange.user, exchange.assistant]
            told += [parts_to_fields(exchange.media)] if exchange.media else []
            said = (encode(exchange.history_key), json.dumps(told), encode(exchange.epoch))
        indexed: tuple[Arg, ...] = ()
        if sent is not None:
            stored = encode_message(sent)
            # A webhook gives no receipt: the message is named after the one that it answers.
            ids = [encode(each) for each in stored.ids] or [encode(f"answer:{lease.inbound.msg_id}")]
            indexed = (encode(stored.chat), to_ms(stored.at), stored.body, *ids)
        self._wake_if((await self._call_with(lease, scripts.ACK, _join(merged), *said, *indexed))[1])

    async def followers(self, lease: Lease, limit: int) -> list[Follower]:
        found = await self._call_with(lease, scripts.FOLLOWERS, limit)
        followers: list[Follower] = []
        for seq, stored in found:
            inbound = decode_inbound(stored)
            if inbound is None:
                break
            followers.append(Follower(int(seq), inbound))
        return followers

    async def place(self, queue: str, key: str) -> RowPlace:
        return RowPlace(decode(await self._call(scripts.PLACE, encode(queue), encode(key))))

    async def release(
        self, lease: Lease, delay: float = 0.0, *, failed: bool = False, waiting: bool = False, worked: float = 0.0
    ) -> None:
        args = (to_ms(delay), int(failed), int(waiting), to_ms(worked))
        self._wake_if((await self._call_with(lease, scripts.RELEASE, *args))[1])

    async def bury(self, lease: Lease, error: str, *, attempts: int | None = None, merged: Sequence[int] = ()) -> None:
        tried = b"" if attempts is None else attempts
        args = (encode(error), tried, _join(merged), strip_webhook(lease.inbound))
        self._wake_if((await self._call_with(lease, scripts.BURY, *args))[1])

    async def interrupt(self, queue: str, *, sender: str | None = None, unless: str = "") -> Interrupted:
        args = () if sender is None else (encode(sender),)
        return _INTERRUPTED[await self._call(scripts.INTERRUPT, encode(queue), encode(unless), *args)]

    def on_interrupt(self, act: Callable[[int, int], object]) -> None:
        self._interrupt = act

    async def depth(self) -> Depth:
        pending, leased, dead, age, stuck = await self._call(scripts.DEPTH)
        return Depth(pending, leased, dead, oldest_age=max(0.0, age / 1000), stuck=bool(stuck))

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _call_with(self, lease: Lease, script: scripts.Script, *args: Arg) -> Any:
        """Call a script that needs the lease. Raises LeaseLostError where it was ended, is another's, or is gone."""
        reply = await self._call(script, lease.seq, lease.fence, *args)
        if reply is not None:
            return reply
        # Asked for apart: this is rare, and each ack would pay for it. What was ended in order is still seen.
        if await self._call(scripts.KNOWN, lease.seq, encode(lease.inbound.key)):
            raise LeaseLostError("the lease is no longer held")
        raise LeaseLostError("the store has lost the message", gone=True)

    def _release_abandoned(self, reply: Any) -> None:
        """Give back a message that was claimed for a caller who no longer waits: it would be leased to nobody."""
        if reply is None or len(reply) < 2:
            return
        with contextlib.suppress(StoreError):
            released = self._client.submit(scripts.RELEASE, reply[0], reply[1][0], 0, 0, 0, 0)
            released.add_done_callback(consume_exception)

    # --- hints -----------------------------------------------------------------------------------------------------

    def _on_hint(self, hint: bytes) -> None:
        """Take what a process has published: `news`, or `stop` with number and fence of a lease."""
        if hint == b"news":
            self._wake()
        elif (stop := _STOP.fullmatch(hint)) and self._interrupt is not None:
            self._interrupt(int(stop[1]), int(stop[2]))

    def _wake_if(self, ready: int) -> None:
        # Our own hint comes back by way of Redis, a turn later.
        if ready:
            self._wake()

    def _wake(self) -> None:
        for woken in self._waiters:
            woken.set()


def _join(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _decode_lease(seq: int, owner: str, fields: list[bytes | None]) -> Lease | None:
    """Return the lease out of what CLAIM tells; None where the row cannot be read."""
    fence, at, attempts, claims, stop, waiting, worked = (int(field or 0) for field in fields[:7])
    queue, urgent, inbound, trace, kind, conversation_key, answer = fields[7:]
    try:
        # A replica of 0.1.0 puts neither the kind nor the conversation's key.
        row = decode_row(
            StoredRow(
                decode(queue or b""),
                urgent == b"1",
                inbound or b"",
                trace or b"",
                decode(kind) if kind else RowKind.MESSAGE.value,
                conversation_key,
                answer,
            )
        )
    except UnicodeDecodeError:
        row = None
    if row is None:
        return None
    return lease_of(
        row,
        seq=seq,
        fence=fence,
        owner=owner,
        received_at=at / 1000,
        attempts=attempts,
        claims=claims,
        stopped=bool(stop),
        waiting_since=waiting / 1000,
        worked=worked / 1000,
    )

"""Accepting a message: routed once, stored durably, and only then acked.

Order of events: a `process` span opens at the moment the frame was read. The message is routed. `inbox.put` commits
it with the span's context. The ack goes out on the socket that the frame came from, and the span ends. A repeat is
acked again and dropped.

When the store fails it is asked again, for as long as DingTalk waits for the ack; messages of one conversation wait
for one another meanwhile. What could not be stored by then gets no ack: DingTalk's repeat after 60 s
(docs/protocol.md section 3.3) is the second chance. A drain ends the waiting at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from opentelemetry import context
from opentelemetry.trace import SpanKind, Status, StatusCode

from claw.clock import Clock
from claw.errors import StoreError
from claw.messages import Delivery, Inbound, Route
from claw.observe import telemetry
from claw.retry import full_jitter
from claw.secret import hash_id
from claw.store.ports import Inbox
from claw.store.values import Row

log: Final = logging.getLogger(__name__)

STORE_TIMEOUT_S: Final = 50.0
"""Seconds after a frame was read for which its message is tried to be stored: DingTalk repeats it after 60."""
RETRY_BASE_S: Final = 0.1
RETRY_CEILING_S: Final = 2.0
"""The wait between two tries is drawn below a limit that doubles up to the ceiling, but is never below the base."""

_FIXED: Final = {
    telemetry.MESSAGING_SYSTEM: "dingtalk",
    telemetry.MESSAGING_OPERATION_NAME: "process",
    telemetry.MESSAGING_OPERATION_TYPE: "process",
    telemetry.MESSAGING_DESTINATION_NAME: "dingtalk.robot",
}


@dataclass(slots=True, eq=False)
class _Line:
    """The messages of one queue that wait for the store, in order of arrival."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Acceptance:
    """Takes messages off sockets into the inbox; handed to the stream room as its `accept`."""

    def __init__(
        self,
        inbox: Inbox,
        route: Callable[[Inbound], Route],
        clock: Clock,
        on_stored: Callable[[Inbound, Route], None] = lambda _inbound, _route: None,
        load: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`load` makes ready what `route` needs, once; it raises StoreError where it cannot.

        `on_stored` hears of each new message once it is durable; it returns at once.
        """
        self._on_stored = on_stored
        self._load = load
        self._inbox = inbox
        self._route = route
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        """By queue; only of those with messages that wait."""
        self._pauses: set[asyncio.Task[None]] = set()
        self._draining = False
        self._failure: StoreError | None = None
        """What the store said last, while it fails."""
        self._failed_at = 0.0
        """When it began to, by the monotonic clock."""
        self._unacked = 0
        """Messages of this outage that were let go."""

    async def __call__(self, delivery: Delivery) -> None:
        """Store the message and acknowledge it. Raises nothing that the store or the socket is to blame for."""
        inbound = delivery.inbound
        try:
            if self._load is not None:
                await self._load()
        except StoreError as error:
            # In the first moments of a process whose store is away: nobody may be routed as if nothing were settled.
            self._on_unacked(error)
            return
        route = self._route(inbound)
        with telemetry.tracer.start_as_current_span(
            telemetry.SPAN_PROCESS,
            # An empty context: this span begins the message's trace, whatever span the reading task may be in.
            context.Context(),
            SpanKind.CONSUMER,
            _attributes(delivery, route),
            start_time=int(delivery.read_at * 1e9),
        ) as span:
            try:
                new = await self._put(Row(inbound, route, telemetry.inject()), delivery.read_at)
            except StoreError as error:
                span.set_status(Status(StatusCode.ERROR, "not stored"))
                span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)
                self._on_unacked(error)
                return
            span.set_attribute(telemetry.CLAW_DUPLICATE, not new)
            # A repeat is acked, too: it came because the first ack was lost on its way, and would come again.
            await delivery.acknowledge()
            if new:
                self._on_stored(inbound, route)
            telemetry.ack_duration.record(max(0.0, self._clock.wall() - delivery.read_at))
            log.debug("message accepted", extra={"duplicate": not new})

    def drain(self) -> None:
        """Ask a store that fails no more: the process ends, and DingTalk repeats to another one."""
        self._draining = True
        for pause in self._pauses:
            pause.cancel()

    # --- storing -------------------------------------------------------------------------------------------------

    async def _put(self, row: Row, read_at: float) -> bool:
        """Store a row, trying again for a time; return False for a repeat. Raises StoreError."""
        queue = row.route.queue
        age = min(max(0.0, self._clock.wall() - read_at), STORE_TIMEOUT_S)
        deadline = self._clock.monotonic() + STORE_TIMEOUT_S - age
        if queue not in self._lines:
            # At once, and beside others of its queue, which the store commits in order. Only when one has failed do
            # those that come later wait for it: they would overtake it.
            with suppress(StoreError):
                return await self._try(row)
        async with self._in_line(queue):
            return await self._put_again(row, deadline)

    @asynccontextmanager
    async def _in_line(self, queue: str) -> AsyncIterator[None]:
        """Wait for those of the queue that came before."""
        line = self._lines.setdefault(queue, _Line())
        line.waiting += 1
        try:
            async with line.lock:
                yield
        finally:
            line.waiting -= 1
            if not line.waiting:
                del self._lines[queue]

    async def _put_again(self, row: Row, deadline: float) -> bool:
        """Store a row whose own or whose predecessor's first try failed. Raises StoreError."""
        for tries in count(1):
            wait = full_jitter(tries, base=RETRY_BASE_S, ceiling=RETRY_CEILING_S)
            # None: a predecessor, or another conversation, has seen that the store is back.
            if (failure := self._failure) is not None:
                if self._draining or self._clock.monotonic() >= deadline:
                    raise failure
                await self._pause(max(wait, RETRY_BASE_S))
            with suppress(StoreError):
                return await self._try(row)
        raise AssertionError("unreachable")

    async def _try(self, row: Row) -> bool:
        try:
            new = await self._inbox.put(row)
        except StoreError as error:
            # Loudly once for an outage: each try of each message would be a line.
            if self._failure is None:
                self._failed_at = self._clock.monotonic()
                log.error("messages cannot be stored, trying again", extra={"cause": str(error)})
            self._failure = error
            raise
        if self._failure is not None:
            took = round(self._clock.monotonic() - self._failed_at, 1)
            log.info("messages are stored again", extra={"after_s": took, "unacked": self._unacked})
            self._failure, self._unacked = None, 0
        return new

    async def _pause(self, seconds: float) -> None:
        """Wait; a drain ends it."""
        if self._draining:
            return
        # A task of its own for the drain to cancel: the delivery itself must go on to its end.
        pause = asyncio.create_task(self._clock.sleep(seconds), name="claw.inbox.store_retry")
        self._pauses.add(pause)
        try:
            await asyncio.wait([pause])
        finally:
            self._pauses.discard(pause)
            pause.cancel()

    def _on_unacked(self, error: StoreError) -> None:
        self._unacked += 1
        level = logging.ERROR if self._unacked == 1 else logging.DEBUG
        log.log(level, "message not stored, hence not acked: DingTalk may repeat it", extra={"cause": str(error)})


def _attributes(delivery: Delivery, route: Route) -> dict[str, str | float]:
    """Return the span's attributes: people and conversations as hashes, no content."""
    inbound = delivery.inbound
    attributes: dict[str, str | float] = {
        **_FIXED,
        telemetry.MESSAGING_MESSAGE_ID: inbound.msg_id,
        telemetry.CLAW_CONVERSATION: hash_id(route.conversation_key),
        telemetry.CLAW_SENDER: hash_id(inbound.sender.key),
    }
    lag_s = delivery.read_at - inbound.created_at
    # Negative: our clock is behind DingTalk's, and the lag is not known. `clock_skew_s` in /status says by how much.
    if inbound.created_at and lag_s >= 0:
        attributes[telemetry.CLAW_DELIVERY_LAG_MS] = round(lag_s * 1000)
    return attributes

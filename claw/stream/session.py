"""One WebSocket, from open to its typed end.

Order of events: `open_session` upgrades with the ticket. `run` reads frames until the end and answers each on this
very socket: a ping is echoed, a `disconnect` is noted, a robot message is handed to `accept` in a task of its own,
which stores it and then asks for the ack, a card callback to `on_card`, which has 1.5 s to respond. Meanwhile our own
pings ask whether the peer lives: two without a sign of life from it, and the socket is aborted.

What ends is only the socket. Deliveries under way go on, since their message may become durable, and find that their
ack has nowhere to go. DingTalk's repeat is deduplicated then.
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final

import aiohttp

from claw.budget import ByteBudget
from claw.clock import Clock
from claw.errors import FrameError
from claw.messages import CardCallback, Delivery
from claw.stream import frames
from claw.stream.cards import to_card_callback
from claw.stream.counters import SessionCounters
from claw.stream.frames import Frame, FrameKind
from claw.stream.gateway import Registration
from claw.stream.inbound import to_inbound
from claw.stream.reason import Reason
from claw.stream.tasks import stop_tasks, wait_first
from claw.stream.upgrade import HANDSHAKE_TIMEOUT_S, upgrade

log: Final = logging.getLogger(__name__)

READ_SLICE_S: Final = 0.002
"""Seconds of reading after which everything else in this process gets its turn."""
CARD_RESPONSE_S: Final = 1.5
"""Seconds that a card's handler gets to respond; DingTalk waits for 2 s (docs/protocol.md section 3.2)."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Seconds that the peer gets to answer our close frame, and pending acks to be written when we drain."""
CLOCK_JUMP_S: Final = 30.0
"""Seconds of difference that tell a machine that slept, or a stopped process, from a slow one."""
CLOCK_CHECK_S: Final = 1.0
PINGS_UNANSWERED_MAX: Final = 2
LAST_WAIT_SHARE: Final = 0.7
"""Share of a heartbeat for which the last ping is waited for, so that a peer which falls silent just after a pong is
left, and the next session open, within three heartbeats (docs/architecture.md)."""
DELIVERIES_MAX: Final = 1_000
"""Deliveries of one session that are under way at once; beyond that reading rests, and TCP holds the peer back."""
IN_FLIGHT_MAX_BYTES: Final = 32 * 1024 * 1024
"""Bytes of all sessions' deliveries under way; beyond that reading rests as well: 1 000 frames may be of 8 MiB each."""
DELIVERY_BYTES: Final = 4 * 1024
"""What a delivery takes beside its text: task, message and trace."""


class SessionState(Enum):
    """What a session is at; it goes down this list, and may skip steps."""

    OPEN = 1
    LEAVING = 2
    """DingTalk has said that it will close this connection, and pushes nothing on it any more."""
    CLOSING = 3
    """We have sent a close frame, and wait for the peer's."""
    CLOSED = 4


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The end of a session: `detail` for the log (a close code, an error's type), `lived` in seconds."""

    kind: Reason
    detail: str
    lived: float


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What all sessions of a slot share.

    `accept` stores a message and then calls its `acknowledge`; `on_card` may answer a button that was pressed.
    `deliveries` owns the tasks that do so: they outlive their session, and whoever stops the supervisor waits for them.
    `in_flight` bounds what these tasks hold. It is one for all slots, since a store that hangs sees many sessions.
    Times are in seconds; `phase` (0 to 1) is the share of a heartbeat by which pings come later than those of phase 0.
    """

    accept: Callable[[Delivery], Awaitable[None]]
    on_card: Callable[[CardCallback], Awaitable[None]]
    heartbeat: float
    clock: Clock
    phase: float = 0.0
    deliveries: set[asyncio.Task[None]] = field(default_factory=set)
    handshake_timeout: float = HANDSHAKE_TIMEOUT_S
    close_timeout: float = CLOSE_TIMEOUT_S
    deliveries_max: int = DELIVERIES_MAX
    in_flight: ByteBudget = field(default_factory=lambda: ByteBudget(IN_FLIGHT_MAX_BYTES))


def next_turn(now: float, period: float, phase: float, at_least: float = 0.0) -> float:
    """Return the next moment on the grid of `period` and `phase` that is `at_least` so many seconds after `now`."""
    return (math.ceil((now + at_least) / period - phase) + phase) * period


async def open_session(
    http: aiohttp.ClientSession,
    registration: Registration,
    config: SessionConfig,
    counters: SessionCounters | None = None,
) -> Session:
    """Upgrade to a WebSocket within 5 s. Raises HandshakeError; the ticket is used up either way."""
    socket = await upgrade(http, registration, timeout=config.handshake_timeout, close_timeout=config.close_timeout)
    return Session(socket, registration, config, counters or SessionCounters())


class Session:
    """A WebSocket that serves. `run` once; `close`, `drain` or `abort` from anywhere."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        registration: Registration,
        config: SessionConfig,
        counters: SessionCounters,
    ) -> None:
        self.opened_at: Final = config.clock.monotonic()
        self.host: Final = registration.host
        self.counters: Final = counters
        self.disconnect_requested: Final = asyncio.Event()
        """Set when DingTalk says that it will close this connection and pushes nothing on it any more."""
        self._socket = socket
        self._transport = _transport_of(socket)
        self._client_id = registration.client_id
        self._config = config
        self._clock = config.clock
        self._deliveries: set[asyncio.Task[None]] = set()
        self._capacity = asyncio.Semaphore(config.deliveries_max)
        self._reading_rests = False
        self._unanswered = 0
        self._state = SessionState.OPEN
        self._closed_how = ""
        """For the log, where we closed it."""
        self._closed = asyncio.Event()

    @property
    def lived(self) -> float:
        """Seconds since the upgrade."""
        return self._clock.monotonic() - self.opened_at

    def _transition(self, to: SessionState) -> bool:
        """Go on to `to`; False where the session is as far already, as two of its ends may come together."""
        if to.value <= self._state.value:
            return False
        self._state = to
        if to is SessionState.LEAVING:
            self.disconnect_requested.set()
        elif to is SessionState.CLOSED:
            self._closed.set()
        return True

    async def run(self) -> SessionEnd:
        """Serve until the end; the socket is gone when this returns, or is cancelled."""
        reading = asyncio.create_task(self._read(), name="claw.stream.session.read")
        watching = asyncio.create_task(self._watch(), name="claw.stream.session.watch")
        closed = asyncio.create_task(self._closed.wait(), name="claw.stream.session.closed")
        tasks = (reading, watching, closed)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._state in {SessionState.CLOSING, SessionState.CLOSED}:
                # By us. Reading ends as soon as our close frame is out, which is no end yet: the peer's is to come.
                await self._closed.wait()
                return SessionEnd(Reason.CLOSED, self._closed_how, self.lived)
            # A peer that fell silent and whose socket then broke was dead before: what we measured counts.
            kind, detail = (watching if watching in done else reading).result()
            return SessionEnd(kind, detail, self.lived)
        finally:
            # Without a close handshake: at this point the peer has said goodbye, or will not answer.
            self.abort()
            await stop_tasks(*tasks)

    async def close(self, code: int = aiohttp.WSCloseCode.OK) -> None:
        """Close with a close frame; the peer gets 2 s to answer it."""
        if not self._transition(SessionState.CLOSING):
            # Somebody else is at it, such as a drain during a retirement; the caller still wants to see the end.
            await self._closed.wait()
            return
        self._closed_how = f"close {code}"
        try:
            async with asyncio.timeout(self._config.close_timeout):
                await self._socket.close(code=code)
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass  # the peer is gone, which is what we wanted
        finally:
            self.abort()

    async def drain(self) -> None:
        """Close as soon as the acks of all messages read so far are written, or after 2 s."""
        # New frames may still come in meanwhile. They are acked if there is time; if not, DingTalk repeats them.
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=self._config.close_timeout)
        await self.close()

    def abort(self) -> None:
        """Cut the connection at once, without a close frame."""
        self._closed_how = self._closed_how or "abort"
        if self._transport is not None:
            self._transport.abort()
        # Gives the connection's place in the pool back, which the WebSocket alone does not do in each of its ends.
        self._socket._response.close()  # noqa: SLF001 - see _transport_of
        self._transition(SessionState.CLOSED)

    # --- reading -------------------------------------------------------------------------------------------------

    async def _read(self) -> tuple[Reason, str]:
        loop = asyncio.get_running_loop()
        yielded_at = loop.time()
        while True:
            # Frames that have arrived are received without giving way, thousands of them: acks and probes come first.
            if loop.time() - yielded_at > READ_SLICE_S:
                await asyncio.sleep(0)
                yielded_at = loop.time()
            message = await self._socket.receive()
            # Whatever the peer sent, it lives; what we do with it here never counts as its life.
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    self._unanswered = 0
                    await self._frame(message.data)
                case aiohttp.WSMsgType.PONG:
                    self._unanswered = 0
                case aiohttp.WSMsgType.PING:
                    self._unanswered = 0
                    await self._send(self._socket.pong(message.data))
                case aiohttp.WSMsgType.BINARY:
                    self._unanswered = 0
                    self._refuse("a binary frame", len(message.data))
                case aiohttp.WSMsgType.CLOSE:
                    code = message.data or aiohttp.WSCloseCode.OK
                    await self._send(self._socket.send_frame(struct.pack("!H", code), aiohttp.WSMsgType.CLOSE))
                    return Reason.PEER_CLOSED, str(message.data or "no code")
                case aiohttp.WSMsgType.ERROR:
                    code = self._socket.close_code
                    if code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
                        self.counters.note_too_large(self._clock.wall())
                        return Reason.TOO_LARGE, str(code)
                    return Reason.BAD_PROTOCOL, str(code)
                case _:
                    return Reason.LOST, str(self._socket.close_code)

    async def _frame(self, text: str) -> None:
        read_at = self._clock.wall()
        self.counters.frames += 1
        self.counters.last_frame_at = read_at
        try:
            await self._act(frames.parse(text), read_at)
        except FrameError as error:
            self._refuse(error.reason, error.size)
            await self._reply(error.message_id, frames.BAD_REQUEST, "{}", "bad request")
        except Exception as error:  # noqa: BLE001 - no single frame, whatever it holds, may end the session
            self._refuse(type(error).__name__, len(text))

    async def _act(self, frame: Frame, read_at: float) -> None:
        match frame.kind:
            case FrameKind.ROBOT:
                await self._hand_on(frame, read_at)
            case FrameKind.PING:
                await self._reply(frame.message_id, frames.OK, frame.data)
            case FrameKind.CARD:
                await self._hand_on_card(frame)
            case FrameKind.EVENT:
                await self._reply(frame.message_id, frames.OK, frames.EVENT_ACK)
            case FrameKind.DISCONNECT:
                log.info("dingtalk asks to reconnect", extra={"reason": frames.disconnect_reason(frame)})
                self._transition(SessionState.LEAVING)
            case FrameKind.LEGACY:
                pass
            case FrameKind.UNKNOWN:
                self._refuse("an unknown topic", frame.size)
                await self._reply(frame.message_id, frames.NOT_FOUND, "{}", "topic not supported")

    async def _hand_on(self, frame: Frame, read_at: float) -> None:
        inbound = to_inbound(frame, self._client_id)
        push = frame.message_id  # the frame itself may be large, and is not needed until the ack

        async def acknowledge() -> None:
            await self._reply(push, frames.OK, frames.ROBOT_ACK)

        await self._start(partial(self._deliver, Delivery(inbound, read_at, acknowledge)), frame, "deliver")

    async def _start(self, work: Callable[[], Coroutine[Any, Any, None]], frame: Frame, name: str) -> None:
        """Do something for a frame beside reading on, which rests while too much is under way."""
        # What is kept of a frame is pieces of its data, as Python holds it: with one emoji a character takes 4 bytes.
        size = sys.getsizeof(frame.data) + DELIVERY_BYTES
        held = AsyncExitStack()
        self._reading_rests = True
        try:
            # Before the next frame is read, so that a flood fills TCP's window and not our memory.
            await held.enter_async_context(self._config.in_flight.reserve(size))
            await self._capacity.acquire()
        except BaseException:
            await held.aclose()
            raise
        finally:
            self._reading_rests = False
        # Tasks start in the order of their creation, so messages reach the store in the order of their arrival.
        task = asyncio.create_task(_work_within(held, work), name=f"claw.stream.session.{name}")
        self._deliveries.add(task)
        # Not this session's alone: the socket may end now, and the message still become durable.
        self._config.deliveries.add(task)
        task.add_done_callback(self._on_delivered)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._config.accept(delivery)
        except Exception as error:
            # Not acked, so DingTalk repeats it after 60 s.
            log.warning("message could not be accepted", extra={"cause": type(error).__name__}, exc_info=True)

    async def _hand_on_card(self, frame: Frame) -> None:
        # Bound to this socket by `_reply`: the answer to a callback counts nowhere else.
        push = frame.message_id
        is_answered = False

        async def respond(response: Mapping[str, Any]) -> None:
            nonlocal is_answered
            if is_answered:
                return
            data = frames.card_response(response)
            # Before anything is awaited: handler and deadline may come together, and DingTalk takes one answer only.
            is_answered = True
            await self._reply(push, frames.OK, data)

        await self._start(partial(self._answer_card, to_card_callback(frame, respond)), frame, "card")

    async def _answer_card(self, callback: CardCallback) -> None:
        """See to it that a callback is answered in time, whatever its handler does; the handler may take longer."""
        handler = asyncio.create_task(self._handle_card(callback), name="claw.stream.session.card.handler")
        try:
            await wait_first({"deadline": self._clock.sleep(CARD_RESPONSE_S)}, handler)
            await callback.respond({})
            await asyncio.wait({handler})
        finally:
            await stop_tasks(handler)

    async def _handle_card(self, callback: CardCallback) -> None:
        try:
            await self._config.on_card(callback)
        except Exception as error:
            log.warning("card callback failed", extra={"cause": type(error).__name__}, exc_info=True)

    def _on_delivered(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        self._config.deliveries.discard(task)
        self._capacity.release()

    def _refuse(self, reason: str, size: int) -> None:
        self.counters.note_refused(reason, size, self._clock.wall())

    # --- writing -------------------------------------------------------------------------------------------------

    async def _reply(self, message_id: str, code: int, data: str, message: str = "OK") -> None:
        if message_id:  # without an id there is nothing that an answer could refer to
            await self._send(self._socket.send_str(frames.ack(message_id, code, data, message)))

    async def _send(self, writing: Awaitable[None]) -> None:
        """Write on this socket, or nowhere: an ack must not reach DingTalk by another connection."""
        try:
            await writing
        except (aiohttp.ClientError, OSError):
            log.debug("answer dropped, its connection is gone")

    # --- liveness ------------------------------------------------------------------------------------------------

    async def _watch(self) -> tuple[Reason, str]:
        """Ping each heartbeat; return when two pings in a row brought no sign of life, or when time has jumped."""
        heartbeat = self._config.heartbeat
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        due = self._next_ping(monotonic)
        while True:
            await self._clock.sleep(max(0.0, min(due - monotonic, CLOCK_CHECK_S)))
            was_wall, was_monotonic = wall, monotonic
            wall, monotonic = self._clock.wall(), self._clock.monotonic()
            # A machine that slept stops the monotonic clock; a process that was stopped sees it run ahead. Either
            # way the peer may have given us up long ago, and a ping would only tell us so much later.
            jump = max(abs((wall - was_wall) - (monotonic - was_monotonic)), monotonic - was_monotonic - CLOCK_CHECK_S)
            if jump > CLOCK_JUMP_S:
                return Reason.CLOCK_JUMP, f"{jump:.0f} s"
            if self._reading_rests and self._transport is not None and self._transport.is_closing():
                # The end of a connection is read like a frame, which nobody does now.
                return Reason.LOST, "while reading rested"
            if monotonic < due:
                continue
            if self._unanswered >= PINGS_UNANSWERED_MAX:
                return Reason.PONGS_MISSED, f"{self._unanswered} pings"
            # While reading rests, a pong could not be seen: that is our fault and no sign of the peer's death.
            if not self._reading_rests:
                self._unanswered += 1
            is_last = self._unanswered >= PINGS_UNANSWERED_MAX
            due = monotonic + heartbeat * LAST_WAIT_SHARE if is_last else self._next_ping(monotonic, heartbeat / 2)
            await self._ping(heartbeat)

    def _next_ping(self, now: float, at_least: float = 1e-3) -> float:
        # By a grid, so that the pings of two slots never fall together: a fault of a second cannot eat both of them.
        return next_turn(now, self._config.heartbeat, self._config.phase, at_least)

    async def _ping(self, timeout: float) -> None:
        payload = struct.pack("!Q", time.monotonic_ns())
        try:
            # A peer that does not read lets the buffer fill, and a ping without limit would hang for ever.
            async with asyncio.timeout(timeout):
                await self._send(self._socket.ping(payload))
        except TimeoutError:
            log.debug("ping could not be written")


async def _work_within(held: AsyncExitStack, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with held:
        await work()


def _transport_of(socket: aiohttp.ClientWebSocketResponse) -> asyncio.Transport | None:
    """Find the transport below. aiohttp has no public way to abort a WebSocket, and its close waits for a dead peer."""
    connection = socket._response.connection  # noqa: SLF001 - see above
    return None if connection is None else connection.transport

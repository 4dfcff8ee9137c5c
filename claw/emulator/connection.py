"""One WebSocket as DingTalk's end holds it: what waits to be written, what waits for its ack, its timers.

Order of events: the gateway accepts the upgrade and runs `serve`; a writer task sends what lies in the outbox, in
order; the reader hands every frame to the gateway. Freezing stops both, pongs included, and leaves the TCP connection
as it is: that is a half-open connection as the other side sees it. Timers belong to the connection and end with it.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import time
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from aiohttp import WSMsgType, web

from claw.emulator.responses import reset_transport

OUTBOX_MAX: Final = 20_000
"""Frames that wait for a connection at most; a frozen one loses its oldest above this."""
FRAME_MAX_BYTES: Final = 8 * 1024 * 1024
"""The largest frame that is read."""


class ConnectionState(enum.Enum):
    OPEN = "open"
    DRAINING = "draining"
    """A `disconnect` was sent: no new pushes, acks still count (docs/protocol.md section 4)."""
    CLOSED = "closed"


class OutboxFrame(NamedTuple):
    kind: WSMsgType
    payload: Any
    """The text, the bytes, or the code of a close frame."""
    on_written: Callable[[], None] | None = None
    """Called when the frame has been handed to the socket."""


class Connection:
    def __init__(
        self,
        number: int,
        ticket: str,
        subscriptions: frozenset[tuple[str, str]],
        ws: web.WebSocketResponse,
        transport: asyncio.Transport,
    ) -> None:
        self.id = f"c{number}"
        self.ticket = ticket
        """Also the `connectionId` of its frames (docs/protocol.md section 1.2)."""
        self.subscriptions = subscriptions
        self.opened = time.monotonic()
        self.closed: float | None = None
        self.state = ConnectionState.OPEN
        self.in_flight: set[str] = set()
        """messageIds that were sent here and wait for their ack."""
        self.pushes = 0
        self.acks = 0
        self.pings_seen = 0
        """WebSocket pings of the client."""
        self.close_code: int | None = None
        """What the client closed with."""
        self.odd_frames_sent = False
        """It was sent frames without a proper messageId, so its acks may lack one too."""
        self.routed = True
        """False: live, but gets no share of the pushes (a frozen one that the server has noticed)."""
        self.held: OutboxFrame | None = None
        """A frame that waits to change places with the next one."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._aborted = False
        self._closing = False
        self._ws = ws
        self._transport = transport
        # Bounded at its old end: a frozen connection goes on getting its share for hours in a soak.
        self._outbox: collections.deque[OutboxFrame] = collections.deque(maxlen=OUTBOX_MAX)
        self._filled = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()

    @property
    def frozen(self) -> bool:
        return not self._thawed.is_set()

    @property
    def age(self) -> float:
        """Seconds that it has lived."""
        return (self.closed or time.monotonic()) - self.opened

    def send(self, frame: OutboxFrame) -> None:
        # An ended connection takes nothing: a timer or a fault may still hold it, and its outbox has no reader.
        if self.state is not ConnectionState.CLOSED:
            self._outbox.append(frame)
            self._filled.set()

    async def serve(
        self, on_text: Callable[[str], None], on_odd: Callable[[str], None], *, pongs: Callable[[], bool]
    ) -> None:
        """Read until the connection ends, whoever ends it; the writer lives exactly as long."""
        writer = asyncio.create_task(self._write(), name=f"claw.emulator.writer.{self.id}")
        try:
            while True:
                message = await self._ws.receive()
                # Paused reading stops the socket, not what aiohttp has read ahead: that has to wait here.
                await self._thawed.wait()
                if message.type is WSMsgType.TEXT:
                    on_text(message.data)
                elif message.type is WSMsgType.PING:
                    self.pings_seen += 1
                    if pongs():
                        # Through the outbox as well: a pong that overtakes frames would show life where none is.
                        self.send(OutboxFrame(WSMsgType.PONG, message.data))
                elif message.type is WSMsgType.BINARY:
                    on_odd("binary frame from the client")
                elif message.type is not WSMsgType.PONG:
                    if message.type is WSMsgType.CLOSE:
                        self.close_code = message.data
                    return
        finally:
            self._end()
            if not self._closing:  # Otherwise the writer is in the middle of the close handshake, and bounded.
                writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            if not self._aborted:
                await self._ws.close()  # Answers the client's close frame; does nothing when the socket has gone.

    async def _write(self) -> None:
        try:
            while not self._closing:
                while not self._outbox:
                    self._filled.clear()
                    await self._filled.wait()
                # Waited for before the frame is taken: what is frozen in the outbox may still be pushed out of it.
                await self._thawed.wait()
                kind, payload, on_written = self._outbox.popleft()
                if kind is WSMsgType.PONG:
                    await self._ws.pong(payload)
                elif kind is WSMsgType.CLOSE:
                    # Set before the handshake begins: the reader sees the client's answer first and would cancel us.
                    self._closing = True
                    await self._ws.close(code=payload)
                elif kind is WSMsgType.BINARY:
                    await self._ws.send_bytes(payload)
                else:
                    if on_written is not None:
                        # Before the write: the ack of a fast client arrives before a full socket lets us go on.
                        on_written()
                    await self._ws.send_str(payload)
        except (ConnectionError, RuntimeError):
            return  # The reader sees the same end and tells it.

    def freeze(self) -> None:
        """Neither read nor write from now on, pongs included."""
        if self.state is not ConnectionState.CLOSED:
            self._thawed.clear()
            self._transport.pause_reading()

    def thaw(self) -> None:
        if self.frozen:
            self._thawed.set()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def abort(self, how: Literal["reset", "end", "now"] = "now") -> None:
        """End the TCP connection without a close frame.

        `reset`: with RST; `end`: with FIN once all is written, as DingTalk does after `disconnect`; `now`: with FIN
        although something may be unwritten.
        """
        self._aborted = True
        # A frozen reader waits for the thaw and would never see the end.
        self.thaw()
        if how == "reset":
            reset_transport(self._transport)
        elif how == "end":
            self._transport.close()
        else:
            self._transport.abort()

    def arm(self, name: str, delay_s: float, action: Callable[[], None]) -> None:
        """Run `action` after a delay unless the connection ends first; a second arming replaces the first."""
        self.disarm(name)
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, action)

    def disarm(self, name: str) -> None:
        handle = self._timers.pop(name, None)
        if handle is not None:
            handle.cancel()

    def _end(self) -> None:
        self.state = ConnectionState.CLOSED
        self.closed = time.monotonic()
        self._outbox.clear()
        for name in list(self._timers):
            self.disarm(name)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": "frozen" if self.frozen else self.state.value,
            "age": round(self.age, 1),
            "in_flight": len(self.in_flight),
            "pushes": self.pushes,
            "acks": self.acks,
            "pings": self.pings_seen,
            "topics": sorted({topic for _, topic in self.subscriptions}),
        }

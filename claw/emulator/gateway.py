"""DingTalk's stream gateway: it upgrades connections, keeps their clocks, and joins tickets, pushes and acks.

Order of events: `open` hands out a ticket; `connect` trades it for a WebSocket and serves that until it ends. On every
connection a SYSTEM ping comes at once and then in intervals; after its time to live it gets `disconnect`, no more
pushes, and the end of its TCP 10 s later (docs/protocol.md section 1 to 4, and 10 for the times).
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from typing import Any, Final

from aiohttp import web

from claw.emulator.acks import Acks
from claw.emulator.connection import FRAME_MAX_BYTES, Connection, ConnectionState
from claw.emulator.connections import Connections
from claw.emulator.faults import Faults
from claw.emulator.feed import Feed
from claw.emulator.pushes import Pushes
from claw.emulator.responses import Hangs, RefusedError, reset_transport
from claw.emulator.tickets import AppCredentials, Ticket, Tickets

FIRST_PING_DELAY_S: Final = 0.5
"""From the upgrade to the first SYSTEM ping (docs/protocol.md section 2.2 and 10)."""
CLOSE_TIMEOUT_S: Final = 3.0
"""How long a close frame waits for its answer."""
BY_SWITCH_S: Final = -1.0
"""In place of a time: as the switch `disconnect_close_after` says."""
SHOWN_MAX: Final = 50
"""Registrations, pushes and violations that the state shows."""


class FakeGateway:
    """All connections of one app. `keep` bounds every log."""

    def __init__(
        self, *, app: AppCredentials, faults: Faults, feed: Feed, hangs: Hangs, keep: int, rng: random.Random
    ) -> None:
        self.tickets = Tickets(app=app, faults=faults, feed=feed, hangs=hangs, keep=keep)
        self.connections = Connections(feed=feed, rng=rng)
        self.pushes = Pushes(connections=self.connections, faults=faults, feed=feed, rng=rng, keep=keep)
        self.acks = Acks(pushes=self.pushes, feed=feed, keep=keep)
        self.push = self.pushes.push
        self._app = app
        self._faults = faults
        self._feed = feed
        self._hangs = hangs
        faults.listen(self._rearm)

    @property
    def client_secret(self) -> str | None:
        """Change it, and the next registration with the old one is refused."""
        return self._app.client_secret

    @client_secret.setter
    def client_secret(self, value: str | None) -> None:
        self._app.client_secret = value

    @property
    def connection_count(self) -> int:
        """How many connections there ever were."""
        return self.connections.count

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """`GET /connect?ticket=`: the upgrade (docs/protocol.md section 1.4)."""
        if self._faults.take("hang_upgrade"):
            return await self._hangs.hang(request)
        ticket_id = request.query.get("ticket", "")
        try:
            ticket = self._admit(ticket_id)
        except RefusedError as error:
            return error.reply()
        # Pings and close frames are ours to answer: a frozen or zombie connection must be able not to.
        ws = web.WebSocketResponse(
            autoping=False, autoclose=False, compress=False, max_msg_size=FRAME_MAX_BYTES, timeout=CLOSE_TIMEOUT_S
        )
        await ws.prepare(request)
        transport = request.transport
        if transport is None:  # The client went away during the upgrade.
            return ws
        ending = self._faults.take("close_after_accept")
        if ending == "reset":
            reset_transport(transport)
        elif ending == "clean":
            await ws.close(code=1000)
        else:
            await self._serve(ticket_id, ticket, ws, transport)
        return ws

    def _admit(self, ticket_id: str) -> Ticket:
        status = self._faults.take("refuse_upgrade")
        if status:
            raise RefusedError(status)
        ticket = self.tickets.redeem(ticket_id)
        if len(self.connections.live) >= self._faults.connection_limit:
            # What the real one does at its limit is unknown; refusing is what a client can notice.
            raise RefusedError(403, "Forbidden.ConnectionLimit", "too many connections")
        return ticket

    async def _serve(
        self, ticket_id: str, ticket: Ticket, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> None:
        connection = self.connections.add(ticket_id, ticket, ws, transport)
        # Armed before anything can be received: a client may end the connection at once, which disarms them again.
        connection.arm("ping", FIRST_PING_DELAY_S, lambda: self._ping(connection))
        self._arm_ttl(connection)
        self.connections.publish(connection)
        try:
            await connection.serve(
                lambda text: self.acks.receive(connection, text),
                lambda what: self.acks.add_violation(connection, what),
                pongs=lambda: not self._faults.take("never_pong"),
            )
        finally:
            # Settled before it is removed: from its removal on nobody finds its in-flight deliveries any more.
            self.pushes.settle_all(connection)
            self.connections.remove(connection)

    # --- clocks of a connection ---

    def _ping(self, connection: Connection) -> None:
        self.pushes.push_system(connection, "ping", {"opaque": str(uuid.uuid4())})
        connection.arm("ping", self._faults.ping_interval, lambda: self._ping(connection))

    def _arm_ttl(self, connection: Connection) -> None:
        connection.disarm("ttl")
        ttl = self._faults.connection_ttl
        if ttl and connection.state is ConnectionState.OPEN:
            # From its opening, not from now: a shorter life that is switched on hits old connections at once.
            left = max(0.0, connection.opened + ttl - time.monotonic())
            connection.arm("ttl", left, lambda: self.disconnect(connection))

    def _rearm(self, fault: str) -> None:
        """Let a switch act on connections that are open already."""
        for connection in self.connections.live.values():
            if fault == "connection_ttl":
                self._arm_ttl(connection)
            elif fault == "ping_interval":
                # Bound as a default: a lambda in a loop would see the last connection only.
                connection.arm("ping", self._faults.ping_interval, lambda each=connection: self._ping(each))  # type: ignore[misc]

    def disconnect(self, connection: Connection, close_after: float | None = BY_SWITCH_S) -> None:
        """Send `disconnect`, and end the TCP `close_after` seconds later; None means never."""
        if connection.state is not ConnectionState.OPEN:
            return
        self.pushes.push_system(connection, "disconnect", {"reason": "persistent connection is timeout"})
        # From this moment no push picks it, but it goes on being read: acks of what is in flight still count.
        connection.state = ConnectionState.DRAINING
        connection.disarm("ttl")
        # None is a value here, and means never: it cannot stand for what was not given.
        after = self._faults.disconnect_close_after if close_after == BY_SWITCH_S else close_after
        if after is not None:
            connection.arm("close", after, lambda: connection.abort("end"))
        self.connections.publish(connection)

    # --- life ---

    def resume(self) -> None:
        self.pushes.resume()

    async def close(self) -> None:
        """End every connection and timer at once; what waits for an ack is remembered."""
        # Before the connections end: a re-push in between would find no connection, and be lost as undeliverable.
        self.pushes.pause()
        for connection in self.connections.find(None):
            connection.abort("now")
        await self.connections.wait_none()

    def forget(self) -> None:
        """Empty every log; connections and what waits for an ack stay."""
        self.tickets.forget()
        self.pushes.forget()
        self.acks.forget()
        self._feed.frames.clear()

    def to_dict(self) -> dict[str, Any]:
        now, tickets, violations = time.monotonic(), self.tickets, self.acks.violations
        return {
            "connections": [each.to_dict() for each in self.connections.live.values()],
            "registrations": {
                "count": tickets.count,
                "in_flight_max": tickets.in_flight_max,
                "last_status": tickets.last_status,
                "seconds_ago": [round(now - at, 3) for at in list(tickets.registrations)[-SHOWN_MAX:]],
            },
            "pushes": self.pushes.to_dict(SHOWN_MAX) | {"acks": self.acks.count},
            "violations": {
                "count": self.acks.violation_count,
                "last": [{"connection": each.connection, "what": each.what} for each in list(violations)[-SHOWN_MAX:]],
            },
            "frames": [frame.to_dict() for frame in self._feed.frames],
        }

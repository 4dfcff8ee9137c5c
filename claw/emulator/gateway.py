"""DingTalk's stream gateway: registrations, tickets, WebSocket lanes, pushes and the bookkeeping of their acks.

Order of events: `open` checks the credentials and hands out a ticket (90 s, one use); `connect` trades it for a
WebSocket; a push goes to one live connection at random; its ack has to arrive on that socket. A robot message without
ack is pushed once more after 60 s under a new messageId, an event after 3 s + 10 s and + 30 s. After its time to live
a connection gets `disconnect`, no more pushes, and the end of its TCP 10 s later (docs/protocol.md section 1 to 4 and 10).

What a client does against the protocol is no error here but a *violation*: it is counted and can be asserted on.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import enum
import json
import random
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from claw.emulator.connection import FRAME_MAX_BYTES, Connection, ConnectionState, OutboxFrame
from claw.emulator.responses import KNOWN_ERRORS, Hangs, read_json, reply_error, reply_html, reply_json, reset_transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from claw.emulator.faults import Faults
    from claw.emulator.feed import Feed

ROBOT_TOPIC: Final = "/v1.0/im/bot/messages/get"
CARD_TOPIC: Final = "/v1.0/card/instances/callback"
TICKET_LIFETIME_S: Final = 90.0
"""Seconds (docs/protocol.md section 1.2)."""
FIRST_PING_DELAY_S: Final = 0.5
"""Seconds from the upgrade to the first SYSTEM ping (docs/protocol.md section 2.2, 10)."""
CARD_ANSWER_DEADLINE_S: Final = 2.0
"""Seconds within which the answer to a card callback is used (docs/protocol.md section 7.6)."""
REORDER_HOLD_S: Final = 0.2
"""Seconds that a frame waits for another one to change places with."""
FRAME_LOG_MAX: Final = 200
"""Frames that the state shows."""
FRAME_TEXT_CHARS: Final = 1500
WRONG_ENDPOINT: Final = "ws://127.0.0.1:9/connect"
"""Port 9 (discard): nobody listens there."""
SECRET_PATTERN: Final = re.compile(
    r"(session=)[0-9a-f]{8,}|([0-9a-f]{8})-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|(downloadCode\W+)[\w-]{8,}"
)
"""Sessions, tickets (version-1 UUIDs) and download codes."""


class PushKind(enum.Enum):
    CALLBACK = "CALLBACK"
    EVENT = "EVENT"
    SYSTEM = "SYSTEM"


@dataclasses.dataclass(eq=False)
class PushDelivery:
    """One frame on one connection."""

    message_id: str
    connection: str
    push: Push
    sent: float
    """Monotonic seconds at which it was handed to the socket (or would have been)."""
    expected: int = 1
    """Acks that are right: 2 when the frame was duplicated."""
    acks: int = 0


@dataclasses.dataclass(eq=False)
class Push:
    """One thing that DingTalk wants a client to know, over all its deliveries."""

    number: int
    kind: PushKind
    topic: str
    data: str
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    msg_id: str = ""
    created: float = dataclasses.field(default_factory=time.monotonic)
    deliveries: list[PushDelivery] = dataclasses.field(default_factory=list)
    acked: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    ack_ms: float | None = None
    """From the delivery that was acked to its ack."""
    ack_code: int | None = None
    ack_data: Any = None
    repushed: int = 0
    timer: asyncio.TimerHandle | None = None
    due: float = 0.0
    """Monotonic seconds at which its missing ack has a consequence."""
    late: Callable[[Push], None] | None = None
    """That consequence."""

    @property
    def connections_tried(self) -> list[str]:
        return [delivery.connection for delivery in self.deliveries]

    @property
    def delivered(self) -> bool:
        """A live connection was there to take it."""
        return bool(self.deliveries)

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "kind": self.kind.value,
            "topic": self.topic,
            "msgId": self.msg_id,
            "connections": self.connections_tried,
            "acked": self.acked.is_set(),
            "ack_ms": None if self.ack_ms is None else round(self.ack_ms, 2),
            "ack_code": self.ack_code,
            "repushed": self.repushed,
            "age": round(time.monotonic() - self.created, 1),
        }


@dataclasses.dataclass(frozen=True)
class Ack:
    at: float
    connection: str
    message_id: str
    code: int | None
    push: Push | None
    """None: no frame had that messageId."""
    duplicate: bool
    wrong_socket: bool


@dataclasses.dataclass(frozen=True)
class Violation:
    at: float
    connection: str
    what: str


@dataclasses.dataclass(frozen=True)
class LoggedFrame:
    at: float
    connection: str
    direction: str
    """`out` to the client, `in` from it."""
    text: str

    def to_dict(self) -> dict[str, Any]:
        text = SECRET_PATTERN.sub(lambda hit: f"{hit[1] or hit[3] or hit[2]}…", self.text)
        return {"at": self.at, "connection": self.connection, "direction": self.direction, "text": text}


@dataclasses.dataclass(frozen=True)
class Ticket:
    expires: float
    subscriptions: frozenset[tuple[str, str]]


class FakeGateway:
    """All connections of one app. `keep` bounds every log."""

    def __init__(
        self,
        *,
        client_id: str | None,
        client_secret: str | None,
        faults: Faults,
        feed: Feed,
        hangs: Hangs,
        keep: int,
        rng: random.Random,
        adopted: Callable[[str], None],
    ) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.app_id = str(uuid.uuid4())
        self.base_url = ""
        """`http://host:port` as clients see it; the facade sets it."""
        self.learn_base_url = True
        self.connections: dict[str, Connection] = {}
        """Live ones by id; closed ones are in `past`."""
        self.past: collections.deque[Connection] = collections.deque(maxlen=keep)
        self.registrations: collections.deque[float] = collections.deque(maxlen=keep)
        self.registration_count = 0
        self.registrations_in_flight = 0
        self.registrations_in_flight_max = 0
        self.connection_count = 0
        self.pushes: collections.deque[Push] = collections.deque(maxlen=keep)
        self.push_count = 0
        self.ack_count = 0
        self.acks: collections.deque[Ack] = collections.deque(maxlen=keep)
        self.violations: collections.deque[Violation] = collections.deque(maxlen=keep)
        self.violation_count = 0
        self.undeliverable: collections.deque[Push] = collections.deque(maxlen=keep)
        self.undeliverable_count = 0
        self.frames: collections.deque[LoggedFrame] = collections.deque(maxlen=FRAME_LOG_MAX)
        self._faults = faults
        self._feed = feed
        self._hangs = hangs
        self._keep = keep
        self._rng = rng
        self._adopted = adopted
        self._empty = asyncio.Event()
        self._opened: set[asyncio.Event] = set()
        self._tickets: dict[str, Ticket] = {}
        self._pending: dict[str, PushDelivery] = {}
        self._settled: dict[str, PushDelivery] = {}
        self._waiting: set[Push] = set()
        self._prefix = uuid.uuid4().hex[:8]
        self._frame_count = 0
        faults.listen(self._fault_changed)

    # Registration

    async def open(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1.0/gateway/connections/open` (docs/protocol.md section 1.1 to 1.3)."""
        self.registrations.append(time.monotonic())
        self.registration_count += 1
        self.registrations_in_flight += 1
        self.registrations_in_flight_max = max(self.registrations_in_flight_max, self.registrations_in_flight)
        self._feed.publish("registration", lambda: {"count": self.registration_count})
        try:
            return await self._open(request)
        finally:
            self.registrations_in_flight -= 1

    async def _open(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        fault = await self._gateway_fault(request)
        if fault is not None:
            return fault
        problem = self._refusal(body)
        if problem is not None or body is None:
            return problem or reply_error(400)
        subscriptions = frozenset((one["type"], one["topic"]) for one in body["subscriptions"])
        ticket = str(uuid.uuid1())
        now = time.monotonic()
        while self._tickets and next(iter(self._tickets.values())).expires < now:
            del self._tickets[next(iter(self._tickets))]
        self._tickets[ticket] = Ticket(now + TICKET_LIFETIME_S, subscriptions)
        if self.learn_base_url:
            self.base_url = f"http://{request.host}"
        endpoint = self.base_url.replace("http", "ws", 1) + "/connect"
        if self._faults.take("gateway_wrong_endpoint"):
            endpoint = WRONG_ENDPOINT
        accept = request.headers.get("Accept", "")
        if "json" not in accept:
            # The real one answers XML unless JSON is asked for: docs/protocol.md section 1.1 names the Node SDK's comment on it.
            fields = f"<endpoint>{endpoint}</endpoint><ticket>{ticket}</ticket>"
            text = f"<connectionOpenResponse>{fields}</connectionOpenResponse>"
            return web.Response(text=text, content_type="application/xml")
        return reply_json({"endpoint": endpoint, "ticket": ticket})

    async def _gateway_fault(self, request: web.Request) -> web.StreamResponse | None:
        take = self._faults.take
        if take("gateway_hang"):
            return await self._hangs.hang(request)
        await self._hangs.sleep(take("gateway_delay"))
        if take("gateway_html"):
            return reply_html()
        retry_after = self._faults.gateway_retry_after
        status = take("gateway_status")
        if not status:
            return None
        code = {400: "invalidParameter", 401: "authFailed"}.get(status, "")
        message = "鉴权失败" if status == 401 else ""
        headers = {"Retry-After": f"{retry_after:g}"} if retry_after and status in {429, 503} else None
        return reply_error(status, code, message or KNOWN_ERRORS.get(status, ("", ""))[1], headers=headers)

    def _refusal(self, body: dict[str, Any] | None) -> web.Response | None:
        if body is None:
            return reply_error(400, "invalidParameter", "the body is not a JSON object")
        client_id, secret = body.get("clientId"), body.get("clientSecret")
        if not (isinstance(client_id, str) and client_id and isinstance(secret, str) and secret):
            return reply_error(401, "authFailed", "鉴权失败")
        if self.client_id is None:
            self.adopt(client_id)
        elif client_id != self.client_id or (self.client_secret is not None and secret != self.client_secret):
            return reply_error(401, "authFailed", "鉴权失败")
        wrong = _find_subscription_fault(body.get("subscriptions"))
        return reply_error(400, "invalidParameter", wrong) if wrong else None

    def adopt(self, client_id: str) -> None:
        """An emulator without credentials takes those of the first client."""
        self.client_id = client_id
        self._adopted(client_id)

    # Connections

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """`GET /connect?ticket=`: the upgrade (docs/protocol.md section 1.4)."""
        if self._faults.take("hang_upgrade"):
            return await self._hangs.hang(request)
        ticket_id = request.query.get("ticket", "")
        ticket = self._redeem(ticket_id)
        if not isinstance(ticket, Ticket):
            return ticket
        ws = web.WebSocketResponse(
            autoping=False, autoclose=False, compress=False, max_msg_size=FRAME_MAX_BYTES, timeout=3.0
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

    def _redeem(self, ticket_id: str) -> Ticket | web.Response:
        """The ticket, used up from now on; or the refusal of the upgrade."""
        status = self._faults.take("refuse_upgrade")
        if status:
            return reply_error(status)
        ticket = self._tickets.pop(ticket_id, None)
        if ticket is None or ticket.expires < time.monotonic():
            return reply_error(self._faults.take("bad_ticket_status"), "authFailed", "鉴权失败")
        if len(self.connections) >= self._faults.connection_limit:
            return reply_error(403, "Forbidden.ConnectionLimit", "too many connections")
        return ticket

    async def _serve(
        self, ticket_id: str, ticket: Ticket, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> None:
        self.connection_count += 1
        connection = Connection(self.connection_count, ticket_id, ticket.subscriptions, ws, transport)
        self.connections[connection.id] = connection
        connection.arm("ping", FIRST_PING_DELAY_S, lambda: self._ping(connection))
        self._arm_ttl(connection)
        self._connection_changed(connection)
        try:
            await connection.serve(
                lambda text: self._received(connection, text),
                lambda what: self.add_violation(connection, what),
                pongs=lambda: not self._faults.take("never_pong"),
            )
        finally:
            self.connections.pop(connection.id, None)
            self.past.append(connection)
            for message_id in list(connection.in_flight):
                self._settle(self._pending[message_id])  # Its re-push has its own timer and needs no pending delivery.
            connection.in_flight.clear()
            self._connection_changed(connection)
            if not self.connections:
                self._empty.set()

    def pick(self, kind: PushKind, topic: str) -> Connection | None:
        """One of the live connections that subscribed to the topic, at random (docs/protocol.md section 4)."""
        wanted = (kind.value, topic)
        fit = [
            one
            for one in self.connections.values()
            if one.state is ConnectionState.OPEN and one.routed and wanted in one.subscriptions
        ]
        return self._rng.choice(fit) if fit else None

    async def wait_open(self, count: int, *, timeout: float) -> list[Connection]:
        """At least so many connections that take pushes. Raises TimeoutError."""
        event = asyncio.Event()
        self._opened.add(event)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    opened = [
                        one for one in self.connections.values() if one.state is ConnectionState.OPEN and not one.frozen
                    ]
                    if len(opened) >= count:
                        return opened
                    event.clear()
                    await event.wait()
        except TimeoutError:
            raise TimeoutError(f"fewer than {count} connections after {timeout:g} s") from None
        finally:
            self._opened.discard(event)

    def find(self, connection_id: str | None) -> list[Connection]:
        """The live connections, or the one with that id."""
        if connection_id is None:
            return list(self.connections.values())
        return [self.connections[connection_id]] if connection_id in self.connections else []

    def _ping(self, connection: Connection) -> None:
        data = json.dumps({"opaque": str(uuid.uuid4())})
        self._transmit(Push(0, PushKind.SYSTEM, "ping", data), connection)
        connection.arm("ping", self._faults.ping_interval, lambda: self._ping(connection))

    def _arm_ttl(self, connection: Connection) -> None:
        connection.disarm("ttl")
        ttl = self._faults.connection_ttl
        if ttl and connection.state is ConnectionState.OPEN:
            left = max(0.0, connection.opened + ttl - time.monotonic())
            connection.arm("ttl", left, lambda: self.disconnect(connection))

    def disconnect(self, connection: Connection, close_after: float | None = -1.0) -> None:
        """Send `disconnect` and end the TCP later (s; None: never; below 0: as the switch says)."""
        if connection.state is not ConnectionState.OPEN:
            return
        push = Push(0, PushKind.SYSTEM, "disconnect", json.dumps({"reason": "persistent connection is timeout"}))
        self._transmit(push, connection)
        connection.state = ConnectionState.DRAINING
        connection.disarm("ttl")
        after = self._faults.disconnect_close_after if close_after is not None and close_after < 0 else close_after
        if after is not None:
            connection.arm("close", after, lambda: connection.abort("end"))
        self._connection_changed(connection)

    def _fault_changed(self, name: str) -> None:
        if name == "connection_ttl":
            for connection in self.connections.values():
                self._arm_ttl(connection)
        elif name == "ping_interval":
            for connection in self.connections.values():
                connection.arm("ping", self._faults.ping_interval, lambda it=connection: self._ping(it))  # type: ignore[misc]

    def _connection_changed(self, connection: Connection) -> None:
        for event in self._opened:
            event.set()
        self._feed.publish("connection", connection.to_dict)

    # Pushes

    def push(
        self,
        data: dict[str, Any] | str,
        *,
        kind: PushKind = PushKind.CALLBACK,
        topic: str = ROBOT_TOPIC,
        msg_id: str = "",
    ) -> Push:
        """Push to one connection at random; without any it is lost, as the real one loses it (docs/protocol.md section 3.3)."""
        self.push_count += 1
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        if not msg_id and isinstance(data, dict):
            msg_id = str(data.get("msgId", ""))
        push = Push(self.push_count, kind, topic, text, msg_id=msg_id)
        if kind is PushKind.EVENT:
            push.headers = {
                "eventId": uuid.uuid4().hex,
                "eventType": "user_add_org",
                "eventCorpId": "dingfakecorp",
                "eventBornTime": str(int(time.time() * 1000)),
                "eventUnifiedAppId": self.app_id,
            }
        self.pushes.append(push)
        self._route(push)
        return push

    def push_raw(self, payload: str | bytes, connection_id: str | None = None) -> list[str]:
        """Write the payload as it is on the given or every live connection; their ids."""
        chosen = self.find(connection_id)
        for connection in chosen:
            text = payload if isinstance(payload, str) else f"<{len(payload)} bytes>"
            self._log(connection, "out", text)
            connection.send(OutboxFrame(payload))
        return [connection.id for connection in chosen]

    def send_odd(self, connection: Connection, payload: str | bytes | dict[str, Any]) -> None:
        """Write a frame that no client expects; a dict is given a messageId, so that an ack of it is known."""
        connection.odd_frames_sent = True
        if isinstance(payload, dict):
            push = Push(0, PushKind.SYSTEM, "odd", "")
            delivery = PushDelivery(self._message_id(), connection.id, push, time.monotonic())
            push.deliveries.append(delivery)
            self._pending[delivery.message_id] = delivery
            connection.in_flight.add(delivery.message_id)
            headers = {"contentType": "application/json", "messageId": delivery.message_id, "time": "0"}
            payload = json.dumps(payload | {"headers": headers | payload.get("headers", {})}, ensure_ascii=False)
        self.push_raw(payload, connection.id)

    def _route(self, push: Push) -> None:
        connection = self.pick(push.kind, push.topic)
        if connection is None:
            self.undeliverable.append(push)
            self.undeliverable_count += 1
            return
        self._transmit(push, connection)
        if push.kind is PushKind.EVENT:
            self._await_ack(push, self._faults.event_deadline, self._event_late)
        elif push.topic == ROBOT_TOPIC and push.repushed < self._faults.repush_times:
            self._await_ack(push, self._faults.repush_after, self._repush)

    def _await_ack(self, push: Push, delay: float, late: Callable[[Push], None]) -> None:
        if push.timer is not None:
            push.timer.cancel()
        self._waiting.add(push)
        push.due, push.late = time.monotonic() + delay, late
        push.timer = asyncio.get_running_loop().call_later(delay, late, push)

    def _event_late(self, push: Push) -> None:
        retries = (self._faults.event_first_retry, self._faults.event_second_retry)
        if push.repushed < len(retries):
            self._await_ack(push, retries[push.repushed], self._repush)
        else:
            self._waiting.discard(push)

    def _repush(self, push: Push) -> None:
        """The same data under a new messageId, on any connection (docs/protocol.md section 3.3, 3.4)."""
        self._waiting.discard(push)
        push.timer = None
        push.repushed += 1
        for delivery in push.deliveries:
            self._settle(delivery)
        self._route(push)
        self._feed.publish("push", push.to_dict)

    def _transmit(self, push: Push, connection: Connection) -> None:
        faults = self._faults
        delivery = PushDelivery(self._message_id(), connection.id, push, time.monotonic())
        push.deliveries.append(delivery)
        self._pending[delivery.message_id] = delivery
        connection.pushes += 1
        connection.in_flight.add(delivery.message_id)
        frame = OutboxFrame(
            self._encode(push, delivery, connection), lambda: setattr(delivery, "sent", time.monotonic())
        )
        self._log(connection, "out", str(frame.payload))
        user = push.kind is not PushKind.SYSTEM
        if faults.take("zombie") or (user and faults.drop_frames and self._rng.random() < faults.take("drop_frames")):
            return
        if user and faults.take("reorder_frames"):
            self._send_reordered(connection, frame)
            return
        connection.send(frame)
        if user and faults.take("duplicate_frames"):
            delivery.expected = 2
            connection.send(frame)

    def _send_reordered(self, connection: Connection, frame: OutboxFrame) -> None:
        if connection.held is None:
            connection.held = frame
            connection.arm("held", REORDER_HOLD_S, lambda: self._release(connection))
            return
        connection.send(frame)
        self._release(connection)

    def _release(self, connection: Connection) -> None:
        connection.disarm("held")
        if connection.held is not None:
            connection.send(connection.held)
            connection.held = None

    def _message_id(self) -> str:
        self._frame_count += 1
        return f"{self._prefix}_3f2_{int(time.time() * 1000):x}_{self._frame_count:x}"

    def _encode(self, push: Push, delivery: PushDelivery, connection: Connection) -> str:
        now = int(time.time() * 1000)
        headers: dict[str, Any] = {
            "contentType": "application/json",
            "messageId": delivery.message_id,
            "time": now if self._faults.take("numeric_time") else str(now),
            "topic": push.topic,
        }
        if (
            push.kind is PushKind.CALLBACK or push.topic == "ping"
        ):  # EVENT and `disconnect` carry neither (docs/protocol.md section 2.1).
            headers |= {"appId": self.app_id, "connectionId": connection.ticket}
        elif push.topic == "disconnect" and self._faults.take("no_message_id_on_disconnect"):
            del headers["messageId"]
            connection.odd_frames_sent = True
        headers |= push.headers
        name = "header" if self._faults.take("header_spelled_header") else "headers"
        frame = {"specVersion": "1.0", "type": push.kind.value, name: headers, "data": push.data}
        return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))

    # Acks

    def _received(self, connection: Connection, text: str) -> None:
        self._log(connection, "in", text)
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            self.add_violation(connection, "a frame that is not JSON")
            return
        headers = frame.get("headers") if isinstance(frame, dict) else None
        if not isinstance(headers, dict):
            self.add_violation(connection, "a frame without headers")
            return
        message_id = headers.get("messageId")
        if not isinstance(message_id, str) or not message_id:
            if not connection.odd_frames_sent:  # Otherwise it may well be the echo of what was sent.
                self.add_violation(connection, "an ack without messageId")
            return
        if not isinstance(frame.get("code"), int):
            self.add_violation(connection, "an ack without an integer code")
            return
        self._acknowledged(connection, message_id, frame)

    def _acknowledged(self, connection: Connection, message_id: str, frame: dict[str, Any]) -> None:
        now = time.monotonic()
        delivery = self._pending.get(message_id) or self._settled.get(message_id)
        if delivery is None:
            self.add_violation(connection, f"an ack for the unknown messageId {message_id[:60]}")
            self.acks.append(
                Ack(now, connection.id, message_id, frame["code"], None, duplicate=False, wrong_socket=False)
            )
            return
        delivery.acks += 1
        wrong_socket = delivery.connection != connection.id
        duplicate = delivery.acks > delivery.expected
        if wrong_socket:
            self.add_violation(connection, f"the ack of a frame of {delivery.connection} arrived on {connection.id}")
        if duplicate:
            self.add_violation(connection, f"{delivery.acks} acks for one {delivery.push.topic} frame")
        self.ack_count += 1
        connection.acks += 1
        push = delivery.push
        self.acks.append(Ack(now, connection.id, message_id, frame["code"], push, duplicate, wrong_socket))
        self._settle(delivery)
        if duplicate:
            return
        if push.topic == "ping" and frame.get("data") != push.data:
            self.add_violation(connection, "a SYSTEM ping whose data was not echoed")
        self._check_event_ack(connection, push, frame)
        if not push.acked.is_set():
            push.ack_code = frame["code"]
            push.ack_ms = (now - delivery.sent) * 1000
            push.ack_data = _parse_json(frame.get("data"))
            if not self._is_later(push):
                if push.timer is not None:
                    push.timer.cancel()
                    push.timer = None
                self._waiting.discard(push)
                push.acked.set()
            self._feed.publish("push", push.to_dict)

    def _check_event_ack(self, connection: Connection, push: Push, frame: dict[str, Any]) -> None:
        if push.kind is PushKind.EVENT:
            data = _parse_json(frame.get("data"))
            if not (isinstance(data, dict) and data.get("status") in {"SUCCESS", "LATER"}):
                self.add_violation(connection, "an EVENT ack without status SUCCESS or LATER")

    def _is_later(self, push: Push) -> bool:
        if push.kind is PushKind.EVENT and isinstance(push.ack_data, dict) and push.ack_data.get("status") == "LATER":
            self._event_late(push)
            return True
        return False

    def _settle(self, delivery: PushDelivery) -> None:
        """From now on only remembered, to tell a late or second ack from an invented one."""
        if self._pending.pop(delivery.message_id, None) is None:
            return
        connection = self.connections.get(delivery.connection)
        if connection is not None:  # Otherwise it has just ended and is emptied there.
            connection.in_flight.discard(delivery.message_id)
        self._settled[delivery.message_id] = delivery
        if len(self._settled) > self._keep:
            del self._settled[next(iter(self._settled))]

    def add_violation(self, connection: Connection, what: str) -> None:
        self.violation_count += 1
        self.violations.append(Violation(time.monotonic(), connection.id, what))
        self._feed.publish("violation", lambda: {"connection": connection.id, "what": what})

    def _log(self, connection: Connection, direction: str, text: str) -> None:
        frame = LoggedFrame(time.time(), connection.id, direction, text[:FRAME_TEXT_CHARS])
        self.frames.append(frame)
        self._feed.publish("frame", frame.to_dict)

    # Life

    def resume(self) -> None:
        """Arm anew what waited for an ack when the gateway was closed: an outage forgets no message."""
        for push in list(self._waiting):
            if push.late is not None:
                self._await_ack(push, max(0.0, push.due - time.monotonic()), push.late)

    async def close(self) -> None:
        """End every connection and timer at once; what waits for an ack is remembered."""
        for push in self._waiting:
            if push.timer is not None:
                push.timer.cancel()
                push.timer = None
        for connection in list(self.connections.values()):
            connection.abort("now")
        if self.connections:
            self._empty = asyncio.Event()
            await self._empty.wait()

    def forget(self) -> None:
        """Empty every log; connections and what waits for an ack stay."""
        for log in (
            self.registrations,
            self.pushes,
            self.acks,
            self.violations,
            self.undeliverable,
            self.frames,
            self.past,
        ):
            log.clear()
        self.registration_count = self.push_count = self.ack_count = self.violation_count = 0
        self.undeliverable_count = self.registrations_in_flight_max = 0
        self._settled.clear()


def _parse_json(data: Any) -> Any:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        return json.loads(data)
    return None


def _find_subscription_fault(subscriptions: Any) -> str:
    """What is wrong with them; empty if nothing is (docs/protocol.md section 1.1)."""
    if not isinstance(subscriptions, list) or not subscriptions:
        return "subscriptions is missing"
    for one in subscriptions:
        if not (isinstance(one, dict) and isinstance(one.get("type"), str) and isinstance(one.get("topic"), str)):
            return "a subscription needs type and topic"
        if one["type"] == "EVENT" and one["topic"] != "*":
            return "an EVENT subscription has the topic *"
        if one["type"] not in {"EVENT", "CALLBACK", "SYSTEM"}:
            return f"unknown subscription type {one['type'][:20]}"
    return ""

"""Pushes: what DingTalk wants a client to know, each over all its deliveries until it is acked.

Order of events: a push goes to one live connection at random, and is lost if there is none. Without an ack a robot
message is pushed once more after 60 s, an event after 3 s + 10 s and + 30 s: the same data under a new messageId, on
any connection. `confirm` ends that. A delivery is pending until it is acked, repeated, or its connection ends; then it
is settled: only remembered, so that a late ack can be told from an invented one (docs/protocol.md section 2 and 3).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import enum
import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WSMsgType

from claw.emulator.connection import Connection, OutboxFrame
from claw.emulator.connections import Connections
from claw.emulator.faults import Faults
from claw.emulator.feed import Feed

ROBOT_TOPIC: Final = "/v1.0/im/bot/messages/get"
CARD_TOPIC: Final = "/v1.0/card/instances/callback"
REORDER_HOLD_S: Final = 0.2
"""How long a frame waits for another one to change places with."""


class PushKind(enum.Enum):
    CALLBACK = "CALLBACK"
    EVENT = "EVENT"
    SYSTEM = "SYSTEM"


@dataclasses.dataclass(eq=False)
class PushDelivery:
    """One frame on one connection."""

    message_id: str
    """Of this delivery only: a re-push has another one, while the data's msgId stays."""
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
    on_due: Callable[[Push], None] | None = None
    """That consequence."""

    @property
    def connections_tried(self) -> list[str]:
        return [delivery.connection for delivery in self.deliveries]

    @property
    def delivered(self) -> bool:
        """A live connection was there to take it."""
        return bool(self.deliveries)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

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


class Pushes:
    """`log` and `undeliverable` remember the last `keep`; the counts know all of them."""

    def __init__(
        self,
        *,
        connections: Connections,
        faults: Faults,
        feed: Feed,
        rng: random.Random,
        keep: int,
    ) -> None:
        self.log: collections.deque[Push] = collections.deque(maxlen=keep)
        self.count = 0
        self.undeliverable: collections.deque[Push] = collections.deque(maxlen=keep)
        self.undeliverable_count = 0
        self.app_id = str(uuid.uuid4())
        self._connections = connections
        self._faults = faults
        self._feed = feed
        self._rng = rng
        self._keep = keep
        self._pending: dict[str, PushDelivery] = {}
        # Bounded; the pending ones need no bound, they leave with their ack or with their connection.
        self._settled: dict[str, PushDelivery] = {}
        self._waiting: set[Push] = set()
        """Those whose missing ack still has a consequence."""
        self._prefix = uuid.uuid4().hex[:8]
        self._frame_count = 0

    def push(
        self,
        data: dict[str, Any] | str,
        *,
        kind: PushKind = PushKind.CALLBACK,
        topic: str = ROBOT_TOPIC,
        msg_id: str = "",
    ) -> Push:
        """Push any data to one live connection at random, with the usual bookkeeping.

        Without a connection it is lost, as the real one loses it (docs/protocol.md section 3.3).
        """
        self.count += 1
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        # Data that is text already may be no JSON at all: whoever pushes that names the message, or nobody does.
        if not msg_id and isinstance(data, dict):
            msg_id = str(data.get("msgId", ""))
        push = Push(self.count, kind, topic, text, msg_id=msg_id)
        if kind is PushKind.EVENT:
            # Made once: a repeated event keeps its eventId, by which a client recognises it.
            push.headers = {
                "eventId": uuid.uuid4().hex,
                "eventType": "user_add_org",
                "eventCorpId": "dingfakecorp",
                "eventBornTime": str(int(time.time() * 1000)),
                "eventUnifiedAppId": self.app_id,
            }
        self.log.append(push)
        self._route(push)
        return push

    def push_raw(self, payload: str | bytes, connection: str | None = None) -> list[str]:
        """Write a frame as it is on the given or every live connection; return their ids."""
        chosen = self._connections.find(connection)
        for each in chosen:
            # A client that answers nonsense with an echo of its nonsense violates nothing: see Acks.receive.
            each.odd_frames_sent = True
            is_text = isinstance(payload, str)
            self._feed.log_frame(each.id, "out", str(payload) if is_text else f"<{len(payload)} bytes>")
            each.send(OutboxFrame(WSMsgType.TEXT if is_text else WSMsgType.BINARY, payload))
        return [each.id for each in chosen]

    def push_odd(self, connection: Connection, payload: str | bytes | dict[str, Any]) -> None:
        """Write a frame that no client expects; a dict is given a messageId, so that an ack of it is known."""
        if isinstance(payload, dict):
            delivery = self._add_delivery(Push(0, PushKind.SYSTEM, "odd", ""), connection)
            headers = {"contentType": "application/json", "messageId": delivery.message_id, "time": "0"}
            # The frame's own headers win: a bad messageId in them is what is to be tried.
            payload = json.dumps(payload | {"headers": headers | payload.get("headers", {})}, ensure_ascii=False)
        self.push_raw(payload, connection.id)

    def push_system(self, connection: Connection, topic: str, data: dict[str, Any]) -> None:
        """Send a SYSTEM frame; it belongs to its connection and is never repeated."""
        self._transmit(Push(0, PushKind.SYSTEM, topic, json.dumps(data)), connection)

    # --- routing and repeating ---

    def _route(self, push: Push) -> None:
        connection = self._connections.pick(push.kind.value, push.topic)
        if connection is None:
            # No timer either: what found nobody is not kept for later, which is why a client may never be without a
            # connection, not even for the moment between two.
            self.undeliverable.append(push)
            self.undeliverable_count += 1
            return
        self._transmit(push, connection)
        if push.kind is PushKind.EVENT:
            self._await_ack(push, self._faults.event_deadline, self._repeat_event_later)
        elif push.topic == ROBOT_TOPIC and push.repushed < self._faults.repush_times:
            # Card callbacks are not repeated: no evidence of it was found (docs/protocol.md section 3.3).
            self._await_ack(push, self._faults.repush_after, self._repush)

    def _await_ack(self, push: Push, delay_s: float, on_due: Callable[[Push], None]) -> None:
        push.stop_timer()
        self._waiting.add(push)
        # Remembered beside the timer, which does not outlive the loop that it was made in.
        push.due, push.on_due = time.monotonic() + delay_s, on_due
        push.timer = asyncio.get_running_loop().call_later(delay_s, on_due, push)

    def _repeat_event_later(self, push: Push) -> None:
        """Repeat an event that missed its deadline, or was answered LATER, after the pause that is due."""
        pauses = (self._faults.event_first_retry, self._faults.event_second_retry)
        if push.repushed < len(pauses):
            self._await_ack(push, pauses[push.repushed], self._repush)
        else:
            push.stop_timer()
            self._waiting.discard(push)

    def _repush(self, push: Push) -> None:
        """Push the same data under a new messageId on any connection (docs/protocol.md section 3.3 and 3.4)."""
        self._waiting.discard(push)
        push.timer = None
        push.repushed += 1
        # An ack that is on its way for an earlier delivery is still good: it is settled, not forgotten.
        for delivery in push.deliveries:
            self._settle(delivery)
        self._route(push)
        self._feed.publish("push", push.to_dict)

    # --- writing ---

    def _add_delivery(self, push: Push, connection: Connection) -> PushDelivery:
        self._frame_count += 1
        message_id = f"{self._prefix}_3f2_{int(time.time() * 1000):x}_{self._frame_count:x}"
        delivery = PushDelivery(message_id, connection.id, push, time.monotonic())
        push.deliveries.append(delivery)
        self._pending[message_id] = delivery
        connection.in_flight.add(message_id)
        return delivery

    def _transmit(self, push: Push, connection: Connection) -> None:
        faults = self._faults
        delivery = self._add_delivery(push, connection)
        connection.pushes += 1
        text = self._encode(push, delivery, connection)
        # The time to the ack is counted from the socket, not from here: in a burst the outbox alone takes longer.
        frame = OutboxFrame(WSMsgType.TEXT, text, lambda: setattr(delivery, "sent", time.monotonic()))
        self._feed.log_frame(connection.id, "out", text)
        # Frames are lost after all bookkeeping, as on the real way: the server believes that it has delivered them.
        is_system = push.kind is PushKind.SYSTEM
        is_dropped = not is_system and faults.drop_frames and self._rng.random() < faults.take("drop_frames")
        if faults.take("zombie") or is_dropped:
            return
        if not is_system and faults.take("reorder_frames"):
            self._send_reordered(connection, frame)
            return
        connection.send(frame)
        if not is_system and faults.take("duplicate_frames"):
            # A client that acks both copies is right, and one that recognises the copy and acks once is right as well.
            delivery.expected = 2
            connection.send(frame)

    def _send_reordered(self, connection: Connection, frame: OutboxFrame) -> None:
        if connection.held is None:
            # It may be the last one for long: then the timer lets it go by itself.
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

    def _encode(self, push: Push, delivery: PushDelivery, connection: Connection) -> str:
        now = int(time.time() * 1000)
        headers: dict[str, Any] = {
            "contentType": "application/json",
            "messageId": delivery.message_id,
            # The documentation says Number, the wire carries a string (docs/protocol.md section 2.1).
            "time": now if self._faults.take("numeric_time") else str(now),
            "topic": push.topic,
        }
        if push.kind is PushKind.CALLBACK or push.topic == "ping":
            # EVENT and `disconnect` carry neither (docs/protocol.md section 2.1).
            headers |= {"appId": self.app_id, "connectionId": connection.ticket}
        elif push.topic == "disconnect" and self._faults.take("no_message_id_on_disconnect"):
            del headers["messageId"]
            connection.odd_frames_sent = True
        headers |= push.headers
        name = "header" if self._faults.take("header_spelled_header") else "headers"
        # `data` is JSON inside a JSON string: never an object, whatever its topic.
        frame = {"specVersion": "1.0", "type": push.kind.value, name: headers, "data": push.data}
        return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))

    # --- the end of a delivery ---

    def find(self, message_id: str) -> PushDelivery | None:
        """Find the delivery of that messageId, whether it still waits for its ack or not."""
        return self._pending.get(message_id) or self._settled.get(message_id)

    def confirm(self, delivery: PushDelivery, code: int, data: Any, *, at: float) -> None:
        """Take the first right ack of a push, which came at `at` (monotonic seconds); later ones change nothing."""
        self._settle(delivery)
        push = delivery.push
        if push.acked.is_set():
            return
        push.ack_code, push.ack_data = code, parse_json(data)
        push.ack_ms = (at - delivery.sent) * 1000
        # LATER is an ack of the frame and none of the event: it asks for the event once more.
        status = push.ack_data.get("status") if isinstance(push.ack_data, dict) else None
        if push.kind is PushKind.EVENT and status == "LATER":
            self._repeat_event_later(push)
        else:
            push.stop_timer()
            self._waiting.discard(push)
            push.acked.set()
        self._feed.publish("push", push.to_dict)

    def settle_all(self, connection: Connection) -> None:
        """Let go of what a connection that has ended left unacked; its re-push has a timer of its own."""
        for message_id in list(connection.in_flight):
            self._settle(self._pending[message_id])
        connection.in_flight.clear()

    def _settle(self, delivery: PushDelivery) -> None:
        # Settled before: by its ack, by a re-push, or by the end of its connection, whichever came first.
        if self._pending.pop(delivery.message_id, None) is None:
            return
        connection = self._connections.live.get(delivery.connection)
        if connection is not None:  # Otherwise it has just ended and is emptied by settle_all.
            connection.in_flight.discard(delivery.message_id)
        self._settled[delivery.message_id] = delivery
        if len(self._settled) > self._keep:
            del self._settled[next(iter(self._settled))]

    # --- an outage ---

    def pause(self) -> None:
        """Stop every timer; what waits for an ack is remembered with the time at which it is due."""
        for push in self._waiting:
            push.stop_timer()

    def resume(self) -> None:
        """Arm the timers anew: DingTalk's clock goes on while nobody can reach it, and an outage forgets no message."""
        # Over a copy, since arming a timer adds to the set.
        for push in list(self._waiting):
            if push.on_due is not None:
                self._await_ack(push, max(0.0, push.due - time.monotonic()), push.on_due)

    def forget(self) -> None:
        """Empty the logs; what waits for an ack stays."""
        self.log.clear()
        self.undeliverable.clear()
        self.count = self.undeliverable_count = 0
        self._settled.clear()

    def to_dict(self, shown: int) -> dict[str, Any]:
        return {
            "count": self.count,
            "undeliverable": self.undeliverable_count,
            "last": [push.to_dict() for push in list(self.log)[-shown:]],
        }


def parse_json(data: Any) -> Any:
    """Parse an ack's data; None if it is no JSON, which a robot's ack may be (docs/protocol.md section 3.1)."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        return json.loads(data)
    return None

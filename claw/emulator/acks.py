"""Acks: what clients send, and whether it keeps to the protocol.

Order of events: every frame of a client is an ack of one of ours; it is checked, found by its messageId, and confirmed.
What a client does against the protocol is no error here but a *violation*: it is counted and can be asserted on, and
the connection goes on, as the real one's does (docs/protocol.md section 3).
"""

from __future__ import annotations

import collections
import dataclasses
import json
import time
from typing import Any

from claw.emulator.connection import Connection
from claw.emulator.feed import Feed
from claw.emulator.pushes import Push, PushDelivery, Pushes, PushKind, parse_json


@dataclasses.dataclass(frozen=True)
class Ack:
    at: float
    """Monotonic seconds."""
    connection: str
    """Where it arrived, which may be another one than where the frame was sent."""
    message_id: str
    code: int | None
    push: Push | None
    """None: no frame had that messageId."""
    duplicate: bool
    wrong_socket: bool


@dataclasses.dataclass(frozen=True)
class Violation:
    at: float
    """Monotonic seconds."""
    connection: str
    what: str


class Acks:
    """`log` and `violations` remember the last `keep`; the counts know all of them."""

    def __init__(self, *, pushes: Pushes, feed: Feed, keep: int) -> None:
        self.log: collections.deque[Ack] = collections.deque(maxlen=keep)
        self.count = 0
        self.violations: collections.deque[Violation] = collections.deque(maxlen=keep)
        self.violation_count = 0
        self._pushes = pushes
        self._feed = feed

    def receive(self, connection: Connection, text: str) -> None:
        """Take one text frame of a client."""
        self._feed.log_frame(connection.id, "in", text)
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
            # A client that acks whatever comes cannot name what had no messageId: it is ours that was odd, not its own.
            if not connection.odd_frames_sent:
                self.add_violation(connection, "an ack without messageId")
            return
        # Any integer will do: what the server makes of another code than 200 is unknown (docs/protocol.md section 3.1).
        if not isinstance(frame.get("code"), int):
            self.add_violation(connection, "an ack without an integer code")
            return
        self._take(connection, message_id, frame)

    def _take(self, connection: Connection, message_id: str, frame: dict[str, Any]) -> None:
        now, code = time.monotonic(), frame["code"]
        # Settled ones count as well: an ack may cross its re-push, and a slow client acks what was repeated long ago.
        delivery = self._pushes.find(message_id)
        if delivery is None:
            self.add_violation(connection, f"an ack for the unknown messageId {message_id[:60]}")
            self.log.append(Ack(now, connection.id, message_id, code, None, duplicate=False, wrong_socket=False))
            return
        delivery.acks += 1
        wrong_socket = delivery.connection != connection.id
        duplicate = delivery.acks > delivery.expected
        if wrong_socket:
            # It counts nevertheless: what the real one does with it is unknown (docs/protocol.md section 3.5).
            self.add_violation(connection, f"the ack of a frame of {delivery.connection} arrived on {connection.id}")
        if duplicate:
            self.add_violation(connection, f"{delivery.acks} acks for one {delivery.push.topic} frame")
        self.count += 1
        connection.acks += 1
        self.log.append(Ack(now, connection.id, message_id, code, delivery.push, duplicate, wrong_socket))
        # Only the first one acks the push; a second one with other data could otherwise change what was agreed.
        if not duplicate:
            self._check_data(connection, delivery, frame)
            self._pushes.confirm(delivery, code, frame.get("data"), at=now)

    def _check_data(self, connection: Connection, delivery: PushDelivery, frame: dict[str, Any]) -> None:
        """Check the data of the two kinds whose data the server looks at."""
        push = delivery.push
        # The echo shows that a client works, where a pong shows only that its socket does.
        if push.topic == "ping" and frame.get("data") != push.data:
            self.add_violation(connection, "a SYSTEM ping whose data was not echoed")
        if push.kind is PushKind.EVENT:
            data = parse_json(frame.get("data"))
            if not (isinstance(data, dict) and data.get("status") in {"SUCCESS", "LATER"}):
                self.add_violation(connection, "an EVENT ack without status SUCCESS or LATER")

    def add_violation(self, connection: Connection, what: str) -> None:
        self.violation_count += 1
        self.violations.append(Violation(time.monotonic(), connection.id, what))
        self._feed.publish("violation", lambda: {"connection": connection.id, "what": what})

    def forget(self) -> None:
        self.log.clear()
        self.violations.clear()
        self.count = self.violation_count = 0

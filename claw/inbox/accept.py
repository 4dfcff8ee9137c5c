"""Accepting a message: routed once, stored durably, and only then acked.

Order of events: a `process` span opens at the moment the frame was read. The message is routed. `inbox.put` commits
it with the span's context. The ack goes out on the socket that the frame came from, and the span ends. A repeat is
acked again and dropped. When the store fails there is no ack: DingTalk's repeat after 60 s
(docs/protocol.md section 3.3) is the second chance.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from opentelemetry import context
from opentelemetry.trace import SpanKind, Status, StatusCode

from claw.errors import StoreError
from claw.messages import Delivery, Inbound, Route
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.ports import Inbox, Row

log: Final = logging.getLogger(__name__)

_FIXED: Final = {
    telemetry.MESSAGING_SYSTEM: "dingtalk",
    telemetry.MESSAGING_OPERATION_NAME: "process",
    telemetry.MESSAGING_OPERATION_TYPE: "process",
    telemetry.MESSAGING_DESTINATION_NAME: "dingtalk.robot",
}


class Acceptance:
    """Takes messages off sockets into the inbox; handed to the stream room as its `accept`."""

    def __init__(self, inbox: Inbox, route: Callable[[Inbound], Route]) -> None:
        self._inbox = inbox
        self._route = route

    async def __call__(self, delivery: Delivery) -> None:
        """Store the message and acknowledge it. Raises nothing that the store or the socket is to blame for."""
        inbound = delivery.inbound
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
                new = await self._inbox.put(Row(inbound, route, telemetry.inject()))
            except StoreError as error:
                span.set_status(Status(StatusCode.ERROR, "not stored"))
                span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)
                log.error("message not stored, hence not acked: DingTalk may repeat it", extra={"cause": str(error)})
                return
            span.set_attribute(telemetry.CLAW_DUPLICATE, not new)
            # A repeat is acked, too: it came because the first ack was lost on its way, and would come again.
            await delivery.acknowledge()
            telemetry.ack_duration.record(max(0.0, time.time() - delivery.read_at))
            log.debug("message accepted", extra={"duplicate": not new})


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

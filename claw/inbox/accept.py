"""Accepting a message: known or new, durable, and only then acked.

Order of events: a `process` span opens at the moment the frame was read; `inbox.put` commits the message with that
span's context; the ack goes out on the socket that the frame came from; the span ends. A repeat is acked again and
dropped. Where the store fails there is no ack: DingTalk's repeat after 60 s is the second chance.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from opentelemetry import context
from opentelemetry.trace import SpanKind, Status, StatusCode

from claw.errors import StoreError
from claw.inbox.routing import session_of
from claw.messages import Delivery, Inbound, Route
from claw.observe import telemetry
from claw.policy import GroupSession
from claw.secret import hash_id
from claw.store.ports import Inbox, Row
from claw.turn.commands.parser import is_urgent

log: Final = logging.getLogger(__name__)

_FIXED: Final = {
    telemetry.MESSAGING_SYSTEM: "dingtalk",
    telemetry.MESSAGING_OPERATION_NAME: "process",
    telemetry.MESSAGING_OPERATION_TYPE: "process",
    telemetry.MESSAGING_DESTINATION_NAME: "dingtalk.robot",
}


def route_of(inbound: Inbound, groups: GroupSession = GroupSession.SHARED) -> Route:
    """The way of a message: in its conversation's queue, or in one of its own where it must not wait."""
    key = session_of(inbound, groups)
    urgent = is_urgent(inbound)
    return Route(key, f"{key}!{inbound.msg_id}" if urgent else key, urgent)


class Acceptance:
    """Takes messages off sockets into the inbox; handed to the stream room as its `deliver`."""

    def __init__(self, inbox: Inbox, groups: GroupSession = GroupSession.SHARED) -> None:
        self._inbox = inbox
        self._groups = groups

    async def __call__(self, delivery: Delivery) -> None:
        inbound = delivery.inbound
        attributes: dict[str, str | float] = {
            **_FIXED,
            telemetry.MESSAGING_MESSAGE_ID: inbound.msg_id,
            telemetry.CLAW_CONVERSATION: hash_id(inbound.chat_key),
            telemetry.CLAW_SENDER: hash_id(inbound.sender.key),
        }
        if inbound.created_at:
            attributes[telemetry.CLAW_DELIVERY_LAG_MS] = round((delivery.read_at - inbound.created_at) * 1000)
        with telemetry.tracer.start_as_current_span(
            telemetry.SPAN_PROCESS,
            context.Context(),
            SpanKind.CONSUMER,
            attributes,
            start_time=int(delivery.read_at * 1e9),
        ) as span:
            try:
                new = await self._inbox.put(Row(inbound, route_of(inbound, self._groups), telemetry.inject()))
            except StoreError as error:
                span.set_status(Status(StatusCode.ERROR, "not stored"))
                span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)
                log.error("message not stored, hence not acked: DingTalk may repeat it", extra={"cause": str(error)})
                return
            span.set_attribute(telemetry.CLAW_DUPLICATE, not new)
            await delivery.acknowledge()
            telemetry.ack_duration.record(max(0.0, time.time() - delivery.read_at))
            log.debug("message accepted", extra={"duplicate": not new})

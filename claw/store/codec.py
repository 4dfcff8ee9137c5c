"""What every store does with a value before it keeps it, or after it has read it, whatever keeps it.

Texts from outside are kept as bytes: they may hold half of a surrogate pair, which neither SQLite's TEXT nor UTF-8 can.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from claw.messages import ChatKind, Inbound, Route
from claw.secret import Secret
from claw.store.ports import CALLS_KEPT_MONTHS, SPENT_KEPT_S


def packed(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def unpacked(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def chat_title(inbound: Inbound) -> str:
    """What a message calls its chat. A direct chat has no title of its own: it is called by the person."""
    where = inbound.conversation
    return inbound.sender.nick if where.kind is ChatKind.DIRECT else where.title


def route_of(queue: str, *, urgent: bool, conversation_key: str | None, msg_id: str) -> Route:
    """The route of a stored row. Until 0.1.0 it was the queue alone, which an urgent message had with its id."""
    if conversation_key is None:
        conversation_key = queue.removesuffix(f"!{msg_id}") if urgent else queue
    return Route(conversation_key, queue, urgent)


def without_webhook(inbound: Inbound) -> bytes:
    """What an operator may want to look at later, without the address by which anybody could answer."""
    return packed(replace(inbound, webhook=Secret("")).to_json())


def first_day(now: float) -> str:
    """The first day of which what people spent is kept."""
    return datetime.fromtimestamp(now - SPENT_KEPT_S, UTC).date().isoformat()


def first_month(now: float) -> str:
    """The first month that the ledger keeps, the current one counted in."""
    today = datetime.fromtimestamp(now, UTC)
    years, month = divmod(today.year * 12 + today.month - CALLS_KEPT_MONTHS, 12)
    return f"{years:04d}-{month + 1:02d}"


def retrieve(future: asyncio.Future[Any]) -> None:
    """See the error of a call that nobody waits for to the end."""
    if not future.cancelled():
        future.exception()

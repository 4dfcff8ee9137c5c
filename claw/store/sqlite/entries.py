"""Values on their way between the file and the queues in memory: entries of the index, exchanges, the order."""

from __future__ import annotations

import json
from typing import Final

from claw.messages import Exchange
from claw.parts import parts_to_fields
from claw.store.codec import encode
from claw.store.ports import CLOCK_SKEW_S, DELAY_MAX_S
from claw.store.sqlite.queries import IndexEntry, StoredExchange, to_sql_text
from claw.store.sqlite.queue import QueuedMessage

Disk = tuple[list[IndexEntry], dict[str, str], int]
"""What is in memory as well as in the file: the index beyond what is known, the items, the number of dead letters."""

NO_ORDER: Final = 0.0
"""A message keeps the place in which it arrived."""


def order_of(created: float, received_at: float) -> float:
    """Return the time by which a message is ordered; NO_ORDER where that is its arrival."""
    # DingTalk's clock may be wrong, too: a time from the future must not keep a message behind all others.
    return created if 0 < created <= received_at + CLOCK_SKEW_S else NO_ORDER


def queue_entry(entry: IndexEntry, wall: float, monotonic: float) -> QueuedMessage:
    """Return a message of the file's index as the queues keep it; `wall` and `monotonic` are the same moment."""
    # The file has wall time. A wall clock that was set back must not park a message for years.
    delay = min(entry.not_before - wall, DELAY_MAX_S)
    return QueuedMessage(
        entry.seq,
        entry.queue,
        bool(entry.urgent),
        entry.received_at,
        entry.attempts,
        entry.fence,
        entry.claims,
        monotonic + delay if delay > 0 else 0.0,
        entry.waiting_since,
        entry.worked,
        created=order_of(entry.created_at, entry.received_at),
    )


def encode_exchange(exchange: Exchange) -> StoredExchange:
    """Return an exchange as it is kept."""
    return StoredExchange(
        to_sql_text(exchange.history_key),
        exchange.epoch,
        encode(exchange.user),
        encode(exchange.assistant),
        json.dumps(parts_to_fields(exchange.media)).encode() if exchange.media else None,
    )

"""Putting a message back that the store forgot while it was worked on.

Order of events: a write for a lease fails since the store does not know the message any more: a failover lost it, or
Redis was restarted without what it had in memory. Whoever holds the lease has the message still, and puts it into the
inbox again, with its answer as far as that is there. From then on it is a message like any other.
"""

from __future__ import annotations

import logging
from typing import Final

from claw.clock import Clock
from claw.errors import LeaseLostError
from claw.inbox.persist import persist
from claw.messages import Answer
from claw.store.ports import Inbox
from claw.store.values import Lease, Row

log: Final = logging.getLogger(__name__)


def is_gone(error: LeaseLostError) -> bool:
    """Return whether the store forgot the message, as opposed to: it is another holder's now."""
    return bool(getattr(error, "gone", False))


async def put_back(inbox: Inbox, lease: Lease, answer: Answer | None, clock: Clock) -> bool:
    """Put a forgotten message back, as soon as the store can; return False where the store calls it seen after all."""
    row = Row(lease.inbound, lease.route, lease.trace, lease.kind, answer)
    is_new = False

    async def write() -> None:
        nonlocal is_new
        is_new = await inbox.put(row)

    await persist(lease, write, clock, "message not put back yet")
    extra = {"seq": lease.seq, "answered": answer is not None}
    if is_new:
        log.warning("the store forgot a message: it is put back", extra=extra)
    else:
        log.error("the store forgot a message and calls it seen", extra=extra)
    return is_new

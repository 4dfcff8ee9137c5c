"""Leases: claimed for a time, and renewed for as long as their turns run.

Order of events: `claim` asks the inbox for a message, after it has renewed what is held if that is overdue. `run`, one
task, renews every lease in turn, several times within its life. A lease that was lost belongs to another process by
now: its turn is abandoned at once, and says and stores nothing more. A message that the store forgot is nobody else's:
its turn goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final

from claw.clock import Clock
from claw.errors import LeaseLostError, StoreError
from claw.inbox.active import ActiveTurn, CancelReason
from claw.inbox.restore import is_gone
from claw.store.ports import Inbox
from claw.store.values import Lease

log: Final = logging.getLogger(__name__)

LEASE_TTL_S: Final = 30.0
"""Seconds after which another replica may take up a message whose holder fell silent (docs/architecture.md)."""
RENEW_INTERVAL_S: Final = LEASE_TTL_S / 3
"""Seconds between two renewals: one of them may fail, and the next still comes in time."""


class LeaseKeeper:
    """Holds the leases of the turns that `active` returns. `owner` names this process in the store."""

    def __init__(self, inbox: Inbox, owner: str, active: Callable[[], Collection[ActiveTurn]], clock: Clock) -> None:
        self._inbox = inbox
        self._owner = owner
        self._active = active
        self._clock = clock
        self._renewed_at = clock.monotonic()
        """When the last renewal of all leases began."""

    async def claim(self, *, urgent: bool) -> Lease | None:
        """Claim a message; `urgent`: only one that must not wait. Raises StoreError."""
        await self._renew_if_late()
        return await self._inbox.claim(self._owner, LEASE_TTL_S, urgent=urgent)

    async def run(self) -> None:
        """Renew for ever; a store that fails is asked again at the next turn."""
        while True:
            await self._clock.sleep(RENEW_INTERVAL_S)
            try:
                await self._renew_all()
            except StoreError as error:
                log.error("lease not renewed", extra={"cause": str(error)})

    async def _renew_if_late(self) -> None:
        # A machine that slept wakes with every lease expired, as does one whose store was away, and the claimer may
        # run before `run` does: it would claim a message whose turn still runs in this very process, and a person
        # would get two answers. Renewing first is safe, since a lease that has run out but was not claimed is ours.
        if self._clock.monotonic() - self._renewed_at > LEASE_TTL_S / 2:
            await self._renew_all()

    async def _renew_all(self) -> None:
        """Renew every lease. Raises StoreError at the first that fails: the rest would fail as well."""
        # The time before the first call counts: a lease lives from the moment at which the store renewed it, which
        # cannot be earlier. Set at the end, and not after a failure, it keeps a half-done round overdue.
        began = self._clock.monotonic()
        # A copy: turns begin and end while the store is asked. One that ended meanwhile has lost its lease by its own
        # ack; cancelling its finished task does nothing.
        for turn in list(self._active()):
            if turn.is_forgotten:
                continue
            try:
                await self._inbox.renew(turn.lease, LEASE_TTL_S)
            except LeaseLostError as error:
                if is_gone(error):
                    # It goes on, and puts its message back with its first write. Earlier, without the answer, another
                    # worker would begin the same turn beside it.
                    log.warning("the store forgot a message: its turn goes on", extra={"seq": turn.lease.seq})
                    turn.is_forgotten = True
                    continue
                log.warning("lease lost: the turn is left to its new holder", extra={"seq": turn.lease.seq})
                turn.cancel(CancelReason.ABANDON)
        self._renewed_at = began

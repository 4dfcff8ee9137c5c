"""The audit: who changed what of how claw runs. Each change is a line of the log as well.

Order of events: whoever changes something does so, then calls `AuditLog.note`. A store that fails then loses the entry
and not the change: the log has it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from claw.clock import Clock
from claw.errors import StoreError
from claw.secret import hash_id
from claw.store.operation import Audit
from claw.store.values import AuditEntry

API: Final = "api"
"""The actor of what the holder of the admin token does."""
DETAIL_MAX_CHARS: Final = 300

Note = Callable[[str, str, str, str], Awaitable[None]]
"""Notes actor, action, target and detail. Raises nothing."""

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditLog:
    """Appends to the audit."""

    store: Audit
    clock: Clock

    async def note(self, actor: str, action: str, target: str = "", detail: str = "") -> None:
        """Note who (a staff id, or API) did what to whom. Raises nothing."""
        # Hashed in the log, as everywhere; in the audit, which its token's holder reads, people are who they are.
        extra = {"actor": actor if actor == API else hash_id(actor), "action": action, "detail": detail[:60]}
        log.info("changed by an operator", extra=extra)
        try:
            entry = AuditEntry(self.clock.wall(), actor, action, target, detail[:DETAIL_MAX_CHARS])
            await self.store.append_audit(entry)
        except StoreError as error:
            log.error("change not kept in the audit", extra={"cause": str(error), "action": action})

"""What the operation of claw asks of a store: dead letters, receipts of what programs sent, usage and audit.

The other ports are in ports.py; one contract (tests/store/contract_operation.py) is tested over every adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from claw.store.values import AuditEntry, DeadLetter, Row, SendReceipt, UsageRow

DEAD_RETENTION_S: Final = 30 * 24 * 3600.0
DEAD_LETTERS_MAX: Final = 10_000
"""Dead letters are kept for 30 days, the newest 10 000 at most."""
DEAD_READ_BYTES: Final = 8 << 20
"""Bytes of dead letters that one `dead` returns at most: they hold what people sized."""
CALLS_RETENTION_MONTHS: Final = 13
SENDS_RETENTION_S: Final = 7 * 24 * 3600.0
"""Seconds for which it is told what became of a text that a program asked for."""
USAGE_RETENTION_DAYS: Final = 92
USAGE_ROWS_MAX: Final = 100_000
"""Usage is kept for 92 days; one reading returns the newest 100 000 rows at most."""
USAGE_DAY_MAX: Final = 10_000
"""Rows of one day; what comes beyond is counted to nobody by name."""
USAGE_OTHERS: Final = "*"
"""Person and chat of what is counted to nobody by name."""
AUDIT_MAX: Final = 10_000
"""Entries of the audit that are kept, the newest."""


class DeadLetters(Protocol):
    """Messages that were given up, which an operator looks at, puts back or drops. Methods raise StoreError."""

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first; fewer than `limit` where they exceed DEAD_READ_BYTES."""
        ...

    async def find_dead(self, letter_id: str) -> DeadLetter | None: ...

    async def requeue(self, letter_id: str, row: Row) -> bool:
        """Put a dead letter back into the inbox as `row`, in one step; False where it is not there any more.

        Its key was seen before, as it must be; its chat is not counted again, nor is it indexed again. It waits behind
        what is in its queue already, whenever it was written.
        """
        ...

    async def drop_dead(self, letter_id: str) -> bool:
        """Remove a dead letter; False where it is not there any more."""
        ...


class Usage(Protocol):
    """How many calls of DingTalk were made in a calendar month (`2026-11`), by api: they are the user's money."""

    async def add_calls(self, month: str, calls: Mapping[str, int]) -> None: ...

    async def calls(self, month: str) -> dict[str, int]: ...

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        """Add to what people used."""
        ...

    async def usage(self, since: str) -> list[UsageRow]:
        """Return what was used from day `since` on, newest days first."""
        ...


class Sends(Protocol):
    """What became of texts that programs asked for, kept for SENDS_RETENTION_S."""

    async def begin_send(self, receipt: SendReceipt) -> SendReceipt:
        """Keep a receipt unless there is one of its id; return what stands. Of many calls at once one wins."""
        ...

    async def end_send(self, receipt: SendReceipt) -> None:
        """Keep a receipt in place of what was kept under its id."""
        ...

    async def find_send(self, send_id: str) -> SendReceipt | None: ...


class Audit(Protocol):
    """Who changed what: appended to, never changed; the newest AUDIT_MAX entries are kept."""

    async def append_audit(self, entry: AuditEntry) -> None: ...

    async def audit(self, limit: int = 100) -> list[AuditEntry]:
        """Return the newest entries, newest first."""
        ...

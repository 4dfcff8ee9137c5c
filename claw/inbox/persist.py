"""Writing what has been done, however long the store is away.

Order of events: `persist` writes; when the store fails it waits a second and writes again, until the write succeeds or
the lease is lost. What is forgotten would be paid for, or said, once more.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from itertools import chain, repeat
from typing import Final

from claw.clock import Clock
from claw.errors import LeaseLostError, StoreError
from claw.store.values import Lease

log: Final = logging.getLogger(__name__)

STORE_RETRY_DELAY_S: Final = 1.0
"""Seconds before the store is asked again after it failed."""


async def persist(
    lease: Lease,
    write: Callable[[], Awaitable[None]],
    clock: Clock,
    trouble: str = "what was done is not kept yet",
) -> None:
    """Write what has been done for `lease`, as soon as the store can. Raises LeaseLostError.

    `trouble` is what the log says, loudly once: each second would be a line for each turn.
    """
    # No limit of time: while the turn runs its lease is renewed, or lost, and then `write` says so. A repeat is
    # harmless where the failed write has come through after all: an answer is stored as before, and a message that is
    # gone reports its lease as lost.
    for level in chain([logging.WARNING], repeat(logging.DEBUG)):
        try:
            await write()
        except LeaseLostError:
            raise
        except StoreError as error:
            log.log(level, trouble, extra={"cause": str(error), "seq": lease.seq})
            await clock.sleep(STORE_RETRY_DELAY_S)
        else:
            return

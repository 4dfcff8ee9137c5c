"""The fleet: tells the other replicas that this one lives, and steps aside while it alone cannot reach the store.

Order of events: every few seconds `run` beats into the store and looks who else does. Where the store is shared and has
been out of reach for a time, and others were well before that, our connections are paused: DingTalk pushes each message
to one connection of the fleet, and what comes to us cannot be kept. When the store answers again they are resumed.

A store that can be read and takes no writes is everybody's trouble, and no reason to leave: all would.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

from claw import __version__
from claw.clock import Clock, format_rfc3339
from claw.errors import StoreError
from claw.store.ports import Store

log: Final = logging.getLogger(__name__)

BEAT_INTERVAL_S: Final = 5.0
"""Seconds between two beats: a replica is taken to live for three of them (store/ports.py)."""
CUT_OFF_S: Final = 30.0
"""Seconds without the store after which our share of the messages is left to the others: acceptance can wait that long
(inbox/accept.py), and closing and opening connections costs more than a short outage."""
CALL_TIMEOUT_S: Final = 6.0
"""Seconds that one look may take; the store's own limit comes first, as a rule."""
PAUSE_REASON: Final = (
    "本副本无法访问共享存储，消息暂由其他副本处理。 / "
    "This replica cannot reach the shared store; the other replicas take its messages."
)


@runtime_checkable
class Pausable(Protocol):
    """The connections, as far as the fleet is concerned; both are idempotent."""

    def pause(self, reason: str) -> bool: ...

    def resume(self) -> bool: ...


class FleetKeeper:
    """This replica among the others. `is_serving` says whether DingTalk can push to us."""

    def __init__(
        self, store: Store, replica: str, connections: Pausable | None, is_serving: Callable[[], bool], clock: Clock
    ) -> None:
        self._store = store
        self._replica = replica
        self._connections = connections
        self._is_serving = is_serving
        self._clock = clock
        self._has_company = False
        """Whether another replica was well when we last heard of the fleet."""
        self._reached_at = clock.monotonic()
        """When the store last answered."""
        self._paused = False
        self.size = 1
        """How many claws share the app, and DingTalk's calls a second with it, as last seen."""

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            await self._beat()
            await self._clock.sleep(BEAT_INTERVAL_S)

    async def report(self) -> list[dict[str, Any]]:
        """Return who lives, for `/status`. Raises StoreError."""
        return [
            {
                "id": each.id,
                "version": each.version,
                "seen_at": format_rfc3339(each.seen_at),
                "healthy": each.healthy,
                "self": each.id == self._replica,
            }
            for each in await self._store.replicas()
        ]

    async def _beat(self) -> None:
        takes_writes = False
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._store.check()
                # Paused, we are no company for others: with nobody left to take messages nobody may step aside.
                await self._store.beat(self._replica, __version__, self._is_serving())
                takes_writes = True
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                replicas = await self._store.replicas()
        except (StoreError, TimeoutError) as error:
            self._on_away(error)
            return
        self.size = max(1, len(replicas))
        self._has_company = any(each.healthy and each.id != self._replica for each in replicas)
        self._reached_at = self._clock.monotonic()
        if self._paused and takes_writes:
            self._paused = False
            log.info("the shared store answers again, connections are opened")
            if self._connections is not None:
                self._connections.resume()

    def _on_away(self, error: Exception) -> None:
        """Step aside where the store has been away for long and others can do our work."""
        away_s = self._clock.monotonic() - self._reached_at
        if self._paused or self._connections is None or not self._store.shared:
            return
        if not self._has_company or away_s < CUT_OFF_S:
            return
        self._paused = True
        extra = {"away_s": round(away_s), "cause": str(error) or type(error).__name__}
        log.error("the shared store is out of reach: messages are left to the other replicas", extra=extra)
        self._connections.pause(PAUSE_REASON)

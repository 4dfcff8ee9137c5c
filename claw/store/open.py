"""The two ways into a store: the one that serves messages, and a look from outside, beside a claw that uses it.

This is the only place that knows which adapter an address stands for. Redis' library is loaded only where the address
names Redis: it costs 10 MB and 0.2 s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from claw.clock import Clock
from claw.config.settings import StoreSettings
from claw.store.ports import Inspection, Store
from claw.store.sqlite.inspection import SqliteInspection
from claw.store.sqlite.store import SqliteStore


def file_of(settings: StoreSettings) -> Path | None:
    """Return the file that the store is; None where it is a server, to which a network leads."""
    return None if settings.in_redis else settings.path


def open_store(settings: StoreSettings, robot: str, clock: Clock) -> Store:
    """Make the store of the robot with client id `robot`. The caller awaits `open()`, and `close()` at the end."""
    path = file_of(settings)
    if path is not None:
        return SqliteStore(path, clock=clock)
    from claw.store.redis.store import RedisStore  # noqa: PLC0415 - see above

    return RedisStore(settings.url, robot, clock=clock)


@asynccontextmanager
async def inspect(settings: StoreSettings, robot: str, clock: Clock) -> AsyncIterator[Inspection]:
    """Look into the store without changing anything, whether or not a claw uses it.

    Raises StoreError where there is no store yet, or it does not answer; StoreSchemaError where a newer claw wrote it;
    StoreRefusedError where only a person can help. The methods of what is yielded raise the same.
    """
    path = file_of(settings)
    if path is not None:
        yield await SqliteInspection.open(path)
        return
    from claw.store.redis.store import RedisStore  # noqa: PLC0415 - see above

    store = RedisStore(settings.url, robot, clock=clock, read_only=True)
    try:
        await store.open()
        yield store
    finally:
        await store.close()

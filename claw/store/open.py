"""The two ways into a store: the one that serves messages, and a look from outside, beside a claw that uses it.

This is the only place that knows which adapter an address stands for. Redis' library is loaded only where the address
names Redis: it costs 10 MB and 0.2 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from claw.clock import Clock
from claw.config.settings import StoreSettings
from claw.errors import SettingsError, StoreBusyError, StoreError, StoreSchemaError
from claw.language import Bilingual
from claw.store.ports import Inspection, Store
from claw.store.sqlite.inspection import SqliteInspection
from claw.store.sqlite.store import SqliteStore

STORE_LOCK_TIMEOUT_S: Final = 15.0
"""Seconds to wait for a predecessor that is still draining to let go of the store."""

log: Final = logging.getLogger(__name__)


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


async def open_for_serving(
    settings: StoreSettings, robot: str, clock: Clock, leaving: asyncio.Future[Any]
) -> Store | None:
    """Open the store; return None if we were asked to leave while another claw held it. Raises SettingsError."""
    store = open_store(settings, robot, clock)
    # Bounded: two claws that were given one store by mistake must not wait for each other for ever.
    deadline = clock.monotonic() + STORE_LOCK_TIMEOUT_S
    while True:
        try:
            await store.open()
        except StoreBusyError as error:
            # In a rolling update the predecessor still drains: it lets go of the store when its turns have ended.
            if clock.monotonic() >= deadline:
                en = f"CLAW_STORE_URL: {error}; each claw needs a store of its own"
                zh = f"CLAW_STORE_URL：{error}；每个 claw 需要自己的存储"
                raise SettingsError([Bilingual(en, zh)]) from None
            log.warning("another claw holds the store, waiting for it to end")
            await asyncio.wait([leaving], timeout=1.0)
            if leaving.done():
                return None
        except StoreSchemaError as error:
            zh = f"CLAW_STORE_URL：{error}；请启动较新的版本"
            raise SettingsError([Bilingual(f"CLAW_STORE_URL: {error}; start the newer version", zh)]) from None
        except StoreError as error:
            zh = f"CLAW_STORE_URL：{settings.shown} 不能用：{error}"
            raise SettingsError([Bilingual(f"CLAW_STORE_URL: {settings.shown} cannot be used: {error}", zh)]) from None
        else:
            return store


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

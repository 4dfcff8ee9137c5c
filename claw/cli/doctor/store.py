"""Checks of a store in Redis: whether it can be reached and written, and whether it would keep what it is given.

None of them changes a message or a setting: what is written is a probe of our own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.errors import StoreError, StoreRefusedError, StoreSchemaError
from claw.store.ports import Store

if TYPE_CHECKING:
    from claw.store.redis.store import RedisStore

T = TypeVar("T")


async def store(context: Context) -> Finding:
    """Whether claw could keep messages there, and whether Redis may lose them; the graver of such settings is told."""
    from claw.store.redis.store import Risk  # noqa: PLC0415 - loads Redis' library, which SQLite does without

    if context.offline:
        return skip("skip.offline")
    where = context.settings.store.shown
    try:
        async with _opened(context) as opened:
            await opened.check()
            facts, risks = opened.facts, opened.risks
    except StoreSchemaError as error:
        return fault("store.newer", path=where, cause=error)
    except StoreRefusedError as error:
        return fault("redis.refused", where=where, cause=error)
    except StoreError as error:
        return fault("redis.failing", where=where, cause=error)
    context.store_held = True  # Whether another claw uses it cannot be seen, nor does it stand in its way.
    if Risk.EVICTS in risks:
        return warn("redis.evicts", where=where, policy=facts["maxmemory_policy"])
    if Risk.FORGETS in risks:
        return warn("redis.forgets", where=where)
    return good("redis.ok", where=where, version=facts.get("redis_version", "?"))


async def asked(context: Context, ask: Callable[[Store], Awaitable[T]]) -> T | None:
    """What the store tells; None where it cannot be asked."""
    if context.offline:
        return None
    try:
        async with _opened(context) as opened:
            return await ask(opened)
    except StoreError:
        return None


@asynccontextmanager
async def _opened(context: Context) -> AsyncIterator[RedisStore]:
    from claw.store.redis.store import RedisStore  # noqa: PLC0415 - as above

    settings = context.settings
    opened = RedisStore(settings.store.url, settings.dingtalk.client_id, clock=context.clock)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()

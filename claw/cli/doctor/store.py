"""Checks of a store in Redis: whether it can be reached and written, and whether it would keep what it is given.

None of them changes a message or a setting: what is written is a probe of our own.
"""

from __future__ import annotations

from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.errors import StoreError, StoreRefusedError, StoreSchemaError
from claw.store.open import inspect
from claw.store.values import Risk


async def check_store(context: Context) -> Finding:
    """Check whether claw could keep messages there, and whether Redis may lose them; the graver risk is reported."""
    if context.offline:
        return skip("skip.offline")
    where = context.settings.store.shown
    try:
        async with inspect(context.settings.store, context.settings.dingtalk.client_id, context.clock) as inspection:
            await inspection.check()
            facts, risks = inspection.server_info, inspection.risks
    except StoreSchemaError as error:
        return fault("store.newer", path=where, cause=error)
    except StoreRefusedError as error:
        return fault("redis.refused", where=where, cause=error)
    except StoreError as error:
        return fault("redis.failing", where=where, cause=error)
    context.store_held = True  # Whether another claw uses it cannot be seen, nor does it stand in its way.
    if Risk.EVICTS in risks:
        # Not only a risk: claw does not start with it, for the coldest key is the owner's.
        return fault("redis.evicts", where=where, policy=facts["maxmemory_policy"])
    if Risk.FORGETS in risks:
        return warn("redis.forgets", where=where)
    return good("redis.ok", where=where, version=facts.get("redis_version", "?"))

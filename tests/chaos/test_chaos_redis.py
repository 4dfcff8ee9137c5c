"""Chaos over Redis: three replicas, none of them spared, nor Redis, nor the way between (bench.chaos --redis: longer).

Leases are short here, so that what a killed replica held is taken over within the test.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.driver import Plan
from tests.chaos.runs import judged
from tests.redis_server import binary

SECONDS = 20.0
SEED = int(os.environ.get("CHAOS_SEED") or 20261122)
REPLICAS = 3
LEASE_S = 6.0
"""Twice what the longest stop lasts at this pace."""


@pytest.mark.timeout(300)
async def test_chaos_over_redis(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Replicas are killed, stopped and cut off, Redis is killed and stalled: every invariant holds as with one claw."""
    binary()  # Skips the test where there is no Redis.
    plan = Plan(SEED, SECONDS, rate=8.0, replicas=REPLICAS, lease=LEASE_S)
    command = f"CHAOS_SEED={SEED} .venv/bin/python -m pytest tests/chaos/test_chaos_redis.py"
    wrong = await judged([plan], tmp_path, command, record_property)
    assert not wrong, wrong

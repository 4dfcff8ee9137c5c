"""Chaos with other seeds, and at the pace that has every kind of fault (make test-chaos)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.driver import Plan, Server
from tests.chaos.runs import judged
from tests.chaos.schedule import BRISK, LONG, Pace

SEED = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
"""A fresh one each time, unless CHAOS_SEED names it."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("pace", "seconds", "seed"),
    [(BRISK, 60.0, SEED), (BRISK, 60.0, SEED + 1), (BRISK, 60.0, SEED + 2), (LONG, 180.0, SEED)],
    ids=["brisk", "brisk, second", "brisk, third", "long"],
)
async def test_chaos(
    pace: Pace, seconds: float, seed: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Whatever the seed, under both models of the server at the same time, every invariant holds."""
    plans = [Plan(seed, seconds, server, pace) for server in Server]
    command = f"CHAOS_SEED={SEED} .venv/bin/python -m pytest -m chaos tests/chaos"
    wrong = await judged(plans, tmp_path, command, record_property)
    assert not wrong, wrong

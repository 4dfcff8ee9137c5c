"""A local DingTalk, and real claw processes against it.

A process has its own clock, so these tests run in real time. They wait for a condition, never for a duration, with
two exceptions, both sound on a machine of any speed: a negative ("nothing more comes") is waited for a fixed moment,
which a slow machine can only make weaker; and of a limit on a rate only the gaps are asserted, which it only widens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from claw.emulator import Emulator
from tests.service import Service, environment, running

Claw = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(rate_limits=False) as started:
        yield started


@pytest.fixture
def claw(emulator: Emulator, tmp_path: Path) -> Claw:
    """`claw(CLAW_X="...")`: a context in which a claw serves the emulator; the store is the same for all of a test."""

    def start(**variables: str) -> AbstractAsyncContextManager[Service]:
        return running(environment(emulator.url, tmp_path / "claw.db", **variables), tmp_path)

    return start

"""A store that is away for a while costs time and no message, and DingTalk has nothing to repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claw.emulator import Emulator
from tests.redis_server import running as running_redis
from tests.service import environment, running

pytestmark = pytest.mark.timeout(90)

AWAY_S = 3.0


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(rate_limits=False) as started:
        yield started


async def test_redis_away_for_seconds(emulator: Emulator, tmp_path: Path) -> None:
    """What is said while Redis is away is acked on its first push when it is back, and answered in order."""
    with running_redis(tmp_path / "redis", appendonly="yes", appendfsync="always") as redis:
        environ = environment(emulator.url, tmp_path / "unused", CLAW_STORE_URL=redis.url())
        async with running(environ, tmp_path) as service:
            await emulator.wait_reply_to(await emulator.say("before"), timeout=20)
            redis.kill()
            said = []
            for number in range(6):
                said.append(await emulator.say(f"n{number}", person=f"u-100{1 + number % 2}"))
                await asyncio.sleep(AWAY_S / 6)
            redis.start()
            for each in said:
                assert each.push is not None
                first = each.push
                await emulator.wait_reply_to(each, timeout=40)
                assert first.acked.is_set()
                assert each.push is first
            assert not emulator.violations
            assert await service.terminate() == 0

"""A Redis that answers and takes no writes: readiness says so in each look, for as long as it lasts and no longer."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claw.emulator import Emulator
from tests.redis_server import RedisServer, free_port
from tests.redis_server import running as running_redis
from tests.service import Service, environment, running

pytestmark = pytest.mark.timeout(90)

NOTICED_S = 5.0
"""From the fault, or from its cure, until readiness tells."""
OBSERVED_S = 2.0
"""For which it has to go on telling; ten looks of the checks' cache."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


async def told(service: Service, *, ready: bool, within: float) -> str:
    """Wait until readiness has turned; the reason of the store."""
    deadline = time.monotonic() + within
    while True:
        status, body = await service.get("/ready")
        if (status == 200) is ready:
            return str(body["checks"]["store"]["reason"])
        assert time.monotonic() < deadline, body
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("fault", "cure", "reason"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "maxmemory"),
        (("REPLICAOF", "127.0.0.1", "{port}"), ("REPLICAOF", "NO", "ONE"), "read-only replica"),
        (
            ("CONFIG", "SET", "min-replicas-to-write", "1"),
            ("CONFIG", "SET", "min-replicas-to-write", "0"),
            "too few replicas",
        ),
    ],
    ids=["full", "read-only", "without replicas"],
)
async def test_no_writes(
    emulator: Emulator, redis: RedisServer, tmp_path: Path, fault: tuple[str, ...], cure: tuple[str, ...], reason: str
) -> None:
    """503 within 5 s with the reason and in each look, 200 within 5 s after the cure, and nothing is lost."""
    emulator.faults.update({"model_delay": 0.3, "repush_after": 5.0})
    environ = environment(emulator.url, tmp_path / "unused", CLAW_STORE_URL=redis.url())
    async with running(environ, tmp_path) as service:
        said = [await emulator.say(f"before {number}", person=f"u-100{number}") for number in range(1, 4)]
        for each in said:
            assert each.push is not None
            await asyncio.wait_for(each.push.acked.wait(), 10)
        redis.command(*(word.format(port=free_port()) for word in fault))
        assert reason in await told(service, ready=False, within=NOTICED_S)
        said.append(await emulator.say("meanwhile"))
        until = time.monotonic() + OBSERVED_S
        while time.monotonic() < until:
            status, body = await service.get("/ready")
            assert status == 503
            assert reason in body["checks"]["store"]["reason"]
            assert (await service.get("/health"))[0] == 200
            await asyncio.sleep(0.05)
        redis.command(*cure)
        await told(service, ready=True, within=NOTICED_S)
        for question in said:
            await emulator.wait_reply_to(question, timeout=30)
        assert await service.terminate() == 0


async def test_a_user_without_channels_and_scripts(emulator: Emulator, redis: RedisServer, tmp_path: Path) -> None:
    """The start ends with 78 and the line that gives the rights; with it the same claw serves."""
    redis.command("ACL", "SETUSER", "claw", "on", ">pass-of-claw", "~*", "resetchannels", "+@all", "-@scripting")
    url = f"redis://claw:pass-of-claw@127.0.0.1:{redis.port}/0"
    environ = environment(emulator.url, tmp_path / "unused", CLAW_STORE_URL=url)
    service = Service(environ, tmp_path)
    with pytest.raises(AssertionError, match="does not serve"):
        await service.start()
    assert await service.ended() == 78
    lines = "\n".join(service.lines)
    assert "CLAW_STORE_URL" in lines
    assert "pass-of-claw" not in lines
    line = re.search(r"ACL SETUSER claw ([^\"\n`;]+)", lines)
    assert line is not None, lines
    redis.command("ACL", "SETUSER", "claw", *line[1].split())
    async with running(environ, tmp_path):
        await emulator.wait_reply_to(await emulator.say("hello"), timeout=20)

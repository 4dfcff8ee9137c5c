"""A reader of the log that hangs, such as a full pipe of a container runtime, stops the log and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from claw.emulator import Emulator, Person
from tests.redis_server import free_port
from tests.service import RUN, Service, environment

pytestmark = pytest.mark.timeout(90)

ACK_S = 1.0
"""Far above what it takes, far below what a hanging log made of it. Figures belong into the bench."""


@contextlib.asynccontextmanager
async def unread(environ: dict[str, str], folder: Path) -> AsyncIterator[Service]:
    """A ready claw whose standard error is a pipe of one page that nobody reads."""
    service = Service(environ, folder)
    service.port = int(environ["PORT"])
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        service._process = await asyncio.create_subprocess_exec(
            sys.executable, *RUN, env=environ, cwd=folder, stderr=writer
        )
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    if (await service.get("/ready"))[0] == 200:
                        break
                await asyncio.sleep(0.05)
        yield service
        # It is full, or the test has shown nothing.
        assert select.select([], [writer], [], 0) == ([], [], [])
    finally:
        await service.kill()
        os.close(reader)
        os.close(writer)


async def test_a_reader_that_hangs(emulator: Emulator, tmp_path: Path) -> None:
    """Under load every message is acked at once and answered, probes are answered, and SIGTERM ends it with 0."""
    people = [f"p-{number}" for number in range(20)]
    for each in people:
        emulator.chats.add_person(Person(each, each, each))
    emulator.faults.update({"model_chunk_delay": 0.0})
    environ = environment(emulator.url, tmp_path / "claw.db", CLAW_LOG_LEVEL="debug", PORT=str(free_port()))
    async with unread(environ, tmp_path) as service:
        probes: list[int] = []

        async def probe() -> None:
            while True:
                async with asyncio.timeout(ACK_S):
                    probes.append((await service.get("/health"))[0])
                await asyncio.sleep(0.1)

        probing = asyncio.create_task(probe())
        said = []
        for number in range(300):
            said.append(await emulator.say(f"question {number}", person=people[number % 20]))
            await asyncio.sleep(0.01)
        for question in said:
            await emulator.wait_reply_to(question, timeout=30)
        acks = sorted(push.ack_ms or 1e9 for push in emulator.pushes)
        assert len(acks) == len(said)
        assert acks[int(len(acks) * 0.99)] < ACK_S * 1000
        # Cancelled here, so that a probe that failed before is seen.
        assert not probing.done()
        probing.cancel()
        assert set(probes) == {200}
        service.signal(signal.SIGTERM)
        assert await service.ended(15) == 0

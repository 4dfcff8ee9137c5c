"""The emulator on a free port, an HTTP session, and robots that are closed at the end of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp
import pytest

from claw.emulator import ConnectionState, Emulator

from .client import FakeRobot


class Connect(Protocol):
    async def __call__(self, **options: Any) -> FakeRobot: ...


@pytest.fixture
async def emu() -> AsyncIterator[Emulator]:
    async with Emulator(rate_limits=False, seed=1) as emulator:
        yield emulator


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def connect(emu: Emulator, http: aiohttp.ClientSession) -> AsyncIterator[Connect]:
    """Open a robot's connection that is ready to get pushes."""
    robots: list[FakeRobot] = []

    async def connect(**options: Any) -> FakeRobot:
        before = sum(each.state is ConnectionState.OPEN and not each.frozen for each in emu.connections)
        robot = await FakeRobot(emu, http, **options).connect()
        robots.append(robot)
        await emu.wait_connections(before + 1)
        return robot

    yield connect
    for robot in robots:
        await robot.close()


@pytest.fixture
async def robot(connect: Connect) -> FakeRobot:
    return await connect()

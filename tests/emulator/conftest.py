"""The emulator on a free port, an HTTP session, and robots that are closed at the end of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp
import pytest
from playwright.async_api import ConsoleMessage, Page, expect

from claw.emulator import ConnectionState, Emulator
from tests.browser import opened

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


def _is_complaint(message: ConsoleMessage) -> bool:
    """Tell an error of the page itself from that nobody listened during an outage."""
    return message.type == "error" and "net::ERR_" not in message.text


@pytest.fixture
async def page(emu: Emulator) -> AsyncIterator[Page]:
    """Open the page, in Chinese; anything that the browser complains about fails the test."""
    complaints: list[str] = []
    async with opened("about:blank") as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
        await page.goto(emu.url)
        await expect(page.locator("#person option").first).to_be_attached()
        yield page
    assert complaints == []


@pytest.fixture(params=[(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")], ids=lambda look: f"{look}")
async def anywhere(page: Page, request: pytest.FixtureRequest) -> Page:
    """The page on a phone and on a desk, in light and dark."""
    width, scheme = request.param
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme=scheme)
    return page

"""A real OpenClaw gateway behind a real claw, for the tests that only `-m openclaw` collects (make test-openclaw)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from claw.emulator import Emulator
from tests.openclaw import gateway as openclaw
from tests.openclaw.gateway import Gateway
from tests.openclaw.provider import Provider
from tests.openclaw.stack import Stack, table


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """The ordinary run leaves this folder alone: it needs 830 MB of packages and a quarter of an hour."""
    return None if "openclaw" in config.getoption("markexpr") else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What every case meant to the person and to the bill, as one table."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    calls = sorted((report for report in reports if report.when == "call"), key=lambda report: report.start)
    rows = [row for report in calls for name, row in report.user_properties if name == "openclaw"]
    for line in table(rows):
        terminalreporter.write_line(line)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_provider() -> AsyncIterator[Provider]:
    async with Provider().serving() as provider:
        yield provider


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_gateway(shared_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    if reason := openclaw.missing():
        pytest.skip(reason)
    gateway = Gateway(tmp_path_factory.mktemp("openclaw"), shared_provider.url)
    try:
        yield gateway
    finally:
        await gateway.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    shared_gateway: Gateway,
    shared_provider: Provider,
    tmp_path: Path,
    record_property: Callable[[str, Any], None],
) -> AsyncIterator[Stack]:
    """All parts, ready. The gateway is the module's: a start takes some 15 s, so only a test that ends it pays one."""
    shared_provider.reset()
    await shared_gateway.ensure_ready()
    async with Emulator(rate_limits=False) as emulator:
        yield Stack(emulator, shared_gateway, shared_provider, tmp_path, record_property)

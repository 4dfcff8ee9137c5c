"""`claw dev` as a newcomer uses it: one command, a page in a browser, an answer, a fault, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from claw.cli.dev import free_port
from tests.browser import MARKS, opened
from tests.service import KEPT

pytestmark = MARKS


@contextlib.asynccontextmanager
async def claw_dev(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str]]:
    """The process, and the addresses that it prints: the page's and claw's."""
    environ = {name: os.environ[name] for name in KEPT if name in os.environ}
    environ |= {"PORT": str(free_port(8080)), "PYTHONPATH": str(Path(__file__).parents[2])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "claw", "dev", "--page-port", str(free_port(0))),
        env=environ,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        printed = ""
        async with asyncio.timeout(20):
            while "Ctrl-C" not in printed:
                printed += (await process.stdout.readline()).decode()
        page, service = re.findall(r"http://[0-9.]+:[0-9]+", printed)[:2]
        yield process, page, service
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_newcomer(tmp_path: Path) -> None:
    """What is typed on the page is answered, also after a cut connection; Ctrl-C ends it all with exit code 0."""
    async with claw_dev(tmp_path) as (process, url, service), opened(url) as page:
        await page.fill("#message", "你好，claw")
        await page.press("#message", "Enter")
        await expect(page.locator(".bubble.robot")).to_contain_text("你好，claw")
        await page.click("[data-action=reset]")
        await expect(page.locator("#connections")).to_contain_text("c3")
        await page.fill("#message", "/status")
        await page.press("#message", "Enter")
        await expect(page.locator(".bubble.robot").nth(1)).to_contain_text("OPEN")
        async with aiohttp.ClientSession() as http, http.get(f"{service}/ready") as response:
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    assert (tmp_path / "data" / "dev.db").exists()


@pytest.mark.parametrize("taken", [True, False])
def test_free_port(taken: bool, unused_tcp_port: int) -> None:
    """A port that is taken is replaced by one that is free."""
    with socket.socket() as holder:
        if taken:
            holder.bind(("127.0.0.1", unused_tcp_port))
            holder.listen()
        assert (free_port(unused_tcp_port) == unused_tcp_port) is not taken

"""A real headless Chromium, the distribution's: what tests that look at a page need of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 20_000
"""Milliseconds that the browser gets for anything."""

MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium; name one in CHROMIUM"),
]


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Page]:
    """A Chinese page of 1280 x 800 at `url`, in a browser of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        try:
            page = await browser.new_page(viewport={"width": 1280, "height": 800}, locale="zh-CN")
            page.set_default_timeout(TIMEOUT)
            expect.set_options(timeout=TIMEOUT)
            await page.goto(url)
            yield page
        finally:
            await browser.close()

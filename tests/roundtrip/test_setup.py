"""A claw without credentials: its page, the scan with each ending, and the claw that comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from claw.emulator import Emulator
from tests.browser import MARKS
from tests.redis_server import free_port
from tests.roundtrip.test_operator_page import fits, visited
from tests.service import ADMIN_TOKEN, CLIENT_SECRET, Service, environment, running

pytestmark = pytest.mark.timeout(110)

BARE = {"DINGTALK_CLIENT_ID": "", "DINGTALK_CLIENT_SECRET": ""}
MADE = "dingfakeclient"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(client_id=MADE, client_secret=CLIENT_SECRET, rate_limits=False) as started:
        yield started


@contextlib.asynccontextmanager
async def bare(environ: dict[str, str], cwd: Path) -> AsyncIterator[Service]:
    """A claw from its start on, ready or not; `environ` is `environment`'s."""
    service = Service(environ, cwd)
    await service.start()
    try:
        yield service
    finally:
        await service.kill()


async def until_state(service: Service, state: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            _, body = await service.call("GET", "/status")
            if body["setup"]["state"] == state:
                found: dict[str, Any] = body["setup"]
                return found
            await asyncio.sleep(0.05)


async def scan(service: Service, emulator: Emulator) -> None:
    """Go through a scan to its good end, and wait for the claw that comes of it."""
    await until_state(service, "waiting")
    await service.post("/api/setup")
    await until_state(service, "scanning")
    emulator.registration.decide("SUCCESS")
    await service.wait_log("claw serves")
    await service.until_ready()


def assert_no_secret(service: Service, *texts: str) -> None:
    for text in (*texts, "\n".join(service.lines)):
        assert CLIENT_SECRET not in text
        assert ADMIN_TOKEN not in text


async def test_says_what_is_missing(emulator: Emulator, tmp_path: Path) -> None:
    """Without credentials it lives, is not ready with the reason and the remedy, and stops with 0."""
    async with bare(environment(emulator.url, tmp_path / "claw.db", **BARE), tmp_path) as service:
        assert (await service.get("/health"))[0] == 200
        status, body = await service.get("/ready")
        assert status == 503
        assert "CLAW_ADMIN_TOKEN" in body["checks"]["credentials"]["reason"]
        assert (await service.get("/status"))[0] == 401
        assert (await service._request("POST", "/api/setup", ""))[0] == 401
        assert await service.terminate() == 0


@pytest.mark.parametrize("given", [{"CLAW_ADMIN_TOKEN": ""}, {"CLAW_PAGE": "off"}, {"DINGTALK_CLIENT_ID": MADE}])
async def test_where_nobody_can_scan_it_is_a_fault(emulator: Emulator, tmp_path: Path, given: dict[str, str]) -> None:
    """Without a token, without the page, or with half of the credentials, the settings' faults are told, and 78."""
    environ = environment(emulator.url, tmp_path / "claw.db", **(BARE | given))
    service = Service(environ, tmp_path)
    with pytest.raises(AssertionError, match="claw does not serve"):
        await service.start()
    assert await service.ended() == 78
    assert any("DINGTALK_CLIENT_SECRET" in line for line in service.lines)


@pytest.mark.parametrize(("ending", "reason"), [("FAIL", "refused"), ("EXPIRED", "expired")])
async def test_an_ending_without_an_app(emulator: Emulator, tmp_path: Path, ending: str, reason: str) -> None:
    """A scan that is refused or expires is told with its reason, and the next one can succeed."""
    async with bare(environment(emulator.url, tmp_path / "claw.db", **BARE), tmp_path) as service:
        await until_state(service, "waiting")
        await service.post("/api/setup")
        await until_state(service, "scanning")
        emulator.registration.decide(ending)
        setup = await until_state(service, "waiting")
        assert setup["ended"]["reason"] == reason
        assert setup["code"] is None
        emulator.faults.update({"scan_status": 502})
        await service.post("/api/setup")
        assert (await until_state(service, "waiting"))["ended"]["reason"] == "unreachable"
        emulator.faults.update({"scan_status": 0})
        await service.post("/api/setup")
        assert (await until_state(service, "scanning"))["ended"] is None
        assert_no_secret(service)


async def test_two_pages_share_one_scan(emulator: Emulator, tmp_path: Path) -> None:
    """Whoever presses second sees the code that is there: one app is made, not two."""
    async with bare(environment(emulator.url, tmp_path / "claw.db", **BARE), tmp_path) as service:
        await until_state(service, "waiting")
        await asyncio.gather(*(service.post("/api/setup") for _ in range(5)))
        await until_state(service, "scanning")
        await service.post("/api/setup")
        assert len(emulator.registration.devices) == 1


async def test_the_store_keeps_what_was_scanned(emulator: Emulator, tmp_path: Path) -> None:
    """After the scan claw answers, after a kill -9 it starts by itself; `claw owner` knows the app too."""
    port = str(free_port())
    environ = environment(emulator.url, tmp_path / "claw.db", **BARE, PORT=port)
    async with bare(environ, tmp_path) as service:
        await scan(service, emulator)
        await emulator.replies.wait_to(await emulator.say("hello"))
        body = str(await service.call("GET", "/status")) + str(await service.call("GET", "/api/audit"))
        assert MADE in body  # Who set it up is in the audit, by the app's id.
        assert_no_secret(service, body)
        await service.kill()
    async with running(environ, tmp_path) as service:
        await service.until_ready()
        assert not [entry for entry in service.logs if entry.get("message") == "set-up serves"]
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "claw", "owner", "show", "--json", env=environ, cwd=tmp_path, stdout=PIPE, stderr=PIPE
    )
    out, err = await command.communicate()
    assert command.returncode == 0, err
    assert CLIENT_SECRET not in (out + err).decode()


async def test_the_files_that_are_named_get_them(emulator: Emulator, tmp_path: Path) -> None:
    """Where both `_FILE`s are named and can be written, they hold the credentials, for their owner alone."""
    files = {"DINGTALK_CLIENT_ID_FILE": tmp_path / "id", "DINGTALK_CLIENT_SECRET_FILE": tmp_path / "secret"}
    named = {name: str(path) for name, path in files.items()}
    environ = environment(emulator.url, tmp_path / "claw.db", **BARE, **named, PORT=str(free_port()))
    async with bare(environ, tmp_path) as service:
        await scan(service, emulator)
        assert [path.read_text() for path in files.values()] == [MADE, CLIENT_SECRET]
        assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}


async def picture(page: Page, name: str) -> None:
    """Take a picture of the pages in docs/, where SCREENSHOTS names that folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        await page.set_viewport_size({"width": 760, "height": 560})
        await page.screenshot(path=f"{folder}/{name}.png")


class TestPage:
    """The set-up in a browser."""

    pytestmark = MARKS

    async def test_scan(self, emulator: Emulator, tmp_path: Path) -> None:
        """Token, a button, a code: the page tells each ending, and shows the claw that comes of it by itself."""
        environ = environment(emulator.url, tmp_path / "claw.db", **BARE, PORT=str(free_port()))
        async with bare(environ, tmp_path) as service, visited(service) as page:
            await page.click("#scan")
            await expect(page.locator(".qr")).to_be_visible()
            for width in (390, 768, 1280):
                await page.set_viewport_size({"width": width, "height": 800})
                await fits(page)
            await picture(page, "setup.zh")
            await page.click("#lang")
            await picture(page, "setup")
            await page.click("#lang")
            emulator.registration.decide("FAIL")
            await expect(page.locator(".refused[role=alert]").last).to_contain_text("没有同意")
            await page.click("#scan")
            await expect(page.locator(".qr")).to_be_visible()
            assert CLIENT_SECRET not in await page.content()
            emulator.registration.decide("SUCCESS")
            await expect(page.locator("#state")).to_have_text("已连接")
            await expect(page.locator("#nav")).to_be_visible()

    async def test_reload_and_language(self, emulator: Emulator, tmp_path: Path) -> None:
        """A page that is loaded again in the middle goes on, in the other language too."""
        environ = environment(emulator.url, tmp_path / "claw.db", **BARE, PORT=str(free_port()))
        async with bare(environ, tmp_path) as service, visited(service) as page:
            await page.click("#scan")
            await expect(page.locator(".qr")).to_be_visible()
            await page.reload()
            await expect(page.locator(".qr")).to_be_visible()
            await page.click("#lang")
            await expect(page.locator("main")).to_contain_text("Scan the code with DingTalk")

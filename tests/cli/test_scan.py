"""Registering an app by scanning a code, with each ending, and the model's server after it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from dotenv import dotenv_values

from claw.dingtalk.registration import DeviceFlow, ScanEnd, ScanError, ScannedApp, draw
from claw.emulator import Emulator
from claw.http_client import http_session
from tests.cli.screen import Screen
from tests.cli.test_auth import environment, run
from tests.clock import FakeClock


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(client_id=None, client_secret=None) as started:
        yield started


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    opened: list[Screen] = []
    yield opened
    for screen in opened:
        screen.close()


def start(screens: list[Screen], emulator: Emulator, folder: Path, *arguments: str) -> Screen:
    environ = environment(emulator, DINGTALK_OAPI_ENDPOINT=emulator.url)
    screen = Screen(environ, folder, "auth", *arguments)
    screens.append(screen)
    return screen


async def test_a_newcomer_scans_and_picks_a_model(emulator: Emulator, tmp_path: Path, screens: list[Screen]) -> None:
    """Enter, a scan, a number, a key: the app's credentials and the model's server are in `.env`, and nowhere else."""
    screen = start(screens, emulator, tmp_path)
    await screen.see("scan a code with DingTalk")
    await screen.see(r"Client ID \(AppKey\): ")
    screen.type("\n")
    await screen.see("▀|▄|█")
    address = await screen.see(r"http://127\.0\.0\.1:\d+/scan/[A-Z-]+")
    await screen.see("Waiting for you")
    async with aiohttp.ClientSession() as http:
        async with http.get(address) as page:
            assert address.rpartition("/")[2] in await page.text()
        async with http.post(address, data={"answer": "SUCCESS"}) as page:
            assert "Done" in await page.text()
    await screen.see("The app is made")
    await screen.see("works")
    await screen.see("Number")
    screen.type("9\n")
    await screen.see("Address")
    screen.type(f"{emulator.url}/v1\n")
    await screen.see("API key")
    screen.type("sk-of-a-newcomer\n")
    await screen.see("Name of the model")
    screen.type("claw-test\n")
    await screen.see("The model answers")
    await screen.see("Written to")
    assert await screen.ended() == 0
    written = dotenv_values(tmp_path / ".env", interpolate=False)
    assert written == {
        "DINGTALK_CLIENT_ID": emulator.client_id,
        "DINGTALK_CLIENT_SECRET": emulator.client_secret,
        "OPENAI_BASE_URL": f"{emulator.url}/v1",
        "OPENAI_API_KEY": "sk-of-a-newcomer",
        "OPENAI_MODEL": "claw-test",
    }
    for secret in (str(emulator.client_secret), "sk-of-a-newcomer"):
        assert secret not in screen.text
        assert not [line for line in screen.command_lines if secret.encode() in line]
    assert re.search("CLAW_REPLY_MODE=auto", screen.text)


@pytest.mark.parametrize(
    ("switches", "told"),
    [
        ({"scan_ending": "FAIL"}, "did not agree"),
        ({"scan_ending": "EXPIRED"}, "The code has expired"),
        ({"scan_nonce_old": True}, "DingTalk gave no code"),
        ({"scan_status": 502}, "DingTalk cannot be reached"),
        ({"scan_status": 403}, "DingTalk gave no code"),
    ],
)
async def test_each_ending_has_its_sentence(
    emulator: Emulator, tmp_path: Path, switches: dict[str, str | int | bool], told: str
) -> None:
    """Whatever comes of it is told in words, with exit code 78, and nothing is written."""
    emulator.faults.update(switches)
    environ = environment(emulator, DINGTALK_OAPI_ENDPOINT=emulator.url)
    code, out, err = await run(environ, tmp_path, "--scan")
    assert code == 78
    assert told in out + err
    assert not (tmp_path / ".env").exists()


async def test_a_script_may_scan(emulator: Emulator, tmp_path: Path) -> None:
    """Without a terminal the address is printed, and the credentials are written as ever."""
    emulator.faults.update({"scan_ending": "SUCCESS"})
    environ = environment(emulator, DINGTALK_OAPI_ENDPOINT=emulator.url)
    code, out, err = await run(environ, tmp_path, "--scan")
    assert code == 0, out + err
    assert "/scan/" in err
    assert str(emulator.client_secret) not in out + err
    assert dotenv_values(tmp_path / ".env")["DINGTALK_CLIENT_ID"] == emulator.client_id


async def register(emulator: Emulator, clock: FakeClock) -> tuple[DeviceFlow, aiohttp.ClientSession]:
    http = http_session()
    return DeviceFlow(http, emulator.url, clock), http


async def test_an_old_nonce_costs_another_one(emulator: Emulator) -> None:
    """A nonce that DingTalk does not take any more is replaced once, without a word."""
    emulator.faults.update({"scan_nonce_old": True, "scan_ending": "SUCCESS", "fault_budget": {"scan_nonce_old": 1}})
    flow, http = await register(emulator, FakeClock())
    async with http:
        clock_task = asyncio.create_task(flow.run(lambda code: None, lambda left: None))
        app = await _drive(flow, clock_task)
    assert app.client_id == emulator.client_id


async def test_a_network_that_is_gone_for_a_moment_is_waited_for(emulator: Emulator) -> None:
    """A poll without an answer ends nothing; a minute without one does."""
    flow, http = await register(emulator, FakeClock())
    shown: list[str] = []
    async with http:
        running = asyncio.create_task(flow.run(lambda code: shown.append(code.user_code), lambda left: None))
        while not shown:
            await _advance(flow, 0)
        emulator.faults.update({"scan_status": 503})
        await _advance(flow, 3)
        emulator.faults.update({"scan_status": 0, "scan_ending": "SUCCESS"})
        assert (await _drive(flow, running)).client_id
        emulator.faults.update({"scan_ending": ""})
        again = asyncio.create_task(flow.run(lambda code: shown.append(code.user_code), lambda left: None))
        while len(shown) < 2:
            await _advance(flow, 0)
        emulator.faults.update({"scan_status": 503})
        with pytest.raises(ScanError) as caught:
            await _drive(flow, again)
    assert caught.value.reason is ScanEnd.UNREACHABLE


async def test_a_code_is_good_once(emulator: Emulator) -> None:
    """Whoever polls a code that has given its app gets no second one: the scan ends with DingTalk's own words."""
    flow, http = await register(emulator, FakeClock())
    shown: list[str] = []
    async with http:
        running = asyncio.create_task(flow.run(lambda code: shown.append(code.address), lambda left: None))
        while not shown:
            await asyncio.sleep(0.01)
        device = next(iter(emulator.registration.devices))
        emulator.registration.decide()
        # Another one takes the app first, as a second terminal with the same code would.
        async with http.post(f"{emulator.url}/app/registration/poll", json={"device_code": device}) as answer:
            assert (await answer.json())["status"] == "SUCCESS"
        async with http.get(shown[0]) as page:
            assert "it was used" in await page.text()
        with pytest.raises(ScanError, match="device_code") as caught:
            await _drive(flow, running)
    assert caught.value.reason is ScanEnd.FAULT


async def _advance(flow: DeviceFlow, seconds: float) -> None:
    clock = flow._clock
    assert isinstance(clock, FakeClock)
    await clock.advance(seconds)
    await asyncio.sleep(0.01)


async def _drive(flow: DeviceFlow, running: asyncio.Task[ScannedApp]) -> ScannedApp:
    async with asyncio.timeout(30):
        while not running.done():
            await _advance(flow, 1)
    return running.result()


def test_a_code_is_drawn_in_half_blocks() -> None:
    """The drawing is square in a terminal, and wide enough for its address."""
    lines = [line for line in draw("https://open-dev.dingtalk.com/scan?code=ABCD-EFGH-IJKL").splitlines() if line]
    assert 10 < len(lines) < 40
    assert any(each in "".join(lines) for each in "▀▄█")

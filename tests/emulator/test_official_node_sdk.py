"""The official Node SDK, unmodified, takes the emulator for DingTalk.

It is installed by npm into pytest's cache, once per content of `node/`; without node or npm the tests are skipped.
"""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import shutil
from collections.abc import AsyncIterator

import pytest

from claw.emulator import Emulator

from .client import until
from .test_official_python_sdk import running

NODE = pathlib.Path(__file__).parent / "node"
INSTALL = ("install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")

pytestmark = [
    pytest.mark.node,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not installed"),
]


@pytest.fixture
async def sdk_folder(request: pytest.FixtureRequest) -> pathlib.Path:
    """Where the SDK is installed, with the robot beside it."""
    assert request.config.cache is not None
    package = (NODE / "package.json").read_bytes()
    folder = request.config.cache.mkdir(f"node-sdk-{hashlib.sha256(package).hexdigest()[:12]}")
    (folder / "package.json").write_bytes(package)
    shutil.copy(NODE / "robot.mjs", folder)
    done = folder / "installed"
    if not done.exists():
        npm = shutil.which("npm") or "npm"
        install = await asyncio.create_subprocess_exec(npm, *INSTALL, cwd=folder)
        assert await install.wait() == 0, "npm could not install the SDK"
        done.touch()
    return folder


@pytest.fixture
async def sdk(emu: Emulator, sdk_folder: pathlib.Path) -> AsyncIterator[None]:
    """Run the SDK's robot, connected."""
    command = ("node", str(sdk_folder / "robot.mjs"), str(emu.client_id), str(emu.client_secret), emu.url)
    async with running(*command):
        await emu.wait_connections(timeout=60)
        yield


@pytest.mark.usefixtures("sdk")
async def test_round_trip(emu: Emulator) -> None:
    """A message reaches an SDK robot; its reply and its ack reach the emulator; an event is acked."""
    said = await emu.say("hello")
    reply = await emu.wait_reply_to(said, timeout=30)
    assert (reply.text, reply.at) == ("you said hello", ["u-1001"])
    emu.act("event")
    assert said.push is not None
    await until(said.push.acked.is_set)
    await until(emu.pushes[-1].acked.is_set)
    assert said.push.ack_data == {"response": {"errcode": 0, "errmsg": "ok"}}
    assert not emu.violations


@pytest.mark.usefixtures("sdk")
async def test_reconnects_after_a_reset(emu: Emulator) -> None:
    """After a TCP reset the SDK comes back and goes on answering."""
    (first,) = emu.connections
    emu.act("reset")
    await until(lambda: first.id not in emu.gateway.connections.live)
    await emu.wait_connections(timeout=60)
    reply = await emu.wait_reply_to(await emu.say("still there?"), timeout=30)
    assert reply.text == "you said still there?"

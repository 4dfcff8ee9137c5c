"""The official Python SDK, unmodified, takes the emulator for DingTalk: its truth is checked from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys
from collections.abc import AsyncIterator

import pytest

from claw.emulator import Emulator

from .client import until

SCRIPT = pathlib.Path(__file__).with_name("python_sdk_robot.py")


def environment(**more: str) -> dict[str, str]:
    """Ours, without a proxy: everything is on this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"NO_PROXY": "*"} | more


@contextlib.asynccontextmanager
async def running(*command: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process with its output in ours, and end it at the end."""
    process = await asyncio.create_subprocess_exec(*command, env=environment(**env))
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
async def sdk(emu: Emulator) -> AsyncIterator[None]:
    """Run the SDK's robot, connected."""
    command = (sys.executable, str(SCRIPT), str(emu.client_id), str(emu.client_secret))
    async with running(*command, DINGTALK_OPENAPI_ENDPOINT=emu.url):
        await emu.wait_connections(timeout=60)
        yield


@pytest.mark.usefixtures("sdk")
async def test_round_trip(emu: Emulator) -> None:
    """A message reaches an SDK robot, and its reply_text reaches the chat."""
    said = await emu.say("hello", chat="g-team")
    reply = await emu.wait_reply_to(said, timeout=30)
    assert (reply.chat, reply.msgtype, reply.text, reply.at) == ("g-team", "text", "you said hello", ["u-1001"])
    assert said.push is not None
    await asyncio.wait_for(said.push.acked.wait(), 30)
    assert said.push.ack_code == 200
    assert not emu.violations


@pytest.mark.usefixtures("sdk")
async def test_ai_card_and_click(emu: Emulator) -> None:
    """The SDK's AI card is created, streamed and finished; a click on it is answered."""
    await emu.say("card")
    reply = await emu.wait_reply("direct:u-1001", timeout=30)
    assert (reply.via, reply.text) == ("card", "one two three")
    (card,) = emu.cards.cards.values()
    assert (card.state, card.update_count, card.in_flight_max) == ("finished", 2, 1)
    emu.act("card_click", action="agree")
    await until(emu.pushes[-1].acked.is_set)
    assert emu.pushes[-1].ack_code == 200


@pytest.mark.usefixtures("sdk")
async def test_picture_and_event(emu: Emulator) -> None:
    """The SDK finds the download URL of a picture, and acks an event once."""
    said = await emu.say(msgtype="picture")
    reply = await emu.wait_reply_to(said, timeout=30)
    assert reply.text.startswith(f"picture at {emu.url}/files/")
    emu.act("event")
    await until(emu.pushes[-1].acked.is_set)


@pytest.mark.usefixtures("sdk")
async def test_reconnects_after_disconnect(emu: Emulator) -> None:
    """After a `disconnect` the SDK comes back with a new ticket."""
    (first,) = emu.connections
    emu.act("disconnect")
    await until(lambda: first.id not in emu.gateway.connections.live)
    await emu.wait_connections(timeout=60)
    reply = await emu.wait_reply_to(await emu.say("still there?"), timeout=30)
    assert reply.text == "you said still there?"

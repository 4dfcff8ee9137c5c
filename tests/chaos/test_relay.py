"""The relay: what it holds back arrives afterwards, what it cuts ends, what it pretends is told for the target."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from claw.emulator import Emulator
from tests.chaos.relay import Relay, relay_to

BLOCKED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Emulator() as emulator, relay_to(emulator.port) as made:
        yield made


async def ask(relay: Relay) -> int:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{relay.url}/v1/chat/completions", json={"messages": []}) as answer,
    ):
        await answer.read()
        return answer.status


async def test_it_passes_on(relay: Relay) -> None:
    """Without a fault the target answers, and connections are counted."""
    assert await ask(relay) == 400
    assert (relay.peak, relay.refused) == (1, 0)


async def test_stalled(relay: Relay) -> None:
    """A stall tells nobody, and loses nothing."""
    relay.stall()
    asked = asyncio.create_task(ask(relay))
    await asyncio.sleep(0.2)
    assert not asked.done()
    relay.heal()
    assert await asyncio.wait_for(asked, 5) == 400


async def test_cut(relay: Relay) -> None:
    """A cut ends what is under way, and whoever comes afterwards; healed, all is well."""
    relay.stall()
    asked = asyncio.create_task(ask(relay))
    await asyncio.sleep(0.1)
    await relay.cut()
    with pytest.raises(aiohttp.ClientError):
        await asked
    with pytest.raises(aiohttp.ClientError):
        await ask(relay)
    relay.heal()
    assert await ask(relay) == 400


async def test_pretended(relay: Relay) -> None:
    """Another's answer is given in the target's place, to every call."""
    await relay.pretend(BLOCKED)
    assert [await ask(relay) for _ in range(2)] == [403, 403]
    assert relay.refused == 2
    relay.heal()
    assert await ask(relay) == 400

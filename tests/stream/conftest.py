"""One session on a real socket, for the tests of this room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from claw.clock import Clock
from claw.messages import Delivery
from claw.secret import Secret
from claw.stream.gateway import Registration
from claw.stream.session import Session, SessionConfig, SessionEnd, open_session
from tests.clock import FakeClock
from tests.stream.dingtalk import DingTalk, Peer, nothing_left


async def _nothing(_: object) -> None: ...


def quiet(**more: Any) -> SessionConfig:
    """What a session needs whose messages nobody waits for."""
    return SessionConfig(_nothing, _nothing, 5, Clock(), **more)


@dataclass
class SessionHarness:
    """A session that runs, its peer, and what was delivered. `accept` is done with each delivery."""

    dingtalk: DingTalk
    clock: FakeClock
    session: Session
    peer: Peer
    running: asyncio.Task[SessionEnd]
    config: SessionConfig
    delivered: list[str] = field(default_factory=list)

    async def end(self) -> SessionEnd:
        async with asyncio.timeout(10):
            return await asyncio.shield(self.running)


Connect = Callable[..., Awaitable[SessionHarness]]


@pytest.fixture
async def dingtalk() -> AsyncIterator[DingTalk]:
    async with DingTalk() as dingtalk:
        yield dingtalk


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    harnesses: list[SessionHarness] = []
    async with nothing_left(), DingTalk() as dingtalk, aiohttp.ClientSession() as http:

        async def connect(accept: Callable[[Delivery], Awaitable[None]] | None = None, **wired: Any) -> SessionHarness:
            delivered: list[str] = []

            async def deliver(delivery: Delivery) -> None:
                delivered.append(delivery.inbound.msg_id)
                if accept is not None:
                    await accept(delivery)
                else:
                    await delivery.acknowledge()

            clock = wired.pop("clock", None) or FakeClock()
            config = SessionConfig(deliver, wired.pop("on_card", _nothing), wired.pop("heartbeat", 5.0), clock, **wired)
            registration = Registration(Secret(f"{dingtalk.endpoint}?ticket=t"), "127.0.0.1", "dingclient")
            session = await open_session(http, registration, config)
            harness = SessionHarness(
                dingtalk, clock, session, await dingtalk.peer(), asyncio.create_task(session.run()), config
            )
            harness.delivered = delivered
            harnesses.append(harness)
            await FakeClock().settle()
            return harness

        yield connect
        for harness in harnesses:
            harness.running.cancel()
            await asyncio.wait({harness.running})
            for task in [*harness.config.deliveries]:
                task.cancel()
        # However a session ended, its place in the pool of connections is free again.
        assert http.connector is not None
        assert not http.connector._acquired

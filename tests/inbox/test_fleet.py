"""A replica that is cut off its store leaves its share to the others, and comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claw.fleet import BEAT_INTERVAL_S, CUT_OFF_S, FleetKeeper
from claw.secret import Secret
from claw.store.ports import REPLICA_LIFE_S
from claw.store.redis.store import RedisStore
from claw.store.sqlite.store import SqliteStore
from tests.clock import FakeClock
from tests.redis_server import RedisServer
from tests.redis_server import running as running_redis

pytestmark = pytest.mark.timeout(90)


@dataclass
class Connections:
    """Those of one replica: open or paused."""

    reason: str = ""
    changes: list[str] = field(default_factory=list)

    def pause(self, reason: str) -> bool:
        self.reason = reason
        self.changes.append("pause")
        return True

    def resume(self) -> bool:
        self.reason = ""
        self.changes.append("resume")
        return True

    @property
    def is_serving(self) -> bool:
        return not self.reason


class Replica:
    """One of a fleet over a real Redis, on a fake clock."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.clock = FakeClock()
        self.connections = Connections()
        self.store = RedisStore(Secret(server.url()), "dingfakeclient")
        self.fleet = FleetKeeper(self.store, name, self.connections, lambda: self.connections.is_serving, self.clock)

    async def beat(self, seconds: float = 0.0) -> None:
        """Beat once now, and then every few seconds of the fake clock for so long."""
        await self.fleet._beat()
        for _ in range(int(seconds / BEAT_INTERVAL_S)):
            await self.clock.advance(BEAT_INTERVAL_S)
            await self.fleet._beat()

    async def until_resumed(self) -> None:
        async with asyncio.timeout(20):
            while not self.connections.is_serving:
                await asyncio.sleep(0.05)
                await self.fleet._beat()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with running_redis(tmp_path / "redis", appendonly="yes") as started:
        yield started


@pytest.fixture
async def pair(server: RedisServer) -> AsyncIterator[tuple[Replica, Replica]]:
    both = Replica(server, "one"), Replica(server, "two")
    for each in both:
        await each.store.open()
    yield both
    for each in both:
        await each.store.close()


async def test_cut_off_while_others_live(server: RedisServer, pair: tuple[Replica, Replica]) -> None:
    """Half a minute without the store closes the connections; its first answer opens them, each once."""
    one, two = pair
    await two.beat()
    await one.beat()
    assert [each["id"] for each in await one.fleet.report()] == ["one", "two"]
    server.kill()
    await one.beat(CUT_OFF_S - BEAT_INTERVAL_S)
    assert one.connections.is_serving
    await one.beat(2 * BEAT_INTERVAL_S)
    assert "other" in one.connections.reason
    await one.beat(CUT_OFF_S)
    server.start()
    await one.until_resumed()
    assert one.connections.changes == ["pause", "resume"]


async def test_alone_it_stays(server: RedisServer, pair: tuple[Replica, Replica]) -> None:
    """Whoever knows of nobody who is well keeps its connections: DingTalk's repeats find somebody."""
    one, two = pair
    two.connections.pause("cut off")
    await two.beat()
    await one.beat()
    server.kill()
    await one.beat(3 * CUT_OFF_S)
    assert one.connections.changes == []


async def test_a_store_that_is_only_full_closes_nothing(server: RedisServer, pair: tuple[Replica, Replica]) -> None:
    """What can be read and takes no writes is the trouble of all: if each stepped aside nobody would be left."""
    one, two = pair
    await two.beat()
    await one.beat()
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    # Beyond the time for which a write that went well proves that the store takes writes.
    await asyncio.sleep(0.1)
    await one.beat(2 * CUT_OFF_S)
    assert one.connections.changes == []


async def test_a_file_has_no_fleet(tmp_path: Path) -> None:
    """With a store of its own a replica is alone, and knows itself."""
    clock, connections = FakeClock(), Connections()
    store = SqliteStore(tmp_path / "claw.db", clock=clock)
    await store.open()
    fleet = FleetKeeper(store, "one", connections, lambda: True, clock)
    await fleet._beat()
    assert [(each["id"], each["self"]) for each in await fleet.report()] == [("one", True)]
    await store.close()
    for _ in range(20):
        await clock.advance(BEAT_INTERVAL_S)
        await fleet._beat()
    assert connections.changes == []
    assert REPLICA_LIFE_S > 2 * BEAT_INTERVAL_S

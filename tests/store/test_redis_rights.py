"""What Redis lets claw do: each right used once at the start, and writes proved by writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from claw.errors import StoreError, StoreRefusedError
from claw.secret import Secret
from claw.store.redis.client import ACL_RULES
from claw.store.redis.store import RedisStore, prefix_of
from tests.clock import FakeClock
from tests.redis_server import RedisServer, running
from tests.store.contract import claim, inbound, put

ROBOT = "dingfakeclient"
PREFIX = prefix_of(ROBOT)
RULES = ACL_RULES.format(prefix=PREFIX).split()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own: its settings are changed."""
    with running(tmp_path) as server:
        yield server


def open_store(server: RedisServer, user: str = "", clock: FakeClock | None = None) -> RedisStore:
    """A store of the robot's, by a user of Redis."""
    return RedisStore(
        Secret(server.url().replace("redis://", f"redis://{user}") if user else server.url()),
        ROBOT,
        clock=clock or FakeClock(),
    )


async def test_the_rules_that_are_named_are_enough(server: RedisServer) -> None:
    """A user with just the rights of ACL_RULES can do all that claw does."""
    server.command("ACL", "SETUSER", "claw", "on", ">pass", *RULES)
    store = open_store(server, "claw:pass@")
    await store.open()
    try:
        await put(store, 1)
        lease = await claim(store)
        await store.renew(lease, 30)
        await store.set("owner", "ann")
        await store.ack(lease)
        await store.check()
        await store.clean()
        assert await store.items() == {"owner": "ann"}
    finally:
        await store.close()


@pytest.mark.parametrize("missing", [f"&{PREFIX}:hints", f"~{PREFIX}*", "+@write", "+@pubsub", "+@scripting", "+time"])
async def test_a_missing_right_is_told_at_the_start(server: RedisServer, missing: str) -> None:
    """Without one of its rights claw does not begin to serve: the error names the rule to set."""
    rules = [rule for rule in RULES if rule != missing]
    server.command("ACL", "SETUSER", "claw", "on", ">pass", "resetchannels", *rules)
    store = open_store(server, "claw:pass@")
    with pytest.raises(StoreRefusedError) as caught:
        await store.open()
    assert f"ACL SETUSER claw ~{PREFIX}*" in str(caught.value)
    assert "pass" not in str(caught.value).replace("claw needs", "")


async def test_a_full_redis_is_not_proved_by_reading(server: RedisServer) -> None:
    """From the first write that fails on, `check` fails until one goes well, however much is read meanwhile."""
    clock = FakeClock()
    store = open_store(server, clock=clock)
    await store.open()
    try:
        await put(store, 1)
        await store.check()
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreError, match="no memory"):
            await put(store, 2)
        for _ in range(3):
            await store.items()
            await store.depth()
            with pytest.raises(StoreError, match="no memory"):
                await store.check()
        server.command("CONFIG", "SET", "maxmemory", "0")
        await store.check()
        assert (await claim(store)).inbound == inbound(1)
    finally:
        await store.close()


async def test_a_full_redis_is_found_without_traffic(server: RedisServer) -> None:
    """Where nobody writes, `check` itself does, at the latest when the last proof is CHECK_FRESH_S old."""
    clock = FakeClock()
    store = open_store(server, clock=clock)
    await store.open()
    try:
        await put(store, 1)
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.command("CONFIG", "SET", "maxmemory", "1")
        await clock.advance(4)
        await store.depth()
        with pytest.raises(StoreError, match="no memory"):
            await store.check()
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [("min-replicas-to-write", "1", "too few replicas"), ("replica", "", "read-only replica")],
)
async def test_a_redis_that_takes_no_writes_fails_the_check(
    server: RedisServer, setting: str, value: str, says: str
) -> None:
    """A replica, or a master without the replicas that it wants, fails the check with its reason, and then recovers."""
    clock = FakeClock()
    store = open_store(server, clock=clock)
    await store.open()
    try:
        await put(store, 1)
        if setting == "replica":
            server.command("REPLICAOF", "127.0.0.1", "1")
        else:
            server.command("CONFIG", "SET", setting, value)
        await clock.advance(4)
        with pytest.raises(StoreError, match=says):
            await store.check()
        if setting == "replica":
            server.command("REPLICAOF", "NO", "ONE")
        else:
            server.command("CONFIG", "SET", setting, "0")
        await store.check()
    finally:
        await store.close()

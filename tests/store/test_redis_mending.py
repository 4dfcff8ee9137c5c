"""Redis after an accident: keys that are gone, a database that was emptied, settings that lose what was acked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from claw.errors import LeaseLostError, StoreError, StoreRefusedError
from claw.secret import Secret
from claw.store.redis import scripts
from claw.store.redis.store import LOSS_INTERVAL_S, RedisStore, prefix_of
from claw.store.values import Replica
from tests.clock import FakeClock
from tests.redis_server import RedisServer, running
from tests.store.contract import ANSWER, TTL, claim, inbound, put, row
from tests.store.hardship import ids_in_order
from tests.store.test_redis import RedisWorld

ROBOT = "dingfakeclient"
PREFIX = prefix_of(ROBOT)


@pytest_asyncio.fixture
async def world(server: RedisServer) -> AsyncIterator[RedisWorld]:
    server.command("FLUSHALL")
    world = RedisWorld(server)
    await world.store.open()
    yield world
    await world.store.close()


def delete(world: RedisWorld, *names: str) -> None:
    world.server.command("DEL", *(f"{PREFIX}:{name}" for name in names))


def mendings(caplog: pytest.LogCaptureFixture) -> list[dict[str, int]]:
    """What was logged as mended, by what."""
    names = ("missing", "gone", "queued", "heads")
    lines = [record for record in caplog.records if record.message == "store mended"]
    return [{name: record.__dict__[name] for name in names} for record in lines]


# --- redundant keys -------------------------------------------------------------------------------------------------

STATES = ("ready", "urgent", "held", "resting")
LISTS = ("lane:a", "lane:b", "lane:c", "lane:d")


async def populate(world: RedisWorld) -> None:
    """One queue in each state, two messages in each: `a` and `d` (urgent) are ready, `b` is held, `c` delayed."""
    for number, queue in enumerate("bbccaa"):
        await put(world.store, number, queue)
    await claim(world.store)
    lease = await claim(world.store)
    await world.store.release(lease, 20)
    for number in (6, 7):
        await put(world.store, number, "d", urgent=True)


async def answered(world: RedisWorld) -> list[str]:
    """All that is answered from now on, as leases and delays run out."""
    ids = []
    for _ in range(4):
        ids += await ids_in_order(world.store)
        await world.clock.advance(TTL + 1)
    return ids


@pytest.mark.parametrize(
    "names", [(each,) for each in (*STATES, *LISTS, "pending")] + [STATES, LISTS, ("pending", *STATES, *LISTS)]
)
async def test_a_key_that_is_gone_is_made_anew(
    world: RedisWorld, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever index is deleted, each message is answered once, in the order of its queue, and counted."""
    await populate(world)
    delete(world, *names)
    await world.store.clean()
    assert len(mendings(caplog)) == 1
    assert (await world.store.depth()).pending == 8
    caplog.clear()
    await world.store.clean()
    assert mendings(caplog) == [], "what was mended is right"
    ids = await answered(world)
    assert sorted(ids) == [f"msg{number}" for number in range(8)]
    for first, second in (("msg0", "msg1"), ("msg2", "msg3"), ("msg4", "msg5"), ("msg6", "msg7")):
        assert ids.index(first) < ids.index(second)
    assert (await world.store.depth()).pending == 0


async def test_what_is_sound_is_left_alone(world: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    """A cleaning changes no state of a sound queue, at any time."""
    await populate(world)
    for _ in range(4):
        before = {name: world.server.command("ZRANGE", f"{PREFIX}:{name}", "0", "-1") for name in (*STATES, "pending")}
        await world.store.clean()
        after = {name: world.server.command("ZRANGE", f"{PREFIX}:{name}", "0", "-1") for name in (*STATES, "pending")}
        assert before == after
        await world.clock.advance(12)
    assert mendings(caplog) == []


async def test_a_holder_whose_lease_is_gone_keeps_it(world: RedisWorld) -> None:
    """Where `held` is deleted, its message is not given to another while its holder lives and renews."""
    await put(world.store, 1)
    lease = await claim(world.store)
    delete(world, "held")
    await world.store.clean()
    assert await world.store.claim("other", TTL) is None
    await world.clock.advance(10)
    await world.store.renew(lease, TTL)
    await world.clock.advance(TTL - 5)
    assert await world.store.claim("other", TTL) is None
    await world.store.ack(lease)


async def test_a_queue_that_was_rebuilt_has_one_head(world: RedisWorld) -> None:
    """Its list is deleted while one is held, and a new one arrives before the cleaning: two end, nothing is doubled."""
    await put(world.store, 1)
    await put(world.store, 2)
    lease = await claim(world.store)
    delete(world, "lane:lane")
    await put(world.store, 3)
    second = await claim(world.store)
    await world.store.clean()
    assert await world.store.claim("other", TTL) is None
    await world.store.ack(second)
    assert await world.store.claim("other", TTL) is None, "the first one is still held"
    await world.store.ack(lease)
    assert await ids_in_order(world.store) == ["msg2"]


async def test_numbers_whose_message_is_gone_are_dropped(world: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    """An evicted message blocks nobody, and is no longer counted."""
    await put(world.store, 1)
    await put(world.store, 2)
    delete(world, "msg:1")
    await world.store.clean()
    assert mendings(caplog) == [{"missing": 0, "gone": 1, "queued": 0, "heads": 1}]
    assert (await world.store.depth()).pending == 1
    assert await ids_in_order(world.store) == ["msg2"]


async def test_more_than_one_chunk_is_mended(world: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, a few at a time; queues longer than a chunk keep their order."""
    for name, numbers in (("mend_queues", {"MEND_MAX": 7}), ("mend_messages", {"SCAN_MAX": 5})):
        small = scripts.load(name, **numbers)
        monkeypatch.setattr(scripts, name.upper(), small)
        world.server.command("SCRIPT", "LOAD", small.text)
    chance = random.Random(1)
    queues = [chance.choice("abc") for _ in range(60)]
    for number, queue in enumerate(queues):
        await put(world.store, number, queue)
    delete(world, "pending", "ready", "lane:a", "lane:b")
    for _ in range(5):  # The search for messages goes on with each cleaning.
        await world.store.clean()
    assert (await world.store.depth()).pending == 60
    ids = await ids_in_order(world.store)
    for name in "abc":
        expected = [f"msg{number}" for number, queue in enumerate(queues) if queue == name]
        assert [each for each in ids if each in expected] == expected


async def test_a_counter_that_is_gone_overwrites_nothing(world: RedisWorld) -> None:
    """Where `seq` is deleted, new messages get numbers of their own."""
    for number in range(3):
        await put(world.store, number)
    delete(world, "seq")
    for number in range(3, 6):
        await put(world.store, number)
    assert await ids_in_order(world.store) == [f"msg{number}" for number in range(6)]


async def test_a_worker_is_woken_by_a_mending(world: RedisWorld) -> None:
    """A conversation that was dead goes on without a new message."""
    await put(world.store, 1)
    await world.store.wait()
    delete(world, "ready")
    assert await world.store.claim("worker", TTL) is None
    await world.store.clean()
    await world.store.wait()
    assert await world.store.claim("worker", TTL) is not None


def is_lost(store: RedisStore) -> bool:
    """Ask anew: the type checker takes a property for constant."""
    return store.lost


# --- a store that is lost -------------------------------------------------------------------------------------------


async def test_a_message_that_redis_forgot_is_told_to_its_holder(world: RedisWorld) -> None:
    """Its holder may put it back; and what somebody else has ended is refused as a repeat then."""
    await put(world.store, 1)
    await world.store.ack(await claim(world.store))
    await put(world.store, 2)
    lease = await claim(world.store)
    world.server.command("FLUSHALL")
    await put(world.store, 3)
    for late in (world.store.renew(lease, TTL), world.store.save_answer(lease, ANSWER), world.store.ack(lease)):
        with pytest.raises(LeaseLostError, match="lost the message") as caught:
            await late
        assert caught.value.gone
    assert await put(world.store, 2)
    with pytest.raises(LeaseLostError) as caught:
        await world.store.renew(lease, TTL)
    assert not caught.value.gone, "it is there again"


async def test_a_lost_store_is_not_a_new_one(world: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Emptied under a running claw: that is said, also to claws that start later, until something is settled."""
    await world.store.set("owner", "ann")
    assert await world.store.items() == {"owner": "ann"}
    before = await world.store.epoch("m")
    world.server.command("FLUSHALL")
    assert not is_lost(world.store)
    assert await world.store.items() == {}
    assert is_lost(world.store)
    await world.store.clean()
    assert await world.store.items() == {}
    assert await world.store.epoch("m") != before
    later = world.opened_by_another()
    await later.open()
    assert is_lost(later)
    assert await later.items() == {}
    assert is_lost(later)
    assert [record.levelname for record in caplog.records if "store that was here" in record.message] == ["WARNING"] * 2
    await world.store.set("owner", "bob")
    for store in (world.store, later):
        assert await store.items() == {"owner": "bob"}
        assert not is_lost(store)
    await world.store.delete("owner")
    assert await later.items() == {}
    assert not is_lost(later), "whoever deletes settings knows what he does"
    await later.close()


async def test_a_restart_without_persistence_is_a_loss(tmp_path: Path) -> None:
    """The connection breaks, and the next one leads to an empty Redis."""
    with running(tmp_path / "redis") as server:
        store = RedisStore(Secret(server.url()), ROBOT)
        await store.open()
        await put(store)
        assert not is_lost(store)
        server.kill()
        server.start()
        await store.clean()
        assert await store.items() == {}
        assert is_lost(store)
        await store.close()


async def test_a_new_store_is_not_lost(world: RedisWorld) -> None:
    """The first start finds nothing, and that is right."""
    assert not is_lost(world.store)
    assert await world.store.items() == {}
    assert not is_lost(world.store)


async def test_settings_that_are_gone_are_not_no_settings(world: RedisWorld) -> None:
    """Their key was evicted: nobody may become the owner by that. Deleting the last one is another thing."""
    await world.store.set("owner", "ann")
    delete(world, "entries")
    for _ in range(2):
        with pytest.raises(StoreError, match="settings are gone"):
            await world.store.items()
        with pytest.raises(StoreError, match="settings are gone"):
            await world.store.set_if_absent("owner", "mallory")
        await world.clock.advance(LOSS_INTERVAL_S)
        for _ in range(2):
            with pytest.raises(StoreError, match="settings are gone"):
                await world.store.check()
        await world.die()
    await world.store.delete("owner")
    assert await world.store.items() == {}
    await world.store.check()
    assert await world.store.set_if_absent("owner", "bob") == "bob"


async def test_settings_of_an_older_claw_that_were_deleted_are_no_loss(world: RedisWorld) -> None:
    """Schema 2 did not write down that the last item was deleted."""
    await world.store.close()
    world.server.command("FLUSHALL")
    world.server.command("SET", f"{PREFIX}:schema", "2")
    world.server.command("SET", f"{PREFIX}:version", "token.1")
    world.store = world.opened_by_another()
    await world.store.open()
    assert await world.store.items() == {}
    assert await world.store.set_if_absent("owner", "ann") == "ann"
    assert await world.store.items() == {"owner": "ann"}


async def test_ids_of_an_older_claw_are_known(world: RedisWorld) -> None:
    """Schema 2 kept each under a key of its own, which expires by itself."""
    world.server.command("SET", f"{PREFIX}:seen:robot:msg1", str(round(world.clock.wall() * 1000) - 60_000))
    assert not await put(world.store, 1)
    world.server.command("SET", f"{PREFIX}:seen:robot:msg2", str(round(world.clock.wall() * 1000) - 25 * 3_600_000))
    assert await put(world.store, 2)


# --- settings that lose ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
async def test_a_redis_that_evicts_is_refused(tmp_path: Path, policy: str) -> None:
    """With a limit of memory it would throw away messages, and first of all the owner: only a person can cure it."""
    options = {"maxmemory": "100mb", "maxmemory-policy": policy}
    with running(tmp_path / "redis", **options) as server:
        store = RedisStore(Secret(server.url()), ROBOT)
        with pytest.raises(StoreRefusedError, match=rf"{policy}.*set maxmemory-policy noeviction"):
            await store.open()
        looking = RedisStore(Secret(server.url()), ROBOT, read_only=True)
        await looking.open()
        await looking.check()
        await looking.close()
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await store.open()
        assert await put(store)
        await store.close()


async def test_a_policy_without_a_limit_is_served(tmp_path: Path) -> None:
    """Where memory has no limit, nothing is ever thrown away."""
    with running(tmp_path / "redis", **{"maxmemory-policy": "allkeys-lru"}) as server:
        store = RedisStore(Secret(server.url()), ROBOT)
        await store.open()
        await store.close()


async def test_a_policy_that_was_changed_is_found(tmp_path: Path) -> None:
    """Somebody sets it under a running claw: `check` fails within LOSS_INTERVAL_S, until it is right again."""
    with running(tmp_path / "redis") as server:
        clock = FakeClock()
        store = RedisStore(Secret(server.url()), ROBOT, clock=clock)
        await store.open()
        server.command("CONFIG", "SET", "maxmemory", "100mb")
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await clock.advance(LOSS_INTERVAL_S)
        for _ in range(2):
            with pytest.raises(StoreRefusedError, match="noeviction"):
                await store.check()
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await store.check()
        await store.close()


# --- the fleet, sizes -----------------------------------------------------------------------------------------------


async def test_replicas_hear_of_each_other(world: RedisWorld) -> None:
    """Each sees all, in order of their ids; who stops to beat is gone."""
    other = world.opened_by_another()
    await other.open()
    assert world.store.shared
    await other.beat("b", "2", False)
    await world.store.beat("a", "1", True)
    now = world.clock.wall()
    for store in (world.store, other):
        assert await store.replicas() == [Replica("a", "1", now, True), Replica("b", "2", now, False)]
    await world.clock.advance(10)
    await world.store.beat("a", "1", True)
    await world.clock.advance(10)
    assert [each.id for each in await other.replicas()] == ["a"]
    await other.close()


async def test_a_batch_is_bounded_by_bytes(world: RedisWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many large messages at once are sent in several goes, in the order of their calls."""
    sizes: list[int] = []
    send = world.store._client._send

    async def counted(calls: list[scripts.Script]) -> object:
        sizes.append(len(calls))
        return await send(calls)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store._client, "_send", counted)

    text = "x" * 200_000
    puts = (world.store.put(row(replace(inbound(n), text=text), f"lane{n}")) for n in range(60))
    assert all(await asyncio.gather(*puts))
    assert max(sizes) <= 22
    assert await ids_in_order(world.store) == [f"msg{number}" for number in range(60)]

"""Attacks on what claw keeps: a store that goes away, comes back empty, lags, is full, or is opened twice."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from typing import Final

from aiohttp import web

from bench.attacks.arena import Arena, Claw, Question, arena, until
from bench.attacks.people import FREE, STRANGER, owners
from bench.attacks.registry import Outcome, attack
from tests.chaos.disk import disk
from tests.redis_server import RedisServer

LATE_S: Final = 20.0
"""An answer that takes longer has waited for DingTalk's repeat after 60 s."""
MENDED_S: Final = 120.0
"""The janitor comes by once a minute."""
NOTICED_S: Final = 6.0
NARROW: Final = {"CLAW_MAX_CONCURRENCY": "1", "CLAW_MAX_ATTEMPTS": "5"}
"""One turn at a time, so that the heads of the other queues are ready and not held."""
ONE: Final = {"CLAW_STREAM_CONNECTIONS": "1"}


async def _replicas(place: Arena, redis: RedisServer, count: int = 3, **variables: str) -> list[Claw]:
    made = []
    for number in range(count):
        made.append(await place.start(CLAW_STORE_URL=redis.url(), **ONE, **variables))
        await place.emulator.wait_connections(number + 1)
    return made


async def _talk(place: Arena, people: list[str], seconds: float, pause: float) -> list[Question]:
    """Let people ask in turn for so many seconds."""
    began = time.monotonic()
    asked: list[Question] = []
    while time.monotonic() - began < seconds:
        asked.append(await place.ask(person=people[len(asked) % len(people)]))
        await asyncio.sleep(pause)
    return asked


@attack("F5a", "one of three replicas is cut off Redis for 100 s", long=True)
async def cut_off(place: Arena) -> Outcome:
    redis = await place.redis(appendonly="yes", appendfsync="always")
    relay = await place.relay(redis.port)
    await _replicas(place, redis, 2)
    await place.start(CLAW_STORE_URL=f"redis://127.0.0.1:{relay.port}/0", **ONE)
    await place.emulator.wait_connections(3)
    people = place.people(60)
    await _talk(place, people, 5, 0.3)
    relay.stall()
    asked = await _talk(place, people, 100, 0.29)
    relay.heal()
    left = await place.settle(asked, 80)
    heard = place.heard()
    late = sum(heard[each.mark][0] - each.said > LATE_S for each in asked if each.mark in heard)
    figure = f"{late} of {len(asked)} waited longer than {LATE_S:.0f} s, {len(left)} never answered"
    # What came in the first half minute may be late; after that the replica must have left its share to the others.
    return Outcome(figure, held=not left and late <= len(asked) * 0.15)


@attack("F5b", "Redis is away for 3 s")
async def short_outage(place: Arena) -> Outcome:
    redis = await place.redis(appendonly="yes", appendfsync="always")
    await _replicas(place, redis, 1)
    people = place.people(60)
    redis.kill()
    asked = await _talk(place, people, 3, 0.05)
    await asyncio.to_thread(redis.start)
    left = await place.settle(asked, LATE_S)
    return Outcome(f"{len(left)} of {len(asked)} wait for DingTalk's repeat", held=not left)


@attack("F5c", "the disk is full for 10 s")
async def full_disk(place: Arena) -> Outcome:
    async with disk(place.folder / "disk") as where:
        if not where.own:
            return Outcome("needs root, for a disk of its own", held=False)
        claw = await place.start(CLAW_STORE_URL=f"sqlite:///{where.folder / 'claw.db'}")
        # DingTalk is told to forget what is not acked: people have seen both.
        place.emulator.faults.update({"repush_times": 0})
        where.fill()
        asked = await _talk(place, place.people(60), 10, 0.16)
        where.free()
        left = await place.settle(asked, LATE_S)
        await claw.kill()
    return Outcome(f"{len(left)} of {len(asked)} never answered", held=not left)


@attack("F6", "keys deleted in Redis: `ready`, `held`, `resting`, a queue's list")
async def lost_keys(place: Arena) -> Outcome:
    """Four claws at the same time, each on a Redis of its own that loses one kind of key; each waits for a minute."""
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for kind in ("ready", "held", "resting", "queue"):
                one = await stack.enter_async_context(arena(place.folder / kind, place.checkout, cache=place.cache))
                redis = await one.redis(appendonly="yes")
                claw = await one.start(CLAW_STORE_URL=redis.url(), **NARROW)
                tasks.append(group.create_task(_lose(one, kind, redis, claw), name=f"attack-lose-{kind}"))
        found = [task.result() for task in tasks]
    return Outcome("; ".join(figure for figure, _ in found), held=all(held for _, held in found))


async def _lose(place: Arena, kind: str, redis: RedisServer, claw: Claw) -> tuple[str, bool]:
    people = place.people(3)
    if kind == "resting":
        # A server that is busy: the message rests until it may be tried again.
        place.model.respond = _busy
    else:
        place.model.gate.clear()
    asked = [await place.ask(person=person) for person in people for _ in range(2)]
    await place.acked(asked, 10)
    await until(lambda: kind != "resting" or any(_is_kind(name, kind) for name in redis.held()), 10)
    if kind == "held":
        # The holder dies as well: nobody else knows that the message was held.
        await claw.kill()
    names = [name for name in redis.held() if _is_kind(name, kind)]
    if kind == "queue":
        # Of one conversation, whose second message waits behind the first one.
        names = [name for name in names if redis.command("LLEN", name) == 2][:1]
    if names:
        redis.command("DEL", *names)
    place.model.respond = None
    place.model.gate.set()
    if kind == "held":
        claw = await place.start(CLAW_STORE_URL=redis.url(), **NARROW)
    left = await place.settle(asked, MENDED_S)
    ready = (await claw.get("/ready"))[0]
    if not names:
        return f"{kind}: no such key", False
    return f"{kind}: {len(left)} of {len(asked)} dead{f', /ready {ready}' if left else ''}", not left


async def _busy(_request: web.Request, _mark: str) -> web.StreamResponse:
    return web.json_response({"error": {"message": "busy", "type": "rate_limit_error"}}, status=429)


def _is_kind(name: str, kind: str) -> bool:
    return ":lane:" in name or ":queue:" in name if kind == "queue" else name.endswith(f":{kind}")


@attack("F7a", "the SQLite file is removed, or its -wal, under a running claw")
async def lost_file(place: Arena) -> Outcome:
    found = []
    for kind in ("file", "truncated", "wal"):
        async with arena(place.folder / kind, place.checkout, cache=place.cache) as one:
            found.append(await _lose_file(one, kind))
    return Outcome("; ".join(figure for figure, _ in found), held=all(held for _, held in found))


async def _lose_file(place: Arena, kind: str) -> tuple[str, bool]:
    claw = await place.start(**FREE)
    await place.settle([await place.say("hello", person="u-1001")], 10)
    store = place.folder / "claw.db"
    if kind == "file":
        # The store alone: what claw may have left beside it, so as to know, stays.
        for ending in ("", "-wal", "-shm"):
            store.with_name(f"claw.db{ending}").unlink(missing_ok=True)
    elif kind == "truncated":
        with store.open("r+b") as file:
            file.truncate(0)
    else:
        store.with_name("claw.db-wal").unlink(missing_ok=True)
    # A write that went well is good for some seconds, so that not each message has to be preceded by a look.
    await asyncio.sleep(NOTICED_S)
    place.model.gate.clear()
    asked = [await place.ask(person=person) for person in place.people(20)]
    await place.acked(asked, 4)
    acked = [each for each in asked if each.acked]
    ready = (await claw.get("/ready"))[0]
    await claw.kill()
    place.model.gate.set()
    place.emulator.faults.update({"repush_times": 0})
    again = await place.try_start(**FREE)
    if again is None:
        return f"{kind}: /ready {ready}, {len(acked)} acked, refuses to start", not acked
    left = await place.settle(acked, 5)
    await place.settle([await place.say("hello", person=STRANGER)], 5)
    taken = STRANGER in await owners(again)
    figure = f"{kind}: /ready {ready}, {len(left)} of {len(acked)} acked ones lost"
    return f"{figure}{', a stranger is owner' if taken else ''}", not left and not taken


@attack("F7b", "a Redis that evicts: the owner's key is the coldest")
async def evicted(place: Arena) -> Outcome:
    redis = await place.redis(maxmemory="200mb", **{"maxmemory-policy": "allkeys-lru"})
    claw = await place.try_start(CLAW_STORE_URL=redis.url(), **FREE)
    if claw is None:
        return Outcome("an evicting policy is refused at start", held=True)
    if not await until(lambda: bool(place.emulator.connections), 10):
        return Outcome("an evicting policy is not served", held=True)
    await place.settle([await place.say("hello", person="u-1001")], 10)
    await asyncio.sleep(1)  # Until the message itself is done with, or it would be handled once more.
    names = [name for name in redis.held() if name.endswith((":entries", ":items"))]
    if names:
        redis.command("DEL", *names)
    claw = await place.restart(claw, CLAW_STORE_URL=redis.url(), **FREE)
    await place.settle([await place.say("hello", person=STRANGER)], 10)
    found = await owners(claw)
    return Outcome(f"served; owner afterwards: {', '.join(found) or 'nobody'}", held=STRANGER not in found)


@attack("F14", "three replicas while Redis stalls for seconds: order within conversations")
async def stalls(place: Arena) -> Outcome:
    redis = await place.redis(appendonly="yes")
    await _replicas(place, redis, 3)
    people = place.people(30)
    talking = asyncio.create_task(_talk(place, people, 24, 0.02), name="attack-talk")
    for _ in range(4):
        await asyncio.sleep(3)
        redis.freeze()
        await asyncio.sleep(2)
        redis.thaw()
    asked = await talking
    left = await place.settle(asked, 20)
    heard = place.heard()
    last: dict[str, float] = {}
    wrong = 0
    for each in asked:
        at = heard.get(each.mark, [0.0])[0]
        if at and at < last.get(each.chat, 0.0):
            wrong += 1
        last[each.chat] = max(at, last.get(each.chat, 0.0))
    figure = f"{wrong} of {len(asked)} answered after a later one, {len(left)} not within 20 s"
    return Outcome(figure, held=wrong == 0 and not left)


@attack("F15a", "Redis without persistence is restarted while living claws hold messages")
async def forgotten(place: Arena) -> Outcome:
    redis = await place.redis()
    await _replicas(place, redis, 3)
    place.model.gate.clear()
    asked = [await place.ask(person=person) for person in place.people(80)]
    await until(lambda: place.model.in_flight >= len(asked), 15)
    redis.kill()
    await asyncio.to_thread(redis.start)
    await asyncio.sleep(1)
    place.model.gate.set()
    left = await place.settle(asked, 40)
    twice = sum(len(times) > 1 for mark, times in place.heard().items() if mark.startswith("m-"))
    return Outcome(f"{len(left)} of {len(asked)} held ones lost, {twice} twice", held=not left)


@attack("F15b", "failover to a copy of Redis that lags 2 s")
async def lagging(place: Arena) -> Outcome:
    """Restore the server's own snapshot of 2 s before, which has nothing of what was put since."""
    redis = await place.redis()
    await _replicas(place, redis, 3)
    people = place.people(80)
    place.model.delay = 1.0
    before = [await place.ask(person=person) for person in people[:40]]
    await place.settle(before, 15)
    redis.command("SAVE")
    shutil.copy(redis.folder / "dump.rdb", redis.folder / "copy.rdb")
    place.model.delay = 4.0
    asked = [await place.ask(person=person) for person in people]
    await until(lambda: place.model.in_flight >= len(asked), 2.5)
    await asyncio.sleep(1)
    redis.kill()
    shutil.copy(redis.folder / "copy.rdb", redis.folder / "dump.rdb")
    await asyncio.to_thread(redis.start)
    left = await place.settle(asked, 40)
    twice = sum(len(times) > 1 for mark, times in place.heard().items() if mark.startswith("m-"))
    return Outcome(f"{len(left)} of {len(asked)} lost, {twice} twice", held=not left)


@attack("F18", "a second claw on the same SQLite file: by a symbolic link, a hard link, after its lock was removed")
async def same_file(place: Arena) -> Outcome:
    await place.start()
    store = place.folder / "claw.db"
    (place.folder / "soft.db").symlink_to(store)
    (place.folder / "hard.db").hardlink_to(store)
    found = []
    for name, path in (("symbolic link", "soft.db"), ("hard link", "hard.db"), ("removed lock", "claw.db")):
        if name == "removed lock":
            for lock in place.folder.glob("*.lock"):
                lock.unlink()
        second = await place.try_start(CLAW_STORE_URL=f"sqlite:///{place.folder / path}")
        if second is not None:
            found.append(name)
            await second.kill()
    return Outcome(f"a second claw serves by: {', '.join(found) or 'none'}", held=not found)

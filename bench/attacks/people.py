"""Attacks by people who may write to the robot: on its owner, on who may talk, and on what each may use."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from typing import Any, Final

import aiohttp

from bench.attacks.arena import HEALTH_MAX_S, Arena, Claw
from bench.attacks.memory import add_pictures
from bench.attacks.registry import Outcome, attack
from claw.emulator import Person
from claw.secret import hash_id

BOSS: Final = "u-1001"
STRANGER: Final = "u-1003"
FREE: Final = {"CLAW_OWNER": ""}
KNOWN: Final = (BOSS, STRANGER, "mallory")
CALLS_MAX: Final = 48
"""Connections that 32 turns, four urgent ones and the calls around them may need at the same time."""
LOG_MAX_BYTES: Final = 100_000
"""What all wrong tokens may write."""


async def owners(claw: Claw) -> list[str]:
    """Return the owners by name, as far as they are anybody of ours: `/status` shows people as hashes."""
    found = (await claw.status())["access"]["owner"]
    names = {hash_id(name): name for name in KNOWN}
    return [names.get(str(each), "somebody") for each in found]


def warnings_of(claw: Claw, *words: str) -> list[dict[str, Any]]:
    """Lines of the log at WARNING or above that have one of these words."""
    bad = {"warning", "error", "critical"}
    lines = [each for each in claw.logs if str(each.get("level", each.get("severity", ""))).lower() in bad]
    return [each for each in lines if any(word in str(each) for word in words)]


@attack("F2", "a stranger is paired first; the environment's owner comes afterwards")
async def takeover(arena: Arena) -> Outcome:
    claw = await arena.start(**FREE)
    await arena.settle([await arena.say("hello", person=STRANGER)], 10)
    await claw.terminate()
    claw = await arena.start(CLAW_OWNER=BOSS)
    await arena.settle([await arena.say("/deny u-1001", person=STRANGER)], 10)
    await arena.settle([await arena.say("/policy group allowlist", person=BOSS)], 10)
    obeyed = (await claw.status())["access"]["group_policy"] == "allowlist"
    asked = await arena.ask(person=BOSS)
    await arena.settle([asked], 10)
    talks = asked.mark in arena.answered()
    told = bool(warnings_of(claw, "owner"))
    await claw.terminate()
    reset = await asyncio.to_thread(_reset, arena)
    figure = (
        f"boss obeyed: {_yes(obeyed)}, may talk: {_yes(talks)}, warned: {_yes(told)}; "
        f"a command resets the owner: {_yes(reset)}"
    )
    return Outcome(figure, held=obeyed and talks and told and reset)


def _reset(arena: Arena) -> bool:
    """Whether the operator has a command that forgets the stored owner, in either of its spellings."""
    environ = arena.environ(CLAW_OWNER=BOSS)
    for words in (("owner", "reset", "--yes"), ("owner", "--reset")):
        command = [sys.executable, "-m", "claw", *words]
        done = subprocess.run(
            command,
            env=environ,
            cwd=arena.folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        if done.returncode == 0:
            return True
    return False


@attack("F3", "pairing goes round the policy: who may not talk writes first")
async def pairing(arena: Arena) -> Outcome:
    settings = {"CLAW_DIRECT_POLICY": "allowlist", "CLAW_DIRECT_ALLOWED_USERS": BOSS}
    claw = await arena.start(**FREE, **settings)
    await arena.settle([await arena.say("hello", person=STRANGER)], 5)
    found = await owners(claw)
    return Outcome(f"owner: {', '.join(found) or 'nobody'}", held=STRANGER not in found)


@attack("F11", "identity from free text: a nick that ends in somebody's staff id")
async def free_text(arena: Arena) -> Outcome:
    """`/allow`, `/deny` and `/owner` name somebody by @; the nick behind it holds another one's staff id."""
    claw = await arena.start(CLAW_OWNER=BOSS, CLAW_GROUP_POLICY="allowlist")
    chats = arena.emulator.chats
    for person in (
        Person("u-bob", "Bob evil123", "u-bob"),
        Person("evil123", "Eve", "evil123"),
        Person("x-guest", "Guest boss02", None),
        Person("boss02", "Second boss", "boss02"),
        Person("x-other", "Guest mallory", None),
        Person("mallory", "Mallory", "mallory"),
    ):
        chats.add_person(person)

    async def order(text: str, *at: str) -> None:
        await arena.settle([await arena.say(text, person=BOSS, chat="g-team", at=at)], 10)

    async def talks(person: str) -> bool:
        asked = await arena.ask(person=person, chat="g-team")
        await arena.settle([asked], 3)
        return asked.mark in arena.answered()

    await order("/allow @Bob evil123", "u-bob")
    bob, eve = await talks("u-bob"), await talks("evil123")
    await order("/policy group open")
    await order("/deny @Guest boss02", "x-guest")
    second = await talks("boss02")
    await order("/owner @Guest mallory", "x-other")
    await order("/owner confirm")
    found = await owners(claw)
    figure = (
        f"Bob may talk: {_yes(bob)}, evil123: {_yes(eve)}; boss02 denied: {_yes(not second)}; owner: {', '.join(found)}"
    )
    return Outcome(figure, held=bob and not eve and second and "mallory" not in found)


@attack("F12", "a daily limit of 5: then 30 messages of 4 pictures, 120 commands, 50 that cannot be read")
async def budgets(arena: Arena) -> Outcome:
    await arena.start(CLAW_USER_DAILY_LIMIT="5")
    (code,), (person,) = add_pictures(arena, 1), arena.people(1)
    emulator, downloads = arena.emulator, 0

    def fetched() -> int:
        return sum(count for name, count in emulator.openapi.calls.items() if "download" in str(name).lower())

    async def flood(count: int, make: Any) -> int:
        """Say it so many times; return the calls that it cost."""
        before, asked = arena.calls, [await make() for _ in range(count)]
        await arena.acked(asked, 10)
        await _quiet(arena, 3, 25)
        return arena.calls - before

    await flood(30, lambda: arena.ask(person=person, pictures=[code] * 4))
    downloads = fetched()
    commands = await flood(120, lambda: arena.say("/id", person=person))
    unreadable = await flood(
        50, lambda: arena.say(person=person, text="", msgtype="interactiveCard", content={"x": "y"})
    )
    figure = f"{downloads} downloads, {commands} calls for 120 commands, {unreadable} for 50 unreadable"
    return Outcome(figure, held=downloads <= 20 and commands <= 60 and unreadable <= 20)


async def _quiet(arena: Arena, quiet_s: float, seconds: float) -> None:
    """Wait until DingTalk has not been called for a while."""
    deadline, count, since = time.monotonic() + seconds, -1, time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < quiet_s:
        if arena.calls != count:
            count, since = arena.calls, time.monotonic()
        await asyncio.sleep(0.1)


OTHERS_MAX_S: Final = 15.0
"""Seconds from the saying on: five thousand frames stand before theirs on the same two connections."""


@attack("F16a", "5,000 /stop by one person while others ask")
async def stops(arena: Arena) -> Outcome:
    relay = await arena.relay(arena.emulator.port)
    claw = await arena.start(DINGTALK_OPENAPI_ENDPOINT=relay.url, DINGTALK_OAPI_ENDPOINT=relay.url)
    # An answer takes a moment at DingTalk, too: without it not two of them would meet.
    arena.emulator.faults.update({"webhook_delay": 0.2})
    people = arena.people(11)
    relay.peak = 0
    for number in range(5000):
        await arena.say("/stop", person=people[0], chat="g-team")
        if number % 50 == 0:
            await asyncio.sleep(0)
    others = [await arena.ask(person=each) for each in people[1:]]
    left = await arena.settle(others, 40)
    heard = arena.heard()
    waited = max((heard[each.mark][0] - each.said for each in others if each.mark in heard), default=0.0)
    figure = (
        f"{relay.peak} calls at once; others wait {waited:.1f} s at most, {len(left)} of 10 longer than 40 s; "
        f"`/health` {claw.watch.worst_s:.1f} s"
    )
    held = relay.peak <= CALLS_MAX and waited < OTHERS_MAX_S and not left and claw.watch.worst_s < HEALTH_MAX_S
    return Outcome(figure, held=held)


@attack("F16b", "one person asks in 200 groups, another person after that")
async def groups(arena: Arena) -> Outcome:
    await arena.start()
    arena.model.delay = 1.0
    busy, other = arena.people(2)
    for number in range(200):
        arena.emulator.chats.add_group(f"g-{number}", f"Group {number}")
        await arena.ask(person=busy, chat=f"g-{number}")
    asked = await arena.ask(person=other)
    left = await arena.settle([asked], 30)
    waited = time.monotonic() - asked.said
    return Outcome(f"the other one waits {waited:.1f} s for an answer of 1 s", held=not left and waited < 3)


@attack("F19a", "wrong tokens, as many as go into 10 s")
async def guesses(arena: Arena) -> Outcome:
    return await guess_for(arena, 10)


async def guess_for(arena: Arena, seconds: float) -> Outcome:
    """Let twenty connections guess for so long."""
    claw = await arena.start()
    before, began = claw.log_bytes, time.monotonic()
    told: Counter[str] = Counter()

    async def guess(http: aiohttp.ClientSession) -> None:
        while time.monotonic() - began < seconds:
            headers = {"Authorization": f"Bearer guess-{told.total()}"}
            try:
                async with http.get(f"{claw.url}/status", headers=headers) as answer:
                    told[str(answer.status)] += 1
            except (aiohttp.ClientError, TimeoutError):
                told["no answer"] += 1

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(seconds)) as http:
        await asyncio.gather(*(guess(http) for _ in range(20)))
    await asyncio.sleep(0.5)
    written = claw.log_bytes - before
    figure = (
        f"answers a second: {', '.join(f'{count / seconds:.0f} of {name}' for name, count in sorted(told.items()))}; "
        f"{written / seconds * 3600 / 1e9:.2f} GB of log an hour; `/health` {claw.watch.worst_s:.2f} s"
    )
    return Outcome(figure, held=written < LOG_MAX_BYTES and not told["200"] and claw.watch.worst_s < 1)


@attack("F19b", "CLAW_ADMIN_TOKEN=a")
async def weak_token(arena: Arena) -> Outcome:
    claw = await arena.try_start(CLAW_ADMIN_TOKEN="a")
    if claw is None:
        return Outcome("refused at start", held=True)
    warned = bool(warnings_of(claw, "CLAW_ADMIN_TOKEN"))
    return Outcome(f"accepted, {'with a warning' if warned else 'without a word'}", held=warned)


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"

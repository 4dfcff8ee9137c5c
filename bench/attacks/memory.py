"""Attacks on memory: what strangers may send, all at once, and a message that takes its process with it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from functools import cache
from typing import Final

from aiohttp import web
from PIL import Image

from bench.attacks.arena import Arena, Claw, Question, until
from bench.attacks.model import stream
from bench.attacks.registry import Outcome, attack

PEAK_MAX_MB: Final = 300.0
"""What claw may take at most: with the base of some 75 MB it leaves half of the chart's 512 MiB free."""
PICTURE_SIDE_PX: Final = 1816
"""Of a square of noise, which no format makes smaller: a PNG of 9.9 MB."""
PICTURES: Final = 12
"""Different ones, as many as the emulator holds; claw keeps fewer than that within reach."""
BODIES: Final = 1024
BODY_CHARS: Final = 200_000
DEATHS_MAX: Final = 5
"""Of the process, for one message that kills it."""
ANSWER_S: Final = 45.0
POISON_S: Final = 70.0


@cache
def make_noise() -> bytes:
    """Return a real picture of 9.9 MB."""
    target = io.BytesIO()
    side = PICTURE_SIDE_PX
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(target, "PNG", compress_level=1)
    return target.getvalue()


def add_pictures(arena: Arena, count: int = PICTURES) -> list[str]:
    """Let the emulator hold pictures; return their download codes: each is fetched and read by itself."""
    return [arena.emulator.files.add(make_noise()) for _ in range(count)]


async def judge(arena: Arena, questions: list[Question]) -> Outcome:
    left = await arena.settle(questions, ANSWER_S)
    peak = arena.peak_mb
    figure = f"peak {peak:.0f} MB; {len(questions) - len(left)} of {len(questions)} answered or told"
    return Outcome(figure, held=peak < PEAK_MAX_MB and not left)


@attack("F1a", "4 messages, each with 4 pictures of 9.9 MB")
async def many_pictures(arena: Arena) -> Outcome:
    await arena.start()
    codes, people = add_pictures(arena), arena.people(4)
    asked = [await arena.ask(person=each, pictures=codes[n % 3 :: 3]) for n, each in enumerate(people)]
    return await judge(arena, asked)


@attack("F1b", "32 chats, each with one picture of 9.9 MB")
async def many_chats(arena: Arena) -> Outcome:
    return await flood_chats(arena, 32)


async def flood_chats(arena: Arena, count: int) -> Outcome:
    """Let so many people send one picture each at the same time."""
    await arena.start()
    codes, people = add_pictures(arena), arena.people(count)
    asked = [await arena.ask(person=each, pictures=[codes[n % PICTURES]]) for n, each in enumerate(people)]
    return await judge(arena, asked)


@attack("F1c", "1,024 waiting messages of 200,000 characters")
async def many_bodies(arena: Arena) -> Outcome:
    """Push everything while the model holds still; then let some of it be answered."""
    await arena.start()
    return await flood_bodies(arena, "长" * BODY_CHARS, answer_s=8)


async def flood_bodies(arena: Arena, body: str, *, answer_s: float) -> Outcome:
    """Let 64 people say `body` 16 times each, none of which is answered before all of it is acked."""
    arena.model.gate.clear()
    people = arena.people(64)
    asked: list[Question] = []
    for number in range(BODIES):
        asked.append(await arena.ask(body, person=people[number % len(people)]))
        # Pushed at once they would lie in the emulator's sockets; ten at a time keep claw busy all the same.
        await until(lambda: sum(not each.acked for each in asked[-40:]) < 30, 10)
    acked = await arena.acked(asked, 20)
    arena.model.gate.set()
    await asyncio.sleep(answer_s)
    peak = arena.peak_mb
    return Outcome(f"peak {peak:.0f} MB; {acked} of {BODIES} acked", held=peak < PEAK_MAX_MB and acked == BODIES)


@attack("F1d", "a message that kills the process that works on it, six others in flight")
async def poison(arena: Arena) -> Outcome:
    """Let the model's server kill whoever asks the one question, as the kernel does where memory runs out."""
    claws, deaths, bad = [await arena.start()], 0, ""

    async def respond(request: web.Request, mark: str) -> web.StreamResponse:
        nonlocal deaths
        if mark == bad:
            await asyncio.sleep(0.5)
            deaths += 1
            await claws[-1].kill()
        else:
            await asyncio.sleep(1.5)
        return await stream(request, arena.model.answer(mark))

    arena.model.respond = respond
    people = arena.people(7)
    others = [await arena.ask(person=each) for each in people[1:]]
    poisoned = await arena.ask("poison", person=people[0])
    bad = poisoned.mark
    await arena.acked([poisoned, *others], 10)
    keeper = asyncio.create_task(_keep(arena, claws), name="attack-keeper")
    try:
        left = await arena.settle([*others, poisoned], POISON_S)
        # Told that it was given up, the others may still be on their way.
        left = [each for each in others if each.mark not in arena.answered()]
        await until(lambda: all(each.mark in arena.answered() for each in others), 5 if left else 0)
        answered = sum(each.mark in arena.answered() for each in others)
        given_up = poisoned.msg_id in arena.heard()
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    figure = f"{deaths} deaths, {'given up' if given_up else 'not yet given up'}; {answered} of 6 others answered"
    return Outcome(figure, held=deaths <= DEATHS_MAX and answered == len(others))


async def _keep(arena: Arena, claws: list[Claw]) -> None:
    """Start claw again whenever it has died, as an orchestrator does."""
    while True:
        await claws[-1].process.wait()
        with contextlib.suppress(AssertionError):
            claws.append(await arena.launch())

"""`make bench`: the figures that claw is measured on, beside the smallest bot on the official Python SDK.

Order of events: for each figure both bots run as processes of their own against one emulator in this process, in turn
(claw, SDK, claw, SDK, ...), so that a machine whose speed drifts is fair to both. Medians are printed, with the
range. `--long` adds the outage of 5 minutes; `--only NAME` runs a part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from claw import __version__
from claw.emulator import Emulator, Said
from tests.service import KEPT, Service, environment

ROOT: Final = Path(__file__).parent.parent
ACK_RATE: Final = 100
"""Messages a second."""
ACK_SECONDS: Final = 10
THROUGHPUT_MESSAGES: Final = 600
THROUGHPUT_CHATS: Final = 50
RUNS: Final = 3
RESETS: Final = 15
PEOPLE: Final = 100


class Bot:
    """One bot as a process: claw, or the SDK's."""

    def __init__(self, name: str, emulator: Emulator, folder: Path) -> None:
        self.name = name
        self.emulator = emulator
        self.folder = folder
        self.started = 0.0
        self.ready_after = 0.0
        self._claw: Service | None = None
        self._sdk: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> psutil.Process:
        if self._claw is not None:
            return psutil.Process(self._claw.process.pid)
        assert self._sdk is not None
        return psutil.Process(self._sdk.pid)

    async def start(self) -> None:
        began = time.monotonic()
        environ = environment(
            self.emulator.url, self.folder / f"{random.randrange(1 << 40)}.db", CLAW_LOG_LEVEL="warning"
        )
        if self.name == "claw":
            environ["CLAW_LOG_LEVEL"] = "info"
            self._claw = Service(environ, self.folder)
            await self._claw.start()
            await self._claw.until_ready()
        else:
            base = {name: os.environ[name] for name in KEPT if name in os.environ}
            self._sdk = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.sdk_bot"),
                env=base | environ | {"PYTHONPATH": str(ROOT)},
                cwd=self.folder,
                stdout=asyncio.subprocess.DEVNULL,  # The SDK logs its ticket there.
                stderr=asyncio.subprocess.DEVNULL,
            )
        await self.emulator.wait_connections(timeout=30)
        self.ready_after = time.monotonic() - began

    async def stop(self) -> None:
        if self._claw is not None:
            await self._claw.kill()
        if self._sdk is not None:
            self._sdk.kill()
            await self._sdk.wait()
        self.emulator.act("thaw")  # A frozen connection does not see that its other end has gone.
        async with asyncio.timeout(10):
            while self.emulator.connections:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(name: str, emulator: Emulator, folder: Path) -> AsyncIterator[Bot]:
    emulator.reset()
    emulator.faults.update({"model_chunk_delay": 0.0, "model_fixed_reply": "A short answer.", "connection_limit": 1000})
    for number in range(PEOPLE):
        with contextlib.suppress(Exception):
            emulator.chats.add_person(type(emulator.chats.person("u-1001"))(f"b-{number}", f"P{number}", f"b-{number}"))
    bot = Bot(name, emulator, folder)
    try:
        await bot.start()
        yield bot
    finally:
        await bot.stop()


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def answered(emulator: Emulator, said: Sequence[Said], seconds: float) -> int:
    """How many of `said` are answered within so many seconds."""
    count = 0
    deadline = time.monotonic() + seconds
    for each in said:
        with contextlib.suppress(TimeoutError):
            await emulator.wait_reply_to(each, timeout=max(0.001, deadline - time.monotonic()))
            count += 1
    return count


# --- figures -------------------------------------------------------------------------------------------------

Figures = dict[str, float]


async def start_and_memory(bot: Bot) -> Figures:
    """Start to ready, and the idle process's resident memory once everything is loaded."""
    await bot.emulator.wait_reply_to(await bot.emulator.say("hello"))
    await asyncio.sleep(2)
    return {"start to ready, s": bot.ready_after, "idle memory, MB": bot.process.memory_info().rss / 1e6}


async def ack_latency(bot: Bot) -> Figures:
    """100 messages a second while the model takes 0.5 s."""
    emulator = bot.emulator
    await emulator.wait_reply_to(await emulator.say("warm up"))
    emulator.faults.update({"model_delay": 0.5})
    said = []
    began = time.monotonic()
    for number in range(ACK_RATE * ACK_SECONDS):
        await asyncio.sleep(max(0.0, began + number / ACK_RATE - time.monotonic()))
        said.append(await emulator.say(f"n{number}", person=f"b-{number % PEOPLE}"))
    done = await answered(emulator, said, 60)
    acks = [each.push.ack_ms for each in said if each.push is not None and each.push.ack_ms is not None]
    return {
        "ack p50 at 100/s, ms": statistics.median(acks),
        "ack p99 at 100/s, ms": quantile(acks, 0.99),
        "unanswered of 1000": len(said) - done,
    }


async def throughput(bot: Bot) -> Figures:
    """Round trips a second with an instant model and many chats, each with one message under way."""
    emulator = bot.emulator
    await emulator.wait_reply_to(await emulator.say("warm up"))
    left = iter(range(THROUGHPUT_MESSAGES))

    async def chat(person: str) -> None:
        for number in left:
            await emulator.wait_reply_to(await emulator.say(f"n{number}", person=person), timeout=60)

    cpu = sum(bot.process.cpu_times()[:2])
    began = time.monotonic()
    await asyncio.gather(*(chat(f"b-{number}") for number in range(THROUGHPUT_CHATS)))
    took = time.monotonic() - began
    used = sum(bot.process.cpu_times()[:2]) - cpu
    return {
        "round trips a second": THROUGHPUT_MESSAGES / took,
        "CPU a message, ms": used / THROUGHPUT_MESSAGES * 1000,
        "memory after load, MB": bot.process.memory_info().rss / 1e6,
    }


async def next_session(emulator: Emulator, before: set[str], seconds: float) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not any(each.id not in before for each in emulator.connections):
            await asyncio.sleep(0.001)
    return time.monotonic() - began


async def after_reset(bot: Bot) -> Figures:
    """TCP reset of a session that lived for 5 s; the next session's time of opening."""
    times = []
    for _ in range(3 if bot.name == "sdk" else RESETS):
        await asyncio.sleep(5.2)
        before = {each.id for each in bot.emulator.connections}
        bot.emulator.act("reset")
        times.append(await next_session(bot.emulator, before, 60))
    return {"next session after a reset, s": statistics.median(times)}


async def after_freeze(bot: Bot) -> Figures:
    """A peer that neither reads nor answers pings, from a random moment on."""
    times = []
    for _ in range(1 if bot.name == "sdk" else RUNS):
        await asyncio.sleep(random.uniform(0, 6))
        before = {each.id for each in bot.emulator.connections}
        bot.emulator.act("freeze")
        times.append(await next_session(bot.emulator, before, 120))
    return {"next session after a freeze, max s": max(times)}


async def at_disconnect(bot: Bot) -> Figures:
    """`disconnect` five times while 200 messages come a second: how many found nobody."""
    emulator = bot.emulator
    await emulator.wait_reply_to(await emulator.say("warm up"))
    said = []
    began = time.monotonic()
    for number in range(2000):
        await asyncio.sleep(max(0.0, began + number / 200 - time.monotonic()))
        if number % 400 == 200:
            emulator.act("disconnect", connection=emulator.connections[-1].id)
        said.append(await emulator.say(f"n{number}", person=f"b-{number % PEOPLE}"))
    nobody = emulator.gateway.undeliverable_count
    done = await answered(emulator, [each for each in said if each.delivered], 60)
    return {"undeliverable of 2000 at 5 disconnects": nobody, "delivered, not answered": len(said) - nobody - done}


async def hung_gateway(bot: Bot) -> Figures:
    """The gateway accepts and never answers, for 25 s; from its return to the next session."""
    before = {each.id for each in bot.emulator.connections}
    bot.emulator.faults.update({"gateway_hang": True})
    bot.emulator.act("reset")
    await asyncio.sleep(25)
    bot.emulator.faults.update({"gateway_hang": False})
    try:
        return {"next session after a hung gateway, s": await next_session(bot.emulator, before, 60)}
    except TimeoutError:
        return {"next session after a hung gateway, s": float("inf")}


async def refused_upgrade(bot: Bot) -> Figures:
    """The upgrade is refused for 12 s; most registrations in any second of it."""
    emulator = bot.emulator
    emulator.faults.update({"refuse_upgrade": 503})
    emulator.act("reset")
    await asyncio.sleep(12)
    stamps = list(emulator.registrations)
    most = max(sum(1 for other in stamps if stamp <= other < stamp + 1) for stamp in stamps)
    return {"registrations in a second, most": most}


async def outage(bot: Bot) -> Figures:
    """DingTalk is away for 5 minutes; from its return to the next session."""
    emulator = bot.emulator
    await emulator.stop()
    await asyncio.sleep(300)
    await emulator.start()
    return {"next session after 5 minutes' outage, s": await next_session(emulator, set(), 90)}


Figure = Callable[[Bot], Awaitable[Figures]]
BOTH: Final[dict[str, tuple[Figure, int]]] = {
    "start": (start_and_memory, RUNS),
    "ack": (ack_latency, RUNS),
    "throughput": (throughput, RUNS),
    "reset": (after_reset, 1),
    "freeze": (after_freeze, 1),
    "disconnect": (at_disconnect, 1),
}
ALONE: Final[dict[str, Figure]] = {"hang": hung_gateway, "refuse": refused_upgrade}
LONG: Final[dict[str, Figure]] = {"outage": outage}


async def bench(only: Sequence[str], *, long: bool, alone: bool) -> None:
    print(f"claw {__version__}, Python {platform.python_version()}, {psutil.cpu_count()} cores, {platform.machine()}")
    print(f"{'figure':<44}{'claw':>26}{'SDK bot':>26}")
    with tempfile.TemporaryDirectory() as folder:
        async with Emulator(rate_limits=False, keep=5000) as emulator:
            for name, (figure, runs) in BOTH.items():
                if not only or name in only:
                    got: dict[str, list[Figures]] = {"claw": []} if alone else {"claw": [], "sdk": []}
                    for _ in range(runs):
                        for who, figures in got.items():
                            async with running(who, emulator, Path(folder)) as bot:
                                figures.append(await figure(bot))
                    show(got["claw"], got.get("sdk", []))
            for name, lonely in (ALONE | (LONG if long else {})).items():
                if not only or name in only:
                    async with running("claw", emulator, Path(folder)) as bot:
                        show([await lonely(bot)], [])


def show(claw: Sequence[Figures], sdk: Sequence[Figures]) -> None:
    for figure in claw[0]:
        columns = [spread([run[figure] for run in runs]) if runs else "-" for runs in (claw, sdk)]
        print(f"{figure:<44}{columns[0]:>26}{columns[1]:>26}", flush=True)


def spread(values: Sequence[float]) -> str:
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:.2f}"
    return f"{middle:.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--long", action="store_true", help="with the outage of 5 minutes")
    parser.add_argument("--only", nargs="*", default=[], choices=[*BOTH, *ALONE, *LONG])
    parser.add_argument("--alone", action="store_true", help="without the SDK's bot beside it")
    chosen = parser.parse_args()
    # A bot that is killed, or dies of a blocked loop, leaves broken requests behind: nothing to tell here.
    logging.disable(logging.CRITICAL)
    asyncio.run(bench(chosen.only, long=chosen.long, alone=chosen.alone))


if __name__ == "__main__":
    main()

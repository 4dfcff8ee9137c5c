"""One bot as a process, against an emulator of its own: what every figure is measured at.

Order of events: `ring` starts an emulator on a free port and the bot beside it, and hands both out once the bot holds
a session. A bot that ends by itself is started again after 0.1 s and counted, as an orchestrator with `restart: always`
would do; so is one that the bench kills. At the end the process is killed, whatever it is doing, and no task is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.peers import Ready, Runtime
from claw.emulator import Emulator, Person
from tests.service import environment

RESTART_PAUSE_S: Final = 0.1
"""Docker's first pause before it starts a container again."""
FIRST_SESSION_S: Final = 30.0
PEOPLE: Final = 1500
"""More than can be answered at once at any rate here: claw answers one message at a time to each person."""
KEEP: Final = 50_000
"""Entries of each log of the emulator: a storm of registrations has to fit."""


class Bot:
    """The process. `started` is the time of its latest start, `deaths` how often it ended by itself."""

    def __init__(self, ready: Ready, environ: dict[str, str], folder: Path) -> None:
        self.peer = ready.peer
        self.started = 0.0
        self.deaths = 0
        self._ready = ready
        self._environ = environ
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._killed = False

    @property
    def process(self) -> psutil.Process:
        """Raises psutil.NoSuchProcess between its end and its next start."""
        assert self._process is not None, "not started"
        return psutil.Process(self._process.pid)

    @property
    def rss(self) -> float:
        """Resident memory, MB."""
        return float(self.process.memory_info().rss) / 1e6

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used, in user and system mode."""
        return float(sum(self.process.cpu_times()[:2]))

    async def start(self) -> None:
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"bench-keeper-{self.peer.name}")

    async def _spawn(self) -> None:
        self.started = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            *self._ready.command,
            env=self._environ,
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,  # The Python SDK logs its ticket there.
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            await self._process.wait()
            self.deaths += not self._killed
            self._killed = False
            await asyncio.sleep(RESTART_PAUSE_S)
            await self._spawn()

    def kill(self) -> None:
        """SIGKILL; it is started again."""
        if self._process is not None and self._process.returncode is None:
            self._killed = True
            self._process.kill()

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@dataclass(frozen=True, slots=True)
class Ring:
    """An emulator with one bot."""

    emulator: Emulator
    bot: Bot
    start_s: float
    """From the start of the process to its first session."""

    async def warm_up(self) -> None:
        """One round trip, so that everything is loaded. Raises TimeoutError."""
        await self.emulator.wait_reply_to(await self.emulator.say("hello", person=person(0)), timeout=FIRST_SESSION_S)


def person(number: int) -> str:
    """One of the people of every ring."""
    return f"b-{number % PEOPLE}"


@contextlib.asynccontextmanager
async def ring(ready: Ready, folder: Path, gate: asyncio.Semaphore, **settings: str) -> AsyncIterator[Ring]:
    """Return a bot with a session.

    `folder` is its own, and empty. `gate` bounds how many start at once: a start takes all of a core. `settings` are
    claw's. Raises TimeoutError if there is no session within 30 s.
    """
    async with Emulator(rate_limits=False, keep=KEEP) as emulator:
        emulator.faults.update({"model_chunk_delay": 0.0, "model_fixed_reply": "A short answer.", "repush_times": 0})
        emulator.faults.update({"connection_limit": KEEP})
        for number in range(PEOPLE):
            emulator.chats.add_person(Person(person(number), f"P{number}", person(number)))
        environ = environment(emulator.url, folder / "claw.db", CLAW_LOG_LEVEL="info", **settings)
        if ready.peer.runtime is not Runtime.CLAW:  # Nothing of ours may be found before its own packages.
            environ.pop("PYTHONPATH", None)
            environ.pop("VIRTUAL_ENV", None)
        bot = Bot(ready, environ | dict(ready.peer.environ), folder)
        try:
            async with gate:
                await bot.start()
                (first, *_) = await emulator.wait_connections(timeout=FIRST_SESSION_S)
                found = Ring(emulator, bot, first.opened - bot.started)
                await found.warm_up()
            yield found
        finally:
            await bot.stop()

"""Keeps one claw running through a chaos run, as an orchestrator does, and remembers how each of its lives ended.

Order of events: `keep` starts a process, waits for its end, writes down what it said and starts the next one, until the
run closes. Faults are done to whichever process runs at the moment; while there is none they do nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.chaos.invariants import TRACES, Footprint, Life, Phase, Record
from tests.chaos.relay import Relay
from tests.service import RUN, Service

RESTART_AFTER_S: Final = 0.2
"""Seconds that the keeper waits, as an orchestrator would."""


class Keeper:
    """One replica. `relay`: the way to its store, where that can be cut; `changes`: its phases, by time."""

    def __init__(
        self,
        name: str,
        environ: dict[str, str],
        folder: Path,
        record: Record,
        arguments: Sequence[str] = RUN,
        relay: Relay | None = None,
    ) -> None:
        self.name = name
        self.relay = relay
        self.service: Service | None = None
        self.phase = Phase.DOWN
        self.up = asyncio.Event()
        self.changes: list[tuple[float, Phase]] = []
        self._environ = environ
        self._folder = folder
        self._record = record
        self._arguments = arguments
        self._how, self._asked_at = "", float("inf")
        self._closing = False
        self._starts = 0

    @property
    def running(self) -> bool:
        return self.service is not None and self.phase is Phase.RUNNING

    async def keep(self) -> None:
        """Start claw, and start it again whenever it has ended; what it wrote is kept."""
        while not self._closing:
            service = Service(self._environ, self._folder, self._arguments)
            try:
                await self._live(service)
            finally:
                await service.kill()
                self._starts += 1
                (self._folder / f"{self.name}-{self._starts}.log").write_text("\n".join(service.lines))
            await asyncio.sleep(RESTART_AFTER_S)

    async def _live(self, service: Service) -> None:
        """One process, from its start to its end."""
        self._how, self._asked_at = "", float("inf")
        began = time.monotonic()
        with contextlib.suppress(AssertionError):  # It ended before it served: its code tells why.
            await service.start()
            self.service = service
            self.enter(Phase.RUNNING)
            self.up.set()
        code = await service.process.wait()
        ended = time.monotonic()
        self.up.clear()
        self.enter(Phase.DOWN)
        await service.ended()
        self._record.lives.append(Life(service.process.pid, began, ended, code, self._how, self._asked_at))
        self._record.complaints += [line for line in service.lines if any(word in line for word in TRACES)]

    async def close(self, keeping: asyncio.Task[None]) -> None:
        """Ask the last process to end, and wait until it has."""
        self._closing = True
        self.terminate()
        await asyncio.wait([keeping], timeout=30)
        if not keeping.done():
            self._how = "SIGTERM, in vain"
            self.signal(signal.SIGKILL)
            await asyncio.wait([keeping], timeout=30)

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self.changes.append((time.monotonic(), phase))

    def signal(self, number: signal.Signals) -> None:
        if self.service is not None and self.service.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.service.signal(number)

    def terminate(self) -> None:
        self._how, self._asked_at = "SIGTERM", time.monotonic()
        self.enter(Phase.DRAINING)
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        self._how, self._asked_at = "SIGKILL", time.monotonic()
        self.enter(Phase.DOWN)
        self.signal(signal.SIGKILL)

    async def stop_for(self, seconds: float) -> None:
        """Let the process stand still with its sockets open."""
        service = self.service
        self.signal(signal.SIGSTOP)
        self.enter(Phase.STOPPED)
        await asyncio.sleep(seconds)
        self.signal(signal.SIGCONT)
        if service is not None and service.process.returncode is None:
            self.enter(Phase.RUNNING)

    async def gone(self) -> None:
        """Wait for the end of the process that runs now."""
        if self.service is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.service.process.wait(), 20)

    def footprint(self) -> Footprint | None:
        """What the process that runs now holds; None where there is none."""
        if self.service is None or self.service.process.returncode is not None:
            return None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.service.process.pid)
            waiting = sum(each.status == psutil.CONN_CLOSE_WAIT for each in process.net_connections("tcp"))
            return Footprint(process.num_fds(), process.num_threads(), process.memory_info().rss, waiting)
        return None

"""`make bench`: claw beside the smallest bots on the SDKs that people use today, on the same emulator.

Order of events: the peers' environments are made where they are missing; then come the parts. Those that load the
machine run one bot at a time, in turn (A B C D E, A B C D E, ...), so that a machine whose speed drifts is fair to all:
`start`, `throughput`, `ack`. `recovery` is made of waiting, so many bots go through their faults at the same time,
again in turn; fewer where a start is timed, and one that storms alone. What is measured replaces the same figures in
results.json, and leaves the others; tables and plots are made anew from all of it. `--render` does only that.

    python -m bench                                         everything, some 25 minutes
    python -m bench --quick                                 everything once and short, into bench/.quick
    python -m bench --only recovery/freeze --peers claw,node --runs 10
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench import load
from bench.faults import BY_NAME as FAULT_BY_NAME
from bench.faults import FAULTS, ordeal, quick
from bench.peers import BY_NAME as PEER_BY_NAME
from bench.peers import PEERS, Peer, Ready, UnavailableError, ready
from bench.plots import write_plots
from bench.report import report
from bench.results import MixedError, Results, Run, machine

ROOT: Final = Path(__file__).parent.parent
RUNS: Final = {"start": 3, "throughput": 3, "ack": 3, "recovery": 6}
QUICK_RUNS: Final = {"start": 1, "throughput": 1, "ack": 1, "recovery": 2}
LANES: Final = 32
"""Bots that go through a fault at the same time."""
START_LANES: Final = 6
"""The same where the bot is started anew within the time that is measured: a start takes all of a core for a second."""
STORMS: Final = frozenset({("recovery/refuse", "node")})
"""Measured alone: this SDK doubles its attempts with each refusal, until nobody else gets any CPU."""
PARTS: Final = (
    "start",
    "throughput",
    *(f"ack/{rate}" for rate in load.RATES),
    # The longest first: while the last lanes run empty, short ones fill them, with the machine to themselves.
    *(f"recovery/{fault.name}" for fault in sorted(FAULTS, key=lambda it: -(it.lasts + it.window + it.bound))),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one part at one peer."""

    part: str
    peer: str
    measure: Callable[[Path], Awaitable[Run]]
    """In an empty folder of its own."""


class Bench:
    """Measures, and puts each record into the results when its last run is in."""

    def __init__(self, results: Results, save: Callable[[], None], folder: Path, *, short: bool) -> None:
        self._results = results
        self._save = save
        self._folder = folder
        self._short = short
        self._gate = asyncio.Semaphore(1)
        self._count = 0
        self._began = time.monotonic()

    def jobs(self, part: str, bots: Sequence[Ready], runs: int) -> list[Job]:
        """In turn: every bot once, then every bot again."""
        fit = [bot for bot in bots if not bot.peer.parts or part in bot.peer.parts]
        return [Job(part, bot.peer.name, self._measure(part, bot, number)) for number in range(runs) for bot in fit]

    def _measure(self, part: str, bot: Ready, number: int) -> Callable[[Path], Awaitable[Run]]:
        kind, _, which = part.partition("/")
        match kind:
            case "start":
                return lambda folder: load.start(bot, folder, self._gate)
            case "throughput":
                seconds = 1.0 if self._short else load.ROUND_TRIPS_S
                return lambda folder: load.round_trips(bot, seconds, folder, self._gate)
            case "ack":
                seconds = 1.0 if self._short else load.ACK_S
                return lambda folder: load.acks(bot, int(which), seconds, folder, self._gate)
            case _:
                fault = quick(FAULT_BY_NAME[which]) if self._short else FAULT_BY_NAME[which]
                server = fault.servers[number % len(fault.servers)]
                return lambda folder: ordeal(bot, fault, server, folder, self._gate)

    async def warm_up(self, bots: Sequence[Ready]) -> None:
        """Start each once, unmeasured: what a first start compiles and caches must not count."""
        for job in self.jobs("start", bots, 1):
            with contextlib.suppress(TimeoutError, psutil.Error):
                await job.measure(self._empty_folder())

    async def run(self, jobs: Sequence[Job], lanes: int) -> None:
        """All of them, so many at a time."""
        left = iter(jobs)
        found: dict[tuple[str, str], list[Run | None]] = {(job.part, job.peer): [] for job in jobs}
        wanted = {key: sum((job.part, job.peer) == key for job in jobs) for key in found}
        async with asyncio.TaskGroup() as group:
            for lane in range(min(lanes, len(jobs))):
                group.create_task(self._lane(left, found, wanted), name=f"bench-lane-{lane}")

    async def _lane(
        self,
        left: Iterable[Job],
        found: dict[tuple[str, str], list[Run | None]],
        wanted: dict[tuple[str, str], int],
    ) -> None:
        for job in left:
            key = (job.part, job.peer)
            run: Run | None = None
            try:
                run = await job.measure(self._empty_folder())
            except (TimeoutError, psutil.Error, OSError) as error:
                self._tell(f"{job.part} {job.peer}: FAILED, {type(error).__name__}: {error}")
            found[key].append(run)
            if len(found[key]) == wanted[key]:
                runs = [each for each in found[key] if each is not None]
                if runs:
                    self._results.put(job.part, job.peer, runs)
                    self._save()
                self._tell(f"{job.part} {job.peer}: {len(runs)} of {wanted[key]} runs")

    def _empty_folder(self) -> Path:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        return folder

    def _tell(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {what}", flush=True)


def chosen_parts(only: Sequence[str]) -> list[str]:
    """Return the parts that are named, or that belong to a named group. Raises ValueError for an unknown name."""
    for name in only:
        if not any(part == name or part.startswith(f"{name}/") for part in PARTS):
            raise ValueError(f"no part {name!r}; there are: {', '.join(PARTS)}")
    return [part for part in PARTS if not only or any(part == name or part.startswith(f"{name}/") for name in only)]


def chosen_peers(names: str) -> list[Peer]:
    """Those with commas between them; all for the empty string. Raises ValueError for an unknown name."""
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in PEER_BY_NAME:
            raise ValueError(f"no peer {name!r}; there are: {', '.join(PEER_BY_NAME)}")
    return [peer for peer in PEERS if not wanted or peer.name in wanted]


def prepared(peers: Sequence[Peer], results: Results) -> list[Ready]:
    """Return the peers that can run here, installed; of the others the results keep the reason."""
    bots = []
    for peer in peers:
        known = {"label": peer.label, "package": peer.package, "ack": peer.ack}
        print(f"preparing {peer.label}", flush=True)
        try:
            bot = ready(peer)
        except UnavailableError as error:
            print(f"  left out: {error}")
            results.peers[peer.name] = known | {"missing": str(error)}
        else:
            results.peers[peer.name] = known | {"version": bot.version}
            bots.append(bot)
    return bots


async def measure(
    bench: Bench, bots: Sequence[Ready], parts: Sequence[str], runs: Mapping[str, int], lanes: int
) -> None:
    await bench.warm_up(bots)
    stages: dict[int, list[Job]] = {}
    for part in parts:
        for job in bench.jobs(part, bots, runs[part.partition("/")[0]]):
            stages.setdefault(at_once(job.part, job.peer, lanes), []).append(job)
    # What loads the machine comes first: somebody who stops the bench early has it then.
    for width, jobs in sorted(stages.items(), key=lambda it: it[0]):
        await bench.run(jobs, width)


def at_once(part: str, peer: str, lanes: int) -> int:
    """How many bots may be measured at the same time as this one at this part, itself included."""
    if not part.startswith("recovery/") or (part, peer) in STORMS:
        return 1
    return min(lanes, START_LANES) if part == "recovery/kill" else lanes


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help=f"of: {', '.join(PARTS)}; or a group")
    parser.add_argument("--peers", default="", metavar="A,B", help=f"of: {', '.join(PEER_BY_NAME)}")
    parser.add_argument("--runs", type=int, help="of each figure, instead of each part's own number")
    parser.add_argument("--lanes", type=int, default=LANES, help="bots at a time in recovery (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short, apart from the real results")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--render", action="store_true", help="only make tables and plots from results.json")
    given = parser.parse_args()
    try:
        parts, peers = chosen_parts(given.only), chosen_peers(given.peers)
    except ValueError as error:
        parser.error(str(error))
    out = ROOT / "bench" / ".quick" if given.quick else ROOT / "bench"
    plots = out / "plots" if given.quick else ROOT / "docs" / "bench"
    stored = out / "results.json"

    def render(results: Results) -> None:
        write_plots(results, plots)
        (out / "RESULTS.md").write_text(report(results, plots="plots" if given.quick else "../docs/bench"), "utf-8")

    if given.fresh:
        stored.unlink(missing_ok=True)
    try:
        results = Results.load(stored)
        if given.render:
            if not results.parts:
                parser.error("nothing was measured yet")
            render(results)
            return 0
        results.check_machine(machine(ROOT))
    except (MixedError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    # A bot that is killed leaves broken requests behind: nothing to tell here.
    logging.disable(logging.CRITICAL)
    bots = prepared(peers, results)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(results, lambda: results.save(stored), Path(folder), short=given.quick)
        runs = dict.fromkeys(RUNS, given.runs) if given.runs else QUICK_RUNS if given.quick else RUNS
        asyncio.run(measure(bench, bots, parts, runs, given.lanes))
    results.save(stored)
    render(results)
    print(f"written: {(out / 'RESULTS.md').relative_to(ROOT)}, {plots.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

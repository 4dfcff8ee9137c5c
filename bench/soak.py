"""`python -m bench.soak`: 10 minutes at 50 messages a second; nothing may grow that has no reason to.

Order of events: one claw, whose connection rotates every 20 s, is asked by many people; every few seconds something
goes wrong that a process survives (no kill: a process that is replaced shows no leak). Each second its memory,
descriptors and threads and the store's size are noted. After the calm the invariants of tests/chaos are asked, and the
growth over the second half of the storm is measured: by then what is bounded is full, and what still grows, grows for
ever. What is bounded, and when it is full at this rate: SQLite's cache of pages, 2 MB, after some 3 minutes; the
histories, 100 turns for each of 100 people, after 3 to 4 minutes; connections kept alive, after some seconds. Seen ids
are kept for a day, in the file alone. The C library's heap goes on growing for a while, ever slower and by some 3 MB,
although no more of it is in use: large receive buffers leave holes in it. With MALLOC_MMAP_THRESHOLD_=131072 in claw's
environment it does not.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.driver import Chaos, Plan, Server, chaos
from tests.chaos.invariants import Footprint, summary, violations
from tests.chaos.schedule import Kind, Pace

CALM: Final = frozenset(
    {Kind.SIGTERM, Kind.SIGKILL, Kind.SIGSTOP, Kind.DISK_FULL, Kind.READ_ONLY, Kind.OUTAGE, Kind.WEBHOOK_TIMEOUT}
    | {Kind.GATEWAY_HANG, Kind.UPGRADE_HANG, Kind.MODEL_HANG, Kind.GATEWAY_400, Kind.GATEWAY_401}
)
"""Left out: what replaces the process, or holds up so much work that the backlog is all that is measured."""
PACE: Final = Pace(length=(0.5, 2.0), pause=(3.0, 8.0), recovery=(5.0, 15.0), stop=0.0, without=CALM)
ROTATE_S: Final = 20.0
DISK_MB: Final = 512
RSS_SLOPE_MAX: Final = 0.5
"""MB a minute over the second half: some 150 bytes a message. A body that is kept by mistake has a thousand."""
FDS_SPREAD_MAX: Final = 120
STORE_PER_MESSAGE_MAX: Final = 3000
"""Bytes: an id that is kept for a day, and a turn of the conversation of which 100 are kept."""
STORE_LATE_MAX: Final = 600
"""Bytes a message over the second half, when old turns make room for new ones: the id, and dead letters."""
PARTS: Final = 10
"""Of the storm, whose median sizes are printed."""


@dataclass(frozen=True, slots=True)
class Size:
    """What one look found."""

    at: float
    process: Footprint
    store: int
    """Bytes, the WAL included."""


async def watched(run: Chaos, sizes: list[Size]) -> None:
    """Note the sizes each second until cancelled."""
    while True:
        found = run.footprint()
        if found is not None:
            store = sum(each.stat().st_size for each in run.store.parent.glob("claw.db*"))
            sizes.append(Size(time.monotonic(), found, store))
        await asyncio.sleep(1)


async def soak(plan: Plan, folder: Path) -> tuple[Chaos, list[Size]]:
    sizes: list[Size] = []
    async with chaos(plan, folder) as run:
        watching = asyncio.create_task(watched(run, sizes), name="soak-watch")
        try:
            await run.run()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    return run, sizes


def slope(sizes: Sequence[Size]) -> float:
    """MB of memory a minute."""
    if len(sizes) < 2:
        return 0.0
    times = [size.at / 60 for size in sizes]
    return statistics.linear_regression(times, [size.process.rss / 1e6 for size in sizes]).slope


def judged(sizes: Sequence[Size], storm: tuple[float, float], messages: int) -> list[str]:
    """Return what grew without a reason; also prints the figures."""
    busy = [size for size in sizes if storm[0] <= size.at <= storm[1]]
    if len(busy) < 2 * PARTS:
        return [f"only {len(busy)} looks at the sizes"]
    parts = [busy[len(busy) * part // PARTS : len(busy) * (part + 1) // PARTS] for part in range(PARTS)]
    later = busy[len(busy) // 2 :]
    grows = slope(later)
    fds = [size.process.fds for size in busy]
    store = max(size.store for size in busy)
    late = (later[-1].store - later[0].store) / max(messages * (later[-1].at - later[0].at) / (storm[1] - storm[0]), 1)
    memory = " ".join(f"{statistics.median(size.process.rss for size in part) / 1e6:.1f}" for part in parts)
    print(f"memory, MB, by tenths of the time: {memory}; {grows:+.2f} a minute over the second half")
    print(f"descriptors, at most, by tenths: {' '.join(str(max(size.process.fds for size in part)) for part in parts)}")
    print(f"threads, at most: {max(size.process.threads for size in busy)}")
    print(f"store, MB, by tenths: {' '.join(f'{part[-1].store / 1e6:.1f}' for part in parts)}")
    print(f"store, bytes a message: {store / max(messages, 1):.0f} in all, {late:.0f} over the second half")
    found = []
    if grows > RSS_SLOPE_MAX:
        found.append(f"memory grows by {grows:.2f} MB a minute")
    if max(fds) > min(fds) + FDS_SPREAD_MAX:
        found.append(f"{max(fds)} descriptors")
    if store > 8e6 + STORE_PER_MESSAGE_MAX * messages or late > STORE_LATE_MAX:
        found.append(f"the store takes {store / 1e6:.1f} MB and grows by {late:.0f} bytes a message")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=50.0, help="messages a second")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; without it a fresh one is drawn")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    plan = Plan(
        seed,
        given.minutes * 60,
        Server.REPEATS,
        pace=PACE,
        rate=given.rate,
        people=given.people,
        repush_after=5.0,
        rotate=ROTATE_S,
        disk=DISK_MB,
        groups=False,
    )
    print(
        f"repeat with: python -m bench.soak --seed {seed} --minutes {given.minutes:g} --rate {given.rate:g}", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        run, sizes = asyncio.run(soak(plan, Path(folder) / "run"))
    print(summary(run.record))
    found = [*violations(run.record), *judged(sizes, run.record.storm, len(run.record.asked))]
    for each in found:
        print(f"VIOLATION (seed {seed}): {each}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

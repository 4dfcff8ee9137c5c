"""`python -m bench.soak`: 10 minutes at 50 messages a second; nothing may grow that has no reason to.

Order of events: one claw, whose connection rotates every 20 s, is asked by many people; every few seconds something
goes wrong that a process survives (no kill: a process that is replaced shows no leak). Each second its memory,
descriptors and threads and the store's size are noted. After the calm the invariants of tests/chaos are asked, and the
growth over the second half is measured: by then caches are filled, and what still grows, grows for ever.
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
RSS_SLOPE_MAX: Final = 1.0
"""MB a minute over the second half."""
FDS_SPREAD_MAX: Final = 120
STORE_PER_MESSAGE_MAX: Final = 3000
"""Bytes: an id that is kept for a day, and a turn of the conversation of which 100 are kept."""


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


def judged(sizes: Sequence[Size], messages: int) -> list[str]:
    """What grew without a reason; also prints the figures."""
    later = sizes[len(sizes) // 2 :]
    grows = slope(later)
    fds = [size.process.fds for size in sizes]
    store = max(size.store for size in sizes)
    ends = f"{sizes[0].process.rss / 1e6:.1f} -> {sizes[-1].process.rss / 1e6:.1f} MB"
    print(f"memory: {ends}, {grows:+.2f} MB a minute over the second half")
    print(f"descriptors: {min(fds)} to {max(fds)}, {fds[-1]} at the end; threads: {sizes[-1].process.threads}")
    print(f"store: {store / 1e6:.1f} MB at most, {store / max(messages, 1):.0f} bytes a message")
    found = []
    if grows > RSS_SLOPE_MAX:
        found.append(f"memory grows by {grows:.2f} MB a minute")
    if max(fds) > min(fds) + FDS_SPREAD_MAX:
        found.append(f"{max(fds)} descriptors")
    if store > 8e6 + STORE_PER_MESSAGE_MAX * messages:
        found.append(f"the store takes {store / 1e6:.1f} MB")
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
        calm=120.0,
        rotate=ROTATE_S,
        groups=False,
    )
    print(
        f"repeat with: python -m bench.soak --seed {seed} --minutes {given.minutes:g} --rate {given.rate:g}", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        run, sizes = asyncio.run(soak(plan, Path(folder) / "run"))
    print(summary(run.record))
    found = [*violations(run.record), *judged(sizes, len(run.record.asked))]
    for each in found:
        print(f"VIOLATION (seed {seed}): {each}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

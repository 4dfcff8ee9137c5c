"""`python -m bench.chaos --minutes 30 --seed N`: the long run of tests/chaos, with every kind of fault.

Order of events: the command that repeats the run is printed; the run; its figures; every violation, if there are any,
and then the folder where logs and store of the run are kept. Exit code 0 where every invariant held, else 1.
`--server both` runs the two models of the server one after the other, half of the time each. `--redis` runs three
replicas on a Redis instead of one claw on a file.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.driver import Plan, Server, recorded
from tests.chaos.invariants import summary, violations
from tests.chaos.schedule import BRISK, LONG

CALM_S = 240.0
"""Seconds that everything acked gets to be settled: a throttled outsider waits for one minute at a time."""
REPLICAS = 3
SHORT_S = 120.0
"""Runs below this are as dense as those of `make test`, lest they see next to nothing."""


def plans(seed: int, minutes: float, server: str, rate: float, *, redis: bool = False) -> list[Plan]:
    """Return what is to be run."""
    servers = list(Server) if server == "both" else [Server[server]]
    seconds = minutes * 60 / len(servers)
    short = seconds < SHORT_S
    return [
        Plan(
            seed,
            seconds,
            each,
            pace=BRISK if short else LONG,
            rate=rate,
            repush_after=2.0 if short else 5.0,
            rotate=15.0 if short else 60.0,
            calm=CALM_S,
            outsider=not short,
            replicas=REPLICAS if redis else 1,
        )
        for each in servers
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; without it a fresh one is drawn")
    parser.add_argument("--server", choices=[*(each.name for each in Server), "both"], default="both")
    parser.add_argument("--rate", type=float, default=8.0, help="messages a second")
    parser.add_argument("--redis", action="store_true", help="three replicas that share a Redis")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    failed = False
    for plan in plans(seed, given.minutes, given.server, given.rate, redis=given.redis):
        print(f"{plan.server}: repeat with: {plan.command}", flush=True)
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="claw-chaos-"))
        record = asyncio.run(recorded(plan, folder))
        print(summary(record))
        print(f"took {time.monotonic() - began:.0f} s")
        found = violations(record)
        for each in found:
            print(f"VIOLATION (seed {plan.seed}): {each}")
        if found:
            failed = True
            print(f"logs, store and what the witness saw: {folder}")
        else:
            shutil.rmtree(folder)
        print(flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

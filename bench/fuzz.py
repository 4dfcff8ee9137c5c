"""`python -m bench.fuzz`: 100 000 hostile inputs for every parser of what others send; exit code 1 for any finding."""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from tests.chaos.fuzzing import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; without it a fresh one is drawn")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    print(f"repeat with: python -m bench.fuzz --seed {seed} --count {given.count}", flush=True)
    began = time.monotonic()
    outcome = fuzz(seed, given.count)
    took = time.monotonic() - began
    print(f"{outcome.tried} inputs in {took:.0f} s; the slowest took {outcome.slowest * 1000:.0f} ms")
    for what, count in sorted(outcome.by_target.items()):
        print(f"  {what:<20}{count:>8}")
    for each in outcome.faults:
        print(f"FAULT (seed {seed}): {each}")
    return int(bool(outcome.faults))


if __name__ == "__main__":
    sys.exit(main())

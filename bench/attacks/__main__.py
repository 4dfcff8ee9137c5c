"""`python -m bench.attacks`: what an attacker and a bad day do to claw, one attack after the other, as a table.

Order of events: each attack gets an arena of its own, in a folder that goes away; its figure and verdict are printed,
and kept in bench/attacks.json; at the end the table bench/ATTACKS.md is made anew. `--claw` attacks another checkout
by its command line, environment and behaviour alone; its results are those of `before`.

    python -m bench.attacks                              all but the long ones, some 15 minutes
    python -m bench.attacks --only F1,F5a                those of one kind, or one of them
    python -m bench.attacks --claw ../release --long     another checkout
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.attacks import delivery, hostile, memory, people, report, stores
from bench.attacks.arena import HERE, arena
from bench.attacks.registry import Attack, Outcome, choose

PATIENCE_S: Final = 900.0
"""For one attack; what takes longer is a fault of the attack, or of the claw that it meets."""
MODULES: Final = (delivery, hostile, memory, people, stores)
"""Imported for the attacks that they declare."""


async def run(each: Attack, root: Path, checkout: Path) -> Outcome:
    """One attack in an arena of its own; a claw that does not even serve is a broken one."""
    try:
        async with asyncio.timeout(PATIENCE_S), arena(root / each.name, checkout, cache=root / "pycache") as place:
            return await each.act(place)
    except (AssertionError, TimeoutError, OSError, ExceptionGroup) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        return Outcome(f"could not be run: {words[-200:]}", held=False)


def commit_of(checkout: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.attacks", description=__doc__)
    parser.add_argument("--only", default="", help="kinds or attacks, with commas")
    parser.add_argument("--claw", type=Path, default=None, help="another checkout, whose results are those of before")
    parser.add_argument("--long", action="store_true", help="also those that take minutes")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    given = parser.parse_args()
    try:
        chosen = choose(given.only, long=given.long)
    except ValueError as error:
        parser.error(str(error))
    checkout: Path = (given.claw or HERE).resolve()
    side: report.Side = "after" if given.claw is None else "before"
    found, commit, broken = report.load(), commit_of(checkout), 0
    with tempfile.TemporaryDirectory(prefix="claw-attacks-") as root:
        for each in chosen:
            began = time.monotonic()
            outcome = asyncio.run(run(each, Path(root), checkout))
            seconds = time.monotonic() - began
            broken += not outcome.held
            print(
                f"{each.name:5} {'held  ' if outcome.held else 'BROKEN'} {seconds:5.1f} s  {outcome.figure}", flush=True
            )
            report.put(found, side, each, outcome, seconds=seconds, commit=commit)
            if not given.dry:
                report.save(found)
                report.TABLE.write_text(report.render(found), encoding="utf-8")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())

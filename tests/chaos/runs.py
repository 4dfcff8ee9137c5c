"""A chaos run as a test: several plans at the same time, and a verdict that says how to see it again.

Order of events: the plans run beside one another, each with an emulator, a store and processes of its own; the figures
of each are recorded for the end of the test run; every violation of every plan makes one message, which begins with
the command that repeats the run and names the folder where its logs are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.driver import Plan, recorded
from tests.chaos.invariants import BRIEF, summary, violations


async def judged(plans: Sequence[Plan], folder: Path, command: str, tell: Callable[[str, object], None]) -> str:
    """What did not hold in any of the plans, as one text; empty where all did. `tell` is pytest's `record_property`."""
    print(f"repeat with: {command}\nkept: {folder}")  # noqa: T201 - also where the run itself fails
    records = await asyncio.gather(*(recorded(plan, folder / plan.server.name) for plan in plans))
    wrong: list[str] = []
    for plan, record in zip(plans, records, strict=True):
        figures = summary(record)
        print(f"\n{plan.server}, alone: {plan.command}\n{figures}")  # noqa: T201 - the figures of a run
        tell("figures", f"chaos, {plan.server}: " + "; ".join(figures.splitlines()[:BRIEF]))
        wrong += [f"{plan.server}: {each}" for each in violations(record)]
    if not wrong:
        return ""
    return "\n".join([f"repeat with: {command}", f"logs, store and what the witness saw: {folder}", *wrong])

"""What the attacks found: bench/attacks.json, and the table bench/ATTACKS.md made from it.

Order of events: a run replaces the results of the attacks that it made, of its own side (`before` or `after`) only; the
table is made anew from all that is there.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final, Literal

from bench.attacks.registry import ATTACKS, Attack, Outcome

Side = Literal["before", "after"]
JSON: Final = Path(__file__).parents[1] / "attacks.json"
TABLE: Final = Path(__file__).parents[1] / "ATTACKS.md"
HEAD: Final = """# Attacks from outside

Made by `python -m bench.attacks`, which runs each of them at a real claw: an emulator stands for DingTalk, Redis is
real, everything is on one machine. **Before** is the release that was attacked first, **after** is this one; a dash:
not measured. Memory is the most that was resident, `/health` the longest answer that a poller saw.
"""


def load(path: Path = JSON) -> dict[str, dict[str, Any]]:
    """Return what was found before, by side and attack; empty without a file."""
    found: dict[str, dict[str, Any]] = {"before": {}, "after": {}}
    if path.exists():
        found |= json.loads(path.read_text(encoding="utf-8"))
    return found


def put(
    found: dict[str, dict[str, Any]], side: Side, each: Attack, outcome: Outcome, *, seconds: float, commit: str
) -> None:
    """Replace the result of one attack."""
    found[side][each.name] = {
        "figure": outcome.figure,
        "held": outcome.held,
        "seconds": round(seconds, 1),
        "commit": commit,
        "measured": time.strftime("%Y-%m-%d"),
    }


def save(found: dict[str, dict[str, Any]], path: Path = JSON) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)


def render(found: dict[str, dict[str, Any]]) -> str:
    """Make the page."""
    lines = [HEAD]
    for side in ("before", "after"):
        commits = sorted({str(each["commit"]) for each in found[side].values()})
        if commits:
            held = sum(bool(each["held"]) for each in found[side].values())
            lines.append(f"{side.capitalize()}: {held} of {len(found[side])} held (commit {', '.join(commits)}).")
    lines += ["", "| attack | | before | after |", "|---|---|---|---|"]
    for each in sorted(ATTACKS.values(), key=lambda one: one.order):
        cells = [_cell(found[side].get(each.name)) for side in ("before", "after")]
        lines.append(f"| {each.name} | {each.label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    figure = str(result["figure"]).replace("|", "\\|")
    return f"{'held' if result['held'] else '**broken**'}: {figure}"

"""results.json: every run of every figure, so that tables and plots can be made again without measuring.

Order of events: `Results.load` reads what was measured before; `put` replaces the runs of one part and peer, and only
those; `save` writes the whole. Figures of two machines, or of two versions of claw, must not stand side by side: where
that would happen `check_machine` raises MixedError, and `--fresh` begins anew.

A part's name is `start`, `throughput`, `ack/100` or `recovery/reset`; a figure that did not come about within its bound
is null.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

Run = dict[str, float | str | None]
"""One run's figures by name."""
Record = dict[str, Any]
"""`measured` (date), `commit` of claw, and `runs`."""

SCHEMA: Final = 1
SAME: Final = ("cores", "kernel", "processor", "memory_gb")
"""What two measurements must share to stand in one table."""


class MixedError(Exception):
    """What is there was measured elsewhere."""

    def __init__(self, name: str, before: object, now: object) -> None:
        super().__init__(f"results.json was measured with {name} {before}, this is {now}: begin anew with --fresh")
        self.name = name


@dataclass(slots=True)
class Results:
    machine: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, dict[str, str]] = field(default_factory=dict)
    """By name: label, package, ack and version; or label, package and `missing` with the reason."""
    parts: dict[str, dict[str, Record]] = field(default_factory=dict)
    """Part -> peer -> record."""

    @classmethod
    def load(cls, path: Path) -> Results:
        """Return what was measured before; empty without a file. Raises ValueError for a file of another schema."""
        if not path.exists():
            return cls()
        read = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(read, dict) or read.get("schema") != SCHEMA:
            raise ValueError(f"{path.name} is of another schema: begin anew with --fresh")
        return cls(read["machine"], read["peers"], read["parts"])

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"schema": SCHEMA, "machine": self.machine, "peers": self.peers, "parts": self.parts}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)

    def check_machine(self, now: dict[str, Any]) -> None:
        """Take over the machine's description. Raises MixedError if what is there came from another one."""
        if self.parts:
            for name in SAME:
                if self.machine.get(name) != now.get(name):
                    raise MixedError(name, self.machine.get(name), now.get(name))
        self.machine = now

    def put(self, part: str, peer: str, runs: Sequence[Run]) -> None:
        """Replace the runs of this part and peer."""
        record = {"measured": time.strftime("%Y-%m-%d"), "commit": self.machine.get("commit", ""), "runs": list(runs)}
        self.parts.setdefault(part, {})[peer] = record

    def runs(self, part: str, peer: str, **where: str) -> list[Run]:
        """Its runs, those alone in which the named figures have these values; empty if it was not measured."""
        record = self.parts.get(part, {}).get(peer, {"runs": []})
        return [run for run in record["runs"] if all(run.get(name) == value for name, value in where.items())]

    def values(self, part: str, peer: str, figure: str) -> list[float]:
        """One figure over the runs; infinite where it did not come about."""
        found = [run[figure] for run in self.runs(part, peer) if figure in run]
        return [math.inf if each is None else float(each) for each in found]

    def bound(self, part: str, peer: str, name: str = "bound_s") -> float:
        """Within what a session (`bound_s`) or an ack (`bound_ms`) had to come in its runs, in the name's unit."""
        return max((float(run.get(name) or 0.0) for run in self.runs(part, peer)), default=0.0)

    def total(self, part: str, peer: str, figure: str, **where: str) -> int:
        """Return a count over the runs."""
        return sum(int(run.get(figure) or 0) for run in self.runs(part, peer, **where))

    def stamps(self, name: str, peer: str | None = None) -> list[str]:
        """Every date (`measured`) or `commit` at which something was measured, at that peer or at all."""
        records = [part for each in self.parts.values() for key, part in each.items() if peer in {None, key}]
        return sorted({record[name] for record in records})


def machine(root: Path) -> dict[str, Any]:
    """Return this machine, as far as it matters to figures, and the code that is measured."""
    return {
        "cores": psutil.cpu_count() or 1,
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "commit": _commit(root),
        "load_before": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    """Its model as Linux tells it; the architecture elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _commit(root: Path) -> str:
    """Return the code's commit; empty outside of a repository."""
    command = ("git", "rev-parse", "--short", "HEAD")
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


# --- statistics: infinite stands for "not within the bound" ------------------------------------------------------


def median(values: Sequence[float]) -> float:
    """Return the middle one; of two, their mean. Infinite if it falls among those that did not come about."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2 or math.isinf(ordered[middle]):
        return ordered[middle]
    return statistics.fmean(ordered[middle - 1 : middle + 1])


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def finite(values: Iterable[float]) -> list[float]:
    return [each for each in values if math.isfinite(each)]


def spread(values: Sequence[float], show: Callable[[float], str], never: str = "never") -> str:
    """Median with least and most, as a table's cell; `never` where it did not come about."""
    if not values:
        return "–"
    came = finite(values)
    if not came:
        return never
    missed = f", {len(values) - len(came)} of {len(values)} {never}" if len(came) < len(values) else ""
    least, most = show(min(came)), show(max(came))
    middle = median(values)
    text = show(middle) if math.isfinite(middle) else never
    around = "" if least == most == text else f" ({least}–{most})"
    return f"{text}{around}{missed}"

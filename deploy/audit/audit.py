"""`make audit`: whether a package that claw is locked to has a known weakness, as pip-audit hears of its service.

Order of events: pip-audit reads requirements.lock as it stands (hashes required, nothing resolved, nothing installed)
and asks PyPI about each package; its report becomes one sentence and an exit code. pip-audit itself ends with 0 and
"no known vulnerabilities" when its service knew none of the packages, as behind a mirror that has no advisories: here
a package that could not be looked up is never a good one.

Exit codes: 0 all were looked up and none has a known weakness; 1 weaknesses are known; 69 (EX_UNAVAILABLE of
sysexits.h) some could not be looked up, so that nothing is proven.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

LOCK: Final = Path(__file__).parents[2] / "requirements.lock"
TIMEOUT_S: Final = 600
SHOWN: Final = 400
"""Characters of pip-audit's own complaint that are shown."""


class Exit(IntEnum):
    """What the process tells."""

    CLEAN = 0
    WEAK = 1
    UNAVAILABLE = 69


class Verdict(NamedTuple):
    """The exit code, and the lines that explain it."""

    code: Exit
    lines: tuple[str, ...]


def verdict(report: str, complaint: str) -> Verdict:
    """Judge pip-audit's report (JSON; empty where it broke off), `complaint` being what it wrote to stderr."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, LookupError, TypeError):
        last = complaint.strip().rpartition("\n")[2][:SHOWN]
        return Verdict(Exit.UNAVAILABLE, ("not audited: the service could not be asked", last))
    weak = tuple(
        f"{each['name']} {each['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for each in packages
        for found in each.get("vulns", ())
    )
    unknown = [each["name"] for each in packages if "vulns" not in each]
    told = (f"not audited, for the service does not know them: {', '.join(unknown)}",) if unknown else ()
    if weak:
        return Verdict(Exit.WEAK, (*weak, *told))
    if unknown or not packages:
        return Verdict(Exit.UNAVAILABLE, (*told, f"not audited: {len(unknown)} of {len(packages)} packages"))
    return Verdict(Exit.CLEAN, (f"no known weakness in {len(packages)} packages",))


def main(arguments: Sequence[str]) -> int:
    """Run pip-audit with `arguments` beside ours, and tell its verdict."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip"]
    command += ["--format=json", "--progress-spinner=off", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603 - ours
        found = verdict(done.stdout, done.stderr)
    except subprocess.TimeoutExpired:
        found = verdict("", f"no answer within {TIMEOUT_S} s")
    sys.stdout.write("".join(f"{line}\n" for line in found.lines if line))
    return int(found.code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

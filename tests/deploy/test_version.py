"""Which claw this is: the version, and the commit where the image's build wrote it down."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import claw
from claw import __version__

COMMIT = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
PROGRAM = """
import json
from opentelemetry import trace
from claw.observe import telemetry
from claw.http.status import process_json
telemetry.setup()
resource = dict(trace.get_tracer_provider().resource.attributes)
print(json.dumps([process_json(0, 0)["commit"], resource["service.version"], resource.get("vcs.ref.head.revision")]))
"""


def built(folder: Path, commit: str | None) -> Path:
    """A copy of claw as the image has it: with a file that says its commit, or without."""
    shutil.copytree(Path(claw.__file__).parent, folder / "claw", ignore=shutil.ignore_patterns("__pycache__", "COMMIT"))
    if commit is not None:
        (folder / "claw" / "COMMIT").write_text(commit, encoding="utf-8")
    return folder


def said(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-B", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("commit", "line"),
    [
        (COMMIT, f"claw {__version__} (commit 0a1b2c3)"),
        (f"{COMMIT}\n", f"claw {__version__} (commit 0a1b2c3)"),
        ("0a1b2c3", f"claw {__version__} (commit 0a1b2c3)"),
        (None, f"claw {__version__}"),
        ("", f"claw {__version__}"),
        ("unknown", f"claw {__version__}"),
        ("提交", f"claw {__version__}"),
    ],
)
def test_version(tmp_path: Path, commit: str | None, line: str) -> None:
    """`claw --version` tells the commit that was built; what is no commit leaves the version alone."""
    assert said(built(tmp_path, commit), "-m", "claw", "--version") == line


@pytest.mark.parametrize("commit", [COMMIT, None])
def test_status_and_traces(tmp_path: Path, commit: str | None) -> None:
    """/status and the resource of all spans have the whole commit beside the version, where it is known."""
    told = json.loads(said(built(tmp_path, commit), "-c", PROGRAM))
    assert told == [commit, __version__, commit]

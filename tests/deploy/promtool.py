"""promtool, Prometheus' own tool: reads rules and plays them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


def run(*arguments: str) -> str:
    """What it says. Raises AssertionError with its words where it finds a fault."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

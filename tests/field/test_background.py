"""Tests that were started by nohup or as a job in the background, whose children inherit an ignored SIGINT."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
TESTS = ("tests/cli/test_doctor.py", "tests/cli/test_auth.py")
"""What ends a command by Ctrl-C."""


@pytest.mark.timeout(100)
def test_ctrl_c_where_the_parent_ignores_it(tmp_path: Path) -> None:
    """Whoever starts the tests, and however: those of Ctrl-C pass."""
    options = ("-q", "-x", "-p", "no:cacheprovider", "-k", "ctrl_c", f"--basetemp={tmp_path / 'inner'}")
    command = (sys.executable, "-m", "pytest", *options, *TESTS)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # An ignored signal stays ignored over the start of a program; a handler would not.
        run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout

"""Signals: tests that send them do not depend on who started the tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = "import signal; print([int(each) for each in signal.Signals if signal.getsignal(each) is signal.SIG_IGN])"
PARENT = f"""
import signal, subprocess, sys
for name in sys.argv[1].split():
    signal.signal(getattr(signal, name), signal.SIG_IGN)
from tests import conftest
conftest.pytest_configure()
for name in sys.argv[1].split():
    signal.raise_signal(getattr(signal, name))
print(subprocess.run([sys.executable, "-c", {CHILD!r}], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.parametrize("ignored", ["", "SIGINT SIGQUIT", "SIGHUP", "SIGTERM"])
def test_an_ignored_signal_is_not_inherited(ignored: str) -> None:
    """What a background job or `nohup` ignores the tests ignore themselves; the programs that they start do not."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, ignored],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    # Python itself ignores these in every program.
    assert done.stdout.strip() == str([int(signal.SIGPIPE), int(signal.SIGXFSZ)])

"""What holds for every test: in CI nothing is skipped, and neither the environment nor the signals of whoever runs the
tests change what a program of theirs does.

The tests run in four processes (pytest-xdist); a test file is never split over two of them. Those that load the whole
machine and look at the clock run alone (make test-load).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from claw import proxy
from tests import signals

FOREIGN = ("CLAW_", "DINGTALK_", "OPENAI_", "OTEL_")
"""Prefixes of variables that would change what claw does under test."""


def pytest_configure() -> None:
    """Before any test starts a program, in each process of pytest-xdist as well."""
    signals.restore()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.forget()
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI every tool is there, so that a skip would hide a test that never ran."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):  # type: ignore[attr-defined]
        report.outcome = "failed"  # type: ignore[attr-defined]
        report.longrepr = f"skipped in CI: {report.longrepr}"  # type: ignore[attr-defined]
    # What a test of hostile text wrote may hold half a surrogate pair, which cannot travel between the processes.
    report.sections = [  # type: ignore[attr-defined]
        (title, text.encode(errors="backslashreplace").decode())
        for title, text in report.sections  # type: ignore[attr-defined]
    ]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a test has recorded as its `figures` is shown also where it has passed."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, text in getattr(report, "user_properties", ()):
            if name == "figures" and report.when == "call":
                terminalreporter.write_line(str(text))

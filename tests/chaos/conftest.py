"""The long runs are collected by `-m chaos` only (make test-chaos); a minute of chaos is part of every test run."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The ordinary run leaves that one file alone: it takes some minutes."""
    if collection_path.name != "test_chaos_long.py" or "chaos" in config.getoption("markexpr"):
        return None
    return True

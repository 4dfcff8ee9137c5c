"""The run with real processes is collected by `-m chaos` only (make test-chaos): it wants a quiet machine."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The ordinary run leaves that one file alone; schedule, invariants and parsers are tested always."""
    if collection_path.name != "test_chaos.py" or "chaos" in config.getoption("markexpr"):
        return None
    return True

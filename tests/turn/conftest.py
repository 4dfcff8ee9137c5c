"""A real store and a model server for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claw.store.sqlite.store import SqliteStore
from tests.turn.servers import ModelServer


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "claw.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer().serve() as serving:
        yield serving

"""What the tests of the inbox share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.inbox.harness import WorkerHarness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "claw.db")
    await made.store.open()
    yield made
    await made.close()

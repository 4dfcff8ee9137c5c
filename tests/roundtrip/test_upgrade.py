"""From 0.1.0 to this version: the store that 0.1.0 left, under a real process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from claw.emulator import Emulator
from tests.roundtrip.conftest import Claw
from tests.store.test_old_data import DATA

pytestmark = pytest.mark.timeout(60)


async def test_a_store_of_the_last_release_is_taken_up(emulator: Emulator, claw: Claw, tmp_path: Path) -> None:
    """It is ready with the settings of before, has the dead letters of before, and answers."""
    shutil.copyfile(DATA / "claw-0.1.0.sqlite", tmp_path / "claw.db")
    async with claw() as service:
        _, body = await service.call("GET", "/api/dead")
        assert sorted(letter["error"] for letter in body["letters"]) == ["cause 1", "cause 2"]
        await emulator.replies.wait_to(await emulator.say("hello"))
        assert await service.terminate() == 0

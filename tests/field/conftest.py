"""A local DingTalk, and real claw processes in the surroundings that people have; real time as in tests/roundtrip."""

from __future__ import annotations

from tests.roundtrip.conftest import claw, emulator

__all__ = ["claw", "emulator"]

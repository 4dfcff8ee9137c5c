"""What is told of frames that went wrong, however many there are."""

from __future__ import annotations

import pytest

from claw.stream.counters import SessionCounters


@pytest.mark.parametrize("step", [1, -1])
def test_refusals_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture, step: int) -> None:
    """Beyond the first ten a line a minute tells the count, at any rate, also by a clock that goes backwards."""
    counters = SessionCounters()
    for second in range(150):
        for _ in range(800):
            counters.note_refused("no frame", 1, 1_800_000_000.0 + step * second)
    counters.note_too_large(1_800_000_000.0)
    told = [each.__dict__["refused"] for each in caplog.records if each.message == "frame refused"]
    assert told == [*range(1, 11), 60 * 800 + 1, 120 * 800 + 1]
    assert [each.levelname for each in caplog.records if each.message == "frame too large"] == ["ERROR"]

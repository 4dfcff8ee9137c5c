"""One connection only: what makes us believe it, and what does not."""

from __future__ import annotations

import pytest

from claw.stream.limit import CLOSURES_MAX, WINDOW_S, ConnectionLimit
from tests.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def clash(limit: ConnectionLimit, opener: int) -> bool:
    """Slot `opener` opens, and the other one's session is closed."""
    limit.note_open(opener, others_open=True)
    return limit.note_close(1 - opener)


async def test_three_in_a_row(clock: FakeClock) -> None:
    """Two slots that close each other's sessions three times in a row are one too many."""
    limit = ConnectionLimit(clock)
    limit.note_open(0, others_open=False)
    told = []
    for number in range(CLOSURES_MAX):
        await clock.advance(1)
        told.append(clash(limit, opener=1 - number % 2))
    assert told == [False, False, True]


async def test_opening_that_closes_nothing_ends_the_row(clock: FakeClock) -> None:
    """An opening that both sessions survive shows that there is no such rule."""
    limit = ConnectionLimit(clock)
    limit.note_open(0, others_open=False)
    for number in range(10):
        await clock.advance(10)
        assert not clash(limit, opener=1 - number % 2)
        if number % 2:
            await clock.advance(10)
            limit.note_open(0, others_open=True)
            await clock.advance(WINDOW_S + 1)


async def test_end_without_an_opening_ends_the_row(clock: FakeClock) -> None:
    """In a gateway's bad hour sessions end without anybody opening one; that is no limit."""
    limit = ConnectionLimit(clock)
    limit.note_open(0, others_open=False)
    for _ in range(10):
        await clock.advance(1)
        assert not clash(limit, opener=1)
        assert not limit.note_close(1)
        limit.note_open(0, others_open=False)


async def test_end_long_after_an_opening_is_no_answer(clock: FakeClock) -> None:
    """What ends later than 2 s after the other's opening ended for another reason."""
    limit = ConnectionLimit(clock)
    limit.note_open(0, others_open=False)
    for number in range(10):
        await clock.advance(1)
        limit.note_open(1 - number % 2, others_open=True)
        await clock.advance(WINDOW_S + 0.1)
        assert not limit.note_close(number % 2)


async def test_anew(clock: FakeClock) -> None:
    """After a reset it takes three again, the session that was there all the time included."""
    limit = ConnectionLimit(clock)
    limit.note_open(0, others_open=False)
    for told in ([False, False], [False, False, True]):
        for number, expected in enumerate(told):
            await clock.advance(1)
            assert clash(limit, opener=1 - number % 2) is expected
        limit.reset()

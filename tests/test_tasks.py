"""Eternal tasks: an end that nobody asked for is logged at once, with the task's name."""

from __future__ import annotations

import asyncio
import logging

import pytest

from claw.tasks import start_eternal


async def end(how: str) -> None:
    """Return, raise, hang until cancelled, or pass a cancellation on that was not meant for this task."""
    if how == "failed: ZeroDivisionError":
        raise ZeroDivisionError
    if how == "was cancelled":
        inner = asyncio.get_running_loop().create_future()
        inner.cancel()
        await inner
    if how == "hang":
        await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["returned", "failed: ZeroDivisionError", "was cancelled"])
async def test_an_end_of_its_own_is_logged(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A task that returns, raises, or is cancelled from inside is told at once by its name, and how it ended."""
    await asyncio.wait([start_eternal(end(how), "claw.test.loop")])
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["task"], record.__dict__["how"]) == (
        logging.CRITICAL,
        "claw.test.loop",
        how,
    )


async def test_the_owner_may_cancel_it(caplog: pytest.LogCaptureFixture) -> None:
    """Cancelling is the orderly end."""
    task = start_eternal(end("hang"), "claw.test.loop")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert not caplog.records


@pytest.mark.parametrize(("how", "told"), [("returned", 0), ("failed: ZeroDivisionError", 1)])
async def test_it_may_return_while_its_owner_stops(how: str, told: int, caplog: pytest.LogCaptureFixture) -> None:
    """While the owner is stopping, a return is no fault; an error still is."""
    await asyncio.wait([start_eternal(end(how), "claw.test.loop", may_return=lambda: True)])
    assert len(caplog.records) == told

"""A host whose clock is wrong by hours, as where a time zone was set by turning the clock.

The clock is libfaketime's (Debian: faketime). Time spans stay true, as on such a host.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from claw.emulator import Emulator, Person
from tests.field.waiting import until_settled
from tests.service import environment, running

pytestmark = pytest.mark.timeout(90)

HOURS = 8
RUN = (
    "-c",
    (
        "import sys, threading, time;"
        "time.sleep = lambda seconds: threading.Event().wait(seconds) and None;"
        "from claw.__main__ import main; sys.exit(main(['run']))"
    ),
)
"""`time.sleep` of Python 3.11 sleeps until a moment, which libfaketime 0.9.10 takes for an invalid argument."""


def faketime(hours: int) -> dict[str, str]:
    """The environment of a process whose clock is wrong by so much. Skips the test where there is no libfaketime."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.parametrize("hours", [HOURS, -HOURS])
async def test_wrong_by_hours(emulator: Emulator, tmp_path: Path, hours: int) -> None:
    """All is answered at its own webhook, and the skew is told once, with its size."""
    people = [f"p-{number}" for number in range(5)]
    for each in people:
        emulator.chats.add_person(Person(each, each, each))
    environ = environment(emulator.url, tmp_path / "claw.db") | faketime(hours)
    async with running(environ, tmp_path, RUN) as service:
        said = [await emulator.say(f"question {number}", person=people[number % 5]) for number in range(20)]
        for question in said:
            await emulator.wait_reply_to(question, timeout=20)
        assert len(emulator.replies.log) == len(said)
        status = await until_settled(service)
        # Positive: our clock is ahead.
        assert abs(status["stream"]["clock_skew_s"] - hours * 3600) < 60
        assert not status["inbox"]["dead"]
        # Two registrations, one thing to tell.
        assert (await service.post("/restart"))[0] == 202
        await emulator.wait_reply_to(await emulator.say("still there?"), timeout=20)
        assert await service.terminate() == 0
    told = [entry for entry in service.logs if entry["severity"] == "WARNING" and "clock" in entry["message"]]
    assert len(told) == 1

"""An answer that does not get through: what stands before DingTalk for a while costs neither an answer nor a copy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from claw.emulator import Emulator
from tests.field.waiting import until_settled
from tests.roundtrip.conftest import Claw
from tests.service import environment, running

pytestmark = pytest.mark.timeout(90)

PEOPLE = ("u-1001", "u-1002", "u-1003")
RUN = (
    "-c",
    (
        "import sys; from claw.inbox import retries; from claw.__main__ import main;"
        "retries.MAYBE_DELIVERED_DELAYS_S = (1.0, 3.0); sys.exit(main(['run']))"
    ),
)
"""A claw that repeats what may have been delivered after a second, not after a minute; tests/inbox has the schedule."""


@pytest.mark.parametrize(
    "fault",
    [
        {"webhook_status": 502},
        {"webhook_status": 502, "webhook_html": True},
        {"webhook_status": 504, "webhook_html": True},
        {"webhook_cut": "before"},
        {"webhook_cut": "after"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
async def test_what_may_have_been_delivered(emulator: Emulator, tmp_path: Path, fault: dict[str, str | int]) -> None:
    """Each answer arrives, and stands there twice only where nobody could know that it had arrived."""
    emulator.faults.update({**fault, "fault_budget": dict.fromkeys(fault, len(PEOPLE))})
    async with running(environment(emulator.url, tmp_path / "claw.db"), tmp_path, RUN) as service:
        said = [await emulator.say("hello", person=person) for person in PEOPLE]
        async with asyncio.timeout(30):
            while not all(any(reply.confirmed for reply in emulator.replies.to(each.msg_id)) for each in said):
                await asyncio.sleep(0.05)
        assert not (await until_settled(service))["inbox"]["dead"]
    assert not emulator.faults.active()
    for each in said:
        *doubtful, last = emulator.replies.to(each.msg_id)
        assert last.confirmed
        assert len(doubtful) <= 1
        assert not any(reply.confirmed for reply in doubtful)
    copies = len(emulator.replies.log) - len(said)
    assert copies == (len(PEOPLE) if fault.get("webhook_cut") == "after" else 0)


async def test_who_answers_in_the_place_of_dingtalk(emulator: Emulator, claw: Claw) -> None:
    """What a proxy says in DingTalk's place for some seconds is not DingTalk's refusal: every answer arrives, once."""
    async with claw() as service:
        said = []
        for status in (302, 403, 404, 407, 413):
            emulator.faults.update({"webhook_status": status, "webhook_html": True})
            said.append(await emulator.say(f"in spite of {status}", person=PEOPLE[status % 3]))
            async with asyncio.timeout(10):
                while not emulator.webhook.calls[f"http {status}"]:
                    await asyncio.sleep(0.02)
        emulator.faults.reset()
        for question in said:
            await emulator.wait_reply_to(question, timeout=30)
        assert not (await until_settled(service))["inbox"]["dead"]
    assert len(emulator.replies.log) == len(said)

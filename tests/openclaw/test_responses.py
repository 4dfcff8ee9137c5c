"""The gateway's `/v1/responses` (CLAW_MODEL_API=responses): the same conversations by typed events."""

from __future__ import annotations

import asyncio

import pytest

from tests.openclaw.provider import Answer
from tests.openclaw.stack import Stack

pytestmark = [pytest.mark.openclaw, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

API = {"CLAW_MODEL_API": "responses", "CLAW_CONTEXT": "off"}


async def test_sessions_are_kept_by_user(stack: Stack) -> None:
    """The gateway knows what the same person said before, each thing once; `/new` begins another session."""
    person = stack.person()
    async with stack.claw(**API) as claw:
        for text in ("First one.", "Second one.", "/new", "Third one."):
            outcome = await stack.outcome(claw, await stack.ask(text, person), timeout=120)
            stack.record(f"responses: {text}", outcome, claw, text)
    assert [call.questions for call in stack.provider.calls] == [
        ["First one."],
        ["First one.", "Second one."],
        ["Third one."],
    ]


async def test_stop_ends_the_call_of_the_provider(stack: Stack) -> None:
    """`/stop` closes the response, and the gateway ends the provider's call."""
    person = stack.person()
    stack.provider.once("Count.", Answer(parts=("one ", "two "), hangs=True))
    async with stack.claw(**API) as claw:
        endless = await stack.ask("Count.", person)
        await stack.provider.wait_asked("Count.")
        outcome = await stack.outcome(claw, await stack.ask("/stop", person), timeout=30)
        stack.record("responses: /stop in an endless answer", outcome, claw, "Count.")
        assert outcome.text == "Stopped."
        async with asyncio.timeout(10):
            while stack.provider.calls[0].ended != "cut":
                await asyncio.sleep(0.1)
        assert not stack.emulator.replies.to(endless.msg_id)

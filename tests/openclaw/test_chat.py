"""Questions and commands through a gateway that is well: its sessions, its limits, its refusals."""

from __future__ import annotations

import asyncio

import pytest

from tests.openclaw.provider import Answer
from tests.openclaw.stack import Stack

pytestmark = [pytest.mark.openclaw, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


async def test_a_question_reaches_the_provider_and_its_answer_the_person(stack: Stack) -> None:
    """One question is one call of the provider, and what it streams is what the person reads."""
    stack.provider.once("time", Answer(parts=("It is ", "five ", "o'clock."), between_s=0.2))
    async with stack.claw() as claw:
        outcome = await stack.outcome(claw, await stack.ask("What is the time?", stack.person()), timeout=120)
        stack.record("round trip, the gateway's first", outcome, claw, "time")
        assert outcome.texts == ("It is five o'clock.",)
        again = await stack.outcome(claw, await stack.ask("And now?", stack.person()), timeout=60)
        stack.record("round trip", again, claw, "now")
        assert again.texts == ("You said: And now?",)
    assert [call.question for call in stack.provider.calls] == ["What is the time?", "And now?"]


async def test_user_is_the_session(stack: Stack) -> None:
    """The gateway knows what the same person said before, each thing once, and nothing of anybody else."""
    one, other = stack.person(), stack.person()
    async with stack.claw() as claw:
        for question, person in (("First one.", one), ("Second one.", one), ("Mine.", other), ("Third one.", one)):
            outcome = await stack.outcome(claw, await stack.ask(question, person), timeout=60)
            assert outcome.texts == (f"You said: {question}",)
    assert [call.questions for call in stack.provider.calls] == [
        ["First one."],
        ["First one.", "Second one."],
        ["Mine."],
        ["First one.", "Second one.", "Third one."],
    ]


async def test_new_begins_another_session(stack: Stack) -> None:
    """After `/new` the gateway knows nothing of what the person said before."""
    person = stack.person()
    async with stack.claw() as claw:
        for text in ("Remember me.", "/new", "Who am I?"):
            await stack.outcome(claw, await stack.ask(text, person), timeout=60)
    assert [call.questions for call in stack.provider.calls] == [["Remember me."], ["Who am I?"]]


async def test_stop_ends_the_call_of_the_provider(stack: Stack) -> None:
    """`/stop` reaches through the gateway: nobody pays for an answer that nobody waits for."""
    person = stack.person()
    stack.provider.once("Count.", Answer(parts=("one ", "two "), hangs=True))
    async with stack.claw() as claw:
        endless = await stack.ask("Count.", person)
        await stack.provider.wait_asked("Count.")
        outcome = await stack.outcome(claw, await stack.ask("/stop", person), timeout=30)
        stack.record("/stop in an endless answer", outcome, claw, "Count.")
        assert outcome.text == "Stopped."
        async with asyncio.timeout(10):
            while stack.provider.calls[0].ended != "cut":
                await asyncio.sleep(0.1)
        assert not stack.emulator.replies.to(endless.msg_id)


async def test_a_wrong_token_is_told_with_its_remedy(stack: Stack) -> None:
    """The person hears at once that an administrator is needed, who reads in the log which variable to look at."""
    async with stack.claw(OPENAI_API_KEY="not-the-token") as claw:
        outcome = await stack.outcome(claw, await stack.ask("Anybody there?", stack.person()), timeout=60)
        stack.record("wrong token", outcome, claw, "Anybody there?")
    (failed,) = [entry for entry in claw.logs if entry["message"] == "turn failed"]
    assert len(outcome.texts) == 1
    assert "refused my credentials" in outcome.text
    assert "OPENAI_API_KEY" in failed["remedy"]
    assert outcome.seconds < 20
    assert not stack.provider.calls


async def test_an_unknown_model_is_told_in_the_gateway_s_own_words(stack: Stack) -> None:
    """A `model` that names no agent is refused; the log says what the gateway would take."""
    async with stack.claw(OPENAI_MODEL="gpt-5-mini") as claw:
        outcome = await stack.outcome(claw, await stack.ask("Anybody there?", stack.person()), timeout=60)
        stack.record("unknown model", outcome, claw, "Anybody there?")
    (failed,) = [entry for entry in claw.logs if entry["message"] == "turn failed"]
    assert len(outcome.texts) == 1
    assert "did not accept the request" in outcome.text
    assert "Use `openclaw`" in failed["cause"]
    assert "OPENAI_MODEL" in failed["remedy"]
    assert not stack.provider.calls

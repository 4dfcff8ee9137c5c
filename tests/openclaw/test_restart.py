"""Ends of the gateway, alone and together with claw: no question that DingTalk has seen acked may stay unanswered."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from claw.emulator import Said
from tests.openclaw.provider import Answer
from tests.openclaw.stack import Outcome, Stack

pytestmark = [pytest.mark.openclaw, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200)]

ROUNDS = 3
CONVERSATIONS = 10
RUNNING = 4
"""Calls of the provider that show a gateway at work; how many turns it runs at once depends on the cores (8 on two)."""
PATIENCE_S = 600
"""Seconds that an answer may take behind a gateway that starts; it needs 9 to 24 of them, more on a busy machine."""
RECOVERY_S = 15
"""Seconds that the gateway's own second run of a broken turn takes; with tools it may be minutes."""
RECOVERY = "interrupted by a gateway restart"
"""What a gateway says to its model when it takes up a turn again by itself."""


async def test_both_are_killed_with_questions_in_flight(stack: Stack) -> None:
    """kill -9 of claw and gateway with ten questions in flight, both started at once, three times: all are answered.

    claw serves within a second, the gateway needs tens: whoever counts tries instead of minutes loses every question.
    """
    people = [stack.person() for _ in range(CONVERSATIONS)]
    answered: list[int] = []
    claw = stack.service()
    try:
        await claw.start()
        await claw.until_ready()
        for round_ in range(ROUNDS):
            stack.provider.reset()
            stack.provider.answer = Answer(before_s=600)
            questions = [f"Question {number} of round {round_}?" for number in range(CONVERSATIONS)]
            said = [await stack.ask(*each) for each in zip(questions, people, strict=True)]
            await stack.in_flight(claw, CONVERSATIONS)
            await stack.provider.wait_asked(f"of round {round_}?", RUNNING)
            await asyncio.gather(claw.kill(), stack.gateway.kill())
            killed = time.monotonic()

            stack.provider.reset()
            claw = stack.service()
            await asyncio.gather(claw.start(), stack.gateway.start())
            await stack.settled(claw, said, timeout=PATIENCE_S)
            answered.append(0)
            for question, message in zip(questions, said, strict=True):
                texts = [reply.text for reply in stack.emulator.replies.to(message.msg_id)]
                answered[-1] += sum(text.startswith("You said: ") and question in text for text in texts) == 1
            last = stack.emulator.replies[-1]
            summary = f"{answered[-1]} of {CONVERSATIONS} answered; the last: {last.text}"
            stack.record(
                f"both killed, round {round_ + 1}", Outcome((summary,), last.time - killed), claw, f"of round {round_}?"
            )
            # A round that lost its questions is over before the gateway is up: the next one needs it.
            await stack.gateway.until_ready()
    finally:
        await claw.kill()
    assert answered == [CONVERSATIONS] * ROUNDS


async def test_the_gateway_is_killed_before_any_content(stack: Stack) -> None:
    """Nothing was said yet: claw waits for the gateway and asks again, and the person gets one answer."""
    question = "Are you still there?"
    stack.provider.once(question, Answer(before_s=600))
    async with stack.claw() as claw:
        said = await stack.ask(question, stack.person())
        await stack.provider.wait_asked(question)
        await stack.gateway.kill()
        await stack.gateway.start()
        outcome = await stack.outcome(claw, said, timeout=PATIENCE_S)
        stack.record("gateway killed before content", outcome, claw, question)
    assert sum(question in text for text in outcome.texts) == 1
    assert outcome.text.startswith("You said: ")


async def test_the_gateway_is_killed_after_content_had_begun(stack: Stack) -> None:
    """The person is asked to repeat: the gateway takes that turn up by itself; a second one would run tools twice."""
    question = "Tell me a story."
    async with stack.claw() as claw:
        said = await _break_off(stack, question, stack.person())
        outcome = await stack.outcome(claw, said, timeout=60)
        stack.record("gateway killed after content", outcome, claw, question)
        assert "broke off half-way" in outcome.text
        await stack.provider.wait_asked(question, 2)
    assert all(RECOVERY in call.question for call in stack.provider.asked(question)[1:])


async def test_a_question_meets_the_recovery_of_its_session(stack: Stack) -> None:
    """Who repeats is answered: until the gateway's own run is over it says "internal error", which is waited out."""
    question, person = "Tell me a tale.", stack.person()
    async with stack.claw() as claw:
        said = await _break_off(stack, question, person)
        stack.provider.once(question, Answer(before_s=RECOVERY_S))
        await stack.outcome(claw, said, timeout=60)
        await stack.provider.wait_asked(question, 2)
        again = await stack.outcome(claw, await stack.ask("Tell it again.", person), timeout=PATIENCE_S)
        stack.record("a question meets the recovery", again, claw, "Tell it again.")
    assert again.text.startswith("You said: ")
    assert "Tell it again." in again.text


async def test_claw_comes_back_into_the_recovery_of_its_session(stack: Stack) -> None:
    """Both were killed and the gateway is back first: its "internal error" is waited out, the question answered."""
    question = "What do you think?"
    stack.provider.once(question, Answer(before_s=600))
    stack.provider.once(question, Answer(before_s=RECOVERY_S))
    async with stack.claw() as claw:
        said = await stack.ask(question, stack.person())
        await stack.provider.wait_asked(question)
        await asyncio.gather(claw.kill(), stack.gateway.kill())
    await stack.gateway.start()
    await stack.provider.wait_asked(question, 2)
    async with stack.claw() as claw:
        outcome = await stack.outcome(claw, said, timeout=PATIENCE_S)
        stack.record("claw back after the gateway", outcome, claw, question)
    assert sum(question in text for text in outcome.texts) == 1
    assert outcome.text.startswith("You said: ")


async def _break_off(stack: Stack, question: str, person: str) -> Said:
    """Kill the gateway when a part of the answer is with claw, and start it again."""
    stack.provider.once(question, Answer(parts=("First part. ", "Second part. "), hangs=True))
    said = await stack.ask(question, person)
    await stack.provider.wait_asked(question)
    await asyncio.sleep(2)  # Until the parts are with claw, which shows none of them before the end.
    await stack.gateway.kill()
    await stack.gateway.start()
    return said


async def test_the_gateway_is_asked_to_go_while_an_answer_runs(stack: Stack) -> None:
    """SIGTERM: the running answer comes to its end, and who asks meanwhile is answered by the gateway's successor."""
    words = tuple(f"word{number} " for number in range(10))
    stack.provider.once("Speak slowly.", Answer(parts=words, between_s=1))
    async with stack.claw() as claw:
        running = await stack.ask("Speak slowly.", stack.person())
        await stack.provider.wait_asked("Speak slowly.")
        await asyncio.sleep(2)
        stack.gateway.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        late = await stack.ask("Am I late?", stack.person())
        assert await stack.gateway.ended() == 0
        await stack.gateway.start()
        outcome = await stack.outcome(claw, running, timeout=PATIENCE_S)
        stack.record("SIGTERM while it answers", outcome, claw, "Speak slowly.")
        meanwhile = await stack.outcome(claw, late, timeout=PATIENCE_S)
        stack.record("question while it drains", meanwhile, claw, "Am I late?")
    assert outcome.texts == ("".join(words).strip(),)
    assert meanwhile.text == "You said: Am I late?"

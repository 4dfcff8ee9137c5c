"""Failures of the provider behind the gateway: truly told, after one round of the gateway's own tries, not three.

The order is that of the harm: after a 401 the gateway disables the provider for a minute for everybody.
"""

from __future__ import annotations

import pytest

from tests.openclaw.provider import Answer
from tests.openclaw.stack import Stack

pytestmark = [pytest.mark.openclaw, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SLOW_S = 120
"""Seconds before the first token. The gateway gives a provider on loopback 300 of them, claw's turn has as many."""


async def test_a_slow_provider_is_waited_for(stack: Stack) -> None:
    """Two minutes of silence end in an answer: one call, one try."""
    stack.provider.once("Take your time.", Answer(before_s=SLOW_S))
    async with stack.claw() as claw:
        outcome = await stack.outcome(claw, await stack.ask("Take your time.", stack.person()), timeout=300)
        stack.record(f"provider slow, {SLOW_S} s", outcome, claw, "Take your time.")
    assert outcome.text == "You said: Take your time."
    assert len(stack.provider.calls) == 1
    assert outcome.seconds < SLOW_S + 30


async def test_a_failing_provider_is_told_after_the_gateway_s_own_tries(stack: Stack) -> None:
    """HTTP 500 for ever: eight tries of the gateway's within 90 s, and nothing of claw's on top of them."""
    stack.provider.answer = Answer(status=500)
    async with stack.claw() as claw:
        outcome = await stack.outcome(claw, await stack.ask("Are you well?", stack.person()), timeout=600)
        stack.record("provider 500", outcome, claw, "Are you well?")
    assert "ran into an error" in outcome.text
    assert outcome.seconds < 150
    assert len(stack.provider.calls) <= 9


async def test_a_busy_provider_is_told_after_the_gateway_s_own_tries(stack: Stack) -> None:
    """HTTP 429 for ever: the gateway's ten tries are not made three times, nor the person's wait of two minutes."""
    stack.provider.answer = Answer(status=429)
    async with stack.claw() as claw:
        outcome = await stack.outcome(claw, await stack.ask("Are you busy?", stack.person()), timeout=800)
        stack.record("provider 429 for ever", outcome, claw, "Are you busy?")
    assert "very busy" in outcome.text
    assert outcome.seconds < 240
    assert len(stack.provider.calls) <= 10


async def test_a_provider_that_refuses_the_key_is_told_as_that(stack: Stack) -> None:
    """HTTP 401: the person hears that an administrator is needed, at once, whether the gateway still asks or not."""
    stack.provider.answer = Answer(status=401)
    async with stack.claw() as claw:
        first = await stack.outcome(claw, await stack.ask("May I?", stack.person()), timeout=300)
        stack.record("provider 401", first, claw, "May I?")
        second = await stack.outcome(claw, await stack.ask("May I, too?", stack.person()), timeout=300)
        stack.record("the next person after a 401", second, claw, "May I, too?")
    for outcome in (first, second):
        assert "refused my credentials" in outcome.text
        assert outcome.seconds < 60
    assert len(stack.provider.calls) <= 2

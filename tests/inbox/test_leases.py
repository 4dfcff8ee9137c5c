"""Leases: renewed as long as their turns run, also after a sleep of the machine."""

from __future__ import annotations

import asyncio

from claw.messages import Answer, Inbound
from tests.inbox.harness import WorkerHarness
from tests.messages import inbound


async def test_sleeping_machine_does_not_answer_twice(harness: WorkerHarness) -> None:
    """After the machine slept past every lease, running turns are renewed, not claimed a second time."""
    gate = asyncio.Event()

    async def wait(message: Inbound) -> Answer:
        await gate.wait()
        return await harness.echo(message)

    harness.handle = wait
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(lambda: harness.handled == ["one"])
    await harness.clock.advance(300)
    await harness.put(inbound("other", chat="cidB"))
    gate.set()
    await harness.until(harness.empty)
    assert sorted(harness.delivered) == ["re: one", "re: other"]

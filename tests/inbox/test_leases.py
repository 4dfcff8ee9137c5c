"""Leases: renewed as long as their turns run, also after a sleep of the machine."""

from __future__ import annotations

import asyncio

import pytest

from claw.inbox.leases import RENEW_INTERVAL_S
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


async def test_a_keeper_that_ends_is_logged(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in renewing is told at once by the task's name: leases would run out one after the other, in silence."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    gate = asyncio.Event()

    async def wait(message: Inbound) -> Answer:
        await gate.wait()
        return await harness.echo(message)

    harness.handle = wait
    monkeypatch.setattr(harness.store, "renew", broken)
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(lambda: harness.handled == ["one"])
    await harness.clock.advance(RENEW_INTERVAL_S + 1)
    await harness.until(lambda: "claw.inbox.leases" in [record.__dict__.get("task") for record in caplog.records])
    gate.set()
    await harness.until(harness.empty)

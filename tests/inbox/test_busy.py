"""What becomes of messages that come while their conversation is being answered (CLAW_BUSY_MODE)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claw.inbox.active import CancelReason
from claw.messages import Answer, ChatKind, Conversation, Inbound, Route, Sender
from claw.store.values import Interrupted
from tests.inbox.harness import ROUTE, WorkerHarness
from tests.messages import inbound

GROUP = Conversation("cidG", ChatKind.GROUP, "Room")


def said(text: str, who: str = "u-1") -> Inbound:
    return inbound(text, conversation=GROUP, sender=Sender(f"$:{who}", who, who))


@pytest.fixture
async def merging(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "claw.db", merges=True)
    await made.store.open()
    yield made
    await made.close()


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "claw.db")
    await made.store.open()
    yield made
    await made.close()


class Gate:
    """Holds the answer to one message until it is let go."""

    def __init__(self, harness: WorkerHarness, text: str) -> None:
        self.harness, self.text = harness, text
        self.opened = asyncio.Event()
        harness.handle = self.handle

    async def handle(self, message: Inbound) -> Answer:
        if message.text == self.text:
            await self.opened.wait()
        return await self.harness.echo(message)


async def test_those_that_wait_are_answered_together(merging: WorkerHarness) -> None:
    """Up to one that must stand alone; each is answered once, and the queue goes on."""
    gate = Gate(merging, "one")
    await merging.put(said("one"))
    merging.start()
    await merging.until(lambda: merging.worker.running == 1)
    await merging.put(said("two"), said("three", "u-2"), said("alone"), said("four"))
    gate.opened.set()
    await merging.until(merging.empty)
    assert merging.handled == ["one", "two + three", "alone + four"]
    assert merging.delivered == ["re: one", "re: two", "re: alone"]


async def test_a_crash_between_answer_and_ack(merging: WorkerHarness) -> None:
    """The saved answer names who it is for: nobody is answered twice, and none is left over."""
    await merging.put(said("one"), said("two"))
    delivering, goes_on = asyncio.Event(), asyncio.Event()

    async def deliver(answer: Answer) -> None:
        delivering.set()
        await goes_on.wait()
        await merging.out(answer)

    merging.deliver = deliver
    merging.start()
    await delivering.wait()
    assert merging.task is not None
    merging.task.cancel()
    await asyncio.gather(merging.task, return_exceptions=True)
    goes_on.set()
    await merging.clock.advance(60)
    merging.start()
    await merging.until(merging.empty)
    assert merging.handled == ["one + two"]
    assert merging.delivered == ["re: one"]


async def test_a_failure_is_told_to_the_first_only(merging: WorkerHarness) -> None:
    """What could not be answered together is tried again, and what waits behind it stays."""
    failures = 0

    async def fail(message: Inbound) -> Answer:
        nonlocal failures
        failures += 1
        if message.text == "one":
            raise ValueError("no")
        return await merging.echo(message)

    merging.handle = fail
    await merging.put(said("one"), said("two"))
    merging.start()
    await merging.until_empty_over_time()
    assert merging.delivered == ["sorry: one", "re: two"]


async def test_any_of_them_may_stop_it(merging: WorkerHarness) -> None:
    """A turn that answers several people is everybody's of these, and nobody else's."""
    gate = Gate(merging, "one")
    await merging.put(said("one", "u-1"), said("two", "u-2"))
    merging.start()
    await merging.until(lambda: merging.handled == ["one + two"])
    queue = ROUTE(said("x")).queue
    assert await merging.worker.stop_anywhere(queue, "u-3") is Interrupted.OTHERS
    assert await merging.worker.stop_anywhere(queue, "u-2") is Interrupted.STOPPED
    gate.opened.set()
    await merging.until(lambda: merging.worker.running == 0 or len(merging.handled) > 1)


@pytest.mark.parametrize(("who", "delivered"), [("u-1", ["re: two"]), ("u-2", ["re: one", "re: two"])])
async def test_the_senders_next_message_interrupts(harness: WorkerHarness, who: str, delivered: list[str]) -> None:
    """Their own turn ends without an answer, and is remembered as interrupted; another person's goes on."""
    gate = Gate(harness, "one")
    first, second = said("one"), said("two", who)
    await harness.put(first)
    harness.start()
    await harness.until(lambda: harness.handled == ["one"])
    await harness.put(second)
    harness.worker.interrupt_for(second, ROUTE(second))
    if who == "u-1":
        await harness.until(lambda: "two" in harness.handled)
    await asyncio.sleep(0.02)
    gate.opened.set()
    await harness.until(harness.empty)
    assert harness.delivered == delivered
    exchanges = await harness.store.exchanges(first.chat_key, 9)
    assert exchanges[0].assistant == ("[interrupted]" if who == "u-1" else "re: one")


async def test_a_message_does_not_interrupt_itself(harness: WorkerHarness) -> None:
    """It may be worked on before the wish to make room for it is heard."""
    gate = Gate(harness, "one")
    message = said("one")
    await harness.put(message)
    harness.start()
    await harness.until(lambda: harness.handled == ["one"])
    harness.worker.interrupt_for(message, ROUTE(message))
    await asyncio.sleep(0.02)
    gate.opened.set()
    await harness.until(harness.empty)
    assert harness.delivered == ["re: one"]


async def test_an_answer_on_its_way_is_not_interrupted(harness: WorkerHarness) -> None:
    """What is being delivered is delivered whole."""
    delivering, goes_on = asyncio.Event(), asyncio.Event()

    async def deliver(answer: Answer) -> None:
        delivering.set()
        await goes_on.wait()
        await harness.out(answer)

    harness.deliver = deliver
    message = said("one")
    await harness.put(message)
    harness.start()
    await delivering.wait()
    route: Route = ROUTE(message)
    stopped = await harness.worker.stop_anywhere(route.queue, "u-1", reason=CancelReason.INTERRUPT)
    assert stopped is Interrupted.NOTHING
    goes_on.set()
    await harness.until(harness.empty)
    assert harness.delivered == ["re: one"]

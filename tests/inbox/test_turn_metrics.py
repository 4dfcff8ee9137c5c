"""What metrics tell of turns: each by how it ended, a round trip only where a person got something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from claw.errors import DingTalkError, DingTalkReason, ModelError, ModelErrorKind
from claw.inbox.turns import RELEASED, UNDELIVERED
from claw.messages import Answer, Inbound, Outcome
from claw.observe import telemetry
from tests.inbox.harness import WorkerHarness
from tests.messages import inbound

Counts = dict[str, dict[str, int]]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Counts]]:
    """How many turns and round trips ended how."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    meter = provider.get_meter("tests")
    for name in ("turn_duration", "round_trip_duration"):
        monkeypatch.setattr(telemetry, name, meter.create_histogram(name))

    def read() -> Counts:
        data: Any = reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return {each.name: {p.attributes["outcome"]: p.count for p in each.data.data_points} for each in metrics}

    yield read
    provider.shutdown()


async def test_turns_by_outcome(harness: WorkerHarness, counts: Callable[[], Counts]) -> None:
    """Each turn counts by its outcome, a try that comes again as released; a round trip has its answer's outcome."""

    async def answer(message: Inbound) -> Answer:
        if message.text == "busy" and harness.handled.count("busy") == 1:
            raise ModelError(ModelErrorKind.BUSY, "429", retryable=True)
        if message.text == "bad":
            raise ModelError(ModelErrorKind.UNAUTHORIZED, "401")
        if message.text == "denied":
            return Answer.of("", Outcome.DENIED)
        return await harness.echo(message)

    harness.handle = answer
    for text in ("good", "busy", "bad", "denied"):
        await harness.put(inbound(text))
    harness.start()
    await harness.until_empty_over_time()
    await harness.until(lambda: not harness.worker.running)
    assert counts() == {
        "turn_duration": {"answered": 2, RELEASED: 1, "failed": 1, "denied": 1},
        "round_trip_duration": {"answered": 2, "failed": 1},
    }


async def test_an_answer_that_is_not_taken(harness: WorkerHarness, counts: Callable[[], Counts]) -> None:
    """A delivery that failed is a turn of its own, and no round trip; that which succeeds is one."""

    async def deliver(answer: Answer) -> None:
        harness.deliver = harness.out
        raise DingTalkError("webhook", "busy", reason=DingTalkReason.SERVER_BUSY, retryable=True)

    harness.deliver = deliver
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    await harness.until(lambda: not harness.worker.running)
    assert counts() == {"turn_duration": {UNDELIVERED: 1, "answered": 1}, "round_trip_duration": {"answered": 1}}

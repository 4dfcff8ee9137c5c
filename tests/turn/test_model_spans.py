"""What an operator sees of a question: one span and its metrics, without what was said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from claw.config import settings
from claw.errors import ModelError
from claw.observe import telemetry
from claw.secret import Secret, hash_id
from claw.turn.model.client import ModelClient
from tests.turn.asking import QuickClock
from tests.turn.servers import DONE, ROLE, ModelServer, answer, event, refuses, sends

USER = hash_id("conversation")
QUESTION = [{"role": "user", "content": "A private question"}]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    meter = provider.get_meter("test")
    for name in ("gen_ai_operation_duration", "gen_ai_time_to_first_chunk", "gen_ai_token_usage"):
        monkeypatch.setattr(telemetry, name, meter.create_histogram(name))
    yield reader
    provider.shutdown()


async def ask(server: ModelServer) -> None:
    chosen = settings.ModelSettings(api_key=Secret("sk-0123456789"), base_url=server.base_url, name="openclaw")
    model = ModelClient(chosen, history_kept_elsewhere=False, clock=QuickClock())
    try:
        with suppress(ModelError):
            await model.ask(QUESTION, user=USER)
    finally:
        await model.close()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_the_span_of_an_answer(server: ModelServer, spans: InMemorySpanExporter) -> None:
    """One question is one client span with the attributes of the gen_ai conventions, and nothing that was said."""
    await ask(server)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == ("chat openclaw", SpanKind.CLIENT, StatusCode.UNSET)
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openclaw",
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": USER,
        "gen_ai.response.model": "fake-1",
        "gen_ai.response.id": "chatcmpl-7",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.0,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": int(server.base_url.split(":")[2].split("/")[0]),
    }
    assert span.events == ()


async def test_content_only_where_asked_for(
    server: ModelServer, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said is in the span only if the operator asked for it."""
    monkeypatch.setenv(telemetry.CAPTURE_CONTENT, "true")
    await ask(server)
    (span,) = spans.get_finished_spans()
    said = json.loads(attributes(span)["gen_ai.input.messages"])
    assert said == [{"role": "user", "parts": [{"type": "text", "content": "A private question"}]}]
    heard = json.loads(attributes(span)["gen_ai.output.messages"])
    assert heard == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello there"}], "finish_reason": "stop"}
    ]


async def test_each_try_has_a_span_and_failures_their_type(server: ModelServer, spans: InMemorySpanExporter) -> None:
    """A second try is a second span; a failed one says why in one word, and quotes nothing."""
    server.behaviours = [
        sends(ROLE, event({"error": {"message": "internal error"}})),
        refuses(400, {"error": {"message": "A private question is bad"}}),
    ]
    await ask(server)
    first, second = spans.get_finished_spans()
    assert attributes(first)["error.type"] == "server"
    assert attributes(second)["error.type"] == "400"
    assert first.status.status_code is second.status.status_code is StatusCode.ERROR
    assert "private" not in first.to_json() + second.to_json()
    assert "sk-0123456789" not in first.to_json() + second.to_json()


async def test_a_stopped_question_is_no_error(server: ModelServer, spans: InMemorySpanExporter) -> None:
    """A question that a person stopped ends its span, says so, and does not count as failed."""
    server.behaviours = [server.hangs(ROLE)]
    asking = asyncio.create_task(ask(server), name="ask")
    async with asyncio.timeout(10):
        while not server.running:
            await asyncio.sleep(0.01)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    (span,) = spans.get_finished_spans()
    assert attributes(span)["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.UNSET


async def test_metrics(server: ModelServer, metrics: InMemoryMetricReader) -> None:
    """Duration, time to the first text and tokens are measured, without anything that names a conversation."""
    server.behaviours = [sends(answer("Hi")), refuses(401, {}), sends(DONE)]
    for _ in range(3):
        await ask(server)
    data = json.loads(metrics.get_metrics_data().to_json())  # type: ignore[union-attr]
    found = {
        metric["name"]: [(point["attributes"], point["count"]) for point in metric["data"]["data_points"]]
        for metric in data["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    }
    errors = [given.get("error.type") for given, _ in found["gen_ai_operation_duration"]]
    assert errors == [None, "401", "empty"]
    assert sum(count for _, count in found["gen_ai_time_to_first_chunk"]) == 1
    assert {given["gen_ai.token.type"] for given, _ in found["gen_ai_token_usage"]} == {"input", "output"}
    assert USER not in json.dumps(found)

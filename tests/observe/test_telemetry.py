"""Telemetry: a provider of ours only where none is, export only where asked, one trace across processes."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from claw.observe import telemetry

SPAN = """
import json, sys
from claw.observe import telemetry
handle = telemetry.setup()
with telemetry.tracer.start_as_current_span("turn", attributes={telemetry.CLAW_OUTCOME: "answered"}) as span:
    telemetry.turn_duration.record(0.5)
    print(json.dumps({"trace": telemetry.trace_id(), "recording": span.is_recording()}))
handle.shutdown()
"""


class Collector(http.server.BaseHTTPRequestHandler):
    """An OTLP collector that keeps what it is sent, by path."""

    got: list[tuple[str, bytes]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.got.append((self.path, body))
        self.send_response(self.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, type[Collector]]]:
    """The address of a fresh collector, and its class with what it `got`."""
    handler = type("Handler", (Collector,), {"got": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def run(code: str, environ: Mapping[str, str], *, arguments: tuple[str, ...] = ()) -> tuple[Any, str]:
    """Run code in a fresh process (providers are set once for each process): its last line as JSON, its stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=clean | dict(environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in pairs}


# --- export ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("named", "service"), [(None, "claw"), ("our-bot", "our-bot")])
def test_spans_and_metrics_are_exported(
    named: str | None, service: str, collector: tuple[str, type[Collector]]
) -> None:
    """With an OTLP endpoint, spans and metrics arrive there when `shutdown` is over, under the service's name."""
    address, handler = collector
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": address} | ({"OTEL_SERVICE_NAME": named} if named else {})
    told, _ = run(SPAN, environ)
    got = dict(handler.got)
    assert set(got) == {"/v1/traces", "/v1/metrics"}
    spans = ExportTraceServiceRequest.FromString(got["/v1/traces"]).resource_spans[0]
    assert attributes(spans.resource.attributes)["service.name"] == service
    assert attributes(spans.resource.attributes)["service.version"]
    (span,) = spans.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("turn", told["trace"])
    assert attributes(span.attributes) == {"claw.outcome": "answered"}
    metrics = ExportMetricsServiceRequest.FromString(got["/v1/metrics"]).resource_metrics[0]
    assert attributes(metrics.resource.attributes)["service.name"] == service
    assert "claw.turn.duration" in {metric.name for metric in metrics.scope_metrics[0].metrics}


@pytest.mark.parametrize(
    ("environ", "paths"),
    [
        ({}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, set()),
        ({"OTEL_TRACES_EXPORTER": "none"}, {"/v1/metrics"}),
        ({"OTEL_METRICS_EXPORTER": "none"}, {"/v1/traces"}),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"}, set()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, {"/v1/traces", "/v1/metrics"}),
        ({"OTEL_SDK_DISABLED": "true"}, set()),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"/v1/traces", "/v1/metrics"}),
    ],
)
def test_what_is_exported_follows_the_standard_variables(
    environ: dict[str, str], paths: set[str], collector: tuple[str, type[Collector]]
) -> None:
    """OTEL_* alone decides what is sent: nothing without an endpoint, nothing where a signal or all is switched off."""
    address, handler = collector
    endpoint = (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": address} if environ and "OTEL_EXPORTER_OTLP_ENDPOINT" not in environ else {}
    )
    run(SPAN, endpoint | environ)
    assert {path for path, _ in handler.got} == paths


def test_an_endpoint_of_one_signal_exports_that_one(collector: tuple[str, type[Collector]]) -> None:
    """An endpoint for traces alone exports traces alone, to exactly that address."""
    address, handler = collector
    run(SPAN, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{address}/custom"})
    assert [path for path, _ in handler.got] == ["/custom"]


def test_a_collector_that_refuses_changes_nothing(collector: tuple[str, type[Collector]]) -> None:
    """A collector that answers with errors costs no exit code and no exception."""
    address, handler = collector
    handler.status = 400
    told, _ = run(SPAN, {"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    assert told["trace"]


def test_a_silent_collector_does_not_hold_up_the_end() -> None:
    """A collector that accepts and never answers costs `shutdown` its own timeout, not the exporters' hour."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{hole.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
        }
        told, stderr = run(SPAN.replace("handle.shutdown()", "handle.shutdown(0.2)"), environ)
    assert told["trace"]
    assert "telemetry could not be sent in time" in stderr


# --- providers ---------------------------------------------------------------------------------------------------


def test_trace_ids_exist_without_export() -> None:
    """Without an endpoint, traces still have ids, since logs and people are told them."""
    told, _ = run(SPAN, {})
    assert len(told["trace"]) == 32
    assert told["recording"]


def test_switched_off_there_is_no_trace() -> None:
    """OTEL_SDK_DISABLED=true leaves the API alone: no ids, nothing recorded, nothing fails."""
    told, _ = run(SPAN, {"OTEL_SDK_DISABLED": "true"})
    assert told == {"trace": "", "recording": False}


def test_an_installed_provider_is_kept() -> None:
    """A provider that somebody installed before us gets our spans, and stays the one; `shutdown` leaves it alone."""
    code = """
import json
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
theirs = TracerProvider()
theirs.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(theirs)
metrics.set_meter_provider(MeterProvider([reader]))
from claw.observe import telemetry
handle = telemetry.setup()
assert trace.get_tracer_provider() is theirs
with telemetry.tracer.start_as_current_span("turn"):
    telemetry.turn_duration.record(1)
handle.shutdown()
with telemetry.tracer.start_as_current_span("after"):
    pass
data = reader.get_metrics_data()
print(json.dumps({
    "spans": [span.name for span in spans.get_finished_spans()],
    "metrics": [m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics],
}))
"""
    told, stderr = run(code, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert told == {"spans": ["turn", "after"], "metrics": ["claw.turn.duration"]}
    assert stderr == ""


# --- context -----------------------------------------------------------------------------------------------------


def test_the_context_survives_another_process() -> None:
    """What `inject` stores makes `extract` go on with the same trace in another process, under the same parent."""
    give = SPAN.replace('print(json.dumps({"trace"', 'print(json.dumps({"carrier": telemetry.inject(), "trace"')
    told, _ = run(give, {})
    assert set(told["carrier"]) == {"traceparent"}
    take = """
import json, sys
from claw.observe import telemetry
handle = telemetry.setup()
context = telemetry.extract(json.loads(sys.argv[1]))
with telemetry.tracer.start_as_current_span("turn", context=context) as span:
    print(json.dumps([telemetry.trace_id(), f"{span.parent.span_id:016x}"]))
handle.shutdown()
"""
    (trace_id, parent), _ = run(take, {}, arguments=(json.dumps(told["carrier"]),))
    assert trace_id == told["trace"]
    assert parent == told["carrier"]["traceparent"].split("-")[2]


@pytest.mark.parametrize("carrier", [{}, {"traceparent": "nonsense"}, {"traceparent": "00-" + "0" * 32 + "-1-01"}])
def test_a_broken_context_is_an_empty_one(carrier: dict[str, str]) -> None:
    """A context that is missing or broken begins a new trace instead of failing; the current one does not leak in."""
    current = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False))
    with trace.use_span(current):
        found = trace.get_current_span(telemetry.extract(carrier))
    assert not found.get_span_context().is_valid


def test_inject_and_extract_are_inverse() -> None:
    """The current span's ids come back out of what was stored; outside of a span there is nothing to store."""
    assert telemetry.inject() == {}
    assert telemetry.trace_id() == ""
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        carrier = telemetry.inject()
        assert telemetry.trace_id() == f"{0xABC:032x}"
    found = trace.get_current_span(telemetry.extract(carrier)).get_span_context()
    assert (found.trace_id, found.span_id, found.trace_flags) == (0xABC, 0xDEF, 1)


# --- small things ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "captured"),
    [("", False), ("false", False), ("no_content", False), ("true", True), (" TRUE ", True), ("1", True)],
)
def test_content_is_captured_only_when_asked_for(value: str, captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages' content may go into spans only where the operator said so."""
    monkeypatch.setenv(telemetry.CAPTURE_CONTENT, value)
    assert telemetry.captures_content() is captured


def test_telemetry_costs_no_sdk_before_setup() -> None:
    """Importing the module imports neither the SDK nor an exporter."""
    code = """
import json, sys
import claw.observe.telemetry
print(json.dumps([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]))
"""
    assert run(code, {})[0] == []


def test_a_gauge_is_read_at_collection() -> None:
    """A gauge exports what its function returns at that moment, and a failing one costs nothing but its value."""
    code = """
import json, logging
logging.disable()
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
from claw.observe import telemetry
value = 1.0
telemetry.gauge("claw.inbox.depth", "{message}", "waiting", lambda: value)
telemetry.gauge("claw.broken", "1", "broken", lambda: 1 / 0)
value = 7.0
data = reader.get_metrics_data()
print(json.dumps({m.name: [p.value for p in m.data.data_points]
                  for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}))
"""
    told, _ = run(code, {})
    assert told["claw.inbox.depth"] == [7.0]
    assert not told.get("claw.broken")

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
from claw.observe.exporters import Outage
from claw.observe.otel_environment import repair

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


# --- foreign values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "OTEL_BSP_MAX_QUEUE_SIZE: is below OTEL_BSP_MAX_EXPORT_BATCH_SIZE (512)"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "OTEL_BSP_MAX_QUEUE_SIZE: its value is not usable"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "OTEL_BSP_SCHEDULE_DELAY: its value is not usable"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "OTEL_METRIC_EXPORT_INTERVAL: its value is not usable"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "x", "OTEL_ATTRIBUTE_COUNT_LIMIT: its value is not usable"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: its value is not usable"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "x", "OTEL_METRICS_EXEMPLAR_FILTER: its value is not usable"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "OTEL_TRACES_SAMPLER: its value is not usable"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "OTEL_TRACES_SAMPLER_ARG: its value is not usable"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "OTEL_EXPORTER_OTLP_TIMEOUT: its value is not usable"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "OTEL_EXPORTER_OTLP_COMPRESSION: its value is not usable"),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/nowhere/ca.pem",
            "OTEL_EXPORTER_OTLP_CERTIFICATE: its value is not usable",
        ),
    ],
)
def test_a_bad_value_is_named_and_ends_nothing(
    name: str, value: str, said: str, collector: tuple[str, type[Collector]]
) -> None:
    """A value that the SDK would stumble over is told by the variable's name; spans are exported all the same."""
    address, handler = collector
    _, stderr = run(SPAN, {"OTEL_EXPORTER_OTLP_ENDPOINT": address, name: value})
    assert said in stderr
    assert "Traceback" not in stderr
    assert {path for path, _ in handler.got} == {"/v1/traces", "/v1/metrics"}


@pytest.mark.parametrize("text", ["localhost:4318", "grpc://c:4317", "http://", "http://c:99999"])
def test_an_endpoint_that_is_none_is_told(text: str) -> None:
    """An endpoint without a scheme that we speak is told by name, and nothing is exported."""
    _, stderr = run(SPAN, {"OTEL_EXPORTER_OTLP_ENDPOINT": text})
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: its value is not usable" in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_the_port_of_grpc_is_told() -> None:
    """Port 4317 is the usual slip: every export would fail without a word of why."""
    changes, (warning,) = repair({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"})
    assert changes == {}
    assert "4318" in warning


def test_a_signals_path_at_the_base_address_is_left_out(collector: tuple[str, type[Collector]]) -> None:
    """`/v1/traces` at the end of the base address would stand there twice."""
    address, handler = collector
    _, stderr = run(SPAN, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{address}/v1/traces/"})
    assert {path for path, _ in handler.got} == {"/v1/traces", "/v1/metrics"}
    assert "is a base address" in stderr


def test_the_operators_name_of_the_service_wins(collector: tuple[str, type[Collector]]) -> None:
    """`service.name` in OTEL_RESOURCE_ATTRIBUTES is the service's name, as OTEL_SERVICE_NAME is."""
    address, handler = collector
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_RESOURCE_ATTRIBUTES": "service.name=our-bot,a=b"}
    run(SPAN, environ)
    spans = ExportTraceServiceRequest.FromString(next(body for path, body in handler.got if path == "/v1/traces"))
    attributes = {each.key: each.value.string_value for each in spans.resource_spans[0].resource.attributes}
    assert attributes["service.name"] == "our-bot"


def test_a_collectors_outage_is_told_once_and_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """However many batches of whatever signal fail, two lines are written: one at the beginning, one at the end."""
    outage = Outage()
    with caplog.at_level("INFO", "claw.observe.exporters"):
        outage.cause = "Connection refused"
        for _ in range(5):
            outage.note("traces", ok=False)
            outage.note("metrics", ok=False)
        outage.note("traces", ok=True)
        outage.note("metrics", ok=True)
        outage.note("traces", ok=True)
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry is not delivered",
        "telemetry is delivered again",
    ]
    assert vars(caplog.records[0])["cause"] == "Connection refused"


def test_a_dead_collector_is_one_line() -> None:
    """The SDK's own lines about each failed batch do not reach the log."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
    _, stderr = run(SPAN.replace("handle.shutdown()", "handle.shutdown(8)"), environ)
    assert [line for line in stderr.splitlines() if line] == ["telemetry is not delivered"]


def test_the_console_exporter_needs_no_collector() -> None:
    """OTEL_TRACES_EXPORTER=console writes each span as one line of JSON to standard output."""
    code = SPAN.replace('    print(json.dumps({"trace"', '    json.dumps({"trace"').replace("})))", "}))")
    code = code.replace("is_recording()}))", "is_recording()})")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "console"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["name"] == "turn"


# --- Prometheus ------------------------------------------------------------------------------------------------------

SCRAPED = """
import json, sys
from claw.observe import telemetry
handle = telemetry.setup(scraped=True)
telemetry.turn_duration.record(0.5, {"outcome": "answered"})
telemetry.gauge("claw.inbox.depth", "{message}", "waiting", lambda: 7)
text = telemetry.render_metrics()
handle.shutdown()
from prometheus_client import REGISTRY
shared = [name for name in REGISTRY._names_to_collectors if name.startswith("claw")]
print(json.dumps({"text": (text or b"").decode(), "after": telemetry.render_metrics(), "shared": shared}))
"""


def test_the_same_meters_are_scraped_and_sent(collector: tuple[str, type[Collector]]) -> None:
    """With OTLP on as well both readers hang on one provider: what is rendered is also sent."""
    address, handler = collector
    told, stderr = run(SCRAPED, {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_TRACES_EXPORTER": "none"})
    assert 'claw_turn_duration_seconds_count{outcome="answered"} 1.0' in told["text"]
    (sent,) = (body for path, body in handler.got if path == "/v1/metrics")
    metrics = ExportMetricsServiceRequest.FromString(sent).resource_metrics[0].scope_metrics[0].metrics
    assert {"claw.turn.duration", "claw.inbox.depth"} <= {metric.name for metric in metrics}
    assert stderr == ""


def test_a_scrape_needs_no_collector() -> None:
    """Without OTLP the meters are rendered all the same, in a registry of their own, and `shutdown` ends it."""
    told, stderr = run(SCRAPED, {})
    assert "claw_inbox_depth 7.0" in told["text"]
    assert "process_start_time_seconds" in told["text"]
    assert "target_info" not in told["text"]
    assert "otel_scope" not in told["text"]
    assert told["after"] is None
    assert told["shared"] == []
    assert stderr == ""


def test_a_scrape_beside_a_foreign_provider_is_refused_in_words() -> None:
    """Where somebody installed a provider before us nothing is rendered, and the log says so once."""
    theirs = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
metrics.set_meter_provider(MeterProvider())
"""
    told, stderr = run(theirs + SCRAPED, {})
    assert told["text"] == ""
    assert stderr.splitlines() == ["/metrics cannot be served"]


def test_a_scrape_with_telemetry_switched_off_is_refused_in_words() -> None:
    """OTEL_SDK_DISABLED=true leaves no meters to render, and the log says so."""
    told, stderr = run(SCRAPED, {"OTEL_SDK_DISABLED": "true"})
    assert told["text"] == ""
    assert stderr.splitlines() == ["/metrics cannot be served"]


def test_concurrent_scrapes_are_whole() -> None:
    """Two threads that render at the same time get each the whole text, no sample twice."""
    code = """
import json, sys
sys.setswitchinterval(1e-6)  # Threads take turns so often that what can mix mixes.
from concurrent.futures import ThreadPoolExecutor
from claw.observe import telemetry
handle = telemetry.setup(scraped=True)
telemetry.turn_duration.record(0.5, {"outcome": "answered"})
with ThreadPoolExecutor(16) as pool:
    texts = [each.result() for each in [pool.submit(telemetry.render_metrics) for _ in range(2000)]]
handle.shutdown()
print(json.dumps([text.count(b"claw_turn_duration_seconds_count{") for text in texts]))
"""
    told, _ = run(code, {})
    assert told == [1] * 2000

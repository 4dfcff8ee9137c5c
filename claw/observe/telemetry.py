"""Traces and metrics: names, instruments, and the provider behind them.

Rooms use the API half of this module: `tracer`, the instruments, the attribute names, `inject`/`extract` for the
context that is stored with a message, `trace_id()` for what a person is told. `setup()` is called once by `app`:
a provider that is installed already is kept; otherwise ours is made from `OTEL_*` alone. It always gives trace
ids (logs and people are told them), exports only where an OTLP endpoint is named, and lets `/metrics` read the same
meters where that is on. No content of messages goes into a span unless
`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`; people and conversations are hashed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from claw import __commit__, __version__
from claw.language import Bilingual
from claw.observe.otel_environment import repair

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from claw.observe.prometheus import Exposition

log: Final = logging.getLogger(__name__)

# --- names: spans and attributes (OpenTelemetry semantic conventions 1.38, messaging and gen_ai; claw.* are ours) ---

SPAN_PROCESS: Final = "process dingtalk.robot"
SPAN_TURN: Final = "turn"
SPAN_CREATE: Final = "create dingtalk.robot"
SPAN_REQUEUE: Final = "requeue dingtalk.robot"
SPAN_SEND: Final = "send dingtalk.reply"
SPAN_ATTACHMENT: Final = "attachment {kind}"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
DINGTALK_ERRCODE: Final = "dingtalk.errcode"

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - not a password
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

VCS_REF_HEAD_REVISION: Final = "vcs.ref.head.revision"
"""Of the resource: the commit that this claw was built from, where that is known."""

CLAW_DUPLICATE: Final = "claw.duplicate"
CLAW_DELIVERY_LAG_MS: Final = "claw.delivery.lag_ms"
CLAW_QUEUE_WAIT_MS: Final = "claw.queue.wait_ms"
CLAW_ATTEMPT: Final = "claw.attempt"
CLAW_KIND: Final = "claw.kind"
CLAW_OUTCOME: Final = "claw.outcome"
CLAW_REPLY_MODE: Final = "claw.reply.mode"
CLAW_CONVERSATION: Final = "claw.conversation"
CLAW_SENDER: Final = "claw.sender"

CAPTURE_CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

# --- instruments: usable at once, exported when a provider is there ------------------------------------------------

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

tracer: Final = trace.get_tracer("claw", __version__)
_meter: Final = metrics.get_meter("claw", __version__)


def _seconds(name: str, description: str) -> metrics.Histogram:
    return _meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS)


round_trip_duration: Final = _seconds("claw.round_trip.duration", "From the frame read to the answer sent")
ack_duration: Final = _seconds("claw.ack.duration", "From the frame read to its ack written")
first_sign_duration: Final = _seconds(
    "claw.first_sign.duration", "From the frame read to the first thing that the person sees"
)
turn_duration: Final = _seconds("claw.turn.duration", "From a message's claim to its end")
stream_outage_duration: Final = _seconds("claw.stream.outage.duration", "Time without any open session")
stream_reconnects: Final = _meter.create_counter("claw.stream.reconnects", "{reconnect}", "New sessions by reason")
stream_slots: Final = _meter.create_up_down_counter("claw.stream.slots", "{slot}", "Connection slots by state")
dingtalk_calls: Final = _meter.create_counter("claw.dingtalk.calls", "{call}", "Calls of DingTalk by api and outcome")
unclean_stops: Final = _meter.create_counter("claw.unclean_stops", "{stop}", "Processes that ended without a word")
feedback: Final = _meter.create_counter("claw.feedback", "{vote}", "Votes on answers in cards")
gen_ai_operation_duration: Final = _seconds("gen_ai.client.operation.duration", "Duration of a model's answer")
gen_ai_time_to_first_chunk: Final = _seconds(
    "gen_ai.client.operation.time_to_first_chunk", "From the request to the first content"
)
gen_ai_token_usage: Final = _meter.create_histogram(
    "gen_ai.client.token.usage",
    "{token}",
    "Tokens of a model's answer",
    explicit_bucket_boundaries_advisory=(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576),
)


def gauge(
    name: str, unit: str, description: str, read: Callable[[], float], attributes: Mapping[str, str] | None = None
) -> None:
    """Export what `read` returns at each collection, as `name` with `attributes`, which tell two of a name apart."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        value = read()
        # OTLP knows no bool, and one that slips in would end the export of every other metric as well.
        yield Observation(int(value) if isinstance(value, bool) else value, attributes)

    _meter.create_observable_gauge(name, [observe], unit, description)


# --- context that travels with a message ---------------------------------------------------------------------------

_propagator: Final = TraceContextTextMapPropagator()


def inject() -> dict[str, str]:
    """Return the current trace context, to be stored with a message (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


def extract(carrier: Mapping[str, str]) -> context.Context:
    """Return the context that `inject` stored; an empty one where there was none."""
    return _propagator.extract(dict(carrier), context.Context())


def trace_id() -> str:
    """Return the current trace's id, 32 hex digits; empty where tracing is switched off."""
    span_context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(span_context.trace_id) if span_context.is_valid else ""


def captures_content() -> bool:
    """Whether the operator asked for messages' content in spans."""
    return os.environ.get(CAPTURE_CONTENT, "").strip().lower() in {"true", "1", "span_only", "span_and_event"}


# --- provider ------------------------------------------------------------------------------------------------------

NOT_SCRAPED: Final = "/metrics cannot be served"
FLUSH_TIMEOUT_S: Final = 1.5
"""Seconds for the last export: Cloud Run's 10 s leave 2 s after CLAW_DRAIN_TIMEOUT (8 s), and not all to us."""


_expositions: Final[list[Exposition]] = []
"""What `/metrics` shows; empty where that is off or cannot be."""


def render_metrics() -> bytes | None:
    """Return all meters in Prometheus' text format; None where they cannot be read so. Blocks for some milliseconds."""
    return _expositions[-1].render() if _expositions else None


class Telemetry:
    """The providers that `setup` installed, if any; `shutdown` sends what is left (blocking, a few seconds at most)."""

    def __init__(self, traces: TracerProvider | None, meters: MeterProvider | None) -> None:
        self._traces = traces
        self._meters = meters

    def shutdown(self, timeout: float = FLUSH_TIMEOUT_S) -> None:
        """Send what is left, within `timeout` seconds: a dead collector must not hold up the end for 20."""
        if self._meters is not None:
            # First: a scrape from here on would find a reader that has no meters any more.
            _expositions.clear()
        providers = [provider for provider in (self._traces, self._meters) if provider is not None]
        threads = [
            threading.Thread(target=_flush, args=(provider,), name="telemetry.flush", daemon=True)
            for provider in providers
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            log.warning("telemetry could not be sent in time", extra={"timeout_s": timeout})


def _flush(provider: TracerProvider | MeterProvider) -> None:
    try:
        provider.shutdown()
    except Exception as error:  # noqa: BLE001 - an exporter's fault must not change the exit code
        log.warning("telemetry could not be flushed", extra={"cause": type(error).__name__})


def _exporters(signal: str) -> set[str]:
    """Return the exporters that `OTEL_*` asks for a signal (TRACES, METRICS): `otlp`, `console`, both or none."""
    name = f"OTEL_{signal}_EXPORTER"
    chosen = {each.strip().lower() for each in os.environ.get(name, "").split(",") if each.strip()} or {"otlp"}
    if chosen - {"otlp", "console", "none"}:
        remedy = Bilingual("for Prometheus set CLAW_METRICS=on", "要用 Prometheus，请设 CLAW_METRICS=on")
        log.warning("only the exporters otlp and console are supported", extra={"variable": name, "remedy": remedy})
    endpoint = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not (endpoint or "").strip():
        chosen.discard("otlp")
    protocol = (
        os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    )
    if "otlp" in chosen and protocol.strip() not in {"", "http/protobuf"}:
        log.warning("only OTLP over http/protobuf is supported; it is used", extra={"asked": protocol})
    return chosen & {"otlp", "console"}


def setup(*, scraped: bool = False) -> Telemetry:
    """Install providers made from `OTEL_*`, unless somebody (opentelemetry-instrument, a test) installed theirs.

    `scraped`: `render_metrics` is to read the meters, too. Never raises: whatever stands in foreign variables, the bot
    is worth more than its traces.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        if scraped:
            log.warning(
                NOT_SCRAPED, extra={"cause": "OTEL_SDK_DISABLED=true", "remedy": Bilingual("unset it", "去掉它")}
            )
        return Telemetry(None, None)
    changes, warnings = repair(os.environ)
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for warning in warnings:
        log.warning(warning)
    traces: TracerProvider | None = None
    meters: MeterProvider | None = None
    try:
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            traces = _make_tracer_provider()
            trace.set_tracer_provider(traces)
        if type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
            meters = _make_meter_provider(scraped=scraped)
            if meters is not None:
                metrics.set_meter_provider(meters)
        elif scraped:
            remedy = Bilingual(
                "take CLAW_METRICS away, or what installed it (opentelemetry-instrument)",
                "去掉 CLAW_METRICS，或去掉安装它的程序（opentelemetry-instrument）",
            )
            log.warning(NOT_SCRAPED, extra={"cause": "another meter provider is installed already", "remedy": remedy})
    except Exception as error:  # noqa: BLE001 - a value of OTEL_* that `repair` does not know
        _expositions.clear()
        log.warning(
            "telemetry is switched off: it cannot be set up", extra={"cause": f"{type(error).__name__}: {error}"}
        )
    return Telemetry(traces, meters)


def _make_resource() -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource  # noqa: PLC0415 - only where used

    # What is given here would win over the environment's: the operator's name of the service comes first.
    named = os.environ.get("OTEL_SERVICE_NAME", "").strip() or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    known = {SERVICE_VERSION: __version__, VCS_REF_HEAD_REVISION: __commit__, SERVICE_NAME: "" if named else "claw"}
    return Resource.create({name: value for name, value in known.items() if value})


def _make_tracer_provider() -> TracerProvider:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only where used

    # Shut down by us alone: the SDK's own atexit hook would wait for a dead collector.
    provider = TracerProvider(resource=_make_resource(), shutdown_on_exit=False)
    chosen = _exporters("TRACES")
    if chosen:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

        from claw.observe import exporters  # noqa: PLC0415 - 10 MB, only where something is exported

        exporters.quiet_sdk()
        if "otlp" in chosen:
            provider.add_span_processor(BatchSpanProcessor(exporters.SpanExporter()))
        if "console" in chosen:
            provider.add_span_processor(SimpleSpanProcessor(exporters.make_console_span_exporter()))
    return provider


def _make_meter_provider(*, scraped: bool) -> MeterProvider | None:
    readers = _make_pushing_readers(_exporters("METRICS"))
    if scraped:
        from claw.observe.prometheus import Exposition  # noqa: PLC0415 - 2 MB, only where something asks

        # Kept before the provider is there, for that is made of readers; `setup` drops it where that fails.
        _expositions.append(Exposition())
        readers.append(_expositions[-1].reader)
    if not readers:
        return None
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415

    return MeterProvider(readers, resource=_make_resource(), shutdown_on_exit=False)


def _make_pushing_readers(chosen: set[str]) -> list[MetricReader]:
    if not chosen:
        return []
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    from claw.observe import exporters  # noqa: PLC0415

    exporters.quiet_sdk()
    readers: list[MetricReader] = []
    if "otlp" in chosen:
        readers.append(PeriodicExportingMetricReader(exporters.MetricExporter()))
    if "console" in chosen:
        readers.append(PeriodicExportingMetricReader(exporters.make_console_metric_exporter()))
    return readers

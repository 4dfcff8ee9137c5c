"""Exporters of spans and metrics: over OTLP, in the same way out as everything else, or to the console.

An outage of the collector is told once and at its end: the SDK's exporters tell each failed batch, four lines a minute
for as long as it lasts. Proxy and CA settings are those of claw's other connections, not those of `requests`.
"""

from __future__ import annotations

import logging
import os
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult
from yarl import URL

from claw.language import Bilingual
from claw.proxy import proxy_of

if TYPE_CHECKING:
    import requests
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

UNDELIVERED: Final = Bilingual(
    "see OTEL_EXPORTER_OTLP_ENDPOINT; claw goes on without it",
    "检查 OTEL_EXPORTER_OTLP_ENDPOINT；claw 照常运行",
)

log: Final = logging.getLogger(__name__)

_EXPORTERS_LOGGER: Final = "opentelemetry.exporter.otlp.proto.http"
R = TypeVar("R")


class Outage:
    """The collector's outage, told once at its beginning and once at its end, for all signals together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self.cause = ""
        """What the SDK's exporter said last."""

    def note(self, signal: str, *, ok: bool) -> None:
        """Note how an export of a signal ended."""
        with self._lock:
            was = bool(self._failing)
            (self._failing.discard if ok else self._failing.add)(signal)
            now = bool(self._failing)
            cause = self.cause
        if now and not was:
            log.warning(
                "telemetry is not delivered",
                extra={"cause": cause, "remedy": UNDELIVERED},
            )
        elif was and not now:
            log.info("telemetry is delivered again")


class _CauseHandler(logging.Handler):
    """Keeps what the SDK's exporters say as the cause of an outage, in place of a line for each batch."""

    def __init__(self, outage: Outage) -> None:
        super().__init__()
        self._outage = outage

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # The last of several tries says only that it was the last; the cause stands in the line of the one before.
        if "max retries or shutdown" not in text or not self._outage.cause:
            self._outage.cause = text[:300]


outage: Final = Outage()


def quiet_sdk() -> None:
    """Take the lines of the SDK's exporters as causes of the outage, which is told by us."""
    logger = logging.getLogger(_EXPORTERS_LOGGER)
    logger.propagate = False
    if not any(isinstance(each, _CauseHandler) for each in logger.handlers):
        logger.addHandler(_CauseHandler(outage))


class SpanExporter(OTLPSpanExporter):
    """OTLP over HTTP for spans."""

    def __init__(self) -> None:
        super().__init__(session=make_session("TRACES"), certificate_file=find_ca("TRACES"))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        outage.note("traces", ok=result is SpanExportResult.SUCCESS)
        return result


class MetricExporter(OTLPMetricExporter):
    """OTLP over HTTP for metrics."""

    def __init__(self) -> None:
        super().__init__(session=make_session("METRICS"), certificate_file=find_ca("METRICS"))

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        outage.note("metrics", ok=result is MetricExportResult.SUCCESS)
        return result


def make_session(signal: str) -> requests.Session:
    """Make the HTTP session of a signal, with the proxy that claw's other connections would take."""
    import requests  # noqa: PLC0415 - the exporters have imported it

    session = requests.Session()
    session.trust_env = False  # `requests` would read the same variables by rules of its own, and `~/.netrc`.
    endpoint = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    proxy = proxy_of(URL(endpoint.strip()))
    if proxy is not None:
        session.proxies = {"http": str(proxy), "https": str(proxy)}
    return session


def find_ca(signal: str) -> str | None:
    """Return the CA file or folder that OpenSSL uses for the rest of claw; None where `OTEL_*` names one itself."""
    if any(os.environ.get(f"OTEL_EXPORTER_OTLP_{each}CERTIFICATE") for each in (f"{signal}_", "")):
        return None
    paths = ssl.get_default_verify_paths()  # SSL_CERT_FILE and SSL_CERT_DIR win in it over the system's.
    return paths.cafile or paths.capath


def make_console_span_exporter() -> ConsoleSpanExporter:
    """Make an exporter that writes each span as one line of JSON to standard output, for a developer."""
    return ConsoleSpanExporter(out=sys.stdout, formatter=_to_line(lambda span: span.to_json(indent=None)))


def make_console_metric_exporter() -> ConsoleMetricExporter:
    """Make an exporter that writes metrics as one line of JSON to standard output, for a developer."""
    return ConsoleMetricExporter(out=sys.stdout, formatter=_to_line(lambda data: data.to_json(indent=None)))


def _to_line(to_json: Callable[[R], str]) -> Callable[[R], str]:
    return lambda value: to_json(value) + "\n"

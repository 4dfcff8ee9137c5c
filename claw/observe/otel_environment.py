"""Values of `OTEL_*` that the SDK would stumble over: found before it reads them, told by name, and mended.

A wrong value of a foreign variable must not end the bot: some raise in the SDK's constructors, others let every export
fail without a word. `repair` says what to change in the environment and what the operator is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

GRPC_PORT: Final = 4317
"""OTLP over gRPC, which claw does not speak; over HTTP it is 4318."""
BATCH_SIZE_DEFAULT: Final = 512
"""Of `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, by the OpenTelemetry specification."""
SIGNALS: Final = ("TRACES", "METRICS")

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH_SIZE: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_ENDPOINTS: Final = (_ENDPOINT, *(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" for signal in SIGNALS))


def _is_whole(text: str, least: int) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", text)) and int(text) >= least


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text))


def _is_one_of(*words: str) -> Callable[[str], bool]:
    return lambda text: text.lower() in words


_NUMBERS: Final = ("OTEL_EXPORTER_OTLP_TIMEOUT", *(f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT" for signal in SIGNALS))
_POSITIVE: Final = (
    _QUEUE_SIZE, _BATCH_SIZE, "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
)  # fmt: skip
_LIMITS: Final = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
)  # fmt: skip
_CERTIFICATES: Final = tuple(
    f"OTEL_EXPORTER_OTLP_{signal}{kind}"
    for signal in ("", *(f"{each}_" for each in SIGNALS))
    for kind in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
)
_SAMPLERS: Final = (
    "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
    "parentbased_traceidratio",
)  # fmt: skip
_RULES: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    **dict.fromkeys(_NUMBERS, (_is_number, "a number of seconds")),
    **{name: (lambda text: _is_whole(text, 1), "a whole number above 0") for name in _POSITIVE},
    **{name: (lambda text: _is_whole(text, 0), "a whole number") for name in _LIMITS},
    **{name: (lambda text: Path(text).is_file(), "the path of a file that is there") for name in _CERTIFICATES},
    "OTEL_TRACES_SAMPLER": (_is_one_of(*_SAMPLERS), f"one of {', '.join(_SAMPLERS)}"),
    "OTEL_TRACES_SAMPLER_ARG": (lambda text: _is_number(text) and float(text) <= 1, "a share from 0 to 1"),
    "OTEL_METRICS_EXEMPLAR_FILTER": (
        _is_one_of("always_on", "always_off", "trace_based"),
        "one of always_on, always_off, trace_based",
    ),
    **{
        f"OTEL_EXPORTER_OTLP_{signal}COMPRESSION": (_is_one_of("none", "gzip", "deflate"), "one of none, gzip, deflate")
        for signal in ("", *(f"{each}_" for each in SIGNALS))
    },
}
"""Variable -> whether the SDK takes a value, and what would be right."""


def repair(environ: Mapping[str, str]) -> tuple[dict[str, str | None], list[str]]:
    """Return what to change (None: remove), and a sentence for each change or doubt, without values (keys may be)."""
    given = {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()}
    changes: dict[str, str | None] = {}
    warnings: list[str] = []
    for name, (is_right, right) in _RULES.items():
        if name in given and not is_right(given[name]):
            changes[name] = None
            warnings.append(f"{name}: its value is not usable and is left out; right would be {right}")
    _fit_batch(given, changes, warnings)
    for name in _ENDPOINTS:
        if name in given:
            _check_endpoint(name, given[name], changes, warnings)
    return changes, warnings


def _fit_batch(given: Mapping[str, str], changes: dict[str, str | None], warnings: list[str]) -> None:
    """Keep a batch within its queue: the SDK raises where it is larger, also when only the queue was set."""
    if _QUEUE_SIZE not in given or _QUEUE_SIZE in changes:
        return
    queue = int(given[_QUEUE_SIZE])
    batch = BATCH_SIZE_DEFAULT if _BATCH_SIZE in changes else int(given.get(_BATCH_SIZE, BATCH_SIZE_DEFAULT))
    if batch > queue:
        changes[_BATCH_SIZE] = str(queue)
        warnings.append(f"{_QUEUE_SIZE}: is below {_BATCH_SIZE} ({batch}), which is lowered to {queue}")


def _check_endpoint(name: str, text: str, changes: dict[str, str | None], warnings: list[str]) -> None:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        changes[name] = None
        warnings.append(f"{name}: its value is not usable, nothing is sent there; right would be http://host:4318")
        return
    if port == GRPC_PORT:
        warnings.append(f"{name}: port 4317 is that of OTLP over gRPC; claw speaks OTLP over HTTP, usually on 4318")
    path = parts.path.rstrip("/")
    if name == _ENDPOINT and path.endswith(("/v1/traces", "/v1/metrics", "/v1/logs")):
        changes[name] = parts._replace(path=path.rpartition("/v1/")[0]).geturl()
        warnings.append(f"{name}: is a base address, to which /v1/traces is added; the path at its end is left out")

"""The Prometheus Operator's PodMonitor and PrometheusRule, as far as a chart may write them.

Kubernetes' own schemas do not have them. The fields are those of the operator's API reference,
monitoring.coreos.com/v1; what is not named here is refused, so that a slip of a field's name is seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

API: Final = "monitoring.coreos.com/v1"
DURATION: Final = re.compile(r"([0-9]+(ms|[smhdwy]))+")
LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Check = Callable[[Any], bool]
Shape = dict[str, Any]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_duration(value: Any) -> bool:
    return isinstance(value, str) and DURATION.fullmatch(value) is not None


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair)


def _is_labels(value: Any) -> bool:
    return _is_texts(value) and all(LABEL.fullmatch(name) for name in value)


RELABELING: Final[Shape] = {
    "action": _is_text,
    "sourceLabels": [_is_text],
    "separator": _is_text,
    "regex": _is_text,
    "targetLabel": _is_text,
    "replacement": lambda value: isinstance(value, str),
    "modulus": lambda value: isinstance(value, int),
}
ENDPOINT: Final[Shape] = {
    "port!": _is_text,
    "path": _is_text,
    "interval": _is_duration,
    "scrapeTimeout": _is_duration,
    "relabelings": [RELABELING],
    "metricRelabelings": [RELABELING],
}
RULE: Final[Shape] = {
    "alert!": _is_text,
    "expr!": _is_text,
    "for": _is_duration,
    "labels": _is_labels,
    "annotations": _is_labels,
}
SPECS: Final[dict[str, Shape]] = {
    "PodMonitor": {"selector!": {"matchLabels!": _is_texts}, "podMetricsEndpoints!": [ENDPOINT]},
    "PrometheusRule": {"groups!": [{"name!": _is_text, "interval": _is_duration, "rules!": [RULE]}]},
}
"""What a spec may have; `!`: must. A list means several of its one element."""


def find_faults(manifest: dict[str, Any]) -> list[str]:
    """Return every fault of one of the operator's objects, by its place."""
    whole: Shape = {
        "apiVersion!": lambda value: value == API,
        "kind!": lambda value: value in SPECS,
        "metadata!": {"name!": _is_text, "namespace": _is_text, "labels": _is_texts, "annotations": _is_texts},
        "spec!": SPECS.get(manifest["kind"], {}),
    }
    return list(_walk(manifest, whole, ""))


def _walk(value: Any, shape: Any, path: str) -> Iterator[str]:
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            yield f"{path}: is no list of something"
            return
        for number, each in enumerate(value):
            yield from _walk(each, shape[0], f"{path}/{number}")
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{path}: is no object"
            return
        known = {name.removesuffix("!"): each for name, each in shape.items()}
        yield from (f"{path}/{name}: is not known" for name in value if name not in known)
        yield from (
            f"{path}/{name[:-1]}: is missing" for name in shape if name.endswith("!") and name[:-1] not in value
        )
        for name in value.keys() & known.keys():
            yield from _walk(value[name], known[name], f"{path}/{name}")
    elif not shape(value):
        yield f"{path}: {value!r} is not usable"

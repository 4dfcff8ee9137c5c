"""All meters as text for Prometheus, by OpenTelemetry's own reader. Imported only where `/metrics` is on.

Order of events: `telemetry.setup` puts the reader on the same provider as the others; each `render` collects and
writes; the provider's shutdown takes the reader away. Beside the meters it tells of the process what Prometheus' own
client tells of every process: its memory, its time, its files, its start.
"""

from __future__ import annotations

import threading
from typing import Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest


class Exposition:
    """The reader, and a registry of its own: the one that all of a process share would outlive it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registry: Final = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        # Without the resource and the scope: the route answers everybody, and both tell versions.
        self.reader: Final = PrometheusMetricReader(
            disable_target_info=True, scope_info_enabled=False, registry=self._registry
        )

    def render(self) -> bytes:
        """Collect, and return the text. Blocks for some milliseconds."""
        # One at a time: collections share the reader's queue, and of two at once one may write both and the other none.
        with self._lock:
            return generate_latest(self._registry)

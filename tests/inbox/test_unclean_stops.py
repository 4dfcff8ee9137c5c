"""`claw.unclean_stops`: what a process finds of others that ended without a word is counted, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from claw.inbox.operator_alerts import RunMarks
from claw.observe import telemetry
from claw.store.sqlite.store import SqliteStore
from tests.clock import FakeClock


async def test_unclean_stops_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean beginning counts nothing but is told; a mark of one's own name counts, and so do those of the lost."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(telemetry, "unclean_stops", provider.get_meter("tests").create_counter("stops"))

    def count() -> int:
        data: Any = reader.get_metrics_data()
        return int(data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0].value)

    clock, store = FakeClock(), SqliteStore(tmp_path / "claw.db")
    await store.open()
    try:
        pod, other = RunMarks(store, store, "pod:1", clock), RunMarks(store, store, "other:1", clock)
        assert await pod.begin()
        assert count() == 0
        clock.jump(60)
        assert not await pod.begin()
        assert count() == 1
        assert await other.begin()
        assert await pod.find_left() == ["other:1"]
        assert await pod.find_left() == []
        assert count() == 2
        await pod.end()
        clock.jump(60)
        assert await pod.begin()
        assert count() == 2
    finally:
        await store.close()
        provider.shutdown()

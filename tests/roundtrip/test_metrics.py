"""`/metrics` of a real claw: an answered message is counted; off, it costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from claw.emulator import Emulator
from tests.scrapes import find_value, wait_value
from tests.service import environment, running

pytestmark = pytest.mark.timeout(90)

TELLING: Final = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps({"message": "modules", "names": sorted(sys.modules)}), file=sys.stderr))
from claw.__main__ import main
sys.exit(main(["run"]))
"""
"""A `claw run` that tells at its end what it has imported."""


async def test_a_round_trip_is_counted(emulator: Emulator, tmp_path: Path) -> None:
    """With CLAW_METRICS=on an answered message is one round trip of that outcome, without a token, until the end."""
    environ = environment(emulator.url, tmp_path / "claw.db", CLAW_METRICS="on")
    async with running(environ, tmp_path, ("-c", TELLING)) as service:
        await emulator.wait_reply_to(await emulator.say("a very private question"))
        # The last of what one message is counted by: a scrape before it would miss some.
        text = await wait_value(service, 1, "claw_turn_duration_seconds_count", outcome="answered")
        assert find_value(text, "claw_round_trip_duration_seconds_count", outcome="answered") == 1
        assert find_value(text, "claw_dingtalk_calls_total", api="webhook", outcome="ok") == 1
        assert find_value(text, "claw_stream_connected") == 2
        assert find_value(text, "claw_model_up") == 1
        assert find_value(text, "process_resident_memory_bytes") > 0
        for private in ("private question", "u-1001", "u-owner", "target_info", "python"):
            assert private not in text
        assert await service.terminate() == 0
    assert "prometheus_client" in (await service.wait_log("modules"))["names"]


async def test_off_it_costs_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """By default there is no route, and neither Prometheus' client nor the SDK's metrics exporters are imported."""
    environ = environment(emulator.url, tmp_path / "claw.db")
    async with running(environ, tmp_path, ("-c", TELLING)) as service:
        await emulator.wait_reply_to(await emulator.say("hello"))
        assert (await service.get("/metrics"))[0] == 404
        assert await service.terminate() == 0
    imported = (await service.wait_log("modules"))["names"]
    assert "claw.app" in imported
    assert not [name for name in imported if name.startswith(("prometheus_client", "opentelemetry.exporter"))]

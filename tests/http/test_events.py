"""`GET /api/events`: one look for all pages, a bound on their number, an end in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from claw.clock import Clock
from claw.http import events
from claw.http.events import STREAMS_MAX, EventStreams
from claw.http.responses import ApiError


class Source:
    """A status that tests change, and that counts who asks."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {"uptime_s": 1, "state": "OPEN"}
        self.asked = 0

    async def snapshot(self) -> dict[str, Any]:
        self.asked += 1
        self.status["uptime_s"] += 1
        return dict(self.status)


@web.middleware
async def render(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answered: web.StreamResponse = await handler(request)
    except ApiError as error:
        return error.to_response()
    return answered


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(events, "LOOK_S", 0.05)
    return Source()


async def test_pages_share_one_look_and_end_in_order(source: Source) -> None:
    """Many pages cost as much as one, a change reaches each, uptime alone is none, one page too many is told so."""
    streams = EventStreams(source.snapshot, Clock())
    app = web.Application(middlewares=[render])
    app.add_routes(events.routes(streams))
    async with TestClient(TestServer(app)) as client:
        opened = [await client.get("/api/events") for _ in range(STREAMS_MAX)]
        refused = await client.get("/api/events")
        assert refused.status == 503
        assert (await refused.json())["error"]["code"] == "too_many_streams"
        firsts = [(await each.content.readuntil(b"\n\n")).decode() for each in opened]
        assert all(first.startswith("event: status\ndata: {") for first in firsts)
        asked = source.asked
        await asyncio.sleep(0.5)
        # Some looks, however many pages: each by itself would have asked ten times.
        assert source.asked - asked <= 25
        source.status["state"] = "名\ud83d\nx"
        news = [(await each.content.readuntil(b"\n\n")).decode() for each in opened]
        assert all("名" in each and each.count("\n") == 3 for each in news)
        streams.drain()
        ends = [(await each.content.readuntil(b"\n\n")).decode() for each in opened]
        assert set(ends) == {"event: end\ndata: {}\n\n"}
        for each in opened:
            each.close()

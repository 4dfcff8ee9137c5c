"""`GET /api/events`: the status as server-sent events, for the operator's page.

Order of events for one stream: the status at once, then whenever it changed, looked at each LOOK_S; a comment each
ALIVE_S, so that a proxy keeps the connection; `end` when claw drains. Each stream is one of STREAMS_MAX.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from claw.clock import Clock
from claw.http.responses import HEADERS, ApiError

LOOK_S: Final = 2.0
"""Seconds between two looks."""
ALIVE_S: Final = 15.0
"""Seconds between two signs of life."""
STREAMS_MAX: Final = 16
"""Streams at the same time: each of them asks all sources."""
_MOVING: Final = ("uptime_s",)
"""Figures whose change alone is no event."""


class EventStreams:
    """Serves the streams. All of them share one look at the status: `snapshot` is asked once for each LOOK_S."""

    def __init__(self, snapshot: Callable[[], Awaitable[dict[str, Any]]], clock: Clock) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._open = 0
        self._draining = asyncio.Event()
        self._seen: tuple[float, str, str] | None = None
        """When it was looked at, the JSON, and what of it counts as a change."""
        self._looking = asyncio.Lock()

    def drain(self) -> None:
        """End every stream, in order."""
        self._draining.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one stream until its reader goes, or claw drains."""
        # Refused, and not the oldest closed: two pages that push each other out would both flicker for ever.
        if self._open >= STREAMS_MAX:
            raise ApiError(503, "too_many_streams", f"{STREAMS_MAX} pages are open already")
        self._open += 1
        try:
            response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
            # By the port's own limits a page is a connection like any other: a flood closes the oldest.
            # A connection of its own: nothing can follow on it.
            response.force_close()
            await response.prepare(request)
            await self._send_all(response)
            return response
        finally:
            self._open -= 1

    async def _send_all(self, response: web.StreamResponse) -> None:
        sent, written_at = "", self._clock.monotonic()
        try:
            while not self._draining.is_set():
                status, mark = await self._look()
                now = self._clock.monotonic()
                # Uptime grows with each look, and is no news.
                if mark != sent:
                    await response.write(f"event: status\ndata: {status}\n\n".encode("utf-8", "backslashreplace"))
                    sent, written_at = mark, now
                elif now - written_at >= ALIVE_S:
                    await response.write(b": alive\n\n")
                    written_at = now
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._draining.wait()
            await response.write(b"event: end\ndata: {}\n\n")
        except ConnectionError:
            pass  # Its reader has gone.

    async def _look(self) -> tuple[str, str]:
        # One look for all: of several pages the first asks, and the others take what it found.
        async with self._looking:
            now = self._clock.monotonic()
            if self._seen is None or now - self._seen[0] >= LOOK_S / 2:
                status = await self._snapshot()
                mark = {name: value for name, value in status.items() if name not in _MOVING}
                self._seen = now, json.dumps(status, ensure_ascii=False), json.dumps(mark)
            return self._seen[1], self._seen[2]


def routes(streams: EventStreams) -> list[web.RouteDef]:
    """Make the route, an administrator's."""
    return [web.get("/api/events", streams.serve)]

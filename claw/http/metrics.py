"""`GET /metrics`: what `claw/observe` renders of all meters, for Prometheus.

Order of events: a request gets the text of a moment ago, if there is one; else a thread renders it, and whoever asks
meanwhile waits for the same text. The route answers everybody, so that many askers must cost as much as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs, web

from claw.clock import Clock
from claw.http.responses import ApiError

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format that every Prometheus reads."""
CACHE_S: Final = 0.5
"""Seconds for which a text answers later requests too; Prometheus asks every 15 s or less often."""

Render = Callable[[], bytes | None]
"""Returns the text; None where the meters cannot be read so. Blocks."""


class _Scrapes:
    """One rendering at a time, shared by all who ask."""

    def __init__(self, render: Render, clock: Clock) -> None:
        self._render = render
        self._clock = clock
        self._rendering = asyncio.Lock()
        self._text: bytes | None = None
        self._read_at = float("-inf")

    async def read(self) -> bytes:
        """Return the text. Raises ApiError 503."""
        async with self._rendering:
            if self._clock.monotonic() - self._read_at >= CACHE_S:
                # In a thread: it takes milliseconds, reads /proc, and walks over every series.
                self._text = await asyncio.to_thread(self._render)
                # The time after it: who waited for a slow one is answered by it, too.
                self._read_at = self._clock.monotonic()
            # An error and no empty text, by which Prometheus would take the target for well.
            if self._text is None:
                raise ApiError(503, "no_metrics", "the meters cannot be read here; the log of the start says why")
            return self._text


def routes(render: Render, clock: Clock | None = None) -> list[web.RouteDef]:
    """Make the route, which answers everybody."""
    scrapes = _Scrapes(render, clock or Clock())

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=await scrapes.read(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    return [web.get("/metrics", get_metrics)]

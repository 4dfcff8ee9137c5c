"""What happens in the emulator, told live to the pages that look at it (server-sent events).

Order of events: a page subscribes and gets a queue; whatever happens is put in every queue; a page that is too slow
loses its queue's content and is told to read the whole state again. With no page open, telling costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

BACKLOG_MAX: Final = 500
"""Events that wait for one page at most."""


class Feed:
    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def publish(self, kind: str, make: Callable[[], dict[str, Any]]) -> None:
        """Tell every page; `make` is called only when one listens."""
        if not self._queues:
            return
        event = {"type": kind, **make()}
        for queue in self._queues:
            if queue.qsize() >= BACKLOG_MAX:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait({"type": "resync"})
            queue.put_nowait(event)

    def subscribe(self) -> asyncio.Queue[dict[str, Any] | None]:
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._queues.discard(queue)

    def close(self) -> None:
        """End every page's stream."""
        for queue in self._queues:
            queue.put_nowait(None)

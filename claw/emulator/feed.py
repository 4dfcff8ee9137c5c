"""What the pages see live (server-sent events), and the last frames for those that come later.

Order of events: a page subscribes and gets a queue; whatever happens is put in every queue; a page that is too slow
loses its queue's content and is told to read the whole state again. With no page open, publishing costs nothing.
"""

from __future__ import annotations

import asyncio
import collections
import re
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

BACKLOG_MAX: Final = 500
"""Events that wait for one page at most."""
FRAME_LOG_MAX: Final = 200
"""Frames that the state shows."""
FRAME_TEXT_CHARS: Final = 1500
"""What is remembered of one frame: one frame may be megabytes, and the page needs its beginning only."""
SECRET_PATTERN: Final = re.compile(
    r"(session=)[0-9a-f]{8,}|([0-9a-f]{8})-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|(downloadCode\W+)[\w-]{8,}"
)
"""Sessions, tickets (version-1 UUIDs) and download codes."""


class LoggedFrame(NamedTuple):
    at: float
    """Seconds since the epoch."""
    connection: str
    direction: str
    """`out` to the client, `in` from it."""
    text: str

    def to_dict(self) -> dict[str, Any]:
        # Masked here and not when it is logged: a bench sends millions of frames and nobody looks at them.
        text = SECRET_PATTERN.sub(lambda hit: f"{hit[1] or hit[3] or hit[2]}…", self.text)
        return self._asdict() | {"text": text}


class Feed:
    def __init__(self) -> None:
        self.frames: collections.deque[LoggedFrame] = collections.deque(maxlen=FRAME_LOG_MAX)
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def publish(self, kind: str, make: Callable[[], dict[str, Any]]) -> None:
        """Tell every page; `make` is called only when one listens."""
        # The usual case in tests and benches: not even the event is built, which a bench would feel.
        if not self._queues:
            return
        event = {"type": kind, **make()}
        for queue in self._queues:
            if queue.qsize() >= BACKLOG_MAX:
                # Dropping single events would leave the page wrong for ever; after a resync it is right again.
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait({"type": "resync"})
            queue.put_nowait(event)

    def log_frame(self, connection_id: str, direction: str, text: str) -> None:
        frame = LoggedFrame(time.time(), connection_id, direction, text[:FRAME_TEXT_CHARS])
        self.frames.append(frame)
        self.publish("frame", frame.to_dict)

    def subscribe(self) -> asyncio.Queue[dict[str, Any] | None]:
        """Return a page's queue; None in it ends the stream."""
        # Unbounded for asyncio: publishing must not wait, so the bound is kept above, where old events are dropped.
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._queues.discard(queue)

    def close(self) -> None:
        """End every page's stream."""
        for queue in self._queues:
            queue.put_nowait(None)

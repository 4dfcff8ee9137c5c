"""The last frames that were written and read, as the page shows them, without their secrets.

Order of events: the pushes and the acks add every frame as it passes; the page gets it at once from the feed, and the
whole log when it asks for the state.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import time
from typing import Any, Final

from claw.emulator.feed import Feed

FRAME_LOG_MAX: Final = 200
"""Frames that the state shows."""
FRAME_TEXT_CHARS: Final = 1500
"""What is remembered of one frame: one frame may be megabytes, and the page needs its beginning only."""
SECRET_PATTERN: Final = re.compile(
    r"(session=)[0-9a-f]{8,}|([0-9a-f]{8})-[0-9a-f]{4}-1[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|(downloadCode\W+)[\w-]{8,}"
)
"""Sessions, tickets (version-1 UUIDs) and download codes."""


@dataclasses.dataclass(frozen=True)
class LoggedFrame:
    at: float
    """Seconds since the epoch."""
    connection: str
    direction: str
    """`out` to the client, `in` from it."""
    text: str

    def to_dict(self) -> dict[str, Any]:
        # Masked here and not when it is logged: a bench sends millions of frames and nobody looks at them.
        text = SECRET_PATTERN.sub(lambda hit: f"{hit[1] or hit[3] or hit[2]}…", self.text)
        return {"at": self.at, "connection": self.connection, "direction": self.direction, "text": text}


class FrameLog:
    def __init__(self, feed: Feed) -> None:
        self.frames: collections.deque[LoggedFrame] = collections.deque(maxlen=FRAME_LOG_MAX)
        self._feed = feed

    def add(self, connection_id: str, direction: str, text: str) -> None:
        frame = LoggedFrame(time.time(), connection_id, direction, text[:FRAME_TEXT_CHARS])
        self.frames.append(frame)
        self._feed.publish("frame", frame.to_dict)

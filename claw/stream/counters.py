"""What went through the sessions of a slot, and the log lines of what did not: few, however much comes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from claw.language import Bilingual
from claw.stream.upgrade import FRAME_MAX_BYTES

log: Final = logging.getLogger(__name__)

LOGGED: Final = 10
LOGGED_EVERY_S: Final = 60.0
"""Of each kind, the first 10 are logged and then one a minute, with the count: a broken peer must not fill the disk."""
TOO_LARGE_REMEDY: Final = Bilingual(
    "DingTalk pushed a message above 8 MiB, which cannot be read and ended its connection; another one follows. "
    "DingTalk pushes it once more after 60 s. Whoever sent it gets no answer: have it sent in pieces, or as a file.",
    "钉钉推送了一条超过 8 MiB 的消息，无法读取，所在连接因此断开并重连；钉钉会在 60 秒后再推送一次。"
    "发送者不会收到回复：请其拆成几条，或改为发送文件。",
)


@dataclass(slots=True)
class SessionCounters:
    """What went through the sessions of a slot. Times: seconds since the epoch, 0 for never."""

    frames: int = 0
    refused: int = 0
    too_large: int = 0
    too_large_at: float = 0.0
    last_frame_at: float = 0.0

    logged_at: dict[str, float] = field(default_factory=dict)
    """By line, when it was logged last."""

    def note_refused(self, reason: str, size: int, at: float) -> None:
        """Count a frame that we could do nothing with; `size` in characters or bytes, since its text may be private."""
        self.refused += 1
        if self._is_logged("refused", self.refused, at):
            log.warning("frame refused", extra={"reason": reason, "size": size, "refused": self.refused})

    def note_too_large(self, at: float) -> None:
        """Count a frame of which nothing could be read, so that nobody can be told but the operator."""
        self.too_large += 1
        self.too_large_at = at
        if self._is_logged("too_large", self.too_large, at):
            extra = {"limit": FRAME_MAX_BYTES, "count": self.too_large, "remedy": TOO_LARGE_REMEDY}
            log.error("frame too large", extra=extra)

    def _is_logged(self, line: str, count: int, at: float) -> bool:
        # By the distance: a clock that is set back must not silence us until it has caught up.
        if count > LOGGED and abs(at - self.logged_at[line]) < LOGGED_EVERY_S:
            return False
        self.logged_at[line] = at
        return True

"""How far our clock is from DingTalk's, as its answers tell by their `Date` (RFC 9110, 6.6.1).

Order of events of `measure`: the header is read; DingTalk wrote it at some moment of the exchange, for which its middle
is taken, and cut it to whole seconds, for which half a second is added. So the result is right to about a second and
half the exchange. What is told is only a change between in time, ahead and behind.

Nothing is decided by it: whether a time that DingTalk named has passed, DingTalk says. It is for people, whose logs,
traces, daily limits and months of calls are off by as much.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Final

from claw.language import Bilingual
from claw.retry import parse_http_date

SKEW_MAX_S: Final = 60.0
"""Seconds of skew that nobody is told of: what a machine without NTP collects in weeks."""
_DATE_HALF_S: Final = 0.5
_REMEDY: Final = Bilingual(
    "This machine's clock differs from DingTalk's, and so do the times in logs, the daily "
    "limits and the months of calls: turn on time synchronisation (NTP, chrony) on the host; containers use its clock.",
    "本机时钟与钉钉不一致：日志时间、每日限额和用量月份都会偏差。请在宿主机上启用时间同步（NTP、chrony）；"
    "容器用的是宿主机的时钟。",
)

log: Final = logging.getLogger(__name__)


class SkewState(Enum):
    """Which way our clock is off, if far enough to be told."""

    IN_TIME = "in time"
    AHEAD = "ahead"
    BEHIND = "behind"


class ClockSkew:
    """What the answers so far told."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        """Seconds by which our clock is ahead of DingTalk's, negative where it is behind; None: not known."""
        self._state = SkewState.IN_TIME

    def measure(self, date: str | None, *, received_at: float, took_s: float) -> None:
        """Read the `Date` of an answer of DingTalk's that came at `received_at` (our epoch) after `took_s` seconds."""
        theirs = parse_http_date(date)
        if theirs is None:
            return
        self.seconds = (received_at - took_s / 2) - (theirs + _DATE_HALF_S)
        state = SkewState.IN_TIME
        if abs(self.seconds) > SKEW_MAX_S:
            state = SkewState.AHEAD if self.seconds > 0 else SkewState.BEHIND
        if state is not self._state:
            self._transition(state, round(self.seconds))

    def _transition(self, state: SkewState, seconds: int) -> None:
        self._state = state
        extra = {"clock": state.value, "skew_s": seconds}
        if state is SkewState.IN_TIME:
            log.info("our clock agrees with DingTalk's again", extra=extra)
        else:
            log.warning("our clock differs from DingTalk's", extra={**extra, "remedy": _REMEDY})

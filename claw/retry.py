"""What to do about an error: one pure function, and the waits that follow from it.

`verdict` maps every error, ours or a library's, to NOW, BACKOFF, REJECTED or FATAL; tests/test_retry.py holds the
table row by row. `full_jitter` draws each wait from 0 to a ceiling that doubles, so that many clients of
one broken server do not come back in step.
"""

from __future__ import annotations

import math
import random
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

import aiohttp

from claw.errors import ClawError, GatewayError, SessionLostError

STEADY_S: Final = 5.0
"""Seconds that a connection must have served to be replaced at once; a shorter one counts as a failed try."""

RETRY_AFTER_MAX_S: Final = 3600.0
"""Seconds of a Retry-After that are believed: a wrong date must not silence us for a day."""


class Verdict(Enum):
    """What another try is worth."""

    NOW = "now"
    """The link broke, nothing says that it is down: try at once."""
    BACKOFF = "backoff"
    """The other side is in trouble: try again, after growing waits."""
    REJECTED = "rejected"
    """The other side understood and refused: only a person can cure it; look again at long intervals."""
    FATAL = "fatal"
    """Ours: a fault of the program or a wish to stop. Never retried."""


def verdict(error: BaseException) -> Verdict:
    """Classify `error` (table in tests/test_retry.py; facts: docs/protocol.md section 1.3, docs/architecture.md)."""
    if isinstance(error, ClawError):
        return _verdict_of_ours(error)
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError | EOFError):
        return Verdict.NOW
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    ):
        return Verdict.NOW
    # InvalidURL stands for an address that the other side sent us, hence another try may bring a better one.
    if isinstance(error, TimeoutError | aiohttp.ClientError | OSError):
        return Verdict.BACKOFF
    return Verdict.FATAL


def _verdict_of_ours(error: ClawError) -> Verdict:
    if isinstance(error, GatewayError) and error.reason.is_rejection:
        return Verdict.REJECTED
    if isinstance(error, SessionLostError) and error.lived >= STEADY_S:
        return Verdict.NOW
    return Verdict.BACKOFF if error.retryable else Verdict.FATAL


def full_jitter(tries: int, *, base: float, ceiling: float, rng: random.Random | None = None) -> float:
    """Draw the seconds to wait after `tries` failures (1 or more), from 0 to min(ceiling, base * 2^(tries-1))."""
    limit = min(ceiling, base * 2 ** min(max(tries, 1) - 1, 30))
    return (rng or random).uniform(0, limit)


def parse_http_date(header: str | None) -> float | None:
    """Read an HTTP date (RFC 9110, 5.6.7) as seconds since the epoch; None where it is none."""
    try:
        date = parsedate_to_datetime((header or "").strip())
        # The zone "-0000" makes a date without one, which would be read as this machine's local time.
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def parse_retry_after(header: str | None, wall: float) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds to wait, 0 to 3 600; None where it says nothing usable.

    A date is measured against `wall`, in seconds since the epoch: the server's own `Date` where it sends one, as two
    machines' clocks differ.
    """
    value = (header or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
        seconds = float(value)
    else:
        date = parse_http_date(value)
        if date is None:
            return None
        seconds = date - wall
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if math.isfinite(seconds) else None

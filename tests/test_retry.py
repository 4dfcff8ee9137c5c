"""The table of `claw.retry.verdict`, row by row, the bounds of `full_jitter`, and what a Retry-After may hold."""

from __future__ import annotations

import asyncio
import random
import ssl
import time

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from claw import errors
from claw.retry import RETRY_AFTER_MAX_S, STEADY_S, Verdict, full_jitter, parse_http_date, parse_retry_after, verdict

KEY = ConnectionKey("h", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # The connection to DingTalk (docs/architecture.md).
        (errors.SessionLostError("lost", lived=STEADY_S), Verdict.NOW),
        (errors.SessionLostError("lost", lived=3600), Verdict.NOW),
        (errors.SessionLostError("lost", lived=STEADY_S - 0.1), Verdict.BACKOFF),
        (errors.GatewayError(errors.GatewayReason.UNAUTHORIZED, "401", status=401), Verdict.REJECTED),
        (errors.GatewayError(errors.GatewayReason.BUSY, "503", status=503), Verdict.BACKOFF),
        (errors.GatewayError(errors.GatewayReason.THROTTLED, "429", status=429, retry_after=7), Verdict.BACKOFF),
        (errors.GatewayError(errors.GatewayReason.TIMEOUT, "no answer"), Verdict.BACKOFF),
        (errors.HandshakeError("401", status=401), Verdict.BACKOFF),
        (errors.FrameError("no JSON", size=3), Verdict.FATAL),
        # Store.
        (errors.StoreError("disk"), Verdict.BACKOFF),
        (errors.StoreBusyError("held"), Verdict.FATAL),
        (errors.StoreSchemaError("newer"), Verdict.FATAL),
        (errors.LeaseLostError("gone"), Verdict.FATAL),
        # Model and replies say it themselves.
        (errors.ModelError(errors.ModelErrorKind.BUSY, "429", retryable=True), Verdict.BACKOFF),
        (errors.ModelError(errors.ModelErrorKind.BAD_REQUEST, "400"), Verdict.FATAL),
        (errors.DingTalkError("send", "busy", retryable=True), Verdict.BACKOFF),
        (errors.DingTalkError("send", "no"), Verdict.FATAL),
        (errors.MediaError("too large"), Verdict.FATAL),
        (errors.SettingsError(["x"]), Verdict.FATAL),
        # A link that broke.
        (ConnectionResetError(), Verdict.NOW),
        (ConnectionAbortedError(), Verdict.NOW),
        (BrokenPipeError(), Verdict.NOW),
        (EOFError(), Verdict.NOW),
        (aiohttp.ServerDisconnectedError(), Verdict.NOW),
        (aiohttp.ClientOSError(104, "reset"), Verdict.NOW),
        (aiohttp.ClientConnectionResetError(), Verdict.NOW),
        # A peer in trouble, or out of reach.
        (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), Verdict.BACKOFF),
        (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "unknown")), Verdict.BACKOFF),
        (aiohttp.ClientPayloadError(), Verdict.BACKOFF),
        (aiohttp.InvalidURL("ws://"), Verdict.BACKOFF),
        (aiohttp.ServerTimeoutError(), Verdict.BACKOFF),
        (TimeoutError(), Verdict.BACKOFF),
        (ConnectionRefusedError(), Verdict.BACKOFF),
        (ssl.SSLError(), Verdict.BACKOFF),
        (OSError(101, "unreachable"), Verdict.BACKOFF),
        # A wish to stop, and faults of our own.
        (asyncio.CancelledError(), Verdict.FATAL),
        (KeyboardInterrupt(), Verdict.FATAL),
        (SystemExit(), Verdict.FATAL),
        (TypeError("ours"), Verdict.FATAL),
        (ValueError("ours"), Verdict.FATAL),
        (RuntimeError("ours"), Verdict.FATAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
def test_verdict(error: BaseException, expected: Verdict) -> None:
    """Every error has one verdict."""
    assert verdict(error) is expected


@pytest.mark.parametrize(
    ("tries", "limit"), [(-1, 0.5), (0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (6, 10.0), (10_000, 10.0)]
)
def test_backoff_is_full_jitter_below_a_doubling_ceiling(tries: int, limit: float) -> None:
    """A wait lies anywhere from zero to min(ceiling, base * 2^(tries-1)), also after very many tries."""
    draw = random.Random(7)
    waits = [full_jitter(tries, base=0.5, ceiling=10.0, rng=draw) for _ in range(500)]
    assert 0 <= min(waits) < 0.1 * limit
    assert 0.9 * limit < max(waits) <= limit


NOW = 1_800_000_000.0
"""Fri, 15 Jan 2027 08:00:00 GMT."""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7.5 ", 7.5),
        ("86400", RETRY_AFTER_MAX_S),
        ("9" * 300, RETRY_AFTER_MAX_S),
        ("Fri, 15 Jan 2027 08:00:20 GMT", 20.0),
        ("Fri, 15 Jan 2027 08:00:20 -0000", 20.0),
        ("Fri, 15 Jan 2027 16:00:20 +0800", 20.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Jan 2037 08:00:00 GMT", RETRY_AFTER_MAX_S),
    ],
)
def test_retry_after(header: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds and dates are read alike, whatever this machine's zone is, and never for longer than an hour."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert parse_retry_after(header, NOW) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "header", [None, "", "soon", "-1", "1e9", "nan", "inf", "1.2.3", "٣", "9" * 400, "Wed, 99 Foo 2026"]
)
def test_retry_after_that_is_none(header: str | None) -> None:
    """A Retry-After that cannot be read is as if it were not there."""
    assert parse_retry_after(header, NOW) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:01:00 GMT", 60.0),
        (" Thu, 01 Jan 1970 00:01:00 -0000 ", 60.0),
        ("Thu, 01 Jan 1970 01:01:00 +0100", 60.0),
        ("yesterday", None),
        ("", None),
        (None, None),
        ("Thu, 01 Jan 999999 00:01:00 GMT", None),
    ],
)
def test_http_dates(header: str | None, seconds: float | None) -> None:
    """A date is one of the epoch, whatever this machine's zone; anything else says nothing."""
    assert parse_http_date(header) == seconds

"""One HTTP call of DingTalk: bounded in time and size, never redirected, counted, and traced where it sends.

Order of events: encode the body, open the span, post (again only where a pooled connection was already dead,
claw/http_client.py), read a bounded answer, let the api's own judge say what it means, count it, return its JSON
object or raise DingTalkError. No error that leaves here holds a URL or a header: the library's errors, which do, are
left behind.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, Final, NamedTuple

import aiohttp
from opentelemetry.trace import Span, SpanKind, StatusCode
from yarl import URL

from claw import __version__
from claw.clock import Clock
from claw.errors import DingTalkError
from claw.http_client import read_at_most, send
from claw.observe import telemetry

CALL_TIMEOUT: Final = 10.0
"""Seconds that one call may take in all, its one repetition included (PROTOCOL section 8, row 1)."""
ANSWER_MAX: Final = 256 * 1024
"""Bytes of an answer that are read; DingTalk's own take a few hundred."""
RETRY_AFTER_MAX: Final = 3600.0
"""Seconds of a Retry-After that are believed."""
THROTTLE_WAIT: Final = 2.0
"""Seconds to wait after too many calls a second (the window is 1 s, PROTOCOL section 6.6)."""
DINGTALK_TIME: Final = timezone(timedelta(hours=8))
"""Asia/Shanghai, in which DingTalk's quota months begin; without summer time since 1991."""
HIDDEN_MIN: Final = 16
"""Bytes from which a secret in an answer cannot be there by chance; DingTalk's tokens have 32."""
REPLY_MODE: Final = "markdown"
"""Value of `claw.reply.mode`; by which api it went is told by `server.address` and `claw.dingtalk.calls{api}`."""

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": f"claw/{__version__}",
}

Json = dict[str, Any]
ErrorClassifier = Callable[[int, Json | None], DingTalkError | None]
"""(HTTP status, JSON object of the answer, None where it has none) -> what is wrong with it."""


class Api(StrEnum):
    """A call's short name: in errors, in `claw.dingtalk.calls{api}` and in the ledger."""

    TOKEN = "token"  # noqa: S105 - a call's name
    WEBHOOK = "webhook"
    DIRECT = "direct"
    GROUP = "group"
    DOWNLOAD = "download"


BILLABLE: Final = frozenset(Api) - {Api.TOKEN}
"""Calls that a month's quota counts (PROTOCOL section 6.6); WEBHOOK has a quota of its own, beside the OpenAPI's."""


def month_of(seconds: float) -> str:
    """The calendar month in which DingTalk counts a call (China Standard Time), such as `2026-11`."""
    return datetime.fromtimestamp(seconds, DINGTALK_TIME).strftime("%Y-%m")


class CallCounter:
    """How many calls were made, by month and api, until somebody takes them to the ledger.

    Counted is what DingTalk answered: not what was throttled or never arrived, as in its own accounts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, Counter[str]] = {}

    def count(self, api: str) -> None:
        month = month_of(self._clock.wall())
        self._counts.setdefault(month, Counter())[str(api)] += 1

    def peek(self) -> dict[str, dict[str, int]]:
        """Month (`2026-11`) -> api -> calls since the last `take`."""
        return {month: dict(counts) for month, counts in self._counts.items()}

    def take(self) -> dict[str, dict[str, int]]:
        """What `peek` gives, to be kept elsewhere from now on."""
        taken = self.peek()
        self._counts.clear()
        return taken

    def put_back(self, taken: Mapping[str, Mapping[str, int]]) -> None:
        """Count again what could not be kept elsewhere."""
        for month, counts in taken.items():
            self._counts.setdefault(month, Counter()).update(counts)


class ErrorRule(NamedTuple):
    """What a code or status of DingTalk means."""

    reason: str
    retryable: bool = False
    retry_after: float | None = None
    """Seconds to wait before another try."""
    maybe_delivered: bool = False
    """The call may have done its work all the same."""


def rule_of_status(status: int) -> ErrorRule:
    """What an HTTP status means where DingTalk gave no code that is known."""
    if status == 429:
        return ErrorRule("too many calls", retryable=True, retry_after=THROTTLE_WAIT)
    if status == 408 or status >= 500:
        # A gateway's 502 and 504 tell of its own wait, not of what the server behind it has done.
        return ErrorRule(f"HTTP {status}: DingTalk is in trouble", retryable=True, maybe_delivered=status in {502, 504})
    if 200 <= status < 300:
        return ErrorRule("an answer that is not DingTalk's", retryable=True, maybe_delivered=True)
    return ErrorRule(f"HTTP {status}: refused")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: Json | None
    retry_after: float | None


class DingTalkClient:
    """Makes calls over one HTTP session, which its owner closes. `timeout`: seconds for a call in all."""

    def __init__(self, http: aiohttp.ClientSession, calls: CallCounter, *, timeout: float = CALL_TIMEOUT) -> None:
        self._http = http
        self._calls = calls
        self._timeout = timeout
        # The whole is timed by ourselves; a connection that never came is told apart: nothing was sent on it.
        self._connecting = aiohttp.ClientTimeout(total=None, connect=timeout / 2)

    async def post(
        self,
        api: Api,
        url: URL,
        payload: Mapping[str, object],
        judge: ErrorClassifier,
        *,
        headers: Mapping[str, str] | None = None,
        hidden: str = "",
        traced: bool = False,
    ) -> Json:
        """The JSON object of a good answer. Raises DingTalkError, and nothing else but cancellation.

        `hidden` is a secret of the request: an answer that repeats it is not read, lest it gets into an error.
        """
        data = encode(payload)
        with _span(url) if traced else _no_span() as span:
            answer = await self._exchange(api, url, data, {**_HEADERS, **(headers or {})}, hidden.encode())
            error = self._settle(api, answer, judge, span)
            if error is not None:
                raise error
            return answer.body or {} if isinstance(answer, _Answer) else {}

    def _settle(
        self, api: Api, answer: _Answer | DingTalkError, judge: ErrorClassifier, span: Span | None
    ) -> DingTalkError | None:
        """Judge, count and trace."""
        if isinstance(answer, DingTalkError):
            error: DingTalkError | None = answer
        else:
            error = judge(answer.status, answer.body)
            if error is not None and error.retryable and answer.retry_after is not None:
                error.retry_after = max(answer.retry_after, error.retry_after or 0.0)
            if error is None or not (error.retryable and error.retry_after):
                self._calls.count(api)
        telemetry.dingtalk_calls.add(1, {"api": api.value, "outcome": _outcome(error)})
        if span is not None:
            _describe(span, answer, error)
        return error

    async def _exchange(
        self, api: Api, url: URL, data: bytes, headers: Mapping[str, str], hidden: bytes
    ) -> _Answer | DingTalkError:
        """Post and read. Errors are returned, so that none of the library's becomes their context."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await send(self._http, "POST", url, headers=headers, data=data, timeout=self._connecting)
                async with response:
                    return await _read(response, hidden)
        except aiohttp.InvalidURL:
            return DingTalkError(api, "the address cannot be used")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as fault:
            return DingTalkError(api, f"no connection ({type(fault).__name__})", code="connect", retryable=True)
        except TimeoutError:
            reason = f"no answer within {self._timeout:g} s; it may have been done all the same"
            return DingTalkError(api, reason, code="timeout", retryable=True, maybe_delivered=True)
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
            reason = f"the exchange broke off ({type(fault).__name__}); it may have been done all the same"
            return DingTalkError(api, reason, code="broken_off", retryable=True, maybe_delivered=True)


def encode(payload: Mapping[str, object]) -> bytes:
    """JSON in UTF-8, not in escapes, which would take twice the bytes of the limits for Chinese."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


async def _read(response: aiohttp.ClientResponse, hidden: bytes) -> _Answer:
    """The answer; without a body where that is too large, no JSON object, or repeats what is hidden."""
    raw = await read_at_most(response, ANSWER_MAX) or b""
    if len(hidden) >= HIDDEN_MIN and hidden in raw:
        raw = b""
    return _Answer(response.status, _json_object(raw), _retry_after(response.headers.get("Retry-After", "")))


def _json_object(raw: bytes) -> Json | None:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _retry_after(header: str) -> float | None:
    """Seconds of a Retry-After header; its form with a date is not used by DingTalk and not read."""
    header = header.strip()
    if not (header.isascii() and header.isdigit() and len(header) <= 9):
        return None
    return min(float(header), RETRY_AFTER_MAX)


def number(value: object) -> int | None:
    """A code that may come as a number or as its digits."""
    if isinstance(value, str) and len(value) <= 9 and value.isascii() and value.removeprefix("-").isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9 else None


# --- trace ---------------------------------------------------------------------------------------------------------


@contextmanager
def _span(url: URL) -> Iterator[Span]:
    attributes: dict[str, str | int] = {
        telemetry.MESSAGING_SYSTEM: "dingtalk",
        telemetry.CLAW_REPLY_MODE: REPLY_MODE,
        telemetry.SERVER_ADDRESS: url.host or "",
        telemetry.SERVER_PORT: url.port or 0,
    }
    with telemetry.tracer.start_as_current_span(
        telemetry.SPAN_SEND,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except asyncio.CancelledError:
            span.set_attribute(telemetry.ERROR_TYPE, "cancelled")
            span.set_status(StatusCode.ERROR)
            raise


@contextmanager
def _no_span() -> Iterator[None]:
    yield None


def _describe(span: Span, answer: _Answer | DingTalkError, error: DingTalkError | None) -> None:
    if isinstance(answer, _Answer):
        span.set_attribute(telemetry.HTTP_RESPONSE_STATUS_CODE, answer.status)
        errcode = number((answer.body or {}).get("errcode"))
        if errcode is not None:
            span.set_attribute(telemetry.DINGTALK_ERRCODE, errcode)
    if error is not None:
        kind = error.code or str(error.errcode if error.errcode is not None else error.status or "_OTHER")
        span.set_attribute(telemetry.ERROR_TYPE, kind)
        span.set_status(StatusCode.ERROR, error.reason)


def _outcome(error: DingTalkError | None) -> str:
    """`ok`, `unanswered`, `throttled`, `failed` (worth another try) or `refused`."""
    if error is None:
        return "ok"
    if error.status is None:
        return "unanswered"
    if not error.retryable:
        return "refused"
    return "throttled" if error.retry_after else "failed"

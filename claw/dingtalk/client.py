"""The HTTP client for DingTalk: one call, bounded in time and size, never redirected, counted, traced where it sends.

Order of events of a call: encode the body; open a span if people will see the call; post once (claw/http_client.py);
read a bounded answer; classify it (codes.py); count it; return its JSON object or raise DingTalkError. No error that
leaves here holds a URL or a header: the library's errors, which do, are left behind.

No call has an idempotency key. One whose answer never came may have been done, and is still worth another try, since a
message must not be lost: its error says `maybe_delivered`, and the worker bounds how often people may see it again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import aiohttp
from opentelemetry.trace import Span, SpanKind, StatusCode
from yarl import URL

from claw import __version__
from claw.clock import Clock
from claw.dingtalk.codes import (
    BROKEN_OFF,
    NO_CONNECTION,
    NO_TUNNEL,
    TIMED_OUT,
    ErrorRule,
    Json,
    classify,
    make_error,
    parse_number,
)
from claw.dingtalk.quota import SENDS, Api, CallCounter
from claw.errors import DingTalkError, DingTalkReason
from claw.http_client import TunnelError, deadline, read_at_most, send
from claw.observe import telemetry
from claw.retry import parse_http_date, parse_retry_after

CALL_TIMEOUT_S: Final = 10.0
"""Seconds that one call may take in all (docs/protocol.md section 8, row 1)."""
WAIT_MAX_S: Final = 300.0
"""Seconds of a Retry-After that are believed: a proxy that is gone in a minute may ask for an hour."""
ANSWER_MAX_BYTES: Final = 256 * 1024
"""Bytes of an answer that are read; DingTalk's own take a few hundred."""
REDACTED_MIN_BYTES: Final = 16
"""Bytes from which a secret in an answer cannot be there by chance; DingTalk's tokens have 32."""
MARKDOWN_MODE: Final = "markdown"
CARD_MODE: Final = "card"
"""Values of `claw.reply.mode`; by which api it went is told by `server.address` and `claw.dingtalk.calls{api}`."""

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "User-Agent": f"claw/{__version__}",
}
_UNTIMED: Final = aiohttp.ClientTimeout(total=None)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: URL
    data: bytes | aiohttp.MultipartWriter
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: Json | None
    retry_after: float | None


class DingTalkClient:
    """Makes calls over one HTTP session, which its owner closes. `timeout_s`: for a call in all."""

    def __init__(
        self, http: aiohttp.ClientSession, calls: CallCounter, clock: Clock, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._http = http
        self._calls = calls
        self._clock = clock
        self._timeout_s = timeout_s
        # The whole is timed by ourselves. A connection that never came is told apart, since nothing was sent on it.
        self._connecting = aiohttp.ClientTimeout(total=None, connect=timeout_s / 2)

    async def post(
        self,
        api: Api,
        url: URL,
        payload: Mapping[str, object],
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        redact: str = "",
    ) -> Json:
        """Make a call and return the JSON object of its answer. Raises DingTalkError, nothing else but cancellation.

        `redact` is a secret of the request: an answer that repeats it is not read, lest it gets into an error.
        """
        request = _Request(method, url, encode_json(payload), {**_HEADERS, **(headers or {})})
        return await self._call(api, request, redact)

    async def upload(self, api: Api, url: URL, form: aiohttp.MultipartWriter, *, redact: str = "") -> Json:
        """Post a form with a file, as `post` does."""
        headers = {**_HEADERS, "Content-Type": form.content_type}
        return await self._call(api, _Request("POST", url, form, headers), redact)

    async def _call(self, api: Api, request: _Request, redact: str) -> Json:
        with _open_span(api, request.url) if api in SENDS else nullcontext() as span:
            answer = await self._exchange(api, request, redact.encode())
            error = self._settle(api, answer, span)
            if error is not None:
                raise error
            return answer.body or {} if isinstance(answer, _Answer) else {}

    async def get(self, url: URL) -> aiohttp.ClientResponse:
        """Ask for a file, and return when the head of its response is there; the caller closes the response.

        Not counted, since files lie outside of the OpenAPI. Not timed: the caller's timeout covers looking the host
        up as well. Raises what aiohttp raises, with the address in it.
        """
        return await send(self._http, "GET", url, timeout=_UNTIMED)

    def _settle(self, api: Api, answer: _Answer | DingTalkError, span: Span | None) -> DingTalkError | None:
        """Classify, count and trace."""
        if isinstance(answer, DingTalkError):
            error: DingTalkError | None = answer
        else:
            error = classify(api, answer.status, answer.body)
            if error is not None and error.retryable and answer.retry_after is not None:
                # Never shorter than our own wait: servers name the rest of a window that is not their only one.
                error.retry_after = max(min(answer.retry_after, WAIT_MAX_S), error.retry_after or 0.0)
            if error is None or _is_billed(error):
                self._calls.count(api)
        telemetry.dingtalk_calls.add(1, {"api": api.value, "outcome": _name_outcome(error)})
        if span is not None:
            _describe(span, answer, error)
        return error

    async def _exchange(self, api: Api, request: _Request, redact: bytes) -> _Answer | DingTalkError:
        """Send and read. Errors are returned, so that none of the library's becomes their context."""
        try:
            async with deadline(self._timeout_s):
                response = await send(
                    self._http,
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.data,
                    timeout=self._connecting,
                )
                async with response:
                    return await self._read(response, redact)
        except aiohttp.InvalidURL:
            return DingTalkError(api, "the address cannot be used", reason=DingTalkReason.CONNECT)
        except TunnelError as fault:
            return _make_unanswered(api, NO_TUNNEL, str(fault))
        # Before TimeoutError, of which one of these is a kind: here, surely nothing was sent.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as fault:
            return _make_unanswered(api, NO_CONNECTION, type(fault).__name__)
        except TimeoutError:
            return _make_unanswered(api, TIMED_OUT, f"{self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
            return _make_unanswered(api, BROKEN_OFF, type(fault).__name__)

    async def _read(self, response: aiohttp.ClientResponse, redact: bytes) -> _Answer:
        """Read an answer; without a body where that is too large, no JSON object, or repeats the secret."""
        raw = await read_at_most(response, ANSWER_MAX_BYTES) or b""
        # A short secret (of a test server) may occur by chance, and would blind us for good answers.
        if len(redact) >= REDACTED_MIN_BYTES and redact in raw:
            raw = b""
        # A date is measured by the clock of who named it; ours may be hours off.
        now = parse_http_date(response.headers.get("Date"))
        wait = parse_retry_after(response.headers.get("Retry-After"), self._clock.wall() if now is None else now)
        return _Answer(response.status, parse_json_object(raw), wait)


def _make_unanswered(api: Api, rule: ErrorRule, cause: str) -> DingTalkError:
    return make_error(api, rule._replace(detail=f"{rule.detail} ({cause})"))


def _is_billed(error: DingTalkError) -> bool:
    """Whether DingTalk may have counted the call: not what it throttled, nor what did not reach it.

    See docs/protocol.md section 6.6.
    """
    if error.reason is DingTalkReason.NOT_DINGTALK and not error.maybe_delivered:
        return False
    return not (error.retryable and error.retry_after)


def encode_json(payload: Mapping[str, object]) -> bytes:
    """Encode as JSON in UTF-8, not in escapes, which would take twice the bytes of the limits for Chinese."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def parse_json_object(raw: bytes) -> Json | None:
    """Parse a JSON object; None where it is none."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):  # A body of a hundred thousand brackets is nested too deeply.
        return None
    return body if isinstance(body, dict) else None


# --- trace ---------------------------------------------------------------------------------------------------------


@contextmanager
def _open_span(api: Api, url: URL) -> Iterator[Span]:
    """Open the span of a send. Only the host is named: a webhook's path and query are a secret."""
    attributes: dict[str, str | int] = {
        telemetry.MESSAGING_SYSTEM: "dingtalk",
        telemetry.CLAW_REPLY_MODE: CARD_MODE if api in {Api.CARD_CREATE, Api.CARD_UPDATE} else MARKDOWN_MODE,
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


def _describe(span: Span, answer: _Answer | DingTalkError, error: DingTalkError | None) -> None:
    if isinstance(answer, _Answer):
        span.set_attribute(telemetry.HTTP_RESPONSE_STATUS_CODE, answer.status)
        errcode = parse_number((answer.body or {}).get("errcode"))
        if errcode is not None:
            span.set_attribute(telemetry.DINGTALK_ERRCODE, errcode)
    if error is not None:
        # The most exact name there is: the word, the number, the status; without an answer, why there is none.
        kind = error.code or str(error.errcode if error.errcode is not None else error.status or error.reason.value)
        span.set_attribute(telemetry.ERROR_TYPE, kind)
        span.set_status(StatusCode.ERROR, error.detail)


def _name_outcome(error: DingTalkError | None) -> str:
    """Name how a call ended: `ok`, `unanswered`, `throttled`, `failed` (worth another try) or `refused`."""
    if error is None:
        return "ok"
    if error.status is None:
        return "unanswered"
    if not error.retryable:
        return "refused"
    return "throttled" if error.retry_after else "failed"

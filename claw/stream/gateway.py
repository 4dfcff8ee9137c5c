"""Registers at DingTalk's gateway: credentials -> endpoint and one-use ticket (docs/protocol.md section 1).

Order of events in `register`: wait for our turn (never more than two registrations a second, whoever asks), POST
the credentials, read the answer. It returns a `Registration` or raises GatewayError, which says whether DingTalk
rejected us (a person must act) or is merely in trouble. A ticket is good for 90 s and one connection, so each
connection registers anew. Neither secret, ticket nor a body ever reaches a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from claw import __version__
from claw.clock import Clock
from claw.config.settings import Credentials
from claw.errors import GatewayError, GatewayReason
from claw.http_client import describe_failure
from claw.observe import telemetry
from claw.observe.redact import register
from claw.proxy import proxy_of
from claw.retry import parse_http_date, parse_retry_after
from claw.secret import Secret
from claw.stream import frames
from claw.stream.endpoint import find_refusal
from claw.stream.skew import ClockSkew

PATH: Final = "/v1.0/gateway/connections/open"
TIMEOUT_S: Final = 5.0
"""Seconds for a registration in all (docs/protocol.md section 8, bug 1: peers without a limit hang for ever)."""
BODY_MAX_BYTES: Final = 64 * 1024
"""Bytes of an answer that are read; a real one has some 150."""
QPS_WAIT_S: Final = 1.0
"""Seconds after which a per-second quota is worth another try (docs/protocol.md section 6.6)."""
RATE_CALLS: Final = 2
RATE_WINDOW_S: Final = 1.05
"""Two registrations a second at most; the window is a little wider, as two machines' clocks do not run alike."""

USER_AGENT: Final = f"claw-sdk-python/v{__version__}"
"""`name-sdk-lang/version`, as DingTalk's own SDKs call themselves (docs/protocol.md section 1.1)."""
_METRIC_API: Final = "gateway.open"
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True, slots=True)
class Registration:
    """The right to open one WebSocket within 90 s. `url` holds the ticket; `host` may be logged."""

    url: Secret
    host: str
    client_id: str


class RateLimiter:
    """Lets `calls` begin in any `window` seconds, as the other side sees it, in the order in which they ask.

    A call's window runs from its end, when the other side has surely seen it: its begin alone says nothing, since a
    slow network or a busy machine may hold one call up and not the next, and so bring them together.
    """

    def __init__(self, clock: Clock, calls: int = RATE_CALLS, window: float = RATE_WINDOW_S) -> None:
        self._clock = clock
        self._window = window
        self._slots: asyncio.Queue[float] = asyncio.Queue()
        """For each call that may be under way, the time from which on the next one may begin."""
        for _ in range(calls):
            self._slots.put_nowait(clock.monotonic())

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Enter when it is our turn; the call is over when this is left."""
        free_at = await self._slots.get()
        try:
            await self._clock.sleep(free_at - self._clock.monotonic())
            # From here on only its end counts; a call that hangs keeps its place, and the other slots their half.
            free_at = math.inf
            yield
        finally:
            # Cancelled while it waited, it has used nothing up.
            self._slots.put_nowait(min(free_at, self._clock.monotonic() + self._window))


class Gateway:
    """DingTalk's gateway as seen by one robot; all slots share it, since they share its rate."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoint: str,
        credentials: Callable[[], Credentials],
        *,
        clock: Clock | None = None,
        timeout: float = TIMEOUT_S,
    ) -> None:
        self.credentials = credentials
        self._http = http
        self._endpoint = endpoint
        self._clock = clock or Clock()
        self._timeout = timeout
        self._rate_limiter = RateLimiter(self._clock)
        self._skew = ClockSkew()

    @property
    def clock_skew_s(self) -> float | None:
        """Seconds by which our clock is ahead of DingTalk's at the last registration; None: not known."""
        return self._skew.seconds

    async def register(self, credentials: Credentials | None = None) -> Registration:
        """Ask for an endpoint and a ticket, within 5 s. Raises GatewayError."""
        credentials = credentials or self.credentials()
        register(credentials.client_secret)  # It may be another one than at the start: files change.
        async with self._rate_limiter.call():
            outcome = "cancelled"  # Unless told otherwise below: a cancellation passes no `except`.
            try:
                registration = await self._request(credentials)
                outcome = "ok"
            except GatewayError as error:
                outcome = "rejected" if error.reason.is_rejection else "failed"
                raise
            finally:
                telemetry.dingtalk_calls.add(1, {"api": _METRIC_API, "outcome": outcome})
        return registration

    async def _request(self, credentials: Credentials) -> Registration:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                status, headers, body = await self._post(credentials)
        except TimeoutError:
            raise GatewayError(GatewayReason.TIMEOUT, "the gateway did not answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: an address that cannot even be tried, for instance by its host's encoding.
            detail = f"the gateway cannot be reached ({describe_failure(error)})"
            raise GatewayError(GatewayReason.UNREACHABLE, detail) from None
        date, now = headers.get("Date"), self._clock.wall()
        measure = partial(self._skew.measure, date, received_at=now, took_s=self._clock.monotonic() - began)
        # A wait that is a date is measured by the clock of who named it.
        theirs = parse_http_date(date)
        try:
            registration = parse_registration(status, headers, body, credentials, now=now if theirs is None else theirs)
        except GatewayError as error:
            # Without a word of DingTalk's it may be a proxy's clock.
            if error.code:
                measure()
            raise
        measure()
        if refusal := find_refusal(registration.url.reveal(), self._endpoint):
            detail = f"the gateway named an endpoint at {registration.host[:100]} that we do not go to: {refusal}"
            raise GatewayError(GatewayReason.BAD_ANSWER, detail, status=status)
        return registration

    async def _post(self, credentials: Credentials) -> tuple[int, Mapping[str, str], bytes]:
        body = {
            "clientId": credentials.client_id,
            "clientSecret": credentials.client_secret.reveal(),
            "subscriptions": [
                {"type": "CALLBACK", "topic": frames.ROBOT_TOPIC},
                {"type": "CALLBACK", "topic": frames.CARD_TOPIC},
            ],
            "ua": USER_AGENT,
            "localIp": local_ip(),
        }
        headers = {
            "Accept": "application/json",  # else XML may come (docs/protocol.md section 1.1)
            "User-Agent": USER_AGENT,
            # A pooled connection may have died of the very fault that we recover from, and cost us an attempt.
            "Connection": "close",
        }
        url = URL(self._endpoint.rstrip("/") + PATH)
        # A redirect would carry the secret to whoever is named there.
        async with self._http.post(
            url, json=body, headers=headers, allow_redirects=False, proxy=proxy_of(url)
        ) as response:
            # By hand, since read() takes whatever comes: the peer may be anybody's proxy, and endless.
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > BODY_MAX_BYTES:
                    break
            return response.status, response.headers, bytes(answer)


def parse_registration(
    status: int, headers: Mapping[str, str], body: bytes, credentials: Credentials, *, now: float
) -> Registration:
    """Read an answer of the gateway (docs/protocol.md section 1.3). Raises GatewayError.

    `now`: seconds since the epoch by the gateway's clock, for a Retry-After that names a date.
    """
    fields = _fields(body)
    # Only what looks like a word of DingTalk's may reach a log: a proxy may answer with our own request in it.
    code = fields.get("code")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
    if credentials.client_secret.reveal() and credentials.client_secret.reveal() in code:
        code = ""
    retry_after = parse_retry_after(headers.get("Retry-After", ""), now)
    reason = _reason(status, code, fields, is_page=_is_html(headers, body))
    match reason:
        case None:
            return _parse_endpoint(fields, body, status, credentials)
        case GatewayReason.NOT_DINGTALK:
            detail = "a web page came instead of the gateway's answer"
        case GatewayReason.BANNED:
            detail = "the gateway has banned this address for a while"
            wait = fields.get("wait")
            retry_after = parse_retry_after(str(wait), now) if isinstance(wait, int | float) else None
        case GatewayReason.THROTTLED if code:
            detail = "too many calls in this second"
            retry_after = retry_after or QPS_WAIT_S
        case _:
            detail = f"the gateway {'refused us with' if reason.is_rejection else 'answered'} HTTP {status}"
    raise GatewayError(reason, detail, status=status, code=code, retry_after=retry_after)


def _reason(status: int, code: str, fields: Mapping[str, Any], *, is_page: bool) -> GatewayReason | None:
    """Classify an answer; None for one that should hold endpoint and ticket."""
    # A page comes first: with whatever status, a proxy or firewall speaks here, and may be gone at the next try.
    if is_page:
        return GatewayReason.NOT_DINGTALK
    if "punish" in fields:
        return GatewayReason.BANNED
    if 200 <= status < 300:
        return None
    if status == 429 or (status == 403 and re.search(r"Q[pP][sSmM]Limit", code)):
        return GatewayReason.THROTTLED
    # 403 with a word of DingTalk's is a whitelist, a missing permission or the month's quota: a person must act.
    if status in {400, 401} or (status == 403 and code):
        return _rejection(status, code)
    return GatewayReason.BUSY if status >= 500 else GatewayReason.BAD_ANSWER


def _rejection(status: int, code: str) -> GatewayReason:
    # The code says more than the status where it says anything: 403 alone stands for three different cures.
    if "Ip" in code and "White" in code:
        return GatewayReason.IP_NOT_ALLOWED
    if "ApiCount" in code:
        return GatewayReason.QUOTA_EXHAUSTED
    return {401: GatewayReason.UNAUTHORIZED, 400: GatewayReason.NOT_STREAM_APP}.get(status, GatewayReason.FORBIDDEN)


def _parse_endpoint(fields: Mapping[str, Any], body: bytes, status: int, credentials: Credentials) -> Registration:
    def unusable(detail: str) -> GatewayError:
        return GatewayError(GatewayReason.BAD_ANSWER, detail, status=status)

    endpoint, ticket = fields.get("endpoint"), fields.get("ticket")
    if not (isinstance(endpoint, str) and isinstance(ticket, str) and endpoint and ticket):
        raise unusable(f"the gateway's answer lacks endpoint or ticket ({len(body)} bytes)")
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"ws", "wss"} and parts.port != 0 and not re.search(r"[\s\x00-\x1f\x7f#]", endpoint)
        url = f"{endpoint}{'&' if parts.query else '?'}ticket={quote(ticket, safe='')}"
    except ValueError:  # a port that is none, or a ticket with a lone surrogate
        raise unusable("the gateway named an endpoint or ticket that cannot be used") from None
    if not usable or not parts.hostname:
        raise unusable("the gateway named an endpoint that cannot be used")
    return Registration(Secret(url), parts.hostname, credentials.client_id)


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_html(headers: Mapping[str, str], body: bytes) -> bool:
    # Proxies say text/plain or nothing at all of their pages, so that the body is asked, too.
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:15].lower()
    return headers.get("Content-Type", "").lower().startswith("text/html") or start.startswith((b"<html", b"<!doctype"))


_CURES: Final = {
    GatewayReason.IP_NOT_ALLOWED: (
        "本机的出口 IP 不在应用的白名单中：请在开放平台的应用安全设置里加入它",
        "this machine's outgoing IP is not on the app's whitelist: add it in the app's security settings",
    ),
    GatewayReason.QUOTA_EXHAUSTED: (
        "本月的 API 调用额度已用完：请升级或购买额度包",
        "this month's API quota is used up: upgrade, or buy an add-on pack",
    ),
    GatewayReason.UNAUTHORIZED: (
        "请核对 DINGTALK_CLIENT_ID 与 DINGTALK_CLIENT_SECRET（应用的「凭证与基础信息」页）",
        "check DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET (the app's page 凭证与基础信息)",
    ),
    GatewayReason.FORBIDDEN: ("请检查应用的权限与安全设置", "check the app's permissions and security settings"),
}
_CURE_ZH_OF_400: Final = (
    "请检查：应用版本是否已发布、机器人的消息接收模式是否为 Stream、出口 IP 是否在白名单中、"
    "DINGTALK_CLIENT_ID 与 DINGTALK_CLIENT_SECRET 是否正确"
)
_CURE_EN_OF_400: Final = (
    "check that the app's version is published, that the robot receives messages in Stream mode, that this "
    "machine's IP is whitelisted, and DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET"
)
"""DingTalk says HTTP 400 for several faults and does not tell which (docs/protocol.md section 1.3)."""


def rejection_text(error: GatewayError) -> str:
    """Say why DingTalk rejected us and what to do about it, in both languages."""
    shown = f"HTTP {error.status}" + (f" {error.code}" if error.code else "")
    zh, en = _CURES.get(error.reason, (_CURE_ZH_OF_400, _CURE_EN_OF_400))
    return f"钉钉拒绝了连接（{shown}）。{zh}。 / DingTalk refused the connection ({shown}); {en}."


def local_ip() -> str:
    """Return the address that this machine goes out from, for DingTalk's diagnostics; nothing is sent to find it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): only asks the routing table
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"

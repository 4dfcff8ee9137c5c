"""The session webhook: `POST /robot/sendBySession?session=<hex>`, the usual way of a robot to answer.

Order of events: content type, size, JSON, session, rate, message type, then the delivery. As with the real one every
failure is an HTTP 200 with an errcode (docs/protocol.md section 6.1); only a fault switch makes it an HTTP error.
"""

from __future__ import annotations

import collections
import json
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import web

from claw.emulator.responses import Hangs, reply_html, reply_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from claw.emulator.chats import Chats, FakeSession
    from claw.emulator.faults import Faults

BODY_MAX_BYTES: Final = 20_000
"""Bytes (docs/protocol.md section 6.1, errcode 460101)."""
RATE_MAX: Final = 20
"""Messages a minute and session (docs/protocol.md section 10)."""
RATE_WINDOW_S: Final = 60.0
PENALTY_S: Final = 600.0
"""Seconds that a session stays throttled (docs/protocol.md section 6.1)."""
ERRORS: Final = {
    0: "ok",
    -1: "系统繁忙",
    40035: "缺少参数 json",
    43004: "无效的HTTP HEADER Content-Type",
    130101: "send too fast, exceed 20 times per minute",
    300001: "session 不存在",
    310000: "keywords not in content",
    400013: "群已被解散",
    400101: "access_token不存在",
    400102: "机器人已停用",
    400105: "不支持的消息类型",
    400106: "机器人不存在",
    410100: "发送速度太快而限流",
    430101: "含有不安全的外链",
    430102: "含有不合适的文本",
    430103: "含有不合适的图片",
    430104: "含有不合适的内容",
    460101: "message too long, exceed 20000 bytes",
}
BODIES: Final[dict[str, tuple[str, ...]]] = {
    "text": ("content",),
    "markdown": ("title", "text"),
    "actionCard": ("title", "text"),
    "link": ("title", "text", "messageUrl"),
    "feedCard": ("links",),
    "image": ("picURL",),
    "file": ("mediaId",),
    "video": ("videoMediaId",),
}
"""Message types and what each needs (docs/protocol.md section 6.1)."""


def reply_errcode(code: int) -> web.Response:
    return reply_json({"errcode": code, "errmsg": ERRORS.get(code, "error")})


class Sent(NamedTuple):
    """What a robot sent over a session."""

    session: FakeSession
    msgtype: str
    text: str
    title: str
    at: list[str]
    """Staff ids that are mentioned; `*` for everybody."""
    body: dict[str, Any]


class FakeWebhook:
    """`deliver` puts what was sent into the chat."""

    def __init__(
        self,
        *,
        chats: Chats,
        faults: Faults,
        hangs: Hangs,
        deliver: Callable[[Sent], None],
        rate_limits: bool,
        keep: int,
    ) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        """By outcome: `ok`, an errcode, or `http <status>`."""
        self.month = 0
        """Webhook and Stream calls since the start (docs/protocol.md section 6.6)."""
        self._chats = chats
        self._faults = faults
        self._hangs = hangs
        self._deliver = deliver
        self._rate_limits = rate_limits
        self._keep = keep
        self._sent: dict[str, collections.deque[float]] = {}
        self._throttled: dict[str, float] = {}

    async def send(self, request: web.Request) -> web.StreamResponse:
        take = self._faults.take
        raw = await request.read()
        await self._hangs.sleep(take("webhook_delay"))
        status = take("webhook_status")
        if status:
            self.calls[f"http {status}"] += 1
            return reply_json({"errcode": -1, "errmsg": ERRORS[-1]}, status=status)
        if take("webhook_html"):
            self.calls["html"] += 1
            return reply_html()
        code = take("webhook_errcode") or self._handle(request, raw)
        self.calls["ok" if code == 0 else str(code)] += 1
        if code == 0:
            self.month += 1
            if take("webhook_timeout_after_delivery"):
                return await self._hangs.hang(request)
        return reply_errcode(code)

    def _handle(self, request: web.Request, raw: bytes) -> int:
        """Deliver, or say with which errcode it is refused."""
        body = _parse_body(request.content_type, raw)
        if isinstance(body, int):
            return body
        hex_session = request.query.get("session", "")
        session = self._chats.open_session(hex_session)
        if session is None:
            return 300001
        sent = _parse_message(session, body)
        if isinstance(sent, int):
            return sent
        if self._rate_limits and self._too_fast(hex_session):
            return 130101
        self._deliver(sent)
        return 0

    def _too_fast(self, session: str) -> bool:
        now = time.monotonic()
        if self._throttled.get(session, 0.0) > now:
            return True
        sent = self._sent.setdefault(session, collections.deque(maxlen=RATE_MAX))
        if len(self._sent) > self._keep:
            del self._sent[next(iter(self._sent))]
        if len(sent) == RATE_MAX and sent[0] > now - RATE_WINDOW_S:
            self._throttled[session] = now + PENALTY_S
            if len(self._throttled) > self._keep:
                del self._throttled[next(iter(self._throttled))]
            return True
        sent.append(now)
        return False

    def forget(self) -> None:
        self.calls.clear()
        self._sent.clear()
        self._throttled.clear()
        self.month = 0


def _parse_body(content_type: str, raw: bytes) -> dict[str, Any] | int:
    """The body, or the errcode of what is wrong with it."""
    if content_type != "application/json":
        return 43004
    if len(raw) > BODY_MAX_BYTES:
        return 460101
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return 40035
    return body if isinstance(body, dict) and body else 40035


def _parse_message(session: FakeSession, body: dict[str, Any]) -> Sent | int:
    """What is to be sent, or the errcode of what is wrong with it."""
    msgtype = body.get("msgtype")
    if not isinstance(msgtype, str) or msgtype not in BODIES:
        return 400105
    part = body.get(msgtype)
    if not isinstance(part, dict) or any(part.get(name) in (None, "") for name in BODIES[msgtype]):
        return 40035
    at = body.get("at")
    ids: list[str] = []
    if isinstance(at, dict):
        ids = ["*"] if at.get("isAtAll") is True else [one for one in at.get("atUserIds") or () if isinstance(one, str)]
    text = part.get("content") or part.get("text") or part.get("picURL") or json.dumps(part, ensure_ascii=False)
    return Sent(session, msgtype, str(text), str(part.get("title", "")), ids, body)

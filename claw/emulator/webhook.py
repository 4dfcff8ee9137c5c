"""The session webhook: `POST /robot/sendBySession?session=<hex>`, the usual way of a robot to answer.

Order of events: content type, size, JSON, session, message type, rate, then the delivery. As with the real one every
failure is an HTTP 200 with an errcode (docs/protocol.md section 6.1); only a fault switch makes it an HTTP error.
"""

from __future__ import annotations

import collections
import json
import time
from typing import Any, Final

from aiohttp import web

from claw.emulator.bounds import RateWindow, trim
from claw.emulator.chats import Chats
from claw.emulator.faults import Faults
from claw.emulator.month import FakeMonth
from claw.emulator.replies import Replies, Reply
from claw.emulator.responses import Hangs, as_text, reply_html, reply_json, reset_transport

BODY_MAX_BYTES: Final = 20_000
"""docs/protocol.md section 6.1, errcode 460101."""
RATE_MAX: Final = 20
"""Messages a minute and session (docs/protocol.md section 10)."""
RATE_WINDOW_S: Final = 60.0
PENALTY_S: Final = 600.0
"""How long a session stays throttled (docs/protocol.md section 6.1)."""
# All that are known, also those that are never found out here: the switch `webhook_errcode` gives each its text.
ERRORS: Final = {
    0: "ok",
    -1: "系统繁忙",
    90020: "api count limit",
    90030: "webhook over limit",
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
QUOTA_ERRCODE: Final = 90020
"""The month's quota is used up, as the old API says it (docs/protocol.md section 6.6)."""
CAP_ERRCODE: Final = 90030
"""The administrator's cap on the robot's webhooks is reached (docs/protocol.md section 10a). Which number it has stands
nowhere: custom robots over their own limit are known to get this one, `webhook over limit`."""
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


class FakeWebhook:
    def __init__(
        self,
        *,
        chats: Chats,
        replies: Replies,
        month: FakeMonth,
        faults: Faults,
        hangs: Hangs,
        rate_limits: bool,
        keep: int,
    ) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        """By outcome: `ok`, an errcode, `http <status>`, `html`, or `cut` before the delivery."""
        self._month = month
        self._chats = chats
        self._replies = replies
        self._faults = faults
        self._hangs = hangs
        self._rate_limits = rate_limits
        self._keep = keep
        self._rate = RateWindow(RATE_WINDOW_S, keep=keep)
        self._throttled: dict[str, float] = {}
        """Until when (monotonic seconds) a session is refused."""

    async def send(self, request: web.Request) -> web.StreamResponse:
        """`POST /robot/sendBySession?session=`."""
        take = self._faults.take
        raw = await request.read()
        await self._hangs.sleep(take("webhook_delay"))
        # Read, not taken: its budget is used up by the cut that it asks for.
        cut = self._faults.webhook_cut
        if cut == "before":
            take("webhook_cut")
            self.calls["cut"] += 1
            return self._cut(request)
        status, is_html = take("webhook_status"), take("webhook_html")
        if status or is_html:
            self.calls[f"http {status}" if status else "html"] += 1
            # A gateway before DingTalk has pages of its own, and no errcode.
            return (
                reply_html(status or 502)
                if is_html
                else reply_json({"errcode": -1, "errmsg": ERRORS[-1]}, status=status)
            )
        # A refusal by switch delivers nothing; for a delivery whose answer is lost there are the switches below.
        outcome = take("webhook_errcode") or self._deliver(request, raw)
        if isinstance(outcome, int):
            self.calls[str(outcome)] += 1
            return reply_errcode(outcome)
        self.calls["ok"] += 1
        self._month.webhook += 1
        # After the delivery on purpose: the caller cannot know whether the message is out, and must not repeat it as
        # if it were not.
        if cut == "after":
            take("webhook_cut")
            outcome.confirmed = False
            return self._cut(request)
        if take("webhook_timeout_after_delivery"):
            outcome.confirmed = False
            return await self._hangs.hang(request)
        return reply_errcode(0)

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        reset_transport(request.transport)
        return web.Response(status=500)

    def _deliver(self, request: web.Request, raw: bytes) -> Reply | int:
        """Post the message into its chat; return the reply, or the errcode with which it is refused."""
        body = _parse_body(request.content_type, raw)
        if isinstance(body, int):
            return body
        session_hex = request.query.get("session", "")
        session = self._chats.open_session(session_hex)
        if session is None:
            return 300001
        # The organisation's quota before the robot's cap: with both reached, buying helps and the admin does not.
        if self._month.is_stream_used_up:
            return QUOTA_ERRCODE
        if self._month.is_capped:
            return CAP_ERRCODE
        msgtype = as_text(body.get("msgtype"))
        if msgtype not in BODIES:
            return 400105
        part = body.get(msgtype)
        if not isinstance(part, dict) or any(part.get(name) in (None, "") for name in BODIES[msgtype]):
            return 40035
        # Last of all checks: a message that is wrong anyway uses up nothing of the session's rate.
        if self._rate_limits and not self._admit(session_hex):
            return 130101
        text = part.get("content") or part.get("text") or part.get("picURL") or json.dumps(part, ensure_ascii=False)
        return self._replies.post(
            session.chat,
            "webhook",
            msgtype,
            str(text),
            body,
            title=str(part.get("title", "")),
            at=_list_mentions(body),
            in_reply_to=session.msg_id,
        )

    def _admit(self, session_hex: str) -> bool:
        now = time.monotonic()
        if self._throttled.get(session_hex, 0.0) > now:
            return False
        if self._rate.admit(session_hex, RATE_MAX):
            return True
        # Not only this message: the session is shut for ten minutes, however slowly its robot goes on.
        self._throttled[session_hex] = now + PENALTY_S
        trim(self._throttled, self._keep)
        return False

    def forget(self) -> None:
        self.calls.clear()
        self._rate.forget()
        self._throttled.clear()


def _parse_body(content_type: str, raw: bytes) -> dict[str, Any] | int:
    """Parse the body, or return the errcode of what is wrong with it."""
    # A charset after it is fine, a form with JSON in it is not.
    if content_type != "application/json":
        return 43004
    # Bytes as they came, not characters: Chinese is three times as long as it looks.
    if len(raw) > BODY_MAX_BYTES:
        return 460101
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return 40035
    return body if isinstance(body, dict) and body else 40035


def _list_mentions(body: dict[str, Any]) -> list[str]:
    """List the staff ids that are mentioned; `*` stands for everybody."""
    at = body.get("at")
    if not isinstance(at, dict):
        return []
    if at.get("isAtAll") is True:
        return ["*"]
    return [each for each in at.get("atUserIds") or () if isinstance(each, str)]

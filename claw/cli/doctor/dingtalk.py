"""Checks of DingTalk itself: credentials, registration, a session, permissions.

They use the parts that claw serves with, so that what they say is what claw would meet. The session is closed as soon
as it has proved itself. While it is open DingTalk may route a message to it: that is not acked, so that DingTalk
repeats it (PROTOCOL section 3.3). Calls for permissions are made to fail for another reason than a missing permission;
each is made once, and counted where DingTalk bills it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from claw.cli.doctor.network import cause_of
from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.dingtalk.client import Api, CallCounter, DingTalkClient
from claw.dingtalk.openapi import TokenCache, classify
from claw.errors import DingTalkError, FrameError, GatewayError, GatewayReason
from claw.proxy import proxy_of
from claw.stream import frames
from claw.stream.gateway import Gateway, Registration

FIRST_FRAME_S: Final = 3.0
"""Seconds that DingTalk gets for its first frame, which comes within 1 s (PROTOCOL section 2.2)."""
CLOSE_S: Final = 1.0
PING: Final = b"claw doctor"
BODY_MAX: Final = 64 * 1024
NOWHERE: Final = "claw-doctor-nowhere"
"""Names a file, group or card that does not exist: nobody gets anything by a call of ours."""


async def credentials(context: Context) -> Finding:
    """Ask for an access token, which DingTalk does not bill (PROTOCOL section 6.6)."""
    settings = context.settings.dingtalk
    caller = DingTalkClient(context.http, CallCounter(context.clock), timeout=context.timeout)
    tokens = TokenCache(caller, settings.openapi_endpoint, settings.credentials, context.clock)
    try:
        context.token = await tokens.get()
    except DingTalkError as error:
        common = _common(context, error.status, error.code, error.reason, retryable=error.retryable)
        if common is not None:
            return common
        wrong = re.search(r"client|auth|appkey|secret", error.code, re.IGNORECASE) or error.status == 401
        if wrong or error.errcode in {40089, 40001, 40096}:
            context.refused = True
            return fault("credentials.refused", status=error.status, code=error.code or error.errcode or "")
        return fault("credentials.odd", cause=error.reason)
    return good("credentials.ok")


def _common(context: Context, status: int | None, code: str, reason: str, *, retryable: bool) -> Finding | None:
    """What any call may meet, whatever it asks for; None where the answer is the call's own."""
    lower = code.lower()
    values = {"status": status, "code": code, "cause": reason}
    if "apicount" in lower:
        context.quota_used_up = True
        return fault("dingtalk.month", **values)
    if "whitelist" in lower:
        return fault("dingtalk.address", **values)
    if re.search(r"qp[sm]limit|throttl|toofast|too\.fast", lower) or status == 429:
        return warn("dingtalk.throttled", **values)
    if status is None:
        return fault("dingtalk.unanswered", **values)
    if retryable and status >= 500:
        return fault("dingtalk.trouble", **values)
    return None


# --- Stream --------------------------------------------------------------------------------------------------------


async def registration(context: Context) -> Finding:
    """Register as claw does, with a fresh ticket."""
    if context.refused:
        return skip("skip.after", name="credentials")
    settings = context.settings.dingtalk
    gateway = Gateway(
        context.http, settings.openapi_endpoint, settings.credentials, clock=context.clock, timeout=context.timeout
    )
    try:
        context.registration = await gateway.register()
    except GatewayError as error:
        return _refusal(context, error)
    return good("registration.ok", host=context.registration.host)


_REFUSALS: Final = {
    GatewayReason.UNAUTHORIZED: "registration.credentials",
    GatewayReason.NOT_STREAM_APP: "registration.app",
    GatewayReason.FORBIDDEN: "registration.forbidden",
    GatewayReason.NOT_DINGTALK: "registration.page",
    GatewayReason.BANNED: "registration.banned",
    GatewayReason.BAD_ANSWER: "registration.odd",
    GatewayReason.QUOTA_EXHAUSTED: "dingtalk.month",
    GatewayReason.IP_NOT_ALLOWED: "dingtalk.address",
    GatewayReason.UNREACHABLE: "dingtalk.unanswered",
    GatewayReason.TIMEOUT: "dingtalk.unanswered",
    GatewayReason.BUSY: "dingtalk.trouble",
}


def _refusal(context: Context, error: GatewayError) -> Finding:
    """Say why the gateway gave us no ticket, and what to do about it."""
    values = {"status": error.status, "code": error.code, "cause": error.detail}
    if error.reason is GatewayReason.THROTTLED:
        return warn("dingtalk.throttled", **values)
    if error.reason is GatewayReason.QUOTA_EXHAUSTED:
        context.quota_used_up = True
    return fault(_REFUSALS[error.reason], **values)


async def session(context: Context) -> Finding:
    """Open a session, wait for the pong and for DingTalk's first frame, and close it."""
    registration = context.registration
    if context.store_held and context.stream_open and not context.own_session:
        return good("session.held", port=context.settings.http.port)
    if registration is None:
        return skip("skip.after", name="stream.registration")
    url = URL(registration.url.reveal(), encoded=True)
    # As claw.stream.session does: as https the usual HTTPS_PROXY and NO_PROXY hold.
    url = url.with_scheme({"ws": "http", "wss": "https"}.get(url.scheme, url.scheme))
    opening = context.http.ws_connect(
        url, autoping=False, heartbeat=None, proxy=proxy_of(url), timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
    )
    try:
        async with asyncio.timeout(context.timeout):
            socket = await opening
    except TimeoutError:
        return fault("session.unreachable", host=registration.host, cause="timeout")
    except aiohttp.WSServerHandshakeError as error:
        return fault("session.refused", host=registration.host, status=error.status)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return fault("session.unreachable", host=registration.host, cause=cause_of(error))
    try:
        return await _proved(socket, registration, context)
    finally:
        await _closed(socket)


@dataclass
class _Seen:
    """What came on the session."""

    pong: bool = False
    frames: int = 0
    messages: int = 0
    end: str = ""


async def _proved(socket: aiohttp.ClientWebSocketResponse, registration: Registration, context: Context) -> Finding:
    seen = _Seen()
    patience = min(FIRST_FRAME_S, context.timeout)
    try:
        async with asyncio.timeout(patience):
            await socket.ping(PING)
            while not seen.end and not (seen.pong and seen.frames):
                await _take(socket, seen)
    except TimeoutError:
        pass
    except (aiohttp.ClientError, OSError) as error:
        seen.end = cause_of(error)
    host, seconds = registration.host, f"{patience:g}"
    if seen.end:
        return fault("session.closed", host=host, cause=seen.end)
    if not seen.pong:
        return fault("session.mute", host=host, seconds=seconds)
    if seen.messages:
        return warn("session.met", host=host, count=seen.messages)
    return good("session.ok", host=host) if seen.frames else warn("session.quiet", host=host, seconds=seconds)


async def _take(socket: aiohttp.ClientWebSocketResponse, seen: _Seen) -> None:
    message = await socket.receive()
    match message.type:
        case aiohttp.WSMsgType.PONG:
            seen.pong = True
        case aiohttp.WSMsgType.PING:
            await socket.pong(message.data)
        case aiohttp.WSMsgType.TEXT:
            seen.frames += 1
            try:
                frame = frames.parse(message.data)
            except FrameError:
                return
            seen.messages += frame.kind is frames.FrameKind.ROBOT
            if frame.kind is frames.FrameKind.PING and frame.message_id:
                await socket.send_str(frames.ack(frame.message_id, frames.OK, frame.data))
        case aiohttp.WSMsgType.BINARY:
            seen.frames += 1
        case _:
            seen.end = f"close code {socket.close_code}"


async def _closed(socket: aiohttp.ClientWebSocketResponse) -> None:
    """With a close frame, so that DingTalk routes nothing more to it; a peer that does not answer is left."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await socket.close()
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass


# --- permissions -----------------------------------------------------------------------------------------------------

SEND: Final = "qyapi_robot_sendmsg"
CHAT: Final = "qyapi_chat_manage"
CARD: Final = "Card.Instance.Write"
TYPING: Final = "Card.Streaming.Write"

_CALLS: Final[Mapping[str, tuple[str, str, Callable[[str], Mapping[str, Any]]]]] = {
    SEND: (
        "POST",
        "/v1.0/robot/oToMessages/batchSend",
        lambda robot: {
            "robotCode": robot,
            "userIds": [],
            "msgKey": "sampleText",
            "msgParam": '{"content":"claw doctor"}',
        },
    ),
    CHAT: ("POST", "/v1.0/robot/groups/robots/query", lambda _: {"openConversationId": NOWHERE}),
    CARD: (
        "PUT",
        "/v1.0/card/instances",
        lambda _: {"outTrackId": NOWHERE, "cardData": {"cardParamMap": {"content": ""}}},
    ),
    TYPING: (
        "PUT",
        "/v1.0/card/streaming",
        lambda _: {
            "outTrackId": NOWHERE,
            "guid": NOWHERE,
            "key": "content",
            "content": "",
            "isFull": True,
            "isFinalize": False,
            "isError": False,
        },
    ),
}
"""Permission -> a call that needs it and cannot do anything: nobody to write to, nothing that exists
(PROTOCOL sections 6.3 and 7.1; the second is the API page 获取群内机器人列表)."""


def permission(name: str) -> Callable[[Context], Awaitable[Finding]]:
    """Make a check of one permission."""

    async def check(context: Context) -> Finding:
        method, path, payload = _CALLS[name]
        robot = context.settings.dingtalk.client_id
        try:
            status, body = await _call(context, method, path, payload(robot))
        except TimeoutError:
            return fault("dingtalk.unanswered", cause=f"no answer within {context.timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return fault("dingtalk.unanswered", cause=cause_of(error))
        return _judged(context, name, status, body)

    return check


async def _call(
    context: Context, method: str, path: str, payload: Mapping[str, Any]
) -> tuple[int, dict[str, Any] | None]:
    url = URL(context.settings.dingtalk.openapi_endpoint + path)
    headers = {"x-acs-dingtalk-access-token": context.token, "Accept": "application/json"}
    context.billable += 1  # Before it is sent: DingTalk may count what never reaches us.
    async with (
        asyncio.timeout(context.timeout),
        context.http.request(
            method, url, json=payload, headers=headers, allow_redirects=False, proxy=proxy_of(url)
        ) as response,
    ):
        try:
            body = await response.json(content_type=None)
        except ValueError:
            body = None
        return response.status, body if isinstance(body, dict) else None


def _judged(context: Context, name: str, status: int, body: dict[str, Any] | None) -> Finding:
    """A refusal of what was asked for shows that asking is allowed."""
    error = None if 200 <= status < 300 else classify(Api.DIRECT, status, body)
    if error is None:
        return good("permission.ok", permission=name)
    code = error.code.lower()
    if "permissiondenied" in code or error.errcode in {60011, 50002}:
        # Cards are an option: without it nothing that people see is missing.
        optional = name in {CHAT, CARD, TYPING} and _reply_mode(context) != "card"
        return _missing(name, optional=optional)
    common = _common(context, status, error.code, error.reason, retryable=error.retryable)
    if common is not None:
        return common
    if "robot.oto.notexist" in code or "robotcode" in code:
        return warn("permission.robot", permission=name, robot=context.settings.dingtalk.client_id, code=error.code)
    if status == 400 and code:
        return good("permission.ok", permission=name)
    return warn("permission.unknown", permission=name, cause=f"HTTP {status} {error.code}")


def _missing(name: str, *, optional: bool) -> Finding:
    return (warn if optional else fault)("permission.optional" if optional else "permission.missing", permission=name)


def _reply_mode(context: Context) -> str:
    """`CLAW_REPLY_MODE`, in versions that have it."""
    sections = (getattr(context.settings, name, None) for name in ("reply", "card", "conversation"))
    return next((str(mode) for section in sections if (mode := getattr(section, "mode", ""))), "markdown")


async def visibility(_: Context) -> Finding:
    return skip("visibility.unknown")

"""Checks of DingTalk itself: credentials, registration, a session, permissions.

They use the parts that claw serves with, so that what they say is what claw would meet. The session is closed as soon
as it has proved itself. While it is open DingTalk may route a message to it: that is not acked, so that DingTalk
repeats it (docs/protocol.md section 3.3). Calls for permissions are made to fail for another reason than a missing
permission; each is made once, and counted where DingTalk bills it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiohttp
from yarl import URL

from claw.cli.doctor.network import cause_of
from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.config.settings import Settings
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.codes import classify
from claw.dingtalk.quota import Api, CallCounter
from claw.dingtalk.tokens import TokenCache
from claw.errors import DingTalkError, DingTalkReason, FrameError, GatewayError, GatewayReason, HandshakeError
from claw.policy import ReplyMode
from claw.proxy import proxy_of
from claw.stream import frames
from claw.stream.gateway import Gateway, Registration
from claw.stream.upgrade import upgrade

FIRST_FRAME_S: Final = 3.0
"""Seconds that DingTalk gets for its first frame, which comes within 1 s (docs/protocol.md section 2.2)."""
CLOSE_S: Final = 1.0
PING: Final = b"claw doctor"
NOWHERE: Final = "claw-doctor-nowhere"
"""Names a group that does not exist: nobody gets anything by a call of ours."""


async def check_credentials(context: Context) -> Finding:
    """Ask for an access token, which DingTalk does not bill (docs/protocol.md section 6.6)."""
    settings = context.settings.dingtalk
    client = DingTalkClient(context.http, CallCounter(context.clock), context.clock, timeout_s=context.timeout)
    tokens = TokenCache(client, settings.openapi_endpoint, settings.credentials, context.clock)
    try:
        context.token = await tokens.get()
    except DingTalkError as error:
        common = _common(context, error.reason, status=error.status, code=error.code, cause=error.detail)
        if common is not None:
            return common
        if error.reason is DingTalkReason.CREDENTIALS:
            context.refused = True
            return fault("credentials.refused", status=error.status, code=error.code or error.errcode or "")
        return fault("credentials.odd", cause=error.detail)
    return good("credentials.ok")


_COMMON: Final[Mapping[DingTalkReason, str]] = {
    DingTalkReason.QUOTA_EXHAUSTED: "dingtalk.month",
    DingTalkReason.IP_NOT_ALLOWED: "dingtalk.address",
    DingTalkReason.QPS: "dingtalk.throttled",
    DingTalkReason.QPM: "dingtalk.throttled",
    DingTalkReason.CONNECT: "dingtalk.unanswered",
    DingTalkReason.TIMEOUT: "dingtalk.unanswered",
    DingTalkReason.BROKEN_OFF: "dingtalk.unanswered",
    DingTalkReason.SERVER_BUSY: "dingtalk.trouble",
}
"""Reasons that any call may meet, whatever it asks for, and their texts."""


def _common(context: Context, reason: DingTalkReason, **values: object) -> Finding | None:
    """Give the finding of a reason that any call may meet; None where the answer is the call's own."""
    key = _COMMON.get(reason)
    if key is None:
        return None
    if reason is DingTalkReason.QUOTA_EXHAUSTED:
        context.quota_used_up = True
    return (warn if key == "dingtalk.throttled" else fault)(key, **values)


# --- Stream --------------------------------------------------------------------------------------------------------


async def check_registration(context: Context) -> Finding:
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


async def check_session(context: Context) -> Finding:
    """Open a session, wait for the pong and for DingTalk's first frame, and close it."""
    registration = context.registration
    if context.store_held and context.stream_open and not context.own_session:
        return good("session.held", port=context.settings.http.port)
    if registration is None:
        return skip("skip.after", name="stream.registration")
    try:
        socket = await upgrade(context.http, registration, timeout=context.timeout, close_timeout=CLOSE_S)
    except HandshakeError as error:
        if error.status is not None:
            return fault("session.refused", host=registration.host, status=error.status)
        return fault("session.unreachable", host=registration.host, cause=error.reason)
    try:
        return await _prove(socket, registration, context)
    # Also when we are cancelled: an open session would take messages until DingTalk gives it up.
    finally:
        await _close(socket)


@dataclass
class _Received:
    """What came on the session."""

    pong: bool = False
    frames: int = 0
    messages: int = 0
    end: str = ""


async def _prove(socket: aiohttp.ClientWebSocketResponse, registration: Registration, context: Context) -> Finding:
    seen = _Received()
    patience = min(FIRST_FRAME_S, context.timeout)
    try:
        async with asyncio.timeout(patience):
            # DingTalk pings by frames; only our WebSocket ping proves that the way back is open.
            await socket.ping(PING)
            while not seen.end and not (seen.pong and seen.frames):
                await _receive(socket, seen)
    except TimeoutError:
        pass
    except (aiohttp.ClientError, OSError) as error:
        seen.end = cause_of(error)
    host, seconds = registration.host, f"{patience:g}"
    if seen.end:
        return fault("session.closed", host=host, cause=seen.end)
    if not seen.pong:
        return fault("session.mute", host=host, seconds=seconds)
    # Before `ok`: somebody may wait for an answer that comes late.
    if seen.messages:
        return warn("session.met", host=host, count=seen.messages)
    return good("session.ok", host=host) if seen.frames else warn("session.quiet", host=host, seconds=seconds)


async def _receive(socket: aiohttp.ClientWebSocketResponse, seen: _Received) -> None:
    message = await socket.receive()
    match message.type:
        case aiohttp.WSMsgType.PONG:
            seen.pong = True
        case aiohttp.WSMsgType.PING:
            # By hand, since autoping is off to see what comes.
            await socket.pong(message.data)
        case aiohttp.WSMsgType.TEXT:
            seen.frames += 1
            try:
                frame = frames.parse(message.data)
            except FrameError:
                return
            seen.messages += frame.kind is frames.FrameKind.ROBOT
            # Only pings are acked: an acked message would be lost, since no claw stands behind this session.
            if frame.kind is frames.FrameKind.PING and frame.message_id:
                await socket.send_str(frames.ack(frame.message_id, frames.OK, frame.data))
        case aiohttp.WSMsgType.BINARY:
            seen.frames += 1
        case _:
            seen.end = f"close code {socket.close_code}"


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Close with a close frame, so that DingTalk routes nothing more to it; a peer that does not answer is left."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await socket.close()
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass


# --- permissions -----------------------------------------------------------------------------------------------------

SEND: Final = "qyapi_robot_sendmsg"
CARD: Final = "Card.Instance.Write"
CARD_STREAM: Final = "Card.Streaming.Write"


class _Probe(NamedTuple):
    """A call that needs a permission and cannot do anything."""

    api: Api
    method: str
    path: str
    payload: Callable[[Settings], Mapping[str, Any]]


_PROBES: Final[Mapping[str, _Probe]] = {
    SEND: _Probe(
        Api.DIRECT,
        "POST",
        "/v1.0/robot/oToMessages/batchSend",
        lambda settings: {
            "robotCode": settings.dingtalk.client_id,
            "userIds": [],
            "msgKey": "sampleText",
            "msgParam": '{"content":"claw doctor"}',
        },
    ),
    # A card that is made and not delivered is shown to nobody; that it can be made tells of the template as well.
    CARD: _Probe(
        Api.CARD_CREATE,
        "POST",
        "/v1.0/card/instances",
        lambda settings: {
            "cardTemplateId": settings.reply.card_template,
            "outTrackId": f"claw-doctor-{secrets.token_hex(8)}",
            "callbackType": "STREAM",
            "cardData": {"cardParamMap": {}},
        },
    ),
    CARD_STREAM: _Probe(
        Api.CARD_STREAM,
        "PUT",
        "/v1.0/card/streaming",
        lambda _: {"outTrackId": NOWHERE, "guid": NOWHERE, "key": "content", "content": "", "isFull": True},
    ),
}
"""Permission -> its probe: nobody to write to, nothing that exists (docs/protocol.md section 6.3 and 7.1)."""


def make_permission_check(name: str) -> Callable[[Context], Awaitable[Finding]]:
    """Make a check of one permission. Those of cards are asked for only where answers may be cards."""

    async def check(context: Context) -> Finding:
        if name != SEND and context.settings.reply.mode is ReplyMode.MARKDOWN:
            return skip("permission.no_cards")
        probe = _PROBES[name]
        try:
            status, body = await _call(context, probe)
        except TimeoutError:
            return fault("dingtalk.unanswered", cause=f"no answer within {context.timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return fault("dingtalk.unanswered", cause=cause_of(error))
        return _judge(context, name, status, body)

    return check


async def _call(context: Context, probe: _Probe) -> tuple[int, dict[str, Any] | None]:
    url = URL(context.settings.dingtalk.openapi_endpoint + probe.path)
    headers = {"x-acs-dingtalk-access-token": context.token, "Accept": "application/json"}
    context.billable += 1  # Before it is sent: DingTalk may count what never reaches us.
    payload = probe.payload(context.settings)
    async with (
        asyncio.timeout(context.timeout),
        context.http.request(
            probe.method, url, json=payload, headers=headers, allow_redirects=False, proxy=proxy_of(url)
        ) as response,
    ):
        try:
            body = await response.json(content_type=None)
        except ValueError:
            body = None
        return response.status, body if isinstance(body, dict) else None


def _judge(context: Context, name: str, status: int, body: dict[str, Any] | None) -> Finding:
    """Tell by the answer whether the permission is there."""
    error = None if 200 <= status < 300 else classify(_PROBES[name].api, status, body)
    if error is None:
        return good("permission.ok", permission=name)
    if error.reason is DingTalkReason.NO_PERMISSION:
        # Without cards the same answers come as messages.
        missing = fault if name == SEND else warn
        return missing("permission.missing" if name == SEND else "permission.card_missing", permission=name)
    if error.reason is DingTalkReason.CARD_TEMPLATE:
        return warn("permission.template", code=error.code)
    common = _common(context, error.reason, status=status, code=error.code, cause=error.detail)
    if common is not None:
        return common
    if error.reason is DingTalkReason.ROBOT_INVALID:
        return warn("permission.robot", permission=name, robot=context.settings.dingtalk.client_id, code=error.code)
    # Our call is senseless on purpose: that DingTalk refuses its content shows that asking is allowed.
    if status == 400 and error.code:
        return good("permission.ok", permission=name)
    return warn("permission.unknown", permission=name, cause=f"HTTP {status} {error.code}")


async def check_visibility(_: Context) -> Finding:
    """Say that nobody but DingTalk knows who sees the robot."""
    return skip("visibility.unknown")

"""Access tokens: two new calls and the old one give the same token (docs/protocol.md section 6.2).

Order of events: a call is counted, may fail by the switch, checks the credentials, and returns the app's one token. It
is the same value as long as it is good, and fetching it renews it: a client that caches none is seen by `fetched` only.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from aiohttp import web

from claw.emulator.faults import Faults
from claw.emulator.responses import RefusedError, as_text, read_json, reply_json
from claw.emulator.tickets import AppCredentials

TOKEN_LIFETIME_S: Final = 7200


class TokenCall(NamedTuple):
    """How one of the three calls names its fields, and what it answers to wrong credentials."""

    method: str
    path: str
    fields: tuple[str, str]
    """Client id and client secret."""
    answer: tuple[str, str]
    """Token and lifetime."""
    refusal: tuple[str, str] | int
    """`code` and `message` of the new API, or the errcode of the old one."""


OLD_REFUSAL: Final = "不合法的corpid或corpsecret"
# `expireIn` without an s is no slip: the three calls agree in nothing but the token.
APP_CALL: Final = TokenCall(
    "POST",
    "/v1.0/oauth2/accessToken",
    ("appKey", "appSecret"),
    ("accessToken", "expireIn"),
    ("invalidClientIdOrSecret", "无效的clientId或者clientSecret"),
)
CORP_CALL: Final = TokenCall(
    "POST",
    "/v1.0/oauth2/{corp}/token",
    ("client_id", "client_secret"),
    ("access_token", "expires_in"),
    ("invalid.client", "invalid client"),
)
OLD_CALL: Final = TokenCall("GET", "/gettoken", ("appkey", "appsecret"), ("access_token", "expires_in"), 40089)


class Tokens:
    def __init__(self, *, app: AppCredentials, faults: Faults) -> None:
        self.fetched = 0
        self._app = app
        self._faults = faults
        self._value = ""
        self._expires = 0.0

    def list_routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]]:
        return [
            (call.method, call.path, functools.partial(self._grant, call)) for call in (APP_CALL, CORP_CALL, OLD_CALL)
        ]

    async def _grant(self, call: TokenCall, request: web.Request) -> web.Response:
        self.fetched += 1
        status = self._faults.take("token_status")
        if status:
            # The old API has its error body even under an HTTP error.
            busy = {"errcode": -1, "errmsg": "系统繁忙"}
            return reply_json(busy, status=status) if isinstance(call.refusal, int) else RefusedError(status).reply()
        body: dict[str, Any] = dict(request.query) if call is OLD_CALL else await read_json(request) or {}
        if not self._app.accept(*(as_text(body.get(name)) for name in call.fields)):
            if isinstance(call.refusal, int):
                return reply_json({"errcode": call.refusal, "errmsg": OLD_REFUSAL})
            return RefusedError(400, *call.refusal).reply()
        if call is CORP_CALL and body.get("grant_type") != "client_credentials":
            return RefusedError(400, "unsupported.grant.type", "unsupported grant type").reply()
        success = {"errcode": 0, "errmsg": "ok"} if call is OLD_CALL else {}
        return reply_json(success | dict(zip(call.answer, (self._issue(), TOKEN_LIFETIME_S), strict=True)))

    def _issue(self) -> str:
        now = time.monotonic()
        # The same value again: of two replicas neither throws away the other's token by fetching its own.
        if not self._value or now >= self._expires:
            self._value = uuid.uuid4().hex
        self._expires = now + TOKEN_LIFETIME_S
        return self._value

    def is_valid(self, token: str) -> bool:
        return bool(token) and token == self._value and time.monotonic() < self._expires

    def expire(self) -> None:
        """Refuse the token from now on: the client has to fetch another one, long before it expected to."""
        self._value = ""

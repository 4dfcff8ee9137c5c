"""Access tokens: the two new calls and the old one, one token for both API families (docs/protocol.md section 6.2)."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final

from claw.emulator.responses import as_text, read_json, reply_error, reply_json

if TYPE_CHECKING:
    from aiohttp import web

    from claw.emulator.faults import Faults
    from claw.emulator.tickets import AppCredentials

TOKEN_LIFETIME_S: Final = 7200
"""Seconds; fetching it again renews it under the same value."""


class Tokens:
    def __init__(self, *, app: AppCredentials, faults: Faults) -> None:
        self.fetched = 0
        self._app = app
        self._faults = faults
        self._value = ""
        self._expires = 0.0

    def is_valid(self, token: str) -> bool:
        return bool(token) and token == self._value and time.monotonic() < self._expires

    def expire(self) -> None:
        """From now on the token is refused: the client has to fetch another one."""
        self._value = ""

    def _issue(self) -> str:
        now = time.monotonic()
        if not self._value or now >= self._expires:
            self._value = uuid.uuid4().hex
        self._expires = now + TOKEN_LIFETIME_S
        return self._value

    async def app_token(self, request: web.Request) -> web.Response:
        """`POST /v1.0/oauth2/accessToken`."""
        self.fetched += 1
        status = self._faults.take("token_status")
        if status:
            return reply_error(status)
        body = await read_json(request)
        if body is None or not self._app.accept(as_text(body.get("appKey")), as_text(body.get("appSecret"))):
            return reply_error(400, "invalidClientIdOrSecret", "无效的clientId或者clientSecret")
        return reply_json({"accessToken": self._issue(), "expireIn": TOKEN_LIFETIME_S})

    async def corp_token(self, request: web.Request) -> web.Response:
        """`POST /v1.0/oauth2/{corpId}/token`."""
        self.fetched += 1
        status = self._faults.take("token_status")
        if status:
            return reply_error(status)
        body = await read_json(request)
        if body is None or not self._app.accept(as_text(body.get("client_id")), as_text(body.get("client_secret"))):
            return reply_error(400, "invalid.client", "invalid client")
        if body.get("grant_type") != "client_credentials":
            return reply_error(400, "unsupported.grant.type", "unsupported grant type")
        return reply_json({"access_token": self._issue(), "expires_in": TOKEN_LIFETIME_S})

    async def old_token(self, request: web.Request) -> web.Response:
        """`GET /gettoken`."""
        self.fetched += 1
        status = self._faults.take("token_status")
        if status:
            return reply_json({"errcode": -1, "errmsg": "系统繁忙"}, status=status)
        if not self._app.accept(request.query.get("appkey", ""), request.query.get("appsecret", "")):
            return reply_json({"errcode": 40089, "errmsg": "不合法的corpid或corpsecret"})
        return reply_json({"errcode": 0, "errmsg": "ok", "access_token": self._issue(), "expires_in": TOKEN_LIFETIME_S})

"""Access tokens: the two new calls and the old one, one token for both API families (PROTOCOL 6.2)."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final

from claw.emulator.answers import api_error, read_json, reply, words

if TYPE_CHECKING:
    from aiohttp import web

    from claw.emulator.faults import Faults
    from claw.emulator.gateway import Gateway

LIFE: Final = 7200
"""Seconds; fetching it again renews it under the same value."""


class Tokens:
    def __init__(self, *, gateway: Gateway, faults: Faults) -> None:
        self.fetched = 0
        self._gateway = gateway
        self._faults = faults
        self._value = ""
        self._expires = 0.0

    def valid(self, token: str) -> bool:
        return bool(token) and token == self._value and time.monotonic() < self._expires

    def expire(self) -> None:
        """From now on the token is refused: the client has to fetch another one."""
        self._value = ""

    def _issue(self) -> str:
        now = time.monotonic()
        if not self._value or now >= self._expires:
            self._value = uuid.uuid4().hex
        self._expires = now + LIFE
        return self._value

    def _known(self, client_id: str, secret: str) -> bool:
        gateway = self._gateway
        if not client_id or not secret:
            return False
        if gateway.client_id is None:
            gateway.adopt(client_id)
        return client_id == gateway.client_id and gateway.client_secret in (None, secret)

    async def app_token(self, request: web.Request) -> web.Response:
        """``POST /v1.0/oauth2/accessToken``."""
        self.fetched += 1
        status = self._faults.take("token_status")
        if status:
            return api_error(status)
        body = await read_json(request)
        if body is None or not self._known(words(body.get("appKey")), words(body.get("appSecret"))):
            return api_error(400, "invalidClientIdOrSecret", "无效的clientId或者clientSecret")
        return reply({"accessToken": self._issue(), "expireIn": LIFE})

    async def corp_token(self, request: web.Request) -> web.Response:
        """``POST /v1.0/oauth2/{corpId}/token``."""
        self.fetched += 1
        status = self._faults.take("token_status")
        if status:
            return api_error(status)
        body = await read_json(request)
        if body is None or not self._known(words(body.get("client_id")), words(body.get("client_secret"))):
            return api_error(400, "invalid.client", "invalid client")
        if body.get("grant_type") != "client_credentials":
            return api_error(400, "unsupported.grant.type", "unsupported grant type")
        return reply({"access_token": self._issue(), "expires_in": LIFE})

    async def old_token(self, request: web.Request) -> web.Response:
        """``GET /gettoken``."""
        self.fetched += 1
        status = self._faults.take("token_status")
        if status:
            return reply({"errcode": -1, "errmsg": "系统繁忙"}, status=status)
        if not self._known(request.query.get("appkey", ""), request.query.get("appsecret", "")):
            return reply({"errcode": 40089, "errmsg": "不合法的corpid或corpsecret"})
        return reply({"errcode": 0, "errmsg": "ok", "access_token": self._issue(), "expires_in": LIFE})

"""The app's access token, which each call of the OpenAPI carries (docs/protocol.md section 6.2).

Order of events of `get`: a token that is good for some minutes is given out at once; else one fetch is begun, and
everybody who asks meanwhile waits for that one (single flight), since fetching often is throttled. A token that
DingTalk refused before its time is forgotten, and the next `get` fetches another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from yarl import URL

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.codes import parse_number
from claw.dingtalk.quota import Api
from claw.observe.redact import register
from claw.secret import Secret

TOKEN_EARLY_S: Final = 300.0
"""Seconds before its end at which a token is replaced (docs/protocol.md section 6.2)."""
TOKEN_LIFE_S: Final = 7200.0
"""Seconds of a token whose answer names no life that makes sense (docs/protocol.md section 6.2)."""
TOKEN_LIFE_MAX_S: Final = 30 * 24 * 3600


class _Flight(NamedTuple):
    """One fetch, and those who wait for it."""

    task: asyncio.Task[str]
    waiting: set[object]


class TokenCache:
    """Fetches the token on demand. `endpoint` is DINGTALK_OPENAPI_ENDPOINT.

    `credentials` is asked at each fetch, since a secret that is kept in a file may be rotated.
    """

    def __init__(
        self, client: DingTalkClient, endpoint: str, credentials: Callable[[], Credentials], clock: Clock
    ) -> None:
        self._client = client
        self._url = URL(f"{endpoint.rstrip('/')}/v1.0/oauth2/accessToken")
        self._credentials = credentials
        self._clock = clock
        self._token = Secret("")
        self._good_until = 0.0
        """By the monotonic clock."""
        self._flight: _Flight | None = None

    async def get(self) -> str:
        """Return a token that is good for some minutes. Raises DingTalkError."""
        if self._token and self._clock.monotonic() < self._good_until:
            return self._token.reveal()
        if self._flight is None or self._flight.task.done():
            self._flight = _Flight(asyncio.create_task(self._fetch(), name="claw.dingtalk.token"), set())
        flight = self._flight
        me = object()
        flight.waiting.add(me)
        try:
            # Shielded: the caller that began the fetch may be cancelled, the others still need it.
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting.discard(me)
            if not flight.waiting:
                # Nobody needs it any more. Cancelling a task that is done changes nothing.
                flight.task.cancel()
                # Unless a later caller has begun another fetch meanwhile, which is not ours to drop.
                if self._flight is flight:
                    self._flight = None

    def forget(self, token: str) -> None:
        """Do not give out `token` any more; another one that came meanwhile stays."""
        if self._token == Secret(token):
            self._token = Secret("")

    async def _fetch(self) -> str:
        credentials = self._credentials()
        secret = credentials.client_secret.reveal()
        payload = {"appKey": credentials.client_id, "appSecret": secret}
        body = await self._client.post(Api.TOKEN, self._url, payload, redact=secret)
        token: str = body["accessToken"]
        named_s = parse_number(body.get("expireIn")) or 0
        life_s = named_s if 0 < named_s <= TOKEN_LIFE_MAX_S else TOKEN_LIFE_S
        # Of a token that is good for less than ten minutes, half its life is used.
        self._good_until = self._clock.monotonic() + max(life_s - TOKEN_EARLY_S, life_s / 2)
        self._token = Secret(token)
        register(self._token)
        return token

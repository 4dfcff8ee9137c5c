"""DingTalk's new API: the access token, sends of the robot, addresses of files.

Order of events of a call: a token that is cached, or fetched once for all who wait for it; the call; where the token
was refused, a fresh one and the call once more.

Robot sends have no idempotency key. One that was not answered may have been delivered, and is still worth another
try: a message must not be lost. Its error says `maybe_delivered`, so that the worker can bound how often it is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.dingtalk.client import CALL_TIMEOUT, DingTalkClient, encode_json
from claw.dingtalk.codes import Json, parse_number
from claw.dingtalk.quota import Api, CallCounter
from claw.errors import DingTalkError, DingTalkReason
from claw.observe import logs
from claw.secret import Secret

TOKEN_EARLY: Final = 300.0
"""Seconds before its end at which a token is replaced (PROTOCOL section 6.2)."""
TOKEN_LIFE: Final = 7200.0
"""Seconds of a token where the answer tells none that makes sense (PROTOCOL section 6.2)."""
TOKEN_LIFE_MAX: Final = 30 * 24 * 3600
PARAM_MAX: Final = 15_000
"""Bytes of `msgParam` (KB 0716: of group sends; kept for direct ones too)."""
_TOKEN_HEADER: Final = "x-acs-dingtalk-access-token"  # noqa: S105 - a header's name

# --- token ---------------------------------------------------------------------------------------------------------


class _Flight(NamedTuple):
    """A token on its way, and who waits for it."""

    task: asyncio.Task[str]
    waiting: set[object]


class TokenCache:
    """The app's access token: fetched when it is asked for, once for all who ask at the same time.

    The fetch belongs to all its waiters together: it outlives the one that began it, and ends with the last.
    """

    def __init__(
        self, caller: DingTalkClient, endpoint: str, credentials: Callable[[], Credentials], clock: Clock
    ) -> None:
        self._caller = caller
        self._url = URL(f"{endpoint}/v1.0/oauth2/accessToken")
        self._credentials = credentials
        self._clock = clock
        self._token = Secret("")
        self._good_until = 0.0
        self._flight: _Flight | None = None

    async def get(self) -> str:
        """A token that is good for some minutes. Raises DingTalkError."""
        if self._token and self._clock.monotonic() < self._good_until:
            return self._token.reveal()
        if self._flight is None or self._flight.task.done():
            self._flight = _Flight(asyncio.create_task(self._fetch(), name="dingtalk-token"), set())
        flight = self._flight
        me = object()
        flight.waiting.add(me)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting.discard(me)
            if not flight.waiting:
                flight.task.cancel()
                self._flight = None if self._flight is flight else self._flight

    def forget(self, token: str) -> None:
        """Do not give out `token` any more; another one that came meanwhile stays."""
        if self._token == Secret(token):
            self._token = Secret("")

    async def _fetch(self) -> str:
        credentials = self._credentials()
        secret = credentials.client_secret.reveal()
        payload = {"appKey": credentials.client_id, "appSecret": secret}
        body = await self._caller.post(Api.TOKEN, self._url, payload, redact=secret)
        token: str = body["accessToken"]
        told = parse_number(body.get("expireIn")) or 0
        life = told if 0 < told <= TOKEN_LIFE_MAX else TOKEN_LIFE
        self._good_until = self._clock.monotonic() + max(life - TOKEN_EARLY, life / 2)
        self._token = Secret(token)
        logs.register(self._token)
        return token


# --- calls ---------------------------------------------------------------------------------------------------------


class OpenApiClient:
    """The calls of the new API that answers need. `endpoint` is DINGTALK_OPENAPI_ENDPOINT."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoint: str,
        credentials: Callable[[], Credentials],
        clock: Clock,
        calls: CallCounter,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._caller = DingTalkClient(http, calls, timeout=timeout)
        self.tokens = TokenCache(self._caller, self._endpoint, credentials, clock)

    async def send_direct(self, robot_code: str, staff_id: str, title: str, text: str) -> None:
        """Send markdown to one person. Raises DingTalkError."""
        payload = {"robotCode": robot_code, "userIds": [staff_id], **_markdown(Api.DIRECT, title, text)}
        await self._call(Api.DIRECT, "/v1.0/robot/oToMessages/batchSend", payload)

    async def send_group(self, robot_code: str, conversation_id: str, title: str, text: str) -> None:
        """Send markdown to a group, where nobody can be mentioned. Raises DingTalkError as `send_direct` does."""
        payload = {
            "robotCode": robot_code,
            "openConversationId": conversation_id,
            **_markdown(Api.GROUP, title, text),
        }
        await self._call(Api.GROUP, "/v1.0/robot/groupMessages/send", payload)

    async def download_url(self, robot_code: str, code: Secret) -> Secret:
        """Where the file of a download code can be fetched for a short time, by anybody. Raises DingTalkError."""
        payload = {"downloadCode": code.reveal(), "robotCode": robot_code}
        body = await self._call(Api.DOWNLOAD, "/v1.0/robot/messageFiles/download", payload)
        return Secret(body["downloadUrl"])

    async def _call(self, api: Api, path: str, payload: Mapping[str, object]) -> Json:
        url = URL(f"{self._endpoint}{path}")

        async def post(token: str) -> Json:
            return await self._caller.post(api, url, payload, headers={_TOKEN_HEADER: token}, redact=token)

        token = await self.tokens.get()
        try:
            return await post(token)
        except DingTalkError as error:
            if error.reason is not DingTalkReason.TOKEN_INVALID:
                raise
            self.tokens.forget(token)
        return await post(await self.tokens.get())


def _markdown(api: Api, title: str, text: str) -> dict[str, str]:
    param = encode_json({"title": title, "text": text})
    if len(param) > PARAM_MAX:
        raise DingTalkError(api, "the message is too long", reason=DingTalkReason.TOO_LONG)
    return {"msgKey": "sampleMarkdown", "msgParam": param.decode()}

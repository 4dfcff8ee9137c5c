"""DingTalk's OpenAPI: sends of the robot, addresses of files (docs/protocol.md sections 6.3 and 6.4).

Order of events of a call: take the token (tokens.py), wait until there is room for another call of this second
(pace.py), make the call; where DingTalk refused the token, take a fresh one and make the call once more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.dingtalk.client import DingTalkClient, encode_json
from claw.dingtalk.codes import Json
from claw.dingtalk.pace import CallPace
from claw.dingtalk.quota import Api
from claw.dingtalk.tokens import TokenCache
from claw.errors import DingTalkError, DingTalkReason
from claw.secret import Secret

PARAM_MAX_BYTES: Final = 15_000
"""Bytes of `msgParam` (docs/protocol.md section 6.3: of group sends; kept for direct ones too)."""

_TOKEN_HEADER: Final = "x-acs-dingtalk-access-token"  # noqa: S105 - a header's name


class UploadedFile(NamedTuple):
    """A file as a message names it; `kind` is `fileType`."""

    media_id: str
    name: str
    kind: str


class OpenApiClient:
    """The calls of the OpenAPI that answers need. `endpoint` is DINGTALK_OPENAPI_ENDPOINT."""

    def __init__(
        self,
        client: DingTalkClient,
        endpoint: str,
        credentials: Callable[[], Credentials],
        clock: Clock,
        *,
        pace: CallPace | None = None,
    ) -> None:
        """`pace`: how the app's calls a second are shared; None: this process has them all."""
        self._client = client
        self._pace = pace or CallPace(clock, lambda: 1)
        self._endpoint = endpoint.rstrip("/")
        self.tokens = TokenCache(client, endpoint, credentials, clock)

    async def send_direct(self, robot_code: str, staff_id: str, title: str, text: str) -> str:
        """Send markdown to one person; return its receipt (`processQueryKey`). Raises DingTalkError."""
        # One person for each call: if one of several were held back, another try would repeat it to the others.
        payload = {"robotCode": robot_code, "userIds": [staff_id], **_make_markdown(Api.DIRECT, title, text)}
        body = await self.call(Api.DIRECT, "/v1.0/robot/oToMessages/batchSend", payload)
        return str(body["processQueryKey"])

    async def send_group(self, robot_code: str, conversation_id: str, title: str, text: str) -> str:
        """Send markdown to a group, where nobody can be mentioned; return its receipt. Raises DingTalkError."""
        payload = {
            "robotCode": robot_code,
            "openConversationId": conversation_id,
            **_make_markdown(Api.GROUP, title, text),
        }
        body = await self.call(Api.GROUP, "/v1.0/robot/groupMessages/send", payload)
        return str(body["processQueryKey"])

    async def send_file_direct(self, robot_code: str, staff_id: str, file: UploadedFile) -> str:
        """Send an uploaded file to one person; return its receipt. Raises DingTalkError."""
        payload = {"robotCode": robot_code, "userIds": [staff_id], **_make_file(file)}
        body = await self.call(Api.DIRECT, "/v1.0/robot/oToMessages/batchSend", payload)
        return str(body["processQueryKey"])

    async def send_file_group(self, robot_code: str, conversation_id: str, file: UploadedFile) -> str:
        """Send an uploaded file to a group; return its receipt. Raises DingTalkError."""
        payload = {"robotCode": robot_code, "openConversationId": conversation_id, **_make_file(file)}
        body = await self.call(Api.GROUP, "/v1.0/robot/groupMessages/send", payload)
        return str(body["processQueryKey"])

    async def get_download_url(self, robot_code: str, code: Secret) -> Secret:
        """Trade a download code for an address, good for a short time and for anybody. Raises DingTalkError."""
        payload = {"downloadCode": code.reveal(), "robotCode": robot_code}
        body = await self.call(Api.DOWNLOAD, "/v1.0/robot/messageFiles/download", payload)
        return Secret(body["downloadUrl"])

    async def call(
        self,
        api: Api,
        path: str,
        payload: Mapping[str, object],
        *,
        method: str = "POST",
        step: bool = False,
        on_begin: Callable[[], None] = lambda: None,
    ) -> Json:
        """Make a call of the OpenAPI. Raises DingTalkError.

        `step`: one that others may go before (pace.py); `on_begin` is called when nothing is waited for any more.
        """
        url = URL(f"{self._endpoint}{path}")

        async def send(token: str) -> Json:
            headers = {_TOKEN_HEADER: token}
            on_begin()
            return await self._client.post(api, url, payload, method=method, headers=headers, redact=token)

        return await self._with_token(api, send, step=step)

    def is_busy(self, api: Api) -> bool:
        """Whether a call of `api` would have to wait for seconds."""
        return self._pace.is_busy(api)

    async def upload(self, url: URL, make_form: Callable[[], aiohttp.MultipartWriter], **query: str) -> Json:
        """Post a file to the old API, which takes the token in its address. Raises DingTalkError."""

        async def send(token: str) -> Json:
            address = url.with_query({**query, "access_token": token})
            # A form anew for each try: it is read while it is sent.
            return await self._client.upload(Api.UPLOAD, address, make_form(), redact=token)

        return await self._with_token(Api.UPLOAD, send)

    async def _with_token(self, api: Api, send: Callable[[str], Awaitable[Json]], *, step: bool = False) -> Json:
        token = await self.tokens.get()
        paced = await self._pace.wait(api, step=step)
        try:
            return await send(token)
        except DingTalkError as error:
            # A refused token did nothing, so that this repetition shows nothing twice. Once: a fresh token that is
            # refused as well is no matter of time.
            if error.reason is not DingTalkReason.TOKEN_INVALID:
                raise
        finally:
            paced.end()
        self.tokens.forget(token)
        fresh = await self.tokens.get()
        paced = await self._pace.wait(api, step=step)
        try:
            return await send(fresh)
        finally:
            paced.end()


def _make_markdown(api: Api, title: str, text: str) -> dict[str, str]:
    """Make the fields of a markdown message. Raises DingTalkError where it is too long: the call is saved."""
    param = encode_json({"title": title, "text": text})
    if len(param) > PARAM_MAX_BYTES:
        raise DingTalkError(api, "the message is too long", reason=DingTalkReason.TOO_LONG)
    return {"msgKey": "sampleMarkdown", "msgParam": param.decode()}


def _make_file(file: UploadedFile) -> dict[str, str]:
    param = encode_json({"mediaId": file.media_id, "fileName": file.name, "fileType": file.kind})
    return {"msgKey": "sampleFile", "msgParam": param.decode()}

"""DingTalk's OpenAPI: sends of the robot, addresses of files (docs/protocol.md sections 6.3 and 6.4).

Order of events of a call: take the token (tokens.py), make the call; where DingTalk refused the token, take a fresh
one and make the call once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from yarl import URL

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.dingtalk.client import DingTalkClient, encode_json
from claw.dingtalk.codes import Json
from claw.dingtalk.quota import Api
from claw.dingtalk.tokens import TokenCache
from claw.errors import DingTalkError, DingTalkReason
from claw.secret import Secret

PARAM_MAX_BYTES: Final = 15_000
"""Bytes of `msgParam` (docs/protocol.md section 6.3: of group sends; kept for direct ones too)."""

_TOKEN_HEADER: Final = "x-acs-dingtalk-access-token"  # noqa: S105 - a header's name


class OpenApiClient:
    """The calls of the OpenAPI that answers need. `endpoint` is DINGTALK_OPENAPI_ENDPOINT."""

    def __init__(
        self, client: DingTalkClient, endpoint: str, credentials: Callable[[], Credentials], clock: Clock
    ) -> None:
        self._client = client
        self._endpoint = endpoint.rstrip("/")
        self.tokens = TokenCache(client, endpoint, credentials, clock)

    async def send_direct(self, robot_code: str, staff_id: str, title: str, text: str) -> None:
        """Send markdown to one person. Raises DingTalkError."""
        # One person for each call: if one of several were held back, another try would repeat it to the others.
        payload = {"robotCode": robot_code, "userIds": [staff_id], **_make_markdown(Api.DIRECT, title, text)}
        await self._call(Api.DIRECT, "/v1.0/robot/oToMessages/batchSend", payload)

    async def send_group(self, robot_code: str, conversation_id: str, title: str, text: str) -> None:
        """Send markdown to a group, where nobody can be mentioned. Raises DingTalkError."""
        payload = {
            "robotCode": robot_code,
            "openConversationId": conversation_id,
            **_make_markdown(Api.GROUP, title, text),
        }
        await self._call(Api.GROUP, "/v1.0/robot/groupMessages/send", payload)

    async def get_download_url(self, robot_code: str, code: Secret) -> Secret:
        """Trade a download code for an address, good for a short time and for anybody. Raises DingTalkError."""
        payload = {"downloadCode": code.reveal(), "robotCode": robot_code}
        body = await self._call(Api.DOWNLOAD, "/v1.0/robot/messageFiles/download", payload)
        return Secret(body["downloadUrl"])

    async def _call(self, api: Api, path: str, payload: Mapping[str, object]) -> Json:
        url = URL(f"{self._endpoint}{path}")

        async def post(token: str) -> Json:
            return await self._client.post(api, url, payload, headers={_TOKEN_HEADER: token}, redact=token)

        token = await self.tokens.get()
        try:
            return await post(token)
        except DingTalkError as error:
            # A refused token did nothing, so that this repetition shows nothing twice. Once: a fresh token that is
            # refused as well is no matter of time.
            if error.reason is not DingTalkReason.TOKEN_INVALID:
                raise
        self.tokens.forget(token)
        return await post(await self.tokens.get())


def _make_markdown(api: Api, title: str, text: str) -> dict[str, str]:
    """Make the fields of a markdown message. Raises DingTalkError where it is too long: the call is saved."""
    param = encode_json({"title": title, "text": text})
    if len(param) > PARAM_MAX_BYTES:
        raise DingTalkError(api, "the message is too long", reason=DingTalkReason.TOO_LONG)
    return {"msgKey": "sampleMarkdown", "msgParam": param.decode()}

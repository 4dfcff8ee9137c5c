"""The session webhook: the address that came with a message, good for answers to it for some 90 minutes.

Order of events: the address is checked against the hosts that may be answered, the body is encoded and measured,
posted once, and judged by its errcode, since DingTalk refuses with HTTP 200 (PROTOCOL section 6.1). The address is
a secret of its own: whoever has it can write into the conversation. It is in no error, log or span.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import aiohttp

from claw.dingtalk.client import CALL_TIMEOUT, DingTalkClient, encode_json
from claw.dingtalk.hosts import UrlPolicy, parse
from claw.dingtalk.quota import Api, CallCounter
from claw.errors import DingTalkError, DingTalkReason
from claw.secret import Secret

BODY_MAX: Final = 20_000
"""Bytes of a body (errcode 460101)."""


class WebhookClient:
    """Sends to session webhooks. `endpoints`: the configured ones, whose hosts may be answered beside DingTalk's."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoints: Iterable[str],
        calls: CallCounter,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._caller = DingTalkClient(http, calls, timeout=timeout)
        self._hosts = UrlPolicy(endpoints)

    async def send(self, url: Secret, title: str, text: str, at_user_ids: Sequence[str] = ()) -> None:
        """Send markdown; whom it mentions must be in `text` as a literal `@id` to be highlighted.

        Raises DingTalkError.
        """
        address = parse(url.reveal())
        if address is None or not self._hosts.dingtalk(address):
            detail = "the session webhook names an unknown host"
            raise DingTalkError(Api.WEBHOOK, detail, reason=DingTalkReason.WEBHOOK_HOST)
        payload: dict[str, object] = {"msgtype": "markdown", "markdown": {"title": title, "text": text}}
        ids = [each for each in at_user_ids if each]
        if ids:
            payload["at"] = {"atUserIds": ids, "isAtAll": False}
        if len(encode_json(payload)) > BODY_MAX:
            raise DingTalkError(Api.WEBHOOK, "the message is too long", reason=DingTalkReason.TOO_LONG)
        await self._caller.post(Api.WEBHOOK, address, payload)

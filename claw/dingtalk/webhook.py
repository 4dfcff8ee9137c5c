"""The session webhook: the address that came with a message, good for answers to it for some 90 minutes.

Order of events: the address is checked against the hosts that may be answered, the body is encoded and measured, and
posted once (docs/protocol.md section 6.1). The address is a secret of its own: whoever has it can write into the
conversation. It is in no error, log or span.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from claw.dingtalk.client import DingTalkClient, encode_json
from claw.dingtalk.hosts import UrlPolicy, parse_url
from claw.dingtalk.quota import Api
from claw.errors import DingTalkError, DingTalkReason
from claw.secret import Secret

BODY_MAX_BYTES: Final = 20_000
"""Bytes of a body; more is errcode 460101 (docs/protocol.md section 6.1)."""


class WebhookClient:
    """Sends to session webhooks. `endpoints`: the configured ones, whose hosts may be answered beside DingTalk's."""

    def __init__(self, client: DingTalkClient, endpoints: Iterable[str]) -> None:
        self._client = client
        self._policy = UrlPolicy(endpoints)

    async def send(self, url: Secret, title: str, text: str, at_user_ids: Sequence[str] = ()) -> None:
        """Send markdown; whom it mentions must be in `text` as a literal `@id` to be highlighted.

        Raises DingTalkError; by its reason, WEBHOOK_EXPIRED or WEBHOOK_HOST, another way may do better.
        """
        address = parse_url(url.reveal())
        if address is None or not self._policy.is_dingtalk(address):
            detail = "the session webhook names an unknown host"
            raise DingTalkError(Api.WEBHOOK, detail, reason=DingTalkReason.WEBHOOK_HOST)
        payload: dict[str, object] = {"msgtype": "markdown", "markdown": {"title": title, "text": text}}
        # An empty id would be taken for a person whom nobody can find.
        ids = [each for each in at_user_ids if each]
        if ids:
            payload["at"] = {"atUserIds": ids, "isAtAll": False}
        # A body that is too long would be refused, and billed.
        if len(encode_json(payload)) > BODY_MAX_BYTES:
            raise DingTalkError(Api.WEBHOOK, "the message is too long", reason=DingTalkReason.TOO_LONG)
        await self._client.post(Api.WEBHOOK, address, payload)

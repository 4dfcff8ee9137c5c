"""The session webhook: the address that came with a message, good for answers to it for some 90 minutes.

Order of events: the address is checked against the hosts that may be answered, the body is encoded and measured,
posted once, and judged by its errcode, since DingTalk refuses with HTTP 200 (PROTOCOL section 6.1). The address is
a secret of its own: whoever has it can write into the conversation. It is in no error, log or span.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import aiohttp

from claw.dingtalk.client import (
    CALL_TIMEOUT,
    THROTTLE_WAIT,
    Api,
    CallCounter,
    DingTalkClient,
    ErrorRule,
    encode,
    number,
    rule_of_status,
)
from claw.dingtalk.hosts import UrlPolicy, parse
from claw.errors import DingTalkError, WebhookGoneError
from claw.secret import Secret

BODY_MAX: Final = 20_000
"""Bytes of a body (errcode 460101)."""
MINUTE_WAIT: Final = 60.0
"""Seconds: 20 messages a minute are taken; the throttle itself may last 10 minutes (KB 0717)."""
UNKNOWN_HOST: Final = "webhook.host"
"""`code` of the error for an address that is not DingTalk's."""


_THROTTLED: Final = ErrorRule("too many messages a minute", retryable=True, retry_after=MINUTE_WAIT)
_CONTENT: Final = "DingTalk refused the content: "
ERRCODES: Final[Mapping[int, ErrorRule]] = {
    -1: ErrorRule("DingTalk is busy", retryable=True),
    300001: ErrorRule("the session webhook has expired or is unknown"),
    310000: ErrorRule("the robot's security settings refused the message"),
    400013: ErrorRule("the group was dissolved"),
    400101: ErrorRule("the session webhook has no token"),
    400102: ErrorRule("the robot is switched off"),
    400105: ErrorRule("the message type is not supported"),
    400106: ErrorRule("the robot does not exist"),
    40035: ErrorRule("the body is missing"),
    43004: ErrorRule("the content type is wrong"),
    430101: ErrorRule(f"{_CONTENT}an unsafe link"),
    430102: ErrorRule(f"{_CONTENT}its text"),
    430103: ErrorRule(f"{_CONTENT}a picture"),
    430104: ErrorRule(f"{_CONTENT}unsuitable"),
    410100: _THROTTLED,
    130101: _THROTTLED,
    460101: ErrorRule("the message is too long"),
    90002: ErrorRule("too many calls a second", retryable=True, retry_after=THROTTLE_WAIT),
    90018: ErrorRule("too many calls a second", retryable=True, retry_after=THROTTLE_WAIT),
    90020: ErrorRule("the organisation's calls of this month are used up"),
}
"""What each errcode means (PROTOCOL sections 6.1 and 6.6)."""
_GONE: Final = 300001


def classify(status: int, body: object) -> DingTalkError | None:
    """What an answer means; None: delivered. `body` is its JSON, or None where it has none that can be read.

    An errcode that nobody knows is worth another try: nothing was delivered, and it may be of the moment.
    """
    fields = body if isinstance(body, dict) else {}
    errcode = number(fields.get("errcode"))
    if errcode == 88:
        errcode = number(fields.get("sub_code")) or errcode
    if errcode == 0 and 200 <= status < 300:
        return None
    if errcode == _GONE:
        return WebhookGoneError(Api.WEBHOOK, ERRCODES[_GONE].reason, status=status, errcode=errcode)
    rule = ERRCODES.get(errcode) if errcode is not None else None
    if rule is None:
        known = errcode is not None and 200 <= status < 300
        rule = ErrorRule(f"errcode {errcode}", retryable=True) if known else rule_of_status(status)
    return DingTalkError(
        Api.WEBHOOK,
        rule.reason,
        status=status,
        errcode=errcode,
        retryable=rule.retryable,
        retry_after=rule.retry_after,
        maybe_delivered=rule.maybe_delivered,
    )


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

        Raises WebhookGoneError where the webhook has expired, and DingTalkError.
        """
        address = parse(url.reveal())
        if address is None or not self._hosts.dingtalk(address):
            raise DingTalkError(Api.WEBHOOK, "the session webhook names an unknown host", code=UNKNOWN_HOST)
        payload: dict[str, object] = {"msgtype": "markdown", "markdown": {"title": title, "text": text}}
        ids = [each for each in at_user_ids if each]
        if ids:
            payload["at"] = {"atUserIds": ids, "isAtAll": False}
        if len(encode(payload)) > BODY_MAX:
            raise DingTalkError(Api.WEBHOOK, ERRCODES[460101].reason, errcode=460101)
        await self._caller.post(Api.WEBHOOK, address, payload, classify, traced=True)

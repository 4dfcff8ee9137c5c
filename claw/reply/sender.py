"""Sends an answer into the conversation that its message came from.

Order of events: the text is made ready and cut into parts, always the same ones, so that `Answer.sent` names the same
part after a restart; each part goes by the session webhook while that is good, else by the OpenAPI; after each part
but the last `progress` keeps the count. One part size fits both ways, since the way may change between two parts.

A part is tried once here: the worker's durable retry is the only one. What changes is the way: a webhook that has
expired, is throttled (it stays so for minutes) or is not DingTalk's is left for the OpenAPI for the rest of the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from claw.clock import Clock
from claw.dingtalk.codes import QPM_WAIT_S
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import Api
from claw.dingtalk.webhook import WebhookClient
from claw.errors import DingTalkError, DingTalkReason
from claw.language import Language
from claw.messages import Answer, ChatKind, Inbound
from claw.reply.markdown import format_for_dingtalk, measure_json, split, make_title

PART_MAX_BYTES: Final = 14_000
"""Bytes of a part inside JSON. It has to fit, with its title, into the OpenAPI's `msgParam` (15 000 bytes) and, with
a mention, into a webhook's body (20 000). Few large parts rather than many small ones: each call is paid for."""
WEBHOOK_MARGIN_S: Final = 10.0
"""Seconds before its end at which a webhook is no longer used: a call may take as long."""
MENTION_MAX_CHARS: Final = 64
"""Characters of a staff id that is mentioned; DingTalk's userId is no longer."""

_OTHER_WAY: Final = frozenset({DingTalkReason.WEBHOOK_EXPIRED, DingTalkReason.WEBHOOK_HOST})
"""Reasons for which a webhook will not take this answer, and the OpenAPI may."""

log: Final = logging.getLogger(__name__)


def plan_parts(text: str) -> list[str]:
    """The parts in which an answer is sent: the same for the same text."""
    return split(format_for_dingtalk(text), PART_MAX_BYTES, measure=measure_json)


class AnswerSender:
    """Sends answers. `language` names an answer that has no words, such as one that is only a picture."""

    def __init__(self, webhook: WebhookClient, openapi: OpenApiClient, language: Language, clock: Clock) -> None:
        self._webhook = webhook
        self._openapi = openapi
        self._language = language
        self._clock = clock

    async def send(self, inbound: Inbound, answer: Answer, progress: Callable[[Answer], Awaitable[None]]) -> None:
        """Send what of `answer` is not out yet; `progress` gets the answer after each part but the last.

        Raises DingTalkError, after which another `send` of the last answer that `progress` got goes on from there;
        and whatever `progress` raises.
        """
        parts = plan_parts(answer.text)
        title = make_title(answer.text, self._language)
        by_webhook = self._webhook_is_good(inbound)
        for index in range(answer.sent, len(parts)):
            if by_webhook:
                by_webhook = await self._send_either_way(inbound, title, parts[index], first=index == 0)
            else:
                await self._send_by_openapi(inbound, title, parts[index])
            if index + 1 < len(parts):
                await progress(answer.with_sent(index + 1))

    def _webhook_is_good(self, inbound: Inbound) -> bool:
        """Whether there is one, and it is not about to end; one whose end was not told is tried."""
        left = inbound.webhook_expires - self._clock.wall()
        return bool(inbound.webhook) and (inbound.webhook_expires <= 0 or left > WEBHOOK_MARGIN_S)

    async def _send_either_way(self, inbound: Inbound, title: str, part: str, *, first: bool) -> bool:
        """Send by the webhook, or else by the OpenAPI. Whether the webhook is good for the next part, too."""
        mention = _mention(inbound) if first else ""
        text = f"@{mention}\n\n{part}" if mention else part
        refused = await self._try_webhook(inbound, title, text, [mention] if mention else [])
        if refused is None:
            return True
        log.warning(
            "session webhook cannot be used, sending by OpenAPI",
            extra={"reason": refused.detail, "errcode": refused.errcode},
        )
        try:
            await self._send_by_openapi(inbound, title, part)
        except DingTalkError as error:
            if refused.retryable and not error.retryable:
                # The OpenAPI will never do it (no permission, no staff id), the webhook will when it is free again.
                raise refused from None
            raise
        return False

    async def _try_webhook(self, inbound: Inbound, title: str, text: str, at: list[str]) -> DingTalkError | None:
        """Send by the webhook; the error where the OpenAPI may do better, any other is raised."""
        try:
            await self._webhook.send(inbound.webhook, title, text, at)
        except DingTalkError as error:
            # A long wait after an answer that never came may hide a delivery: another way would show it twice.
            throttled = error.retryable and not error.maybe_delivered and (error.retry_after or 0) >= QPM_WAIT_S
            if throttled or error.reason in _OTHER_WAY:
                return error
            raise
        return None

    async def _send_by_openapi(self, inbound: Inbound, title: str, part: str) -> None:
        if inbound.conversation.kind is ChatKind.GROUP:
            await self._openapi.send_group(inbound.robot_code, inbound.conversation.id, title, part)
        elif inbound.sender.staff_id:
            await self._openapi.send_direct(inbound.robot_code, inbound.sender.staff_id, title, part)
        else:
            detail = "the session webhook cannot be used, and a person without staff id cannot be written to otherwise"
            raise DingTalkError(Api.DIRECT, detail, reason=DingTalkReason.USER_INVALID)


def _mention(inbound: Inbound) -> str:
    """The staff id of whom to mention: in groups the one who asked, where it is known."""
    staff_id = inbound.sender.staff_id
    usable = len(staff_id) <= MENTION_MAX_CHARS and staff_id.isprintable() and " " not in staff_id
    return staff_id if inbound.conversation.kind is ChatKind.GROUP and usable else ""

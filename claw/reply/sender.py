"""Sends an answer into the conversation that its message came from.

Order of events: the content is planned as deliveries (plan.py), always the same ones, so that `Answer.sent` names the
same delivery after a restart. Each goes by the session webhook until DingTalk refuses that, then by the OpenAPI. After
each but the last, `progress` keeps the count. One size fits both ways, since the way may change between two deliveries.

A delivery is tried once here: the worker's durable retry is the only one. What changes is the way, and only by
DingTalk's own word: a webhook that it calls expired, switched off, throttled (it stays so for minutes) or used up is
left for the OpenAPI for the rest of the answer, as is one that is not at DingTalk. A proxy's word changes nothing.

When a webhook expires DingTalk says, not our clock, which may be hours off. A webhook that has expired costs one call
more for that: DingTalk refuses it, then the message goes out by the OpenAPI. Until the process ends it is not tried
again for the same message.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import Api
from claw.dingtalk.webhook import WebhookClient
from claw.errors import DingTalkError, DingTalkReason
from claw.language import Language
from claw.messages import Answer, ChatKind, Inbound
from claw.reply.plan import PlannedDelivery, Planner

EXPIRED_MAX: Final = 1024
"""Messages whose webhooks are remembered as expired; forgetting one costs a call."""
MENTION_MAX_CHARS: Final = 64
"""Characters of a staff id that is mentioned; DingTalk's userId is no longer."""
_OTHER_WAY: Final = frozenset(
    {
        DingTalkReason.WEBHOOK_EXPIRED,
        DingTalkReason.WEBHOOK_HOST,
        DingTalkReason.ROBOT_STOPPED,
        DingTalkReason.QPM,
        # Webhooks and the OpenAPI have a month's quota each (docs/protocol.md section 6.6).
        DingTalkReason.QUOTA_EXHAUSTED,
    }
)
"""Reasons for which a webhook will not take this answer now, and the OpenAPI may."""

log: Final = logging.getLogger(__name__)


class AnswerSender:
    """Sends answers, each in at most `max_parts` messages; `language` is of people who do not show theirs."""

    def __init__(self, webhook: WebhookClient, openapi: OpenApiClient, language: Language, max_parts: int) -> None:
        self._webhook = webhook
        self._openapi = openapi
        self._planner = Planner(language, max_parts)
        self._expired: dict[str, None] = {}
        """Keys of messages whose webhooks DingTalk called expired, oldest first."""

    async def send(self, inbound: Inbound, answer: Answer, progress: Callable[[Answer], Awaitable[None]]) -> None:
        """Send what of `answer` is not out yet; `progress` gets the answer after each delivery but the last.

        Raises DingTalkError, after which another `send` of the last answer that `progress` got goes on from there;
        and whatever `progress` raises.
        """
        deliveries = await self._planner.plan(inbound, answer)
        by_webhook = bool(inbound.webhook) and inbound.key not in self._expired
        for index in range(answer.sent, len(deliveries)):
            if by_webhook:
                by_webhook = await self._send_either_way(inbound, deliveries[index], first=index == 0)
            else:
                await self._send_by_openapi(inbound, deliveries[index])
            # After the last one the worker acks instead: one write of the store for both.
            if index + 1 < len(deliveries):
                await progress(answer.with_sent(index + 1))

    async def _send_either_way(self, inbound: Inbound, delivery: PlannedDelivery, *, first: bool) -> bool:
        """Send by the webhook, or else by the OpenAPI. Return whether the webhook is good for the next one, too."""
        # Only the first: a mention rings at the person's phone each time.
        mention = _find_mention(inbound) if first else ""
        text = f"@{mention}\n\n{delivery.text}" if mention else delivery.text
        refused = await self._try_webhook(inbound, delivery.title, text, [mention] if mention else [])
        if refused is None:
            return True
        log.warning(
            "session webhook cannot be used, sending by OpenAPI",
            extra={"reason": refused.detail, "errcode": refused.errcode},
        )
        try:
            await self._send_by_openapi(inbound, delivery)
        except DingTalkError as error:
            if refused.retryable and not error.retryable:
                # The OpenAPI will never do it (no permission, no staff id), the webhook will when it is free again.
                raise refused from None
            raise
        return False

    async def _try_webhook(self, inbound: Inbound, title: str, text: str, at: list[str]) -> DingTalkError | None:
        """Send by the webhook; return the error where the OpenAPI may do better, raise any other."""
        try:
            await self._webhook.send(inbound.webhook, title, text, at)
        except DingTalkError as error:
            if error.reason is DingTalkReason.WEBHOOK_EXPIRED:
                self._remember_expired(inbound.key)
            if error.reason in _OTHER_WAY:
                return error
            raise
        return None

    def _remember_expired(self, key: str) -> None:
        self._expired[key] = None
        if len(self._expired) > EXPIRED_MAX:
            del self._expired[next(iter(self._expired))]

    async def _send_by_openapi(self, inbound: Inbound, delivery: PlannedDelivery) -> None:
        if inbound.conversation.kind is ChatKind.GROUP:
            await self._openapi.send_group(inbound.robot_code, inbound.conversation.id, *delivery)
        elif inbound.sender.staff_id:
            await self._openapi.send_direct(inbound.robot_code, inbound.sender.staff_id, *delivery)
        else:
            detail = "the session webhook cannot be used, and a person without staff id cannot be written to otherwise"
            raise DingTalkError(Api.DIRECT, detail, reason=DingTalkReason.USER_INVALID)


def _find_mention(inbound: Inbound) -> str:
    """Find the staff id of whom to mention: in groups the one who asked, where it is known."""
    staff_id = inbound.sender.staff_id
    # An id with blanks would end the literal `@id` in the text early, and show half of it.
    usable = len(staff_id) <= MENTION_MAX_CHARS and staff_id.isprintable() and " " not in staff_id
    return staff_id if inbound.conversation.kind is ChatKind.GROUP and usable else ""

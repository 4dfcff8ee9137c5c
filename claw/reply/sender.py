"""Sends an answer into the conversation that its message came from.

Order of events: the content is planned as deliveries (plan.py), always the same ones, so that `Answer.sent` names the
same delivery after a restart. Each goes by the session webhook until DingTalk refuses that, then by the OpenAPI. After
each but the last, `progress` keeps the count. Files go by the OpenAPI alone: webhooks cannot send them. One that is
refused for good leaves a word in its place, since all that was written is out. One size fits both ways, since the way
may change between two deliveries.

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
from dataclasses import replace
from typing import Final

from claw.dingtalk.openapi import OpenApiClient, UploadedFile
from claw.dingtalk.quota import Api
from claw.dingtalk.webhook import WebhookClient
from claw.draft import DeliveryStoppedError
from claw.errors import DingTalkError, DingTalkReason
from claw.language import Language
from claw.messages import Answer, ChatKind, Inbound, SentFile
from claw.reply.media_words import say_not_sent
from claw.reply.mentions import is_mentionable, mention
from claw.reply.plan import PlannedDelivery, Planner
from claw.reply.titles import make_title

EXPIRED_MAX: Final = 1024
"""Messages whose webhooks are remembered as expired; forgetting one costs a call."""
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

    def __init__(
        self,
        webhook: WebhookClient,
        openapi: OpenApiClient,
        language: Language,
        max_parts: int,
        *,
        on_refused: Callable[[DingTalkError], None] = lambda _: None,
    ) -> None:
        """`on_refused` hears why a webhook did not take a message that then goes the other way."""
        self._on_refused = on_refused
        self._webhook = webhook
        self._openapi = openapi
        self.planner = self._planner = Planner(language, max_parts)
        self._expired: dict[str, None] = {}
        """Keys of messages whose webhooks DingTalk called expired, oldest first."""

    async def send(
        self,
        inbound: Inbound,
        answer: Answer,
        progress: Callable[[Answer], Awaitable[None]],
        *,
        by_openapi: bool = False,
    ) -> tuple[str, ...]:
        """Send what of `answer` is not out yet; `progress` gets the answer after each delivery but the last.

        `by_openapi`: the webhook is not to be used where there is another way, for its month's quota would not last.
        Returns the receipts of all deliveries that got one: webhooks give none.

        Raises DingTalkError, after which another `send` of the last answer that `progress` got goes on from there;
        and whatever `progress` raises.
        """
        deliveries = await self._planner.plan(inbound, answer)
        by_webhook = bool(inbound.webhook) and inbound.key not in self._expired
        if by_openapi and _can_reach(inbound):
            by_webhook = False
        for index in range(answer.sent, len(deliveries)):
            delivery = deliveries[index]
            receipt = await self._send_file(inbound, delivery) if isinstance(delivery, SentFile) else None
            if receipt is None:
                # In the file's own place, so that a restart counts the same deliveries.
                words = self._explain(inbound, delivery) if isinstance(delivery, SentFile) else delivery
                if by_webhook:
                    by_webhook, receipt = await self._send_either_way(inbound, words, first=index == 0)
                else:
                    receipt = await self._send_by_openapi(inbound, words)
            if receipt:
                answer = replace(answer, receipts=(*answer.receipts, receipt))
            # After the last one the worker acks instead: one write of the store for both.
            if index + 1 < len(deliveries):
                try:
                    await progress(answer.with_sent(index + 1))
                except DeliveryStoppedError as stop:
                    stop.shown = "\n\n".join(map(_describe, deliveries[: index + 1]))
                    raise
        return answer.receipts

    async def _send_file(self, inbound: Inbound, file: SentFile) -> str | None:
        """Send a file; return its receipt, or None where DingTalk will never take it."""
        sent = UploadedFile(file.media_id, file.name, file.file_type)
        try:
            if inbound.conversation.kind is ChatKind.GROUP:
                return await self._openapi.send_file_group(inbound.robot_code, inbound.conversation.id, sent)
            if inbound.sender.staff_id:
                return await self._openapi.send_file_direct(inbound.robot_code, inbound.sender.staff_id, sent)
        except DingTalkError as error:
            # For a while only: the worker tries again. It bounds that, as for any other part.
            if error.retryable:
                raise
            log.error("a file of an answer was refused", extra={"cause": str(error)})
        return None

    def _explain(self, inbound: Inbound, file: SentFile) -> PlannedDelivery:
        text = say_not_sent(file, self._planner.detect(inbound))
        return PlannedDelivery(make_title(text), text)

    async def _send_either_way(self, inbound: Inbound, delivery: PlannedDelivery, *, first: bool) -> tuple[bool, str]:
        """Send by the webhook, or else by the OpenAPI.

        Return whether the webhook is good for the next one, too, and the receipt, if there is one.
        """
        # Who asked, in the first one only: a mention rings at the person's phone each time.
        asker = _find_mention(inbound) if first else ""
        text, mentioned = mention(delivery.text, inbound)
        at = list(dict.fromkeys([asker, *mentioned] if asker else mentioned))
        text = f"@{asker}\n\n{text}" if asker and asker not in mentioned else text
        refused = await self._try_webhook(inbound, delivery.title, text, at)
        if refused is None:
            return True, ""
        log.warning(
            "session webhook cannot be used, sending by OpenAPI",
            extra={"reason": refused.detail, "errcode": refused.errcode},
        )
        try:
            receipt = await self._send_by_openapi(inbound, delivery)
        except DingTalkError as error:
            if refused.retryable and not error.retryable:
                # The OpenAPI will never do it (no permission, no staff id), the webhook will when it is free again.
                raise refused from None
            raise
        return False, receipt

    async def _try_webhook(self, inbound: Inbound, title: str, text: str, at: list[str]) -> DingTalkError | None:
        """Send by the webhook; return the error where the OpenAPI may do better, raise any other."""
        try:
            await self._webhook.send(inbound.webhook, title, text, at)
        except DingTalkError as error:
            if error.reason is DingTalkReason.WEBHOOK_EXPIRED:
                self._remember_expired(inbound.key)
            if error.reason in _OTHER_WAY:
                self._on_refused(error)
                return error
            raise
        return None

    def _remember_expired(self, key: str) -> None:
        self._expired[key] = None
        if len(self._expired) > EXPIRED_MAX:
            del self._expired[next(iter(self._expired))]

    async def _send_by_openapi(self, inbound: Inbound, delivery: PlannedDelivery) -> str:
        if inbound.conversation.kind is ChatKind.GROUP:
            return await self._openapi.send_group(inbound.robot_code, inbound.conversation.id, *delivery)
        if inbound.sender.staff_id:
            return await self._openapi.send_direct(inbound.robot_code, inbound.sender.staff_id, *delivery)
        detail = "the session webhook cannot be used, and a person without staff id cannot be written to otherwise"
        raise DingTalkError(Api.DIRECT, detail, reason=DingTalkReason.USER_INVALID)


def _can_reach(inbound: Inbound) -> bool:
    """Whether the OpenAPI can reach the chat: without a staff id there is no way to a person but the webhook."""
    return inbound.conversation.kind is ChatKind.GROUP or bool(inbound.sender.staff_id)


def _find_mention(inbound: Inbound) -> str:
    """Find the staff id of whom to mention: in groups the one who asked, where it is known."""
    staff_id = inbound.sender.staff_id
    return staff_id if inbound.conversation.kind is ChatKind.GROUP and is_mentionable(staff_id) else ""


def _describe(delivery: PlannedDelivery | SentFile) -> str:
    return f"[file: {delivery.name}]" if isinstance(delivery, SentFile) else delivery.text

"""Drafts: what the person sees of an answer before and at its end."""

from __future__ import annotations

from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.webhook import WebhookClient
from claw.language import Language
from claw.messages import Answer, Outcome
from claw.reply.outbound import Outbound
from claw.reply.sender import AnswerSender
from tests.dingtalk.conftest import FakeDingTalk, inbound


async def test_markdown_is_sent_at_the_end_only(
    webhook: WebhookClient, openapi: OpenApiClient, dingtalk: FakeDingTalk
) -> None:
    """In markdown mode nothing is sent before the end, and each part that is out is kept but the last."""
    counts: list[int] = []

    async def persist(answer: Answer) -> None:
        counts.append(answer.sent)

    outbound = Outbound(AnswerSender(webhook, openapi, Language.ZH, 5))
    draft = outbound.begin(inbound(webhook=dingtalk.webhook))
    draft.activity("search")
    draft.update("so far")
    assert dingtalk.requests == []
    text = "\n\n".join(f"{number}: " + "字" * 1500 for number in range(9))
    await draft.finish(Answer.of(text, Outcome.ANSWERED), persist)
    assert counts == list(range(1, len(dingtalk.requests)))
    assert len(dingtalk.requests) > 1

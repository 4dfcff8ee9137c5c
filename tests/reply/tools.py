"""What drafts need, over the small DingTalk of these tests; the store is in memory of the test."""

from __future__ import annotations

from pathlib import Path

from claw.budget import ByteBudget
from claw.clock import Clock
from claw.config.answers import ReplySettings
from claw.dingtalk.budget import MonthlyBudget, Quotas
from claw.dingtalk.cards import CardClient
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.pace import DueQueue
from claw.dingtalk.reactions import ReactionClient
from claw.dingtalk.upload import UploadClient
from claw.dingtalk.webhook import WebhookClient
from claw.files.reader import FileReader
from claw.language import Language
from claw.messages import Inbound, Route
from claw.reply.card import CardDesk, CardLook
from claw.reply.delivering import Delivering
from claw.reply.fetching import LinkFetcher
from claw.reply.media import HELD_MAX_BYTES, MediaSettler
from claw.reply.sender import AnswerSender
from claw.reply.signs import Signs
from claw.reply.spending import Spending
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Lease, RowKind
from tests.dingtalk.conftest import FakeDingTalk

TEMPLATE = "11111111-2222-3333-4444-555555555555.schema"


def lease_of(inbound: Inbound, clock: Clock, kind: RowKind = RowKind.MESSAGE) -> Lease:
    """Return the right to work on a message that was just put."""
    route = Route(inbound.chat_key, inbound.chat_key)
    return Lease(1, 1, "test", kind, route, inbound, {}, clock.wall())


async def open_store(path: Path, clock: Clock) -> SqliteStore:
    store = SqliteStore(path / "claw.db", clock=clock)
    await store.open()
    return store


def make_tools(
    store: SqliteStore,
    webhook: WebhookClient,
    openapi: OpenApiClient,
    dingtalk: FakeDingTalk,
    clock: Clock,
    *,
    settings: ReplySettings | None = None,
    settler: MediaSettler | None = None,
) -> Delivering:
    """Make what drafts share. Cards are used as `settings` say; all calls are allowed."""
    settings = settings or ReplySettings()
    sender = AnswerSender(webhook, openapi, Language.ZH, settings.max_parts)
    held = ByteBudget(HELD_MAX_BYTES)
    spending = Spending(
        settings,
        MonthlyBudget(Quotas(settings.monthly_api_calls, settings.monthly_webhook_calls), store.calls, clock),
        clock,
    )

    async def may_react() -> bool:
        return (await spending.choose()).reaction

    async def is_waiting(inbound: Inbound, queue: str) -> bool:
        return True

    async def recall_language(inbound: Inbound) -> Language:
        return Language.EN

    def share() -> int:
        return 1

    desk = CardDesk(CardClient(openapi, TEMPLATE), store, CardLook(settings.card_key, settings.card_max_chars), clock)
    return Delivering(
        sender=sender,
        settler=settler
        or MediaSettler(
            UploadClient(openapi, dingtalk.url), LinkFetcher((dingtalk.url,), held), FileReader(), sender.planner, held
        ),
        signs=Signs(
            ReactionClient(openapi),
            DueQueue(clock, share),
            may_react=may_react,
            is_waiting=is_waiting,
            language=Language.ZH,
            clock=clock,
        ),
        spending=spending,
        desk=desk,
        due=DueQueue(clock, share),
        recall_language=recall_language,
        once_per=store.once_per,
        patience_s=settings.patience,
        clock=clock,
    )

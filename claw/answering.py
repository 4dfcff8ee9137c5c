"""How answers get out, built for one claw: DingTalk's clients, the month's budget, signs, cards, pictures and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp

from claw.budget import ByteBudget
from claw.chat_settings import ChatBook
from claw.clock import Clock
from claw.config.settings import Settings
from claw.dingtalk.budget import MonthlyBudget, Quotas
from claw.dingtalk.cards import CardClient
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.media import MediaLoader
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.pace import CallPace, DueQueue
from claw.dingtalk.quota import CallCounter
from claw.dingtalk.reactions import ReactionClient
from claw.dingtalk.upload import UploadClient
from claw.dingtalk.webhook import WebhookClient
from claw.files.reader import FileReader
from claw.messages import Inbound
from claw.policy import ReplyMode
from claw.reply.card import CardDesk, CardLook
from claw.reply.delivering import Delivering
from claw.reply.fetching import LinkFetcher
from claw.reply.media import HELD_MAX_BYTES, MediaSettler
from claw.reply.outbound import Outbound
from claw.reply.sender import AnswerSender
from claw.reply.signs import Signs
from claw.reply.spending import Spending
from claw.store.ports import Store
from claw.store.values import RowPlace
from claw.turn.languages import PersonalLanguages


@dataclass(frozen=True)
class ReplyParts:
    """How answers get out, and what they may cost."""

    outbound: Outbound
    desk: CardDesk
    budget: MonthlyBudget
    read_calls: Callable[[str], Awaitable[Mapping[str, int]]]
    """Gives the calls of a month by api, what is not saved yet included."""
    report_budget: Callable[[], Awaitable[dict[str, object]]]
    """Gives the month as JSON, for `/status`."""


@dataclass(frozen=True)
class DingTalkClients:
    """The clients of DingTalk's HTTP API, over one counter of calls."""

    calls: CallCounter
    openapi: OpenApiClient
    webhook: WebhookClient
    media: MediaLoader


def build_dingtalk(
    settings: Settings, http: aiohttp.ClientSession, clock: Clock, share: Callable[[], int]
) -> DingTalkClients:
    dingtalk = settings.dingtalk
    endpoints = (dingtalk.openapi_endpoint, dingtalk.oapi_endpoint)
    calls = CallCounter(clock)
    client = DingTalkClient(http, calls, clock)
    # One for all APIs and all rooms: DingTalk counts by app and API, whoever calls.
    pace = CallPace(clock, share)
    openapi = OpenApiClient(client, dingtalk.openapi_endpoint, dingtalk.credentials, clock, pace=pace)
    return DingTalkClients(
        calls, openapi, WebhookClient(client, endpoints), MediaLoader(client, openapi, endpoints, clock)
    )


def read_calls(store: Store, calls: CallCounter) -> Callable[[str], Awaitable[Mapping[str, int]]]:
    async def read_calls(month: str) -> Mapping[str, int]:
        # What is saved already, and what was counted since.
        counts = Counter(await store.calls(month))
        counts.update(calls.peek().get(month, {}))
        return counts

    return read_calls


def _build_desk(settings: Settings, dingtalk: DingTalkClients, store: Store, clock: Clock) -> CardDesk:
    reply = settings.reply
    client = CardClient(dingtalk.openapi, reply.card_template)
    return CardDesk(client, store, CardLook(reply.card_key, reply.card_max_chars), clock)


def build_reply(
    settings: Settings,
    store: Store,
    clock: Clock,
    dingtalk: DingTalkClients,
    *,
    reader: FileReader,
    languages: PersonalLanguages,
    share: Callable[[], int],
    book: ChatBook,
) -> ReplyParts:
    """Build what gets answers out. `share`: how many claws share the app's calls a second."""
    reply, language = settings.reply, settings.logs.language
    quotas = Quotas(reply.monthly_api_calls, reply.monthly_webhook_calls)
    budget = MonthlyBudget(quotas, read_calls(store, dingtalk.calls), clock)
    # Between two readings of the store, so that a burst within a minute is seen.
    dingtalk.calls.listen(budget.count)
    desk = _build_desk(settings, dingtalk, store, clock)
    spending = Spending(reply, budget, clock, lambda chat: _find_mode(book, chat))
    sender = AnswerSender(
        dingtalk.webhook, dingtalk.openapi, language, reply.max_parts, on_refused=spending.note_refusal
    )
    tools = Delivering(
        sender=sender,
        settler=_build_settler(settings, dingtalk, reader, sender, spending),
        signs=_build_signs(settings, store, clock, dingtalk, spending=spending, share=share),
        spending=spending,
        desk=desk,
        due=DueQueue(clock, share),
        recall_language=languages.recall,
        once_per=store.once_per,
        patience_s=reply.patience,
        clock=clock,
    )
    return ReplyParts(Outbound(tools), desk, budget, read_calls(store, dingtalk.calls), spending.report)


def _find_mode(book: ChatBook, chat_id: str) -> ReplyMode | None:
    """Return a chat's own way of showing answers."""
    mode = book.current(chat_id).reply_mode
    return ReplyMode(mode) if mode in set(ReplyMode) else None


def _build_settler(
    settings: Settings, dingtalk: DingTalkClients, reader: FileReader, sender: AnswerSender, spending: Spending
) -> MediaSettler:
    # One budget of bytes for what is fetched and what is uploaded: it is the same files.
    held = ByteBudget(HELD_MAX_BYTES)
    fetcher = LinkFetcher((settings.dingtalk.openapi_endpoint, settings.dingtalk.oapi_endpoint), held)
    uploads = UploadClient(dingtalk.openapi, settings.dingtalk.oapi_endpoint)
    return MediaSettler(uploads, fetcher, reader, sender.planner, held, may_upload=spending.may_upload)


def _build_signs(
    settings: Settings,
    store: Store,
    clock: Clock,
    dingtalk: DingTalkClients,
    *,
    spending: Spending,
    share: Callable[[], int],
) -> Signs:
    async def may_react() -> bool:
        return (await spending.choose()).reaction

    async def is_waiting(inbound: Inbound, queue: str) -> bool:
        return await store.place(queue, inbound.key) is RowPlace.WAITING

    return Signs(
        ReactionClient(dingtalk.openapi),
        DueQueue(clock, share),
        may_react=may_react,
        is_waiting=is_waiting,
        language=settings.logs.language,
        clock=clock,
    )

"""The parts of one claw, built from its settings and handed to one another.

Order of events: `build` makes each part in the order in which the others need it, and starts nothing. Only commands act
on parts that are built after them: they get small functions that look the part up when they are called.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from claw.budget import ByteBudget
from claw.clock import Clock
from claw.config.settings import Settings
from claw.dingtalk.budget import MonthlyBudget, Quotas
from claw.dingtalk.cards import CardClient
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.media import MediaLoader
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.pace import CallPace, DueQueue
from claw.dingtalk.quota import Api, CallCounter
from claw.dingtalk.reactions import ReactionClient
from claw.dingtalk.upload import UploadClient
from claw.dingtalk.webhook import WebhookClient
from claw.files.reader import FileReader
from claw.fleet import FleetKeeper, Pausable
from claw.http.admin import Scope
from claw.http.admin import routes as admin_routes
from claw.http.health import Health, check_store
from claw.http.health import routes as health_routes
from claw.http.server import Server
from claw.http.status import Source, Status
from claw.http.status import routes as status_routes
from claw.inbox.accept import Acceptance
from claw.inbox.alerts import UndeliveredAlerts
from claw.inbox.budget_alerts import BudgetAlerts
from claw.inbox.retries import Limits
from claw.inbox.routing import Router
from claw.inbox.turns import TurnHooks
from claw.inbox.worker import Worker
from claw.messages import CardCallback, Inbound, Route
from claw.policy import BusyMode, Switch
from claw.reply.buttons import CardButtons
from claw.reply.card import CardDesk, CardLook
from claw.reply.delivering import Delivering
from claw.reply.fetching import LinkFetcher
from claw.reply.media import HELD_MAX_BYTES, MediaSettler
from claw.reply.outbound import Outbound
from claw.reply.sender import AnswerSender
from claw.reply.signs import Signs
from claw.reply.spending import Spending
from claw.store.ports import Store
from claw.store.values import Interrupted, RowPlace
from claw.stream.cards import UnknownCards
from claw.stream.gateway import Gateway
from claw.stream.supervisor import Supervisor
from claw.turn.access import AccessControl
from claw.turn.attachments import Attachments
from claw.turn.commands.handlers import AdminActions, CommandHandlers
from claw.turn.commands.parser import is_urgent, parse_command
from claw.turn.context import ContextWriter
from claw.turn.handler import MessageHandler
from claw.turn.languages import PersonalLanguages
from claw.turn.model.client import ModelClient
from claw.turn.model.errors import suggest_remedy
from claw.turn.notices import Notices
from claw.turn.pictures import PictureCache
from claw.turn.vision import ModelVision

FETCHED_MAX_BYTES: Final = 32 * 1024 * 1024
"""Bytes of pictures held for the model at the same time, as `data:` URLs."""


@dataclass(frozen=True)
class ReplyParts:
    """How answers get out, and what they may cost."""

    outbound: Outbound
    desk: CardDesk
    budget: MonthlyBudget


@dataclass(frozen=True)
class Components:
    """The parts, built and not yet started."""

    store: Store
    access: AccessControl
    accept: Acceptance
    worker: Worker
    supervisor: Supervisor
    fleet: FleetKeeper
    model: ModelClient
    calls: CallCounter
    reply: ReplyParts
    budget_alerts: BudgetAlerts
    health: Health
    server: Server


def build(
    settings: Settings, store: Store, http: aiohttp.ClientSession, clock: Clock, restart: Callable[[Scope], bool]
) -> Components:
    """Build the parts. `restart` begins to replace the stream or the process; False if one is being replaced."""
    dingtalk = _build_dingtalk(settings, http, clock, lambda: fleet.size)
    reader = FileReader()
    model = ModelClient(settings.model, history_kept_elsewhere=settings.conversation.history_turns == 0, clock=clock)
    access = AccessControl(settings.access, store, store, clock, store_lost=lambda: bool(getattr(store, "lost", False)))

    # Looked up when a command acts: they are built after what it is given to.
    actions = _build_actions(settings, model, restart, lambda: worker, lambda: status)
    # One budget of bytes and one reader for all conversations: what counts is the process' memory.
    attachments = _build_attachments(settings, dingtalk.media, reader, clock)
    handler = _build_handler(settings, store, clock, model=model, access=access, actions=actions, media=attachments)
    replica = f"{socket.gethostname()}:{os.getpid()}"
    languages = PersonalLanguages(store, settings.logs.language)
    reply = _build_reply(settings, store, clock, dingtalk, reader=reader, languages=languages, share=lambda: fleet.size)
    notices = Notices(settings.logs.language, languages)
    worker = _build_worker(
        settings, store, clock, replica, access=access, handler=handler, outbound=reply.outbound, notices=notices
    )
    router = Router(settings.conversation.group_session, is_urgent)
    on_stored = _choose_on_stored(settings, worker, reply.outbound, dingtalk.calls)
    accept = Acceptance(store, router.route, clock, on_stored)
    on_card = _build_buttons(store, worker, access, clock)
    supervisor = _build_supervisor(settings, accept, on_card, http, clock)
    connections = supervisor if isinstance(supervisor, Pausable) else None
    fleet = FleetKeeper(store, replica, connections, lambda: supervisor.connected > 0, clock)
    more = {"access": access.report, "replicas": fleet.report, "budget": reply.budget.report}
    calls, health_of_model = _read_calls(store, dingtalk.calls), model.health.snapshot
    status = _build_status(
        settings, store, clock, worker=worker, supervisor=supervisor, calls=calls, model=health_of_model, more=more
    )
    health = _build_health(store, supervisor, clock)
    return Components(
        store=store,
        access=access,
        accept=accept,
        worker=worker,
        supervisor=supervisor,
        fleet=fleet,
        model=model,
        calls=dingtalk.calls,
        reply=reply,
        budget_alerts=_build_budget_alerts(
            settings, store, clock, replica, budget=reply.budget, access=access, notices=notices
        ),
        health=health,
        server=_build_server(settings, health, status, restart),
    )


@dataclass(frozen=True)
class _DingTalk:
    """The clients of DingTalk's HTTP API, over one counter of calls."""

    calls: CallCounter
    openapi: OpenApiClient
    webhook: WebhookClient
    media: MediaLoader


def _build_dingtalk(
    settings: Settings, http: aiohttp.ClientSession, clock: Clock, share: Callable[[], int]
) -> _DingTalk:
    dingtalk = settings.dingtalk
    endpoints = (dingtalk.openapi_endpoint, dingtalk.oapi_endpoint)
    calls = CallCounter(clock)
    client = DingTalkClient(http, calls, clock)
    # One for all APIs and all rooms: DingTalk counts by app and API, whoever calls.
    pace = CallPace(clock, share)
    openapi = OpenApiClient(client, dingtalk.openapi_endpoint, dingtalk.credentials, clock, pace=pace)
    return _DingTalk(calls, openapi, WebhookClient(client, endpoints), MediaLoader(client, openapi, endpoints, clock))


def _build_desk(settings: Settings, dingtalk: _DingTalk, store: Store, clock: Clock) -> CardDesk:
    reply = settings.reply
    client = CardClient(dingtalk.openapi, reply.card_template)
    return CardDesk(client, store, CardLook(reply.card_key, reply.card_max_chars), clock)


def _build_budget_alerts(
    settings: Settings,
    store: Store,
    clock: Clock,
    replica: str,
    *,
    budget: MonthlyBudget,
    access: AccessControl,
    notices: Notices,
) -> BudgetAlerts:
    # The robot's code is the app's client id: DingTalk has told no message's here.
    robot_code = settings.dingtalk.client_id
    return BudgetAlerts(budget, store, store, access.find_owners, notices, robot_code, replica, clock)


def _read_calls(store: Store, calls: CallCounter) -> Callable[[str], Awaitable[Mapping[str, int]]]:
    async def read_calls(month: str) -> Mapping[str, int]:
        # What is saved already, and what was counted since.
        counts = Counter(await store.calls(month))
        counts.update(calls.peek().get(month, {}))
        return counts

    return read_calls


def _build_reply(
    settings: Settings,
    store: Store,
    clock: Clock,
    dingtalk: _DingTalk,
    *,
    reader: FileReader,
    languages: PersonalLanguages,
    share: Callable[[], int],
) -> ReplyParts:
    """Build what gets answers out. `share`: how many claws share the app's calls a second."""
    reply, language = settings.reply, settings.logs.language
    quotas = Quotas(reply.monthly_api_calls, reply.monthly_webhook_calls)
    budget = MonthlyBudget(quotas, _read_calls(store, dingtalk.calls), clock)
    # Between two readings of the store, so that a burst within a minute is seen.
    dingtalk.calls.listen(budget.count)
    desk = _build_desk(settings, dingtalk, store, clock)
    spending = Spending(reply, budget, clock)
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
    return ReplyParts(Outbound(tools), desk, budget)


def _build_settler(
    settings: Settings, dingtalk: _DingTalk, reader: FileReader, sender: AnswerSender, spending: Spending
) -> MediaSettler:
    # One budget of bytes for what is fetched and what is uploaded: it is the same files.
    held = ByteBudget(HELD_MAX_BYTES)
    fetcher = LinkFetcher((settings.dingtalk.openapi_endpoint, settings.dingtalk.oapi_endpoint), held)
    uploads = UploadClient(dingtalk.openapi, settings.dingtalk.oapi_endpoint)
    return MediaSettler(uploads, fetcher, reader, sender.planner, held, may_upload=spending.may_upload)


def _build_signs(
    settings: Settings, store: Store, clock: Clock, dingtalk: _DingTalk, *, spending: Spending, share: Callable[[], int]
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


def _build_buttons(
    store: Store, worker: Worker, access: AccessControl, clock: Clock
) -> Callable[[CardCallback], Awaitable[None]]:
    async def stop(queue: str, asker: str) -> Interrupted:
        return await worker.stop_anywhere(queue, asker)

    # Cards of an earlier version, or of another program of the same app.
    unknown = UnknownCards(clock)
    return CardButtons(store, stop=stop, find_owners=access.find_owners, on_unknown=unknown.log).press


def _build_actions(
    settings: Settings,
    model: ModelClient,
    restart: Callable[[Scope], bool],
    worker: Callable[[], Worker],
    status: Callable[[], Status],
) -> AdminActions:
    async def stop_turn(conversation_key: str, sender: str | None) -> Interrupted:
        # A conversation's queue has its key for a name; urgent messages have another, and nobody stops those.
        return await worker().stop_anywhere(conversation_key, sender)

    async def read_figures() -> dict[str, object]:
        return await status().figures()

    return AdminActions(
        stop_turn, lambda scope: restart(Scope(scope)), read_figures, settings.model.name, model.health.snapshot
    )


def _build_handler(
    settings: Settings,
    store: Store,
    clock: Clock,
    *,
    model: ModelClient,
    access: AccessControl,
    actions: AdminActions,
    media: Attachments,
) -> MessageHandler:
    # Without it a model gets what was said and nothing else, as before 0.2.0.
    with_context = settings.conversation.context is Switch.ON
    return MessageHandler(
        settings.conversation,
        model=model,
        history=store,
        access=access,
        commands=CommandHandlers(access, history=store, config=store, chats=store, actions=actions, clock=clock),
        language=settings.logs.language,
        hold_media=media.hold,
        index=store,
        people=store,
        vision=ModelVision(settings.conversation.vision, settings.model.name, store, clock),
        context=ContextWriter(settings.access.timezone, clock.wall) if with_context else None,
    )


def _build_attachments(settings: Settings, loader: MediaLoader, reader: FileReader, clock: Clock) -> Attachments:
    return Attachments(
        loader,
        reader,
        ByteBudget(FETCHED_MAX_BYTES),
        PictureCache(clock),
        file_max_bytes=settings.conversation.file_max_mb * 1024 * 1024,
    )


def _build_worker(
    settings: Settings,
    store: Store,
    clock: Clock,
    replica: str,
    *,
    access: AccessControl,
    handler: MessageHandler,
    outbound: Outbound,
    notices: Notices,
) -> Worker:
    hooks = TurnHooks(
        handle=handler.handle,
        begin_draft=outbound.begin,
        say=outbound.say,
        failure_reply=handler.failure_reply,
        patience_reply=handler.patience_reply,
        interrupted_reply=handler.interrupted_reply,
        select_followers=handler.select_followers if settings.inbox.busy_mode is BusyMode.MERGE else None,
        remedy=suggest_remedy,
        on_undelivered=UndeliveredAlerts(store, store.once_per, access.find_owners, notices, clock),
        once_per=store.once_per,
    )
    limits = Limits(settings.inbox.max_attempts, settings.model.turn_timeout, settings.model.patience)
    return Worker(
        store,
        hooks,
        limits,
        slots=settings.inbox.max_concurrency,
        owner=replica,
        clock=clock,
    )


def _choose_on_stored(
    settings: Settings, worker: Worker, outbound: Outbound, calls: CallCounter
) -> Callable[[Inbound, Route], None]:
    """Return what happens when a new message is stored while its conversation may be busy."""

    def on_stored(inbound: Inbound, route: Route) -> None:
        # New ones only: whether DingTalk bills its own repeats nobody knows.
        calls.count(Api.RECEIPT)
        outbound.expect(inbound, route)
        # Urgent messages are commands: they interrupt nobody by being there.
        if settings.inbox.busy_mode is BusyMode.INTERRUPT and not route.urgent and parse_command(inbound.text) is None:
            worker.interrupt_for(inbound, route)

    return on_stored


def _build_supervisor(
    settings: Settings,
    accept: Acceptance,
    on_card: Callable[[CardCallback], Awaitable[None]],
    http: aiohttp.ClientSession,
    clock: Clock,
) -> Supervisor:
    dingtalk = settings.dingtalk
    gateway = Gateway(http, dingtalk.openapi_endpoint, dingtalk.credentials, clock=clock)
    return Supervisor(settings.stream, gateway, http, accept, on_card, clock=clock)


def _build_status(
    settings: Settings,
    store: Store,
    clock: Clock,
    *,
    worker: Worker,
    supervisor: Supervisor,
    calls: Callable[[str], Awaitable[Mapping[str, int]]],
    model: Source[Mapping[str, Any]],
    more: Mapping[str, Source[Any]],
) -> Status:
    return Status(
        settings,
        started_at=clock.wall(),
        stream=supervisor.status,
        depth=store.depth,
        turns=lambda: worker.running,
        calls=calls,
        dead=store.dead,
        model=model,
        more=more,
        clock=clock,
    )


def _build_health(store: Store, supervisor: Supervisor, clock: Clock) -> Health:
    health = Health(clock)
    health.add("stream", supervisor.check)
    health.add("store", lambda: check_store(store))
    return health


def _build_server(settings: Settings, health: Health, status: Status, restart: Callable[[Scope], bool]) -> Server:
    return Server(
        settings.http.host,
        settings.http.port,
        public=health_routes(health),
        admin=[*status_routes(status), *admin_routes(restart)],
        admin_token=settings.http.read_admin_token,
    )

"""The parts of one claw, built from its settings and handed to one another.

Order of events: `build` makes each part in the order in which the others need it, and starts nothing. Only commands act
on parts that are built after them: they get small functions that look the part up when they are called.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from claw.answering import ReplyParts, build_dingtalk, build_reply
from claw.budget import ByteBudget
from claw.clock import Clock
from claw.config.settings import Settings
from claw.dingtalk.media import MediaLoader
from claw.dingtalk.quota import Api, CallCounter
from claw.files.reader import FileReader
from claw.fleet import FleetKeeper, Pausable
from claw.http.admin import Scope
from claw.http.health import Health
from claw.http.status import Source, Status
from claw.inbox.accept import Acceptance
from claw.inbox.alerts import UndeliveredAlerts
from claw.inbox.budget_alerts import BudgetAlerts
from claw.inbox.operator_alerts import OperatorAlerts
from claw.inbox.retries import Limits
from claw.inbox.sends import report_to
from claw.inbox.turns import TurnHooks
from claw.inbox.worker import Worker
from claw.messages import CardCallback, Inbound, Route
from claw.operation import (
    Desks,
    Surface,
    build_alerts,
    build_desks,
    build_health,
    build_surface,
    choose_owners,
    hear_refusals,
)
from claw.policy import BusyMode, Switch
from claw.reply.buttons import CardButtons
from claw.reply.outbound import Outbound
from claw.store.ports import Store
from claw.store.values import Interrupted
from claw.stream.cards import UnknownCards
from claw.stream.gateway import Gateway
from claw.stream.supervisor import Supervisor
from claw.turn.access import AccessControl
from claw.turn.attachments import Attachments
from claw.turn.commands.actions import AdminActions
from claw.turn.commands.handlers import CommandHandlers
from claw.turn.commands.parser import parse_command
from claw.turn.context import ContextWriter
from claw.turn.handler import MessageHandler
from claw.turn.languages import PersonalLanguages
from claw.turn.model.client import ModelClient
from claw.turn.model.errors import suggest_remedy
from claw.turn.notices import Notices
from claw.turn.pictures import PictureCache
from claw.turn.vision import ModelVision
from claw.usage import UsageCounter

FETCHED_MAX_BYTES: Final = 32 * 1024 * 1024
"""Bytes of pictures held for the model at the same time, as `data:` URLs."""


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
    surface: Surface
    desks: Desks
    alerts: OperatorAlerts


def build(
    settings: Settings, store: Store, http: aiohttp.ClientSession, clock: Clock, restart: Callable[[Scope], bool]
) -> Components:
    """Build the parts. `restart` begins to replace the stream or the process; False if one is being replaced."""
    replica = f"{socket.gethostname()}:{os.getpid()}"
    desks = build_desks(settings, store, clock, replica)
    dingtalk = build_dingtalk(settings, http, clock, lambda: fleet.size)
    reader = FileReader()
    model = ModelClient(settings.model, history_kept_elsewhere=settings.conversation.history_turns == 0, clock=clock)
    access = AccessControl(settings.access, store, store, clock, store_lost=lambda: bool(getattr(store, "lost", False)))

    # Looked up when a command acts: they are built after what it is given to.
    actions = _build_actions(settings, model, restart, _Later(lambda: worker, lambda: status), desks)
    # One budget of bytes and one reader for all conversations: what counts is the process' memory.
    attachments = _build_attachments(settings, dingtalk.media, reader, clock)
    handler = _build_handler(
        settings, store, clock, model=model, access=access, actions=actions, media=attachments, desks=desks
    )
    languages = PersonalLanguages(store, settings.logs.language)
    reply = build_reply(
        settings, store, clock, dingtalk, reader=reader, languages=languages, share=lambda: fleet.size, book=desks.book
    )
    work = _build_work(
        settings, store, clock, replica, handler=handler, reply=reply, desks=desks, access=access, languages=languages
    )
    worker = work.worker
    on_stored = _choose_on_stored(settings, worker, reply.outbound, dingtalk.calls)
    accept = Acceptance(store, desks.router.route, clock, on_stored, desks.router.load)
    on_card = _build_buttons(store, worker, access, clock, desks.usage)
    supervisor = _build_supervisor(settings, accept, on_card, http, clock)
    connections = supervisor if isinstance(supervisor, Pausable) else None
    fleet = FleetKeeper(store, replica, connections, lambda: supervisor.connected > 0, clock)
    sources = {"access": access.report, "replicas": fleet.report, "round_trips": desks.trips.report}
    status = _build_status(
        settings, store, clock, worker=worker, supervisor=supervisor, model=model, reply=reply, sources=sources
    )
    health = build_health(store, supervisor.check, clock)
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
        budget_alerts=work.budget_alerts,
        health=health,
        surface=build_surface(settings, store, clock, desks=desks, health=health, status=status, restart=restart),
        desks=desks,
        alerts=work.alerts,
    )


def _build_status(
    settings: Settings,
    store: Store,
    clock: Clock,
    *,
    worker: Worker,
    supervisor: Supervisor,
    model: ModelClient,
    reply: ReplyParts,
    sources: Mapping[str, Source[Any]],
) -> Status:
    return Status(
        settings,
        started_at=clock.wall(),
        stream=supervisor.status,
        depth=store.depth,
        turns=lambda: worker.running,
        calls=reply.read_calls,
        dead=store.dead,
        model=model.health.snapshot,
        more={**sources, "budget": reply.report_budget},
        clock=clock,
    )


def _build_buttons(
    store: Store, worker: Worker, access: AccessControl, clock: Clock, usage: UsageCounter
) -> Callable[[CardCallback], Awaitable[None]]:
    async def stop(queue: str, asker: str) -> Interrupted:
        return await worker.stop_anywhere(queue, asker)

    # Cards of an earlier version, or of another program of the same app.
    unknown = UnknownCards(clock)
    buttons = CardButtons(
        store, stop=stop, find_owners=access.find_owners, on_unknown=unknown.log, on_vote=usage.count_vote
    )
    return buttons.press


@dataclass(frozen=True)
class _Later:
    """Parts that are built after what acts on them."""

    worker: Callable[[], Worker]
    status: Callable[[], Status]


def _build_actions(
    settings: Settings,
    model: ModelClient,
    restart: Callable[[Scope], bool],
    later: _Later,
    desks: Desks,
) -> AdminActions:
    async def stop_turn(conversation_key: str, sender: str | None) -> Interrupted:
        # A conversation's queue has its key for a name; urgent messages have another, and nobody stops those.
        return await later.worker().stop_anywhere(conversation_key, sender)

    async def read_figures() -> dict[str, object]:
        return await later.status().figures()

    return AdminActions(
        stop_turn,
        lambda scope: restart(Scope(scope)),
        read_figures,
        settings.model.name,
        list_dead=desks.dead.list,
        retry_dead=desks.dead.retry,
        note=desks.audit.note,
        book=desks.book,
        model_health=model.health.snapshot,
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
    desks: Desks,
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
        chats=desks.book,
        count_usage=desks.usage.count_question,
        vision=ModelVision(settings.conversation.vision, store, clock),
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


def _build_hooks(
    settings: Settings,
    store: Store,
    *,
    handler: MessageHandler,
    outbound: Outbound,
    desks: Desks,
    alerts: OperatorAlerts,
    undelivered: UndeliveredAlerts,
) -> TurnHooks:
    """Build what turns need of the other rooms."""
    return TurnHooks(
        handle=handler.handle,
        begin_draft=outbound.begin,
        say=outbound.say,
        failure_reply=handler.failure_reply,
        patience_reply=handler.patience_reply,
        interrupted_reply=handler.interrupted_reply,
        select_followers=handler.select_followers if settings.inbox.busy_mode is BusyMode.MERGE else None,
        remedy=suggest_remedy,
        on_undelivered=report_to(desks.sends, undelivered),
        once_per=store.once_per,
        on_sent=desks.sends.note_sent,
        on_given_up=hear_refusals(alerts),
        on_end=desks.trips.add,
    )


@dataclass(frozen=True)
class _Work:
    """Who does the work, and who tells the owner of trouble with it."""

    worker: Worker
    alerts: OperatorAlerts
    budget_alerts: BudgetAlerts


def _build_work(
    settings: Settings,
    store: Store,
    clock: Clock,
    replica: str,
    *,
    handler: MessageHandler,
    reply: ReplyParts,
    desks: Desks,
    access: AccessControl,
    languages: PersonalLanguages,
) -> _Work:
    notices = Notices(settings.logs.language, languages)
    find_owners = choose_owners(settings, access.find_owners)
    alerts = build_alerts(settings, store, clock, find_owners, notices)
    undelivered = UndeliveredAlerts(store, store.once_per, find_owners, notices, clock)
    hooks = _build_hooks(
        settings,
        store,
        handler=handler,
        outbound=reply.outbound,
        desks=desks,
        alerts=alerts,
        undelivered=undelivered,
    )
    limits = Limits(settings.inbox.max_attempts, settings.model.turn_timeout, settings.model.patience)
    worker = Worker(store, hooks, limits, slots=settings.inbox.max_concurrency, owner=replica, clock=clock)
    # The robot's code is the app's client id: DingTalk has told no message's here.
    robot_code = settings.dingtalk.client_id
    budget_alerts = BudgetAlerts(reply.budget, store, store, find_owners, notices, robot_code, replica, clock)
    return _Work(worker, alerts, budget_alerts)


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

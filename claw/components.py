"""The parts of one claw, built from its settings and handed to one another.

Order of events: `build` makes each part in the order in which the others need it, and starts nothing. Only commands act
on parts that are built after them: they get small functions that look the part up when they are called.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from claw.budget import ByteBudget
from claw.clock import Clock
from claw.config.settings import Settings
from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.media import PictureLoader
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import CallCounter
from claw.dingtalk.webhook import WebhookClient
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
from claw.inbox.retries import Limits
from claw.inbox.routing import Router
from claw.inbox.turns import TurnHooks
from claw.inbox.worker import Worker
from claw.reply.outbound import Outbound
from claw.reply.sender import AnswerSender
from claw.store.ports import Store
from claw.stream.cards import UnknownCards
from claw.stream.gateway import Gateway
from claw.stream.supervisor import Supervisor
from claw.turn.access import AccessControl
from claw.turn.commands.handlers import AdminActions, CommandHandlers
from claw.turn.commands.parser import is_urgent
from claw.turn.handler import MessageHandler
from claw.turn.model.client import ModelClient
from claw.turn.model.errors import suggest_remedy
from claw.turn.notices import Notices

FETCHED_MAX_BYTES: Final = 64 * 1024 * 1024
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
    health: Health
    server: Server


def build(
    settings: Settings, store: Store, http: aiohttp.ClientSession, clock: Clock, restart: Callable[[Scope], bool]
) -> Components:
    """Build the parts. `restart` begins to replace the stream or the process; False if one is being replaced."""
    dingtalk = settings.dingtalk
    endpoints = (dingtalk.openapi_endpoint, dingtalk.oapi_endpoint)
    calls = CallCounter(clock)
    client = DingTalkClient(http, calls, clock)
    openapi = OpenApiClient(client, dingtalk.openapi_endpoint, dingtalk.credentials, clock)
    webhook = WebhookClient(client, endpoints)
    sender = AnswerSender(webhook, openapi, settings.logs.language, settings.reply.max_parts)
    model = ModelClient(settings.model, history_kept_elsewhere=settings.conversation.history_turns == 0, clock=clock)
    access = AccessControl(settings.access, store, store, clock, store_lost=lambda: bool(getattr(store, "lost", False)))

    async def stop_turn(conversation_key: str) -> bool:
        # A conversation's queue has its key for a name; urgent messages have another, and nobody stops those.
        return await worker.stop_anywhere(conversation_key)

    async def read_figures() -> dict[str, object]:
        return await status.figures()

    actions = AdminActions(
        stop_turn, lambda scope: restart(Scope(scope)), read_figures, settings.model.name, model.health.snapshot
    )
    handler = MessageHandler(
        settings.conversation,
        model=model,
        history=store,
        access=access,
        commands=CommandHandlers(access, history=store, config=store, chats=store, actions=actions, clock=clock),
        language=settings.logs.language,
        hold_pictures=PictureLoader(client, openapi, endpoints, ByteBudget(FETCHED_MAX_BYTES)).hold,
    )
    replica = f"{socket.gethostname()}:{os.getpid()}"
    worker = _build_worker(settings, store, clock, replica, access=access, handler=handler, outbound=Outbound(sender))
    accept = Acceptance(store, Router(settings.conversation.group_session, is_urgent).route, clock)
    supervisor = _build_supervisor(settings, accept, http, clock)
    connections = supervisor if isinstance(supervisor, Pausable) else None
    fleet = FleetKeeper(store, replica, connections, lambda: supervisor.connected > 0, clock)
    more = {"access": access.report, "replicas": fleet.report}
    status = _build_status(
        settings,
        store,
        clock,
        worker=worker,
        supervisor=supervisor,
        calls=calls,
        model=model.health.snapshot,
        more=more,
    )
    health = _build_health(store, supervisor, clock)
    server = _build_server(settings, health, status, restart)
    return Components(store, access, accept, worker, supervisor, fleet, model, calls, health, server)


def _build_worker(
    settings: Settings,
    store: Store,
    clock: Clock,
    replica: str,
    *,
    access: AccessControl,
    handler: MessageHandler,
    outbound: Outbound,
) -> Worker:
    async def find_owners() -> frozenset[str]:
        return (await access.read_rules()).owners

    notices = Notices(settings.logs.language)
    hooks = TurnHooks(
        handle=handler.handle,
        begin_draft=outbound.begin,
        failure_reply=handler.failure_reply,
        patience_reply=handler.patience_reply,
        remedy=suggest_remedy,
        on_undelivered=UndeliveredAlerts(store, store.once_per, find_owners, notices, clock),
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


def _build_supervisor(settings: Settings, accept: Acceptance, http: aiohttp.ClientSession, clock: Clock) -> Supervisor:
    dingtalk = settings.dingtalk
    gateway = Gateway(http, dingtalk.openapi_endpoint, dingtalk.credentials, clock=clock)
    return Supervisor(settings.stream, gateway, http, accept, UnknownCards(clock).log, clock=clock)


def _build_status(
    settings: Settings,
    store: Store,
    clock: Clock,
    *,
    worker: Worker,
    supervisor: Supervisor,
    calls: CallCounter,
    model: Source[Mapping[str, Any]],
    more: Mapping[str, Source[Any]],
) -> Status:
    async def count_calls(month: str) -> Mapping[str, int]:
        # What is saved already, and what was counted since.
        counts = Counter(await store.calls(month))
        counts.update(calls.peek().get(month, {}))
        return counts

    return Status(
        settings,
        started_at=clock.wall(),
        stream=supervisor.status,
        depth=store.depth,
        turns=lambda: worker.running,
        calls=count_calls,
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

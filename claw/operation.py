"""What operators look at and steer, built for one claw: the HTTP surface, dead letters, sends, usage, audit, alerts.

Order of events: `build_desks` makes what the rooms of a message need to report to; `build_surface` makes the server,
when all that it shows is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from claw.audit import AuditLog
from claw.chat_settings import ChatBook
from claw.clock import Clock
from claw.config.settings import Settings
from claw.errors import ModelError, ModelErrorKind
from claw.http import dead, events, page_files, policy, sends, usage
from claw.http.admin import Scope
from claw.http.admin import routes as admin_routes
from claw.http.events import EventStreams
from claw.http.health import Health, check_store
from claw.http.health import routes as health_routes
from claw.http.metrics import routes as metrics_routes
from claw.http.server import Server
from claw.http.status import Status
from claw.http.status import routes as status_routes
from claw.inbox.dead_letters import DeadLetterDesk
from claw.inbox.operator_alerts import AlertKind, OperatorAlerts, RunMarks
from claw.inbox.routing import Router
from claw.inbox.sends import SendDesk
from claw.inbox.trips import TripLog
from claw.language import join
from claw.observe import telemetry
from claw.policy import Switch
from claw.store.ports import Store
from claw.turn.commands.parser import is_urgent
from claw.turn.model.errors import suggest_remedy
from claw.turn.notices import Notices
from claw.turn.policies import PolicyDesk
from claw.usage import UsageCounter

BODY_LIMITS = {"/send": sends.SEND_MAX_BYTES, "/api/chats/{id}": 64 * 1024, "/api/policy": 512 * 1024}
"""Bytes of bodies of routes that take more than others."""
_REFUSALS = frozenset({ModelErrorKind.UNAUTHORIZED, ModelErrorKind.QUOTA, ModelErrorKind.REDIRECTED})
"""What no further try cures: somebody has to do something."""


@dataclass(frozen=True)
class Desks:
    """What the rooms of a message report to, and operators ask."""

    audit: AuditLog
    book: ChatBook
    router: Router
    dead: DeadLetterDesk
    sends: SendDesk
    usage: UsageCounter
    trips: TripLog
    marks: RunMarks


def build_desks(settings: Settings, store: Store, clock: Clock, replica: str) -> Desks:
    """Build them. `replica` is this process' name."""
    model = settings.model
    models = (model.name, *(each for each in model.others if each != model.name))
    book = ChatBook(store, models)
    router = Router(settings.conversation.group_session, is_urgent, book)
    return Desks(
        audit=AuditLog(store, clock),
        book=book,
        router=router,
        dead=DeadLetterDesk(store, router.route, clock),
        # The robot's code is the app's client id: DingTalk has told no message's here.
        sends=SendDesk(store, store, settings.dingtalk.client_id, clock),
        usage=UsageCounter(store, settings.access.timezone, clock),
        trips=TripLog(),
        marks=RunMarks(store, store, replica, clock),
    )


def build_alerts(
    settings: Settings,
    store: Store,
    clock: Clock,
    find_owners: Callable[[], Awaitable[Collection[str]]],
    notices: Notices,
) -> OperatorAlerts:
    """Build the owner's alerts; `find_owners` finds nobody where they are off (`choose_owners`)."""
    return OperatorAlerts(store, store.once_per, find_owners, notices, settings.dingtalk.client_id, clock)


def choose_owners(
    settings: Settings, find_owners: Callable[[], Awaitable[Collection[str]]]
) -> Callable[[], Awaitable[Collection[str]]]:
    """Return who is told of trouble: the owners, or nobody where CLAW_ALERTS is off."""

    async def find_nobody() -> Collection[str]:
        return ()

    return find_owners if settings.access.alerts is Switch.ON else find_nobody


def hear_refusals(alerts: OperatorAlerts) -> Callable[[Exception], Awaitable[None]]:
    """Return what hears why the model gave no answer, and tells the owner of a refusal for good."""

    async def on_given_up(error: Exception) -> None:
        # A server that is busy or away is waited for, and cures itself: an alert for that would be noise.
        if isinstance(error, ModelError) and error.kind in _REFUSALS:
            cause = join(": ", filter(None, (error.kind.value, suggest_remedy(error))))
            await alerts.tell(AlertKind.MODEL_REFUSED, cause)

    return on_given_up


def build_health(store: Store, check_stream: Callable[[], Any], clock: Clock) -> Health:
    """Build the probes' checks."""
    health = Health(clock)
    health.add("stream", check_stream)
    health.add("store", lambda: check_store(store))
    return health


@dataclass(frozen=True)
class Surface:
    """What listens on the port."""

    server: Server
    streams: EventStreams
    routes: tuple[web.RouteDef, ...]
    """All that it answers."""


def build_surface(
    settings: Settings,
    store: Store,
    clock: Clock,
    *,
    desks: Desks,
    health: Health,
    status: Status,
    restart: Callable[[Scope], bool],
) -> Surface:
    """Build the server and its routes."""
    http, note = settings.http, desks.audit.note
    # The same snapshot as `/status`: what a page shows and what a script reads never differ.
    streams = EventStreams(status.snapshot, clock)
    policies = PolicyDesk(settings.access, store)
    defaults = {
        "policy": "",
        "model": settings.model.name,
        "session": settings.conversation.group_session.value,
        "reply_mode": settings.reply.mode.value,
    }
    admin = [
        *status_routes(status),
        *admin_routes(restart, note),
        *dead.routes(desks.dead, store, note),
        *sends.routes(desks.sends, note),
        *policy.routes(store, desks.book, policies, defaults, note),
        *usage.routes(desks.usage.read, desks.usage.today, store),
        *events.routes(streams),
    ]
    public = health_routes(health)
    if http.metrics is Switch.ON:
        public += metrics_routes(telemetry.render_metrics, clock)
    # The probes first, for everybody; what changes something is an administrator's, by default of the server.
    # Without a token it could show nothing: there is no such page then.
    if http.page is Switch.ON and (http.admin_token or http.secret_file):
        public += page_files.routes()
    server = Server(
        http.host,
        http.port,
        public=public,
        admin=admin,
        admin_token=http.read_admin_token,
        body_limits=BODY_LIMITS,
    )
    return Surface(server, streams, (*public, *admin))

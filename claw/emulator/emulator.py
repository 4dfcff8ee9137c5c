"""The emulator's composition: which parts there are, what each is given, and on which paths they answer.

Order of events: the constructor builds the parts from the inside out; `start` listens and `stop` ends every socket and
task, while what was recorded stays: `start` after it listens on the same port again, as after an outage.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from claw.emulator.actions import ACTIONS, Actions
from claw.emulator.cards import FakeCardApi
from claw.emulator.chats import Chats
from claw.emulator.connection import Connection
from claw.emulator.control import Control
from claw.emulator.faults import Faults
from claw.emulator.feed import Feed
from claw.emulator.files import Files
from claw.emulator.gateway import SHOWN_MAX, FakeGateway
from claw.emulator.model import FakeModel
from claw.emulator.month import FakeMonth
from claw.emulator.openapi import FakeOpenApi
from claw.emulator.people import People
from claw.emulator.presses import FakePresses
from claw.emulator.registration import FakeRegistration
from claw.emulator.replies import Replies
from claw.emulator.responses import Hangs, RefusedError
from claw.emulator.robot import FakeRobotApi
from claw.emulator.tickets import AppCredentials
from claw.emulator.tokens import Tokens
from claw.emulator.webhook import FakeWebhook

DEFAULT_CLIENT_ID: Final = "dingfakeclient"
DEFAULT_CLIENT_SECRET: Final = "not-a-real-secret"  # noqa: S105 - the emulator guards nothing
LOG_MAX: Final = 2000
"""Entries that every log remembers."""
BODY_MAX_BYTES: Final = 32 * 1024 * 1024
"""Of a request; an upload of 20 MB has to fit (docs/protocol.md section 6.4)."""
SHUTDOWN_TIMEOUT_S: Final = 2.0
"""What running requests get at stop."""


class Emulator:
    """A local DingTalk on one port.

    `client_id=None` accepts any credentials and takes the first client's id as the robot's code. `rate_limits=False`
    switches off the 20/min of a session and the 20/s of an API. `public_url` is what endpoint and webhook URLs begin
    with; without it, what the client itself called the emulator. `seed` repeats its choices.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        client_id: str | None = DEFAULT_CLIENT_ID,
        client_secret: str | None = DEFAULT_CLIENT_SECRET,
        rate_limits: bool = True,
        keep: int = LOG_MAX,
        public_url: str | None = None,
        service_url: str | None = None,
        allowed_hosts: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.service_url = service_url
        self._public_url = public_url
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._hangs = Hangs()
        self.faults = Faults()
        self.feed = Feed()
        # Whoever turns a switch, a test, the page or a spent budget: every page shows it.
        self.faults.listen(lambda _: self.feed.publish("faults", lambda: {"faults": self.faults.to_dict()}))
        self.chats = Chats(robot_code=client_id or "", feed=self.feed, keep=keep)
        self.replies = Replies(chats=self.chats, keep=keep)
        self._app = AppCredentials(client_id, client_secret, on_adopt=self.chats.adopt_robot_code)
        self._build_dingtalk(rate_limits=rate_limits, keep=keep, seed=seed)
        self.model = FakeModel(faults=self.faults, hangs=self._hangs, keep=keep)
        # Last, since it shows and does what all others are and can.
        self._control = Control(
            chats=self.chats,
            people=self.people,
            files=self.files,
            faults=self.faults,
            feed=self.feed,
            actions=self.actions,
            cards=self.cards,
            presses=self.presses,
            month=self.month,
            read_state=self.read_state,
            reset=self.reset,
            allowed_hosts=[host, *allowed_hosts],
        )
        self._share_parts()

    def _build_dingtalk(self, *, rate_limits: bool, keep: int, seed: int | None) -> None:
        chats, replies, faults, hangs = self.chats, self.replies, self.faults, self._hangs
        self.month = FakeMonth(faults)
        rng = random.Random(seed)  # noqa: S311 - no secret; a seed makes chaos repeatable
        self.gateway = FakeGateway(app=self._app, faults=faults, feed=self.feed, hangs=hangs, keep=keep, rng=rng)
        self.tokens = Tokens(app=self._app, faults=faults)
        self.registration = FakeRegistration(app=self._app, faults=faults, hangs=hangs)
        # Asked for at each call: the URL changes when a client calls the emulator by another name.
        self.files = Files(
            tokens=self.tokens, base_url=lambda: self.gateway.tickets.base_url, faults=faults, hangs=hangs
        )
        self.webhook = FakeWebhook(
            chats=chats,
            replies=replies,
            month=self.month,
            faults=faults,
            hangs=hangs,
            rate_limits=rate_limits,
            keep=keep,
        )
        self.cards = FakeCardApi(chats=chats, replies=replies, faults=faults, keep=keep, rng=rng)
        self.presses = FakePresses(gateway=self.gateway, chats=chats, cards=self.cards)
        self.openapi = FakeOpenApi(
            tokens=self.tokens,
            robot=FakeRobotApi(chats=chats, replies=replies, files=self.files, faults=faults, keep=keep),
            cards=self.cards,
            files=self.files,
            month=self.month,
            faults=faults,
            hangs=hangs,
            rate_limits=rate_limits,
        )
        self.people = People(chats=chats, files=self.files, gateway=self.gateway, month=self.month)
        self.actions = Actions(
            gateway=self.gateway,
            chats=chats,
            cards=self.cards,
            presses=self.presses,
            month=self.month,
            tokens=self.tokens,
        )

    def _share_parts(self) -> None:
        """Offer what tests and benches use most under short names; the logs are the parts' own, not copies."""
        self.say = self.people.say
        self.robot_data = self.people.build_robot_data
        self.act = self.actions.act
        self.press = self.presses.press
        self.push = self.gateway.push
        self.push_raw = self.gateway.pushes.push_raw
        self.wait_reply = self.replies.wait
        self.wait_reply_to = self.replies.wait_to
        self.wait_connections = self.gateway.connections.wait_open
        self.registrations = self.gateway.tickets.registrations
        """Monotonic seconds of each `connections/open` call."""
        self.pushes = self.gateway.pushes.log
        self.undeliverable = self.gateway.pushes.undeliverable
        """Pushes for which there was no live connection."""
        self.acks = self.gateway.acks.log
        self.violations = self.gateway.acks.violations
        """What clients did against the protocol."""

    @property
    def connections(self) -> list[Connection]:
        """Live connections."""
        return list(self.gateway.connections.live.values())

    @property
    def client_id(self) -> str | None:
        return self._app.client_id

    @property
    def client_secret(self) -> str | None:
        return self._app.client_secret

    @property
    def robot_code(self) -> str:
        return self.chats.robot_code

    @property
    def url(self) -> str:
        # An address that stands for all is one to listen on, not one to connect to.
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    # --- life ---

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        self._hangs.open()
        app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=[self._control.guard])
        self._add_routes(app)
        # Signals belong to whoever runs the emulator: a test, a bench, or `__main__`.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S, handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port)
        try:
            await site.start()
        except BaseException:
            await runner.cleanup()
            # The port is taken: the next start may try another one, and nothing of this one is left.
            raise
        self._runner, self._site = runner, site
        self.port = runner.addresses[0][1]  # Kept for the next start: clients come back to where they were.
        self.gateway.tickets.base_url = self._public_url or self.url
        self.gateway.tickets.is_base_url_learnt = self._public_url is None
        # Only now: a re-push that is overdue needs a place to which somebody can connect.
        self.gateway.resume()

    def _add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1.0/gateway/connections/open", self.gateway.tickets.open)
        app.router.add_get("/connect", self.gateway.connect)
        app.router.add_post("/robot/sendBySession", self.webhook.send)
        for method, path, handler in [*self.tokens.list_routes(), *self.openapi.list_routes()]:
            app.router.add_route(method, path, handler)
        app.router.add_post("/media/upload", self.files.upload)
        app.router.add_get("/files/{key}", self.files.serve)
        app.router.add_post("/v1/chat/completions", self.model.complete_chat)
        app.router.add_get("/v1/models", self.model.list_models)
        self.registration.add_routes(app)
        self._control.add_routes(app)
        # Last, since the first route that fits is taken: what DingTalk does not have has DingTalk's error body.
        app.router.add_route("*", "/{tail:.*}", _refuse_path)

    async def stop(self) -> None:
        """End every socket and task; what was recorded stays."""
        runner, self._runner = self._runner, None
        if runner is None or self._site is None:
            return
        # Nobody new first, then whoever would wait for ever (hanging requests, page streams, frozen connections): the
        # runner's cleanup waits for its handlers, and each of these would use up its whole time.
        await self._site.stop()
        self._hangs.close()
        self.feed.close()
        await self.presses.stop()
        await self.gateway.close()
        await runner.cleanup()

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def reset(self) -> None:
        """Faults off, chats and logs empty; connections, tokens and tickets stay."""
        self.faults.reset()
        self.chats.clear()
        # Tokens, tickets and connections stay: a client that is connected goes on as if nothing had happened.
        for part in (self.gateway, self.replies, self.webhook, self.openapi, self.cards, self.month, self.model):
            part.forget()
        self.people.said_count = 0
        self.feed.publish("resync", dict)

    def read_state(self) -> dict[str, Any]:
        """Show everything at one glance, as the page needs it; secrets in frames are masked."""
        return {
            "url": self.url,
            "robot_code": self.robot_code,
            "service_url": self.service_url,
            "people": [person.to_dict() for person in self.chats.people.values()],
            "chats": [chat.to_dict() for chat in self.chats.list_all()],
            **self.gateway.to_dict(),
            "month": self.month.to_dict(),
            "webhook": {"calls": dict(self.webhook.calls)},
            "openapi": self.openapi.to_dict() | {"tokens_fetched": self.tokens.fetched},
            "model": self.model.to_dict(),
            "cards": [card.to_dict() for card in list(self.cards.cards.values())[-SHOWN_MAX:]],
            "replies": self.replies.count,
            "faults": self.faults.to_dict(),
            "active_faults": self.faults.active(),
            "actions": {name: {"zh": zh, "en": en} for name, (zh, en) in ACTIONS.items()},
        }


async def _refuse_path(_request: web.Request) -> web.Response:
    return RefusedError(404).reply()

"""A local DingTalk: the gateway, the OpenAPI, a chat page and a small model, on one port and in one object.

Order of events: `start` listens; a robot registers and connects as it would to the real one; `say` (or a person on
the page) puts a message into a chat and pushes it; what the robot answers is found in `replies` and on the page.
Faults are switches (`faults`) and one-shot actions (`act`). `stop` ends every socket and task; `start` after it
listens on the same port again and remembers everything, as after an outage.

It imports nothing of the rest of claw, so that it can prove claw wrong.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import web

from claw.emulator.acks import Ack, Violation
from claw.emulator.actions import ActionError, Actions
from claw.emulator.cards import FakeCard, FakeCardApi
from claw.emulator.chats import ROBOT, Chats, FakeChat, FakeMessage, Person, UnknownError, describe_body
from claw.emulator.connection import Connection, ConnectionState
from claw.emulator.control import Control
from claw.emulator.faults import FaultError, Faults
from claw.emulator.feed import Feed
from claw.emulator.files import Files
from claw.emulator.gateway import FakeGateway
from claw.emulator.model import FakeModel
from claw.emulator.openapi import FakeOpenApi
from claw.emulator.pushes import CARD_TOPIC, ROBOT_TOPIC, Push, PushKind
from claw.emulator.replies import Replies, Reply
from claw.emulator.responses import Hangs, reply_error
from claw.emulator.robot import FakeRobotApi
from claw.emulator.tickets import AppCredentials
from claw.emulator.tokens import Tokens
from claw.emulator.webhook import FakeWebhook, Sent

if TYPE_CHECKING:
    import collections
    from collections.abc import Iterable, Sequence

__all__ = [
    "CARD_TOPIC",
    "ROBOT_TOPIC",
    "Ack",
    "ActionError",
    "Connection",
    "ConnectionState",
    "Emulator",
    "FakeCard",
    "FakeMessage",
    "FaultError",
    "Faults",
    "Person",
    "Push",
    "PushKind",
    "Reply",
    "Said",
    "UnknownError",
    "Violation",
]

DEFAULT_CLIENT_ID: Final = "dingfakeclient"
DEFAULT_CLIENT_SECRET: Final = "not-a-real-secret"  # noqa: S105 - the emulator guards nothing
LOG_MAX: Final = 2000
"""Entries that every log remembers."""
BODY_MAX_BYTES: Final = 32 * 1024 * 1024
"""Bytes of a request; an upload of 20 MB has to fit (docs/protocol.md section 6.4)."""
SHUTDOWN_TIMEOUT_S: Final = 2.0
"""Seconds that running requests get at stop."""


class Said(NamedTuple):
    """A person's message and, if it was meant for the robot, its push."""

    message: FakeMessage
    push: Push | None

    @property
    def msg_id(self) -> str:
        return self.message.id

    @property
    def delivered(self) -> bool:
        """A live connection was there to take it."""
        return self.push is not None and self.push.delivered


class Emulator:
    """`client_id=None` accepts any credentials and takes the first client's id as the robot's code.

    `rate_limits=False` switches off the 20/min of a session and the 20/s of an API. `public_url` is what endpoint
    and webhook URLs begin with; without it, what the client itself called the emulator. `seed` repeats its choices.
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
        self.client_id = client_id
        self.client_secret = client_secret
        self.service_url = service_url
        self.faults = Faults()
        self.feed = Feed()
        # Whoever turns a switch, a test, the page or a spent budget: every page shows it.
        self.faults.listen(lambda _: self.feed.publish("faults", lambda: {"faults": self.faults.to_dict()}))
        self._public_url = public_url
        self._hangs = Hangs()
        self.chats = Chats(robot_code=client_id or "", keep=keep)
        app = AppCredentials(client_id, client_secret, on_adopt=self._adopt)
        self.gateway = FakeGateway(
            app=app,
            faults=self.faults,
            feed=self.feed,
            hangs=self._hangs,
            keep=keep,
            rng=random.Random(seed),  # noqa: S311 - no secret; a seed makes chaos repeatable
        )
        self.tokens = Tokens(app=app, faults=self.faults)
        self.replies = Replies(keep=keep)
        self.webhook = FakeWebhook(
            chats=self.chats,
            faults=self.faults,
            hangs=self._hangs,
            deliver=self._webhook_delivered,
            rate_limits=rate_limits,
            keep=keep,
        )
        self.robot = FakeRobotApi(
            chats=self.chats, faults=self.faults, deliver=self._robot_sent, changed=self._message_changed, keep=keep
        )
        self.cards = FakeCardApi(
            chats=self.chats, faults=self.faults, deliver=self._card_delivered, changed=self._card_changed, keep=keep
        )
        self.files = Files(tokens=self.tokens)
        self.openapi = FakeOpenApi(
            tokens=self.tokens,
            robot=self.robot,
            cards=self.cards,
            files=self.files,
            faults=self.faults,
            hangs=self._hangs,
            base_url=lambda: self.gateway.tickets.base_url,
            rate_limits=rate_limits,
        )
        self.model = FakeModel(faults=self.faults, hangs=self._hangs, keep=keep)
        self.actions = Actions(self)
        self._control = Control(self, allowed_hosts=[host, *allowed_hosts])
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self.said_count = 0

    # Life

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def robot_code(self) -> str:
        return self.chats.robot_code

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        self._hangs.open()
        app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=[self._control.guard])
        app.router.add_post("/v1.0/gateway/connections/open", self.gateway.tickets.open)
        app.router.add_get("/connect", self.gateway.connect)
        app.router.add_post("/robot/sendBySession", self.webhook.send)
        app.router.add_post("/v1.0/oauth2/accessToken", self.tokens.app_token)
        app.router.add_post("/v1.0/oauth2/{corp}/token", self.tokens.corp_token)
        app.router.add_get("/gettoken", self.tokens.old_token)
        for method, path, handler in self.openapi.routes():
            app.router.add_route(method, path, handler)
        app.router.add_post("/media/upload", self.files.upload)
        app.router.add_get("/files/{key}", self.files.serve)
        app.router.add_post("/v1/chat/completions", self.model.complete_chat)
        app.router.add_get("/v1/models", self.model.list_models)
        self._control.add_routes(app)
        app.router.add_route("*", "/{tail:.*}", _not_found)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S, handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port)
        try:
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner, self._site = runner, site
        self.port = runner.addresses[0][1]
        self.gateway.tickets.base_url = self._public_url or self.url
        self.gateway.tickets.is_base_url_learnt = self._public_url is None
        self.gateway.resume()

    async def stop(self) -> None:
        """End every socket and task; what was recorded stays."""
        runner, self._runner = self._runner, None
        if runner is None or self._site is None:
            return
        await self._site.stop()
        self._hangs.close()
        self.feed.close()
        await self.actions.stop()
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
        for part in (self.gateway, self.replies, self.webhook, self.openapi, self.model):
            part.forget()
        self.cards.cards.clear()
        self.said_count = 0
        self.feed.publish("resync", dict)

    # What was recorded

    @property
    def connections(self) -> list[Connection]:
        """Live connections."""
        return list(self.gateway.connections.live.values())

    @property
    def registrations(self) -> collections.deque[float]:
        """Monotonic seconds of each `connections/open` call."""
        return self.gateway.tickets.registrations

    @property
    def pushes(self) -> collections.deque[Push]:
        return self.gateway.pushes.log

    @property
    def acks(self) -> collections.deque[Ack]:
        return self.gateway.acks.log

    @property
    def violations(self) -> collections.deque[Violation]:
        """What clients did against the protocol."""
        return self.gateway.acks.violations

    @property
    def undeliverable(self) -> collections.deque[Push]:
        """Pushes for which there was no live connection."""
        return self.gateway.pushes.undeliverable

    # Doing

    async def say(
        self,
        text: str = "",
        *,
        person: str = "u-1001",
        chat: str = "direct",
        at_robot: bool = True,
        at: Iterable[str] = (),
        msgtype: str = "text",
        content: dict[str, Any] | None = None,
        quote: str | None = None,
    ) -> Said:
        """A person says something in `direct` or in a group (its id or conversationId).

        In a group the robot gets it only when it is mentioned. `content` is the body of a message that is not text;
        without it a suitable one is made up. Raises UnknownError for an unknown person, chat or quoted message.
        """
        who = self.chats.person(person)
        where = self.chats.chat(chat, who)
        to_robot = at_robot or not where.is_group
        body = content if content is not None else self._default_body(msgtype, text)
        number = self.chats.next_number()
        over_quota = self._over_quota()
        data = self.chats.robot_data(
            who,
            where,
            number=number,
            base_url=self.gateway.tickets.base_url,
            msgtype=msgtype,
            body={"content": f" {text}" if where.is_group else text} if msgtype == "text" and content is None else body,
            quote=quote,
            at=[self.chats.person(one) for one in at],
            over_quota=over_quota,
        )
        message = FakeMessage(
            id=data["msgId"],
            chat=where.id,
            sender=who.id,
            nick=who.nick,
            created_at=data["createAt"],
            msgtype=msgtype,
            text=text or describe_body(msgtype, body),
            content={} if msgtype == "text" else body,
            quote=quote,
            to_robot=to_robot,
        )
        self.chats.add(message)
        self.said_count += to_robot
        push = self.gateway.push(data) if to_robot else None
        message.delivered = push is not None and push.delivered
        self._message_changed(message)
        return Said(message, push)

    def push(self, data: dict[str, Any], *, kind: PushKind = PushKind.CALLBACK, topic: str = ROBOT_TOPIC) -> Push:
        """Push any data to one live connection at random, with the usual bookkeeping."""
        return self.gateway.push(data, kind=kind, topic=topic)

    def push_raw(self, payload: str | bytes, connection: str | None = None) -> list[str]:
        """Write a frame as it is on one or every live connection; their ids."""
        return self.gateway.pushes.push_raw(payload, connection)

    def robot_data(self, text: str, *, person: str = "u-1001", chat: str = "direct", **more: Any) -> dict[str, Any]:
        """A robot message's data with a fresh msgId and session, to change and `push`."""
        who = self.chats.person(person)
        where = self.chats.chat(chat, who)
        number = self.chats.next_number()
        data = self.chats.robot_data(
            who, where, number=number, base_url=self.gateway.tickets.base_url, body={"content": text}
        )
        return data | more

    def act(self, name: str, **params: Any) -> dict[str, Any]:
        """A one-shot action by its name, as `POST /_/actions/{name}`. Raises ActionError."""
        return self.actions.act(name, params)

    # Waiting

    async def wait_reply(
        self, chat: str | None = None, *, after: float = 0.0, contains: str = "", timeout: float = 10.0
    ) -> Reply:
        """The first finished reply after that monotonic time, in that chat. Raises TimeoutError."""
        where = None if chat is None else self.chats.chat(chat).id
        return await self.replies.wait(where, after=after, contains=contains, timeout=timeout)

    async def wait_reply_to(self, said: Said | Push | str, *, timeout: float = 10.0) -> Reply:
        """The first webhook reply to that message. Raises TimeoutError."""
        return await self.replies.wait_to(said if isinstance(said, str) else said.msg_id, timeout=timeout)

    async def wait_connections(self, count: int = 1, *, timeout: float = 10.0) -> list[Connection]:
        """At least so many connections that take pushes. Raises TimeoutError."""
        return await self.gateway.connections.wait_open(count, timeout=timeout)

    # What the parts report

    def _adopt(self, client_id: str) -> None:
        self.client_id = client_id
        self.chats.robot_code = client_id

    def _over_quota(self) -> bool:
        limit = self.faults.stream_month_limit
        return bool(limit) and self.webhook.month + self.said_count >= limit

    def _default_body(self, msgtype: str, text: str) -> dict[str, Any]:
        """A body for a message of that type (docs/protocol.md section 5.2, vector V7)."""
        if msgtype == "text":
            return {"content": text}
        if msgtype in {"picture", "richText", "audio", "video", "file"}:
            code = self.files.add_sample()
            picture = {"downloadCode": code, "pictureDownloadCode": code}
            bodies: dict[str, dict[str, Any]] = {
                "picture": picture,
                "richText": {"richText": [{"text": text}, {"type": "picture"} | picture]},
                "audio": {"duration": 3200, "downloadCode": code, "recognition": text},
                "video": {"duration": "5", "videoType": "mp4", "downloadCode": code},
                "file": {"spaceId": "900001", "fileName": text or "a.png", "downloadCode": code, "fileId": "800001"},
            }
            return bodies[msgtype]
        return {msgtype: text or "[不支持的消息]"}

    def _said_by_robot(
        self, chat: FakeChat, msgtype: str, text: str, *, title: str, via: str, at: list[str]
    ) -> FakeMessage:
        message = FakeMessage(
            id=self.chats.msg_id(self.chats.next_number()),
            chat=chat.id,
            sender=ROBOT,
            nick="claw",
            created_at=int(time.time() * 1000),
            msgtype=msgtype,
            text=text,
            title=title,
            at=at,
            via=via,
        )
        return self.chats.add(message)

    def _webhook_delivered(self, sent: Sent) -> None:
        chat = sent.session.chat.id
        message = self._said_by_robot(
            sent.session.chat, sent.msgtype, sent.text, title=sent.title, via="webhook", at=sent.at
        )
        self._message_changed(message)
        self.replies.add(
            Reply(
                number=self.replies.count,
                chat=chat,
                via="webhook",
                msgtype=sent.msgtype,
                text=sent.text,
                at=sent.at,
                body=sent.body,
                message=message,
                in_reply_to=sent.session.msg_id,
            )
        )

    def _robot_sent(self, chat: FakeChat, msgtype: str, text: str, title: str, body: dict[str, Any]) -> FakeMessage:
        message = self._said_by_robot(chat, msgtype, text, title=title, via="openapi", at=[])
        self._message_changed(message)
        self.replies.add(Reply(self.replies.count, chat.id, "openapi", msgtype, text, [], body, message))
        return message

    def _card_delivered(self, card: FakeCard, chat: FakeChat, body: dict[str, Any]) -> Reply:
        message = self._said_by_robot(chat, "card", card.text, title="", via="card", at=[])
        message.card, message.card_state = card.out_track_id, card.state
        self._message_changed(message)
        reply = Reply(
            self.replies.count, chat.id, "card", "card", card.text, [], body, message, finished=card.state != "typing"
        )
        self.replies.add(reply)
        return reply

    def _card_changed(self, card: FakeCard) -> None:
        for reply in card.replies:
            reply.message.text, reply.message.card_state = card.text, card.state
            self._message_changed(reply.message)
            if card.state != "typing" and not reply.finished:
                self.replies.finish(reply)

    def _message_changed(self, message: FakeMessage) -> None:
        self.feed.publish("message", lambda: {"message": message.to_dict()})


async def _not_found(_request: web.Request) -> web.Response:
    return reply_error(404)

"""A message handler over a real store and a scripted model, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

from claw.audit import AuditLog
from claw.chat_settings import ChatBook
from claw.config.settings import AccessSettings, ConversationSettings
from claw.draft import Activity, Persist, Suspension
from claw.errors import MediaProblem, ModelError
from claw.inbox.dead_letters import DeadLetterDesk
from claw.inbox.routing import Router
from claw.language import Language
from claw.messages import Answer, ChatKind, Conversation, Inbound, Route, Sender
from claw.parts import Media
from claw.secret import Secret
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Interrupted, Row
from claw.turn.access import AccessControl
from claw.turn.attachments import Found, is_picture
from claw.turn.commands.actions import AdminActions
from claw.turn.commands.handlers import CommandHandlers
from claw.turn.commands.parser import is_urgent
from claw.turn.context import ContextWriter
from claw.turn.handler import MessageHandler
from claw.turn.model.chat import Completion, Message, OnActivity, OnSent, OnText, Shorten
from claw.turn.model.finish import FinishReason
from claw.turn.model.upload import has_pictures
from claw.turn.pictures import Picture
from claw.turn.vision import ModelVision
from tests.clock import FakeClock
from tests.messages import inbound

OWNED = AccessSettings(owner=("u-owner",))
"""Settings with an owner who is none of the people of most tests, so that nobody is paired."""


class ScriptedModel:
    """A model that answers with a fixed text, in pieces if there are any, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Message]] = []
        self.users: list[str] = []
        self.models: list[str] = []
        self.shortened: Sequence[Message] | None = None
        self.pieces: list[str] = []
        self.error: ModelError | None = None
        self.refuses_pictures: ModelError | None = None
        """What it raises at each question with pictures."""
        self.completion = Completion("fine", FinishReason.STOP, None, "scripted")

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        user: str,
        model: str = "",
        shorten: Shorten | None = None,
        on_text: OnText | None = None,
        on_activity: OnActivity | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        # As they are now: pictures are taken out of them when they were sent.
        self.asked.append(deepcopy(messages))
        self.users.append(user)
        self.models.append(model)
        self.shortened = deepcopy(shorten()) if shorten else None
        if on_sent is not None:
            await on_sent()
        if on_text is not None:
            for piece in self.pieces:
                on_text(piece)
        if self.refuses_pictures is not None and has_pictures(self.asked[-1]):
            raise self.refuses_pictures
        if self.error is not None:
            raise self.error
        return self.completion


class SeenDraft:
    """A draft that remembers what was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.activities: list[Activity] = []

    def update(self, text: str) -> None:
        self.shown.append(text)

    def activity(self, activity: Activity) -> None:
        self.activities.append(activity)

    def join(self, inbound: Inbound) -> None:
        raise AssertionError("joining is the worker's business")

    async def suspend(self, why: Suspension) -> None:
        raise AssertionError("suspending is the worker's business")

    async def finish(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        raise AssertionError("finishing is the worker's business")


class TurnHarness:
    """What stands around a turn, real except for the model and DingTalk."""

    def __init__(
        self,
        store: SqliteStore,
        settings: ConversationSettings | None = None,
        *,
        access: AccessSettings = OWNED,
        stoppable: Interrupted = Interrupted.NOTHING,
        store_lost: bool = False,
        with_context: bool = False,
    ) -> None:
        self.store = store
        self.settings = settings or ConversationSettings()
        self.model = ScriptedModel()
        self.draft = SeenDraft()
        self.clock = FakeClock()
        self.model_health: dict[str, Any] = {}
        self.stopped: list[str] = []
        self.stopped_for: list[str | None] = []
        self.restarted: list[str] = []
        self.media: dict[str, Found] = {}
        """What there is under a download code; other pictures are one of four letters, other files are gone."""
        self.asked_for: list[str] = []
        self.held = 0

        @asynccontextmanager
        async def hold_media(_: str, media: Sequence[Media]) -> AsyncIterator[list[Found]]:
            self.asked_for += [each.code.reveal() for each in media]
            self.held += 1
            try:
                yield [self.media.get(each.code.reveal(), _default(each)) for each in media]
            finally:
                self.held -= 1

        async def figures() -> dict[str, object]:
            names = ("model", "stream", "pending", "turns", "dead", "calls", "version")
            return dict.fromkeys(names, "7")

        async def stop(conversation_key: str, sender: str | None) -> Interrupted:
            self.stopped.append(conversation_key)
            self.stopped_for.append(sender)
            return stoppable

        def restart(scope: str) -> bool:
            self.restarted.append(scope)
            return True

        self.access = AccessControl(access, store, store, self.clock, store_lost=lambda: store_lost)
        self.dead = DeadLetterDesk(store, self.route, self.clock)
        self.book = ChatBook(store, ("scripted-1", "other", "openclaw/research"))
        self.used: list[tuple[str, int, int]] = []
        actions = AdminActions(
            stop,
            restart,
            figures,
            "scripted-1",
            list_dead=self.dead.list,
            retry_dead=self.dead.retry,
            note=AuditLog(store, self.clock).note,
            book=self.book,
            model_health=lambda: self.model_health,
        )
        self.handler = MessageHandler(
            self.settings,
            model=self.model,
            history=store,
            access=self.access,
            commands=CommandHandlers(
                self.access, history=store, config=store, chats=store, actions=actions, clock=self.clock
            ),
            language=Language.ZH,
            hold_media=hold_media,
            index=store,
            people=store,
            chats=self.book,
            count_usage=lambda asked, came, went: self.used.append((asked.msg_id, came, went)),
            vision=ModelVision(self.settings.vision, store, self.clock),
            context=ContextWriter("Asia/Shanghai", self.clock.wall) if with_context else None,
        )

    def route(self, message: Inbound) -> Route:
        return Router(self.settings.group_session, is_urgent, self.book).route(message)

    async def handle(self, message: Inbound) -> Answer:
        """Answer a message, and keep nothing."""
        return await self.handler.handle(message, self.route(message), self.draft)

    async def say(self, message: Inbound) -> Answer:
        """Answer a message, and keep its exchange as the worker would."""
        await self.store.put(Row(message, self.route(message)))
        answer = await self.handle(message)
        lease = await self.store.claim("test", 30)
        assert lease is not None
        await self.store.ack(lease, answer.exchange)
        return answer

    async def tell(self, staff_id: str, text: str, *, group: str = "", **fields: Any) -> str:
        """Return what somebody is answered for a text, in a direct chat or a group."""
        return (await self.say(message(staff_id, text, group=group, **fields))).text


def _default(media: Media) -> Found:
    return Picture("data:image/png;base64,AAAA") if is_picture(media) else MediaProblem.EXPIRED


def message(staff_id: str, text: str, *, group: str = "", **fields: Any) -> Inbound:
    """Make a message by somebody, in their direct chat or in a group; no staff id: from outside of the organisation."""
    where = Conversation(group, ChatKind.GROUP, "群") if group else Conversation(f"direct-{staff_id}", ChatKind.DIRECT)
    sender = Sender(f"$:LWCP_v1:${staff_id or 'outside'}", staff_id, f"nick of {staff_id}")
    return inbound(text, conversation=where, sender=sender, webhook=Secret(""), **fields)

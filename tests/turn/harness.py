"""Conversations over a real store and a parrot for a model, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from claw.config.settings import AccessSettings, ConversationSettings
from claw.errors import MediaError
from claw.inbox.routing import session_of
from claw.language import Language
from claw.messages import Answer, ChatKind, Conversation, Inbound, Sender
from claw.secret import Secret
from claw.store.sqlite.store import SqliteStore
from claw.turn.access import AccessControl
from claw.turn.commands.handlers import AdminActions, CommandHandlers
from claw.turn.handler import MessageHandler
from claw.turn.model.chat import Completion
from tests.clock import FakeClock
from tests.messages import inbound

OWNED = AccessSettings(owner=("u-owner",))
"""Settings with an owner who is none of the people of most tests, so that nobody is paired."""


class Parrot:
    """A model that answers with a fixed text and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[dict[str, Any]]] = []
        self.users: list[str] = []
        self.shortened: Sequence[dict[str, Any]] | None = None
        self.completion = Completion(text="fine", finish_reason="stop", usage=None, model="parrot", cut=False)

    async def ask(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        user: str,
        shorten: Callable[[], Sequence[dict[str, Any]] | None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        self.asked.append(messages)
        self.users.append(user)
        self.shortened = shorten() if shorten else None
        return self.completion


class House:
    """What stands around a conversation, real except for the model and DingTalk."""

    def __init__(
        self,
        store: SqliteStore,
        settings: ConversationSettings | None = None,
        *,
        access: AccessSettings = OWNED,
        stoppable: bool = False,
    ) -> None:
        self.store = store
        self.settings = settings or ConversationSettings()
        self.model = Parrot()
        self.clock = FakeClock()
        self.stopped: list[str] = []
        self.restarted: list[str] = []
        self.pictures: list[str] | MediaError = ["data:image/png;base64,AAAA"]

        async def pictures(message: Inbound) -> list[str]:
            if isinstance(self.pictures, MediaError):
                raise self.pictures
            return self.pictures

        async def figures() -> dict[str, object]:
            names = ("model", "stream", "pending", "turns", "dead", "calls", "version")
            return dict.fromkeys(names, "7")

        async def stop(session: str) -> bool:
            self.stopped.append(session)
            return stoppable

        def restart(scope: str) -> bool:
            self.restarted.append(scope)
            return True

        self.door = AccessControl(access, store, self.clock)
        self.talk = MessageHandler(
            self.settings,
            model=self.model,
            history=store,
            door=self.door,
            orders=CommandHandlers(
                self.door, store, store, AdminActions(stop, restart, figures, "parrot-1"), self.clock
            ),
            language=Language.ZH,
            pictures=pictures,
        )

    async def say(self, message: Inbound) -> Answer:
        """Answer a message, and keep its turn as the worker would."""
        await self.store.put(message, queue=session_of(message, self.settings.group_session), trace={})
        answer = await self.talk.answer(message)
        lease = await self.store.claim("test", 30)
        assert lease is not None
        await self.store.ack(lease, answer.exchange)
        return answer

    async def by(self, staff_id: str, text: str, *, group: str = "", **fields: Any) -> str:
        """What somebody is told for a text, in a direct chat or a group."""
        return (await self.say(message(staff_id, text, group=group, **fields))).text


def message(staff_id: str, text: str, *, group: str = "", **fields: Any) -> Inbound:
    """A message by somebody, in their direct chat or in a group; no staff id: from outside of the organisation."""
    where = Conversation(group, ChatKind.GROUP, "群") if group else Conversation(f"direct-{staff_id}", ChatKind.DIRECT)
    sender = Sender(f"$:LWCP_v1:${staff_id or 'outside'}", staff_id, f"nick of {staff_id}")
    return inbound(text, conversation=where, sender=sender, webhook=Secret(""), **fields)

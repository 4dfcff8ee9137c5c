"""What the robot said, in the order in which it arrived, and waiting for it.

Order of events: the webhook, a robot send or a delivered card posts into a chat; that becomes a message of the chat and
a reply, and whoever waits for one that fits is woken. A card counts as said when it is finished, since until then its
text still grows.
"""

from __future__ import annotations

import collections
import dataclasses
import time
import uuid
from collections.abc import Iterator
from typing import Any, Literal, Protocol

from claw.emulator.bounds import trim
from claw.emulator.chats import ROBOT, Chats, FakeChat, FakeMessage
from claw.emulator.watchers import Watchers


class HasMsgId(Protocol):
    @property
    def msg_id(self) -> str: ...


@dataclasses.dataclass(eq=False)
class Reply:
    number: int
    chat: str
    via: Literal["webhook", "openapi", "card"]
    msgtype: str
    text: str
    """Of a card: what it shows now."""
    at: list[str]
    body: dict[str, Any]
    """The request as it came."""
    message: FakeMessage
    in_reply_to: str | None = None
    """msgId of the message whose session webhook was used; None for OpenAPI sends and cards."""
    finished: bool = True
    confirmed: bool = True
    """Its sender was told that it is delivered; without that, it has a reason to send it once more."""
    time: float = dataclasses.field(default_factory=time.monotonic)
    """Monotonic seconds of its arrival; of a card: of its end."""


class Replies:
    """Bounded by `keep` in all, and per chat."""

    def __init__(self, *, chats: Chats, keep: int) -> None:
        self.log: collections.deque[Reply] = collections.deque(maxlen=keep)
        self.count = 0
        self._chats = chats
        self._keep = keep
        # By chat as well, since one busy chat would otherwise push the others' replies out of the common log; by
        # message as well, since a bench asks for each of its thousands, and a search through the log would be its work.
        self._by_chat: dict[str, collections.deque[Reply]] = {}
        self._by_message: dict[str, list[Reply]] = {}
        self._watchers_by_message: dict[str, Watchers] = {}
        self._watchers = Watchers()

    def __iter__(self) -> Iterator[Reply]:
        return iter(self.log)

    def __len__(self) -> int:
        return len(self.log)

    def __getitem__(self, index: int) -> Reply:
        return self.log[index]

    def post(
        self,
        chat: FakeChat,
        via: Literal["webhook", "openapi", "card"],
        msgtype: str,
        text: str,
        body: dict[str, Any],
        *,
        title: str = "",
        at: list[str] | None = None,
        in_reply_to: str | None = None,
        card: dict[str, Any] | None = None,
        receipt: str = "",
        content: dict[str, Any] | None = None,
    ) -> Reply:
        """Put what the robot said into the chat. `card` is what a page needs of a card (`update_card`)."""
        message = FakeMessage(
            id=self._chats.make_msg_id(self._chats.next_number()),
            chat=chat.id,
            sender=ROBOT,
            nick="claw",
            created_at=int(time.time() * 1000),
            msgtype=msgtype,
            text=text,
            title=title,
            at=at or [],
            via=via,
            card=card["outTrackId"] if card else None,
            card_view=card,
            receipt=receipt,
            content=content or {},
        )
        # The chat before the log: whoever is woken by the reply finds its message there.
        self._chats.add(message)
        self._chats.publish(message)
        reply = Reply(self.count, chat.id, via, msgtype, text, message.at, body, message, in_reply_to)
        # A card's end is told by an update, also of one that is made with it.
        reply.finished = card is None
        self.count += 1
        self.log.append(reply)
        self._by_chat.setdefault(reply.chat, collections.deque(maxlen=self._keep)).append(reply)
        if in_reply_to is not None:
            # A list: one session serves several replies, and that there is only one is what a test wants to see.
            self._by_message.setdefault(in_reply_to, []).append(reply)
            trim(self._by_message, self._keep)
        # An unfinished card wakes nobody: its waiter would find half a sentence.
        if reply.finished:
            self._wake(reply)
        return reply

    def update_card(self, reply: Reply, text: str, view: dict[str, Any], *, finished: bool) -> None:
        """Show what the reply's card shows now; its end makes it a finished reply.

        `text` is what it holds. `view` is what a page draws, whose client may have missed some of it.
        """
        # Two texts: a test asks what the robot said, the page shows what a person sees.
        reply.text, reply.message.text, reply.message.card_view = text, view["text"], view
        self._chats.publish(reply.message)
        if finished and not reply.finished:
            reply.finished = True
            self._wake(reply)

    @staticmethod
    def make_carrier_id(track: str) -> str:
        """Make the `carrierId` of a card: the same each time it is delivered."""
        return f"carrier{uuid.uuid5(uuid.NAMESPACE_OID, track).hex}"

    def _wake(self, reply: Reply) -> None:
        reply.time = time.monotonic()
        self._watchers.wake()
        if reply.in_reply_to in self._watchers_by_message:
            self._watchers_by_message[reply.in_reply_to].wake()

    def to(self, msg_id: str) -> list[Reply]:
        """All webhook replies to that message."""
        return list(self._by_message.get(msg_id, ()))

    async def wait_to(self, said: HasMsgId | str, *, timeout: float = 10.0) -> Reply:
        """Wait for the first webhook reply to that message. Raises TimeoutError after `timeout` seconds."""
        msg_id = said if isinstance(said, str) else said.msg_id
        watchers = self._watchers_by_message.setdefault(msg_id, Watchers())
        try:
            return await watchers.wait_for(
                lambda: next(iter(self._by_message.get(msg_id, ())), None),
                timeout=timeout,
                failure=f"no reply to {msg_id}",
            )
        finally:
            # Only when nobody else is left: others may wait for the same message for longer.
            if not watchers:
                self._watchers_by_message.pop(msg_id, None)

    async def wait(
        self, chat: str | None = None, *, after: float = 0.0, contains: str = "", timeout: float = 10.0
    ) -> Reply:
        """Wait for the first finished reply after that monotonic time, in that chat or in any.

        Raises UnknownError if there is no such chat, and TimeoutError after `timeout` seconds.
        """
        where = None if chat is None else self._chats.chat(chat).id

        def find() -> Reply | None:
            log = self.log if where is None else self._by_chat.get(where, ())
            return next((each for each in log if each.finished and each.time > after and contains in each.text), None)

        return await self._watchers.wait_for(find, timeout=timeout, failure=f"no reply in {where or 'any chat'}")

    def forget(self) -> None:
        self.log.clear()
        self._by_chat.clear()
        self._by_message.clear()
        self.count = 0

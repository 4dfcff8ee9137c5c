"""What the robot said, in the order in which it arrived, and waiting for it.

Order of events: the webhook, a robot send or a delivered card adds a reply to the chat; whoever waits for one that fits
is woken. A card counts as said when it is finished, since until then its text still grows.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from claw.emulator.chats import FakeMessage


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
    time: float = dataclasses.field(default_factory=time.monotonic)
    """Monotonic seconds of its arrival; of a card: of its end."""


class Replies:
    """Bounded by `keep` in all, and per chat."""

    def __init__(self, *, keep: int) -> None:
        self.log: collections.deque[Reply] = collections.deque(maxlen=keep)
        self.count = 0
        self._keep = keep
        self._by_chat: dict[str, collections.deque[Reply]] = {}
        self._by_message: dict[str, list[Reply]] = {}
        self._waiting_for_message: dict[str, list[asyncio.Future[Reply]]] = {}
        self._waiting: set[asyncio.Event] = set()

    def __iter__(self) -> Iterator[Reply]:
        return iter(self.log)

    def __len__(self) -> int:
        return len(self.log)

    def __getitem__(self, index: int) -> Reply:
        return self.log[index]

    def add(self, reply: Reply) -> None:
        self.count += 1
        self.log.append(reply)
        self._by_chat.setdefault(reply.chat, collections.deque(maxlen=self._keep)).append(reply)
        if reply.in_reply_to is not None:
            self._by_message.setdefault(reply.in_reply_to, []).append(reply)
            if len(self._by_message) > self._keep:
                del self._by_message[next(iter(self._by_message))]
        if reply.finished:
            self.finish(reply)

    def finish(self, reply: Reply) -> None:
        """The reply is complete: wake who waits for it."""
        reply.finished = True
        reply.time = time.monotonic()
        if reply.in_reply_to is not None:
            for future in self._waiting_for_message.pop(reply.in_reply_to, ()):
                if not future.done():
                    future.set_result(reply)
        for event in self._waiting:
            event.set()

    def to(self, msg_id: str) -> list[Reply]:
        """All webhook replies to that message."""
        return list(self._by_message.get(msg_id, ()))

    def forget(self) -> None:
        self.log.clear()
        self._by_chat.clear()
        self._by_message.clear()
        self.count = 0

    async def wait_to(self, msg_id: str, *, timeout: float) -> Reply:
        """The first webhook reply to that message. Raises TimeoutError after `timeout` s."""
        for reply in self._by_message.get(msg_id, ()):
            if reply.finished:
                return reply
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting_for_message.setdefault(msg_id, []).append(future)
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise TimeoutError(f"no reply to {msg_id} within {timeout:g} s") from None
        finally:
            waiting = self._waiting_for_message.get(msg_id, [])
            if future in waiting:  # Only our own: others may wait for the same message for longer.
                waiting.remove(future)
            if not waiting:
                self._waiting_for_message.pop(msg_id, None)

    async def wait(self, chat: str | None, *, after: float, contains: str, timeout: float) -> Reply:
        """The first finished reply after that monotonic time. Raises TimeoutError after `timeout` s."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    log = self.log if chat is None else self._by_chat.get(chat, ())
                    for reply in log:
                        if reply.finished and reply.time > after and contains in reply.text:
                            return reply
                    event.clear()
                    await event.wait()
        except TimeoutError:
            raise TimeoutError(f"no reply in {chat or 'any chat'} within {timeout:g} s") from None
        finally:
            self._waiting.discard(event)

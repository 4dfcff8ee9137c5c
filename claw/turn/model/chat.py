"""The chat model as a turn sees it: messages go in, one whole answer comes out, or ModelError."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from claw.draft import Activity
from claw.turn.model.finish import FinishReason
from claw.turn.model.sse import TokenUsage

Message = dict[str, Any]
"""One message of a chat completion: `role`, and `content` as a text or as a list of parts."""
Shorten = Callable[[], Sequence[Message] | None]
"""Gives the messages without their oldest part, or None if nothing can be left out."""
OnText = Callable[[str], None]
OnActivity = Callable[[Activity], None]
"""Gets what an agent does, each change once."""
OnSent = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, and how it ended. `usage`: None where none was counted; `id` is the server's name for it."""

    text: str
    finish: FinishReason
    usage: TokenUsage | None
    model: str
    id: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it is all that the model would have said."""
        return self.finish.is_whole


class ChatModel(Protocol):
    """Whoever answers: `ModelClient`, or a test's model."""

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
        """Return the model's answer. Raises ModelError, and whatever `shorten` or `on_text` raise.

        `model`: another one than the settings name. `user` is the hash of the conversation,
        by which a gateway finds its session. `on_text` gets each piece of text
        as it comes, thoughts among it where the model says them aloud (thoughts.py); a ModelError afterwards means that
        they are no whole answer (`ModelError.partial`). `on_activity` gets what the agent does meanwhile. `on_sent` is
        called when the server has the messages: messages with pictures are not asked again after it.
        """
        ...


def iter_texts(messages: Sequence[Message]) -> Iterator[str]:
    """Yield what was said in `messages`; pictures are left out."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"text": content}]:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]

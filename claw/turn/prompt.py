"""What the model is told: the system prompt, the conversation's earlier exchanges, and the message that is asked.

A `Prompt` holds the rendered message (rendering.py) with the exchanges, and the pictures of the newest of these, which
stay within reach; `to_messages` writes it as a chat completion's messages, `shorten` with fewer exchanges where the
model's context overflowed, and `without_pictures` for a model that sees none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from claw.messages import Exchange
from claw.parts import Media
from claw.turn.model.chat import Message
from claw.turn.pictures import Picture

EXCHANGE_MAX_CHARS: Final = 20_000
"""What history keeps of one side of an exchange: a pasted book would push everything else out."""
SHORTEN_BY: Final = 4
"""When the model's context overflows, one in so many of the exchanges is kept: the newest."""
REACH_EXCHANGES: Final = 3
"""Newest exchanges whose pictures the model gets again."""
REACH_PICTURES: Final = 4
"""Pictures of them, the newest."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to the model. `exchanges` are the earlier ones, oldest first; `content` the message's parts.

    `within_reach` are the pictures of earlier exchanges, as parts, by the number of their exchange.
    """

    system: str
    exchanges: Sequence[Exchange]
    content: Sequence[Message]
    within_reach: Mapping[int, Sequence[Message]] = field(default_factory=dict)

    def to_messages(self) -> list[Message]:
        """Write it as the messages of a chat completion."""
        return self._write(0)

    def shorten(self) -> list[Message] | None:
        """Write it with the newest exchanges only; None where there are none to leave out."""
        if not self.exchanges:
            return None
        # From the end: what was said last is what the question is about.
        return self._write(len(self.exchanges) - len(self.exchanges) // SHORTEN_BY)

    def without_pictures(self, mark: str) -> Prompt:
        """Return it with `mark` in the place of each picture."""
        content: list[Message] = []
        for part in self.content:
            text = mark if is_picture_part(part) else str(part["text"])
            # One text and not several: servers that see no pictures may know no parts at all.
            if content:
                content[-1]["text"] += f"\n{text}"
            else:
                content.append({"type": "text", "text": text})
        return replace(self, content=content, within_reach={})

    def pictures(self) -> list[Message]:
        """Return the parts that are pictures."""
        reach = [part for parts in self.within_reach.values() for part in parts]
        return [part for part in (*self.content, *reach) if is_picture_part(part)]

    def _write(self, first: int) -> list[Message]:
        messages: list[Message] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for number, exchange in enumerate(self.exchanges[first:], start=first):
            said: object = exchange.user
            if parts := self.within_reach.get(number):
                said = [{"type": "text", "text": exchange.user}, *parts]
            messages.append({"role": "user", "content": said})
            messages.append({"role": "assistant", "content": exchange.assistant})
        if len(self.content) == 1 and not is_picture_part(self.content[0]):
            # A text and not a list of one part: small servers know no parts.
            messages.append({"role": "user", "content": self.content[0]["text"]})
        else:
            messages.append({"role": "user", "content": list(self.content)})
        return messages


def find_reach(exchanges: Sequence[Exchange]) -> list[tuple[int, Media]]:
    """Return the pictures of earlier exchanges that are within reach, with their exchange's number, in order."""
    first = max(0, len(exchanges) - REACH_EXCHANGES)
    found = [(number, media) for number in range(first, len(exchanges)) for media in exchanges[number].media]
    # The newest: each of them is billed with every question as long as it is within reach.
    return found[-REACH_PICTURES:]


def make_picture_part(picture: Picture) -> Message:
    """Return a picture as a part of a message's content."""
    return {"type": "image_url", "image_url": {"url": picture.url}}


def is_picture_part(part: Message) -> bool:
    return part.get("type") == "image_url"


def drop_pictures(parts: Sequence[Message]) -> None:
    """Let go of the pictures' bytes in all messages that were made with these parts."""
    for part in parts:
        part["image_url"]["url"] = ""

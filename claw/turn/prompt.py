"""What the model is told: the system prompt, the conversation's earlier exchanges, and the message that is asked.

Order of events: `describe` puts a message into words, with what it quotes and the names of its files. A `Prompt` holds
that with the exchanges and the pictures; `to_messages` writes it as a chat completion's messages, `shorten` with fewer
exchanges where the model's context overflowed, and `to_history` as the person's half of the exchange that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from claw.language import Language
from claw.messages import Exchange, Inbound, MediaKind
from claw.turn import texts
from claw.turn.model.chat import Message, Picture

EXCHANGE_MAX_CHARS: Final = 20_000
"""What history keeps of one side of an exchange: a pasted book would push everything else out."""
SHORTEN_BY: Final = 4
"""When the model's context overflows, one in so many of the exchanges is kept: the newest."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to the model. `exchanges` are the earlier ones, oldest first; `pictures` parts of its message."""

    system: str
    exchanges: Sequence[Exchange]
    said: str
    pictures: Sequence[Message] = ()

    def to_messages(self) -> list[Message]:
        """Write it as the messages of a chat completion."""
        return self._write(self.exchanges)

    def shorten(self) -> list[Message] | None:
        """Write it with the newest exchanges only; None where there are none to leave out."""
        if not self.exchanges:
            return None
        # Not [-n:], which is everything where n is 0.
        return self._write(self.exchanges[len(self.exchanges) - len(self.exchanges) // SHORTEN_BY :])

    def to_history(self, language: Language) -> str:
        """Return what history keeps of it: a mark for each picture, whose data would fill any context."""
        # Cut after the marks, so that a book with a picture is not longer than one without.
        marks = " ".join([texts.PICTURE_MARK[language]] * len(self.pictures))
        return f"{self.said} {marks}".strip()[:EXCHANGE_MAX_CHARS]

    def _write(self, exchanges: Sequence[Exchange]) -> list[Message]:
        messages: list[Message] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for exchange in exchanges:
            messages.append({"role": "user", "content": exchange.user})
            messages.append({"role": "assistant", "content": exchange.assistant})
        if not self.pictures:
            # A text and not a list of one part: small servers know no parts.
            messages.append({"role": "user", "content": self.said})
        else:
            content: list[Message] = [{"type": "text", "text": self.said}] if self.said else []
            messages.append({"role": "user", "content": [*content, *self.pictures]})
        return messages


def make_picture_part(picture: Picture) -> Message:
    """Return a picture as a part of a message's content."""
    return {"type": "image_url", "image_url": {"url": picture.url}}


def drop_pictures(parts: Sequence[Message]) -> None:
    """Let go of the pictures' bytes in all messages that were made with these parts."""
    for part in parts:
        part["image_url"]["url"] = ""


def describe(inbound: Inbound, language: Language) -> str:
    """Put into words what the person said; empty where there is nothing to ask about."""
    files = [
        texts.ATTACHMENT[language].format(name=media.name or media.kind.value)
        for media in inbound.media
        if media.kind in {MediaKind.FILE, MediaKind.VIDEO}
    ]
    if inbound.msgtype == "unknownMsgType":
        return ""
    if not inbound.text and not inbound.quoted:
        # A file alone may be a question to an agent by its name; a video alone is none.
        return "\n".join(files) if any(media.kind is MediaKind.FILE for media in inbound.media) else ""
    # As Markdown quotes: models know who said which part by it.
    quoted = ["> " + line for line in inbound.quoted.splitlines()]
    parts = [texts.QUOTE[language], *quoted, ""] if quoted else []
    return "\n".join([*parts, inbound.text, *files]).strip()

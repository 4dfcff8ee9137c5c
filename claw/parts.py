"""What a message is made of: words, media, marks and forwarded chats in the order of the sender, and what it quotes.

`stream` makes parts of a frame, the store keeps them as JSON by field name, `turn` renders them for the model. What
cannot be carried is a mark: nothing vanishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from claw.secret import Secret

BLANKS: Final = " \t\r\n\u00a0\u2005\u200b\u2060\ufeff"
"""Characters that show nothing, of clients too, at the ends of what is said."""


class MediaKind(StrEnum):
    """What a download code stands for."""

    PICTURE = "picture"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is @-ed in a message. `name` as the message tells it; empty where DingTalk tells none."""

    id: str
    staff_id: str = ""
    name: str = ""

    @property
    def key(self) -> str:
        return self.staff_id or self.id


@dataclass(frozen=True, slots=True)
class Words:
    """A piece of text that somebody wrote or said."""

    text: str


@dataclass(frozen=True, slots=True)
class Media:
    """A file that came with a message, not yet fetched. The code is good for a short time and for this robot only."""

    kind: MediaKind
    code: Secret
    name: str = ""
    seconds: float = 0.0
    """How long a sound or a video lasts; 0 where it was not told."""


class MarkKind(StrEnum):
    """Why there is a mark in the place of what was sent."""

    UNKNOWN = "unknown"
    """A kind that this version does not know; `detail` is DingTalk's word for it."""
    NO_SPEECH = "no_speech"
    """Speech in which DingTalk recognised no words."""
    NO_CODE = "no_code"
    """A picture or file that came without a download code; `detail` is its name or its kind."""
    DOCUMENT = "document"
    """A shared document of DingTalk's, which a robot cannot open; `detail` is its title."""
    CARD = "card"
    """A card without words."""
    EMPTY_RECORD = "empty_record"
    """A forwarded chat that came without its messages."""
    LEFT_OUT = "left_out"
    """What is beyond a bound of ours; `detail` says how much."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something in a message that cannot be carried: nothing vanishes without one."""

    kind: MarkKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a forwarded chat. `speaker` is a name, or an opaque id where no name is told."""

    speaker: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A forwarded chat: who said what, in order."""

    title: str
    entries: tuple[Entry, ...]


Part = Words | Media | Mark | Record
"""What a message is made of, in the order in which its sender sees it."""


@dataclass(frozen=True, slots=True)
class Quote:
    """The message that another one replies to (docs/protocol.md section 5.3).

    `parts` is empty where only a reference came; the store may know the message by `message_id` or
    `process_query_key` (`MessageIndex`). `created_at` is in seconds since the epoch, 0 where it was not told.
    """

    message_id: str = ""
    process_query_key: str = ""
    sender_id: str = ""
    """DingTalk's encrypted id; empty where it was not told."""
    speaker: str = ""
    """The name of who wrote it, where it is told."""
    by_robot: bool = False
    created_at: float = 0.0
    parts: tuple[Part, ...] = ()
    quote: Quote | None = None
    """What the quoted message quotes itself."""


def join_words(parts: Iterable[Part]) -> str:
    """Return the person's own words, trimmed: what a forwarded chat says is not said by who forwards it."""
    text = "".join(each.text for each in parts if isinstance(each, Words))
    return text.strip().strip(BLANKS)


def iter_media(parts: Iterable[Part], kind: MediaKind | None = None) -> Iterator[Media]:
    """Yield the media in parts, those of forwarded chats included, in order; of one kind, if one is named."""
    for part in parts:
        if isinstance(part, Media):
            if kind is None or part.kind is kind:
                yield part
        # A forwarded chat brings files of its own, in the order in which they are read.
        elif isinstance(part, Record):
            for entry in part.entries:
                yield from iter_media(entry.parts, kind)


def part_to_fields(part: Part) -> dict[str, Any]:
    """Return a part as a value of JSON."""
    match part:
        case Words(text):
            return {"text": text}
        case Media(kind, code, name, seconds):
            # The code in the clear: the store keeps it, as it keeps the message, and nothing else does.
            return {"media": kind.value, "code": code.reveal(), "name": name, "seconds": seconds}
        case Mark(mark, detail):
            return {"mark": mark.value, "detail": detail}
        case Record(title, entries):
            said = [{"speaker": each.speaker, "parts": [part_to_fields(p) for p in each.parts]} for each in entries]
            return {"record": title, "entries": said}


def parts_to_fields(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Return parts as values of JSON."""
    return [part_to_fields(each) for each in parts]


def parts_from_fields(fields: Iterable[Mapping[str, Any]]) -> tuple[Part, ...]:
    """Read what `parts_to_fields` made; a kind of another version becomes a mark."""
    return tuple(part_from_fields(each) for each in fields)


def part_from_fields(fields: Mapping[str, Any]) -> Part:
    """Read what `part_to_fields` made. Raises LookupError, TypeError or ValueError for what is none."""
    # By the name of the field and not by a type: what another version adds to a part is ignored, not refused.
    if "text" in fields:
        return Words(fields["text"])
    if fields.get("media") in set(MediaKind):
        return Media(MediaKind(fields["media"]), Secret(fields["code"]), fields["name"], fields.get("seconds", 0.0))
    if "record" in fields:
        entries = tuple(Entry(each["speaker"], parts_from_fields(each["parts"])) for each in fields["entries"])
        return Record(fields["record"], entries)
    if fields.get("mark") in set(MarkKind):
        return Mark(MarkKind(fields["mark"]), fields["detail"])
    # A kind of a newer version, in a rolling update: it is told of, and the message is answered.
    return Mark(MarkKind.UNKNOWN)


def quote_to_fields(quote: Quote | None) -> dict[str, Any] | None:
    """Return a quote, and what it quotes, as a value of JSON."""
    if quote is None:
        return None
    return {
        "messageId": quote.message_id,
        "processQueryKey": quote.process_query_key,
        "senderId": quote.sender_id,
        "speaker": quote.speaker,
        "byRobot": quote.by_robot,
        "createdAt": quote.created_at,
        "parts": parts_to_fields(quote.parts),
        "quote": quote_to_fields(quote.quote),
    }


def quote_from_fields(fields: Mapping[str, Any] | None) -> Quote | None:
    """Read what `quote_to_fields` made. Raises LookupError, TypeError or ValueError for what is none."""
    if fields is None:
        return None
    return Quote(
        fields["messageId"],
        fields["processQueryKey"],
        fields["senderId"],
        fields["speaker"],
        fields["byRobot"],
        fields["createdAt"],
        parts_from_fields(fields["parts"]),
        quote_from_fields(fields["quote"]),
    )

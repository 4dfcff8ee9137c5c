"""The message that another one replies to (docs/protocol.md sections 5.3 and 10a, from clients' code and logs).

A quote stands where the reply's own words stand, which differs by the reply's type. It may come whole, as a reference
without its content, or not at all but for its id at the top of the message; what is missing, the store may know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from claw.parts import Mark, MarkKind, Part, Quote, Words
from claw.stream.content import KINDS_OF_FILES, ContentReader, message_fields, to_parts
from claw.stream.lenient import first_text, maybe_json, seconds_of, text_of

DEPTH_MAX: Final = 3
"""Quotes within quotes that are read: they may go on for ever."""


def read_quote(data: Mapping[str, Any], robot_id: str) -> Quote | None:
    """Read what a message quotes; None where it quotes nothing."""
    message_id, query_key = text_of(data.get("originalMsgId")), text_of(data.get("originalProcessQueryKey"))
    quote = next(_find_quotes(data, robot_id, 0), None)
    if quote is None:
        # Only a reference: `isReplyMsg` alone says that something was quoted of which nothing came.
        is_reply = any(_is_reply(place) for place in _places(data))
        return Quote(message_id, query_key, by_robot=bool(query_key)) if message_id or query_key or is_reply else None
    return Quote(
        quote.message_id or message_id,
        quote.process_query_key or query_key,
        quote.sender_id,
        quote.speaker,
        quote.by_robot or (bool(query_key) and not quote.sender_id),
        quote.created_at,
        quote.parts,
        quote.quote,
    )


def _places(data: Mapping[str, Any]) -> Iterator[Any]:
    yield maybe_json(data.get("text"))
    yield maybe_json(data.get("content"))
    yield data


def _is_reply(place: Any) -> bool:
    return isinstance(place, dict) and place.get("isReplyMsg") is True


def _find_quotes(data: Mapping[str, Any], robot_id: str, depth: int) -> Iterator[Quote]:
    for place in _places(data):
        replied = maybe_json(place.get("repliedMsg")) if isinstance(place, dict) else None
        if isinstance(replied, dict):
            yield _read(replied, robot_id, depth)
        elif isinstance(replied, str) and replied.strip():
            yield Quote(parts=(Words(text_of(replied).strip()),))


def _read(replied: Mapping[str, Any], robot_id: str, depth: int) -> Quote:
    sender = text_of(replied.get("senderId"))
    if depth >= DEPTH_MAX:
        return Quote(text_of(replied.get("msgId")), parts=(Mark(MarkKind.LEFT_OUT, "1"),))
    return Quote(
        text_of(replied.get("msgId")),
        text_of(replied.get("processQueryKey")),
        sender,
        first_text(replied, "senderNick", "senderName", "nick"),
        bool(robot_id) and sender == robot_id,
        seconds_of(replied.get("createdAt") or replied.get("createAt")),
        _read_parts(replied),
        next(_find_quotes(replied, robot_id, depth + 1), None),
    )


# A quoted message has the layouts of a message of its own, and some that only quotes have.
def _read_parts(replied: Mapping[str, Any]) -> tuple[Part, ...]:
    msgtype = text_of(replied.get("msgType")) or text_of(replied.get("msgtype"))
    written = replied.get("content") or replied.get("text") or message_fields(replied)
    content = maybe_json(written)
    if not content:
        return ()
    if isinstance(content, str) and msgtype not in KINDS_OF_FILES:
        # Whatever its type: words are all that there is of it.
        text = text_of(content).strip()
        return (Words(text),) if text else ()
    reader = ContentReader()
    reader.read(msgtype or "text", {"content": written})
    parts = to_parts(reader.finish())
    if not parts and (text := first_text(content, "text", "content", "summary", "title")):
        parts = [Words(text)]
    return tuple(parts)

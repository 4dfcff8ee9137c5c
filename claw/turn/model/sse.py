"""A model's answer as it comes off the wire: server-sent events, or one JSON body where `stream` was ignored.

Order of events: `feed` looks at the first byte to tell events from JSON and from an HTML page; each event is taken as
a chunk of a chat completion; text is handed out as it comes; `over` says that nothing more is wanted; `end` takes what
is left when the server is done. Everything in here was written by others, so nothing is believed: what has another
type than it should is passed over, what cannot be read at all is `UnreadableError`, and size is bounded. Read here and
not by the SDK's stream because that bounds no line, leaves async generators behind where it is left early, and needs
twice the CPU (one pydantic model per token).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

TEXT_MAX: Final = 1_048_576
"""Characters of an answer at most; what comes after them is not read."""
EVENT_MAX: Final = 4 * 1_048_576
"""Bytes of one event, or of one JSON body, at most."""
WORD_MAX: Final = 200
"""Characters of a model's name, an id or a finish reason that are kept."""
TOKENS_MAX: Final = 2**31
"""A count of tokens from here on is no count."""

_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class UnreadableError(Exception):
    """What came is no answer of a model. The message says what it was, and never quotes it."""


class EventError(Exception):
    """The server told an error inside of an answer with status 200; `body` is what it said, of any type."""

    def __init__(self, body: object) -> None:
        super().__init__("error event")
        self.body = body


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them."""

    input_tokens: int
    output_tokens: int


class _Form(Enum):
    UNKNOWN = auto()
    EVENTS = auto()
    JSON = auto()


class Reading:
    """One answer, as far as it has come."""

    def __init__(self) -> None:
        self.finish_reason = ""
        self.model = ""
        self.id = ""
        self.usage: Usage | None = None
        self.done = False
        """The server said that this is all: `[DONE]`, or a whole JSON body."""
        self._form = _Form.UNKNOWN
        self._tail = bytearray()
        self._event = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._pieces: list[str] = []
        self._size = 0
        self._half = ""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def began(self) -> bool:
        """Whether text has come. A first chunk that only names the role is no sign of success."""
        return self._size > 0

    @property
    def over(self) -> bool:
        return self.done or self._size >= TEXT_MAX

    @property
    def whole(self) -> bool:
        """Whether the server said how the answer ended, so that this is not the beginning of one that broke off."""
        return self.done or bool(self.finish_reason)

    def feed(self, part: bytes) -> str:
        """Take the next bytes; return the text that they brought. Raises EventError and UnreadableError."""
        self._tail += part
        if self._form is _Form.UNKNOWN:
            self._form = self._recognise()
        if self._form is _Form.EVENTS and b"\n" in part:
            *lines, rest = self._tail.split(b"\n")
            self._tail = rest
            return "".join([self._line(bytes(line)) for line in lines if not self.over])
        self._bound(len(self._tail) + self._data_size)
        return ""

    def end(self) -> str:
        """The server has closed: take what no line end or blank line has completed."""
        tail, self._tail = bytes(self._tail), bytearray()
        if self._form is _Form.JSON:
            text = self._take(self._object(tail), "message")
            self.done = True
            return text
        if self._form is _Form.UNKNOWN or self.over:
            return ""
        return self._line(tail) + self._line(b"")

    def _recognise(self) -> _Form:
        first = bytes(self._tail.lstrip(_BLANK)[:1])
        if not first:
            return _Form.UNKNOWN
        if first == b"<":
            raise UnreadableError("an HTML page came instead of an answer")
        return _Form.JSON if first in {b"{", b"["} else _Form.EVENTS

    def _bound(self, size: int) -> None:
        if size > EVENT_MAX:
            raise UnreadableError("an event came that has no end")

    def _line(self, line: bytes) -> str:
        """Take one line of the event stream (WHATWG HTML, 9.2.6); comments only keep the connection alive."""
        line = line.rstrip(b"\r")
        if not line:
            data, name = b"\n".join(self._data), self._event
            self._data, self._data_size, self._event = [], 0, b""
            return self._dispatch(name, data)
        field, _, value = line.lstrip(b"\xef\xbb\xbf").partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_size += len(value)
            self._bound(self._data_size)
        elif field == b"event":
            self._event = value.strip()
        return ""

    def _dispatch(self, name: bytes, data: bytes) -> str:
        if not data.strip():
            return ""
        if data.lstrip().startswith(b"[DONE]"):
            self.done = True
            return ""
        chunk = self._object(data)
        if name == b"error":
            raise EventError(chunk)
        return self._take(chunk, "delta")

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            value = json.loads(data.lstrip(_BLANK))
        except (ValueError, RecursionError):
            # Not chained: the decoder's error carries the text, which may be private.
            raise UnreadableError("what came is not JSON") from None
        if not isinstance(value, dict):
            raise UnreadableError("what came is JSON, but no object")
        if value.get("error"):
            raise EventError(value["error"])
        return value

    def _take(self, chunk: dict[str, Any], holder: str) -> str:
        """Take a chunk's first choice, whose text is in `holder`: `delta` in a stream, `message` in a whole body."""
        self.model = self.model or word(chunk.get("model"))
        self.id = self.id or word(chunk.get("id"))
        self.usage = _usage(chunk.get("usage")) or self.usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index") in (0, None):  # May be unhashable.
                self.finish_reason = word(choice.get("finish_reason")) or self.finish_reason
                said = choice.get(holder)
                return self._add(_text(said)) if isinstance(said, dict) else ""
        return ""

    def _add(self, text: str) -> str:
        """Keep `text`, with characters put together whose two halves came escaped in two chunks."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        if not text.isascii() and _SURROGATE.search(text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if self._size + len(text) >= TEXT_MAX:
            text = text[: TEXT_MAX - self._size]
            self.finish_reason = "length"
        self._size += len(text)
        self._pieces.append(text)
        return text


def word(value: object) -> str:
    """A short text that somebody else chose; empty where it is none."""
    return value[:WORD_MAX] if isinstance(value, str) else ""


def _text(said: dict[str, Any]) -> str:
    """What a delta or message says to the person; reasoning and tool calls are not said to anybody."""
    content = said.get("content") or said.get("refusal")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _usage(value: object) -> Usage | None:
    """The counts; None where there are none, or where both are 0 because the server did not count."""
    if not isinstance(value, dict):
        return None
    counts = value.get("prompt_tokens"), value.get("completion_tokens")
    sent, made = (each if type(each) is int and 0 <= each < TOKENS_MAX else 0 for each in counts)
    return Usage(sent, made) if sent or made else None

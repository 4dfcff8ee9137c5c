"""A model's answer as it comes off the wire: server-sent events, or one JSON body where `stream` was ignored.

Order of events: `feed` looks at the first byte to tell events from JSON and from an HTML page. Each event is taken as
a chunk of a chat completion, and its text is handed out as it comes. `finished` says that nothing more is wanted.
`end` takes what is left when the server has closed.

Everything in here was written by others, so nothing is believed: what has another type than it should is passed over,
what cannot be read at all is `UnreadableError`, and size is bounded. Why not the SDK's own stream, client.py says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

TEXT_MAX_CHARS: Final = 1_048_576
"""The longest answer; what comes after it is not read."""
EVENT_MAX_BYTES: Final = 4 * 1_048_576
"""The longest event, or JSON body. A line that does not end is given up here, before it fills the memory."""
FIELD_MAX_CHARS: Final = 200
"""What is kept of a model's name, an id or a finish reason: they go into spans, metrics and errors."""
TOKENS_MAX: Final = 2**31
"""A count of tokens from here on is no count: a metric must be able to hold it."""

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
class TokenUsage:
    """Tokens as the server counted them."""

    input_tokens: int
    output_tokens: int


class _Form(Enum):
    UNKNOWN = auto()
    EVENTS = auto()
    JSON = auto()


class StreamParser:
    """Parses one answer, and holds what of it has come."""

    def __init__(self) -> None:
        self.finish_reason = ""
        self.model = ""
        self.id = ""
        self.usage: TokenUsage | None = None
        self.done = False
        """The server said that this is all: `[DONE]`, or a whole JSON body."""
        self._form = _Form.UNKNOWN
        self._tail = bytearray()
        self._event = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._pieces: list[str] = []
        self._size = 0
        # The first half of a character (a surrogate) whose second half is in the next chunk.
        self._half = ""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def has_text(self) -> bool:
        """Whether text has come. A first chunk that only names the role is no sign of success."""
        return self._size > 0

    @property
    def finished(self) -> bool:
        """Whether nothing more is wanted: the server said that this is all, or it has said too much."""
        return self.done or self._size >= TEXT_MAX_CHARS

    @property
    def complete(self) -> bool:
        """Whether the server said how the answer ended, so that this is not the beginning of one that broke off."""
        return self.done or bool(self.finish_reason)

    def feed(self, part: bytes) -> str:
        """Take the next bytes; return the text that they brought. Raises EventError and UnreadableError."""
        self._tail += part
        if self._form is _Form.UNKNOWN:
            self._form = self._detect_form()
        # Only the new part is searched: searching the whole tail again for each part would make a long line quadratic.
        if self._form is _Form.EVENTS and b"\n" in part:
            *lines, rest = self._tail.split(b"\n")
            self._tail = rest
            return "".join([self._take_line(bytes(line)) for line in lines if not self.finished])
        # A JSON body ends with the connection, and a line with a newline: neither has to come from a hostile server.
        self._check_size(len(self._tail) + self._data_size)
        return ""

    def end(self) -> str:
        """Take what no line end or blank line has completed: the server has closed."""
        tail, self._tail = bytes(self._tail), bytearray()
        if self._form is _Form.JSON:
            text = self._take_chunk(self._decode(tail), "message")
            self.done = True
            return text
        if self._form is _Form.UNKNOWN or self.finished:
            return ""
        return self._take_line(tail) + self._take_line(b"")

    def _detect_form(self) -> _Form:
        first = bytes(self._tail.lstrip(_BLANK)[:1])
        if not first:
            return _Form.UNKNOWN
        if first == b"<":
            # A proxy's or a captive portal's page with status 200.
            raise UnreadableError("an HTML page came instead of an answer")
        return _Form.JSON if first in {b"{", b"["} else _Form.EVENTS

    def _check_size(self, size: int) -> None:
        if size > EVENT_MAX_BYTES:
            raise UnreadableError("an event came that has no end")

    def _take_line(self, line: bytes) -> str:
        """Take one line of the event stream (WHATWG HTML, 9.2.6); comments only keep the connection alive."""
        line = line.rstrip(b"\r")
        if not line:
            data, name = b"\n".join(self._data), self._event
            self._data, self._data_size, self._event = [], 0, b""
            return self._dispatch(name, data)
        # A byte order mark may stand before the first line only, but never belongs to a field's name.
        field, _, value = line.lstrip(b"\xef\xbb\xbf").partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_size += len(value)
            # Many lines of one event that never ends: each of them is short.
            self._check_size(self._data_size)
        elif field == b"event":
            self._event = value.strip()
        return ""

    def _dispatch(self, name: bytes, data: bytes) -> str:
        if not data.strip():
            return ""
        if data.lstrip().startswith(b"[DONE]"):
            self.done = True
            return ""
        chunk = self._decode(data)
        if name == b"error":
            raise EventError(chunk)
        return self._take_chunk(chunk, "delta")

    def _decode(self, data: bytes) -> dict[str, Any]:
        try:
            value = json.loads(data.lstrip(_BLANK))
        except (ValueError, RecursionError):
            # Not chained: the decoder's error carries the text, which may be private.
            raise UnreadableError("what came is not JSON") from None
        if not isinstance(value, dict):
            raise UnreadableError("what came is JSON, but no object")
        # OpenClaw tells an error within a stream of status 200, with or without an event's name (docs/openclaw.md).
        if value.get("error"):
            raise EventError(value["error"])
        return value

    def _take_chunk(self, chunk: dict[str, Any], holder: str) -> str:
        """Take a chunk's first choice, whose text is in `holder`: `delta` in a stream, `message` in a whole body."""
        self.model = self.model or clip_text(chunk.get("model"))
        self.id = self.id or clip_text(chunk.get("id"))
        # Usage comes with the last chunk, which has no choices, or with each; the last count stands.
        self.usage = _parse_usage(chunk.get("usage")) or self.usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index") in (0, None):  # May be unhashable.
                self.finish_reason = clip_text(choice.get("finish_reason")) or self.finish_reason
                said = choice.get(holder)
                return self._append(_extract_text(said)) if isinstance(said, dict) else ""
        return ""

    def _append(self, text: str) -> str:
        """Keep `text`, with characters put together whose two halves came escaped in two chunks."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        # A half alone cannot be written as UTF-8, neither to DingTalk nor into the store.
        if not text.isascii() and _SURROGATE.search(text):
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if self._size + len(text) >= TEXT_MAX_CHARS:
            text = text[: TEXT_MAX_CHARS - self._size]
            self.finish_reason = "length"
        self._size += len(text)
        self._pieces.append(text)
        return text


def clip_text(value: object) -> str:
    """Return the beginning of a short text that somebody else chose; an empty one for any other type."""
    return value[:FIELD_MAX_CHARS] if isinstance(value, str) else ""


def _extract_text(said: dict[str, Any]) -> str:
    """Return what a delta or message says to the person; reasoning and tool calls are not said to anybody."""
    content = said.get("content") or said.get("refusal")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _parse_usage(value: object) -> TokenUsage | None:
    """Return the counts; None where there are none, or where both are 0 because the server did not count."""
    if not isinstance(value, dict):
        return None
    counts = value.get("prompt_tokens"), value.get("completion_tokens")
    # `type(...) is int`: a JSON `true` is an int to Python.
    sent, made = (each if type(each) is int and 0 <= each < TOKENS_MAX else 0 for each in counts)
    return TokenUsage(sent, made) if sent or made else None

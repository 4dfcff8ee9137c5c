"""A model's answer as it comes off the wire: server-sent events, or one JSON body where `stream` was ignored.

Order of events: `feed` looks at the first byte to tell events from JSON and from an HTML page. Each event is taken as
a chunk of a chat completion, and its text is handed out as it comes. `finished` says that nothing more is wanted, and
`is_closing` that nothing more has to come. `end` takes what is left when the server has closed.

Everything in here was written by others, so nothing is believed: what has another type than it should is passed over,
what cannot be read at all is `UnreadableError`, and size is bounded. An object without an answer in it is the server's
word about why there is none: `EventError`. Why not the SDK's own stream, client.py says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from claw.draft import Activity, ActivityKind
from claw.turn.model.activity import read_activity, read_tool_event
from claw.turn.model.finish import FinishReason

TEXT_MAX_CHARS: Final = 1_048_576
"""The longest answer; what comes after it is not read."""
EVENT_MAX_BYTES: Final = 4 * 1_048_576
"""The longest event, or JSON body. A line that does not end is given up here, before it fills the memory."""
FIELD_MAX_CHARS: Final = 200
"""What is kept of a model's name, an id or a finish reason: they go into spans, metrics and errors."""
TOKENS_MAX: Final = 2**31
"""A count of tokens from here on is no count: a metric must be able to hold it."""
STRAY_MAX_CHARS: Final = 300
"""What is kept of a text that is neither events nor JSON."""
JSON_TRIES_MAX: Final = 16
"""How often a JSON body is looked at for its end before the server closes: each look reads all of it."""

IDLE_MAX_BYTES: Final = 8 * 1_048_576
"""The most of comments and blank lines in one answer: a keep-alive each second for a day is a third of it."""
WRAPPED_MAX: Final = 4
"""`data:` before one another in a line: each costs a copy of it."""

_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class UnreadableError(Exception):
    """What came is no answer of a model. The message says what it was, and never quotes it.

    `truncated`: it may be the beginning of one, whose rest never came.
    """

    def __init__(self, reason: str, *, truncated: bool = False) -> None:
        super().__init__(reason)
        self.truncated = truncated


class EventError(Exception):
    """The server told an error with status 200, as an event or in place of an answer; `body` is of any type."""

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

    def __init__(self, on_activity: Callable[[Activity], None] | None = None) -> None:
        """`on_activity` gets what the stream tells of the agent's doing, each change once."""
        self._on_activity = on_activity
        self._activity: Activity | None = None
        self.finish_reason = ""
        """The server's own word for how it ended."""
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
        self._idle_size = 0
        self._pieces: list[str] = []
        self._size = 0
        # The first half of a character (a surrogate) whose second half is in the next chunk.
        self._half = ""
        self._index: object = None
        # Where the first text stood. Some servers repeat the whole answer elsewhere in their last chunk.
        self._holder = ""
        self._word: dict[str, Any] | None = None
        self._stray = ""
        self._is_line_seen = False
        self._json_tries = JSON_TRIES_MAX

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def has_text(self) -> bool:
        """Whether text has come. A first chunk that only names the role is no sign of success."""
        return self._size > 0

    @property
    def chars(self) -> int:
        return self._size

    @property
    def finished(self) -> bool:
        """Whether nothing more is wanted: the server said that this is all, or it has said too much."""
        return self.done or self._size >= TEXT_MAX_CHARS

    @property
    def finish(self) -> FinishReason:
        """How the answer ended, as far as the server has said."""
        return FinishReason.parse(self.finish_reason)

    @property
    def is_closing(self) -> bool:
        """Whether the answer is there, however the connection ends; usage and `[DONE]` may follow.

        Not after a tool call: an agent that runs the tool by itself writes on when it has the result.
        """
        return self.done or self.finish not in {FinishReason.NONE, FinishReason.TOOL_CALLS}

    def feed(self, part: bytes) -> str:
        """Take the next bytes; return the text that they brought. Raises EventError and UnreadableError."""
        self._tail += part
        if self._form is _Form.UNKNOWN:
            self._form = self._detect_form()
        if self._form is _Form.JSON and b"\n" in part and not self._is_line_seen:
            # A line that is an object by itself: they stream one a line, without the events around them. Only the first
            # line tells, and is looked at once: a body may have as many as it has bytes.
            self._is_line_seen = True
            first, _, _ = self._tail.lstrip(_BLANK).partition(b"\n")
            self._form = _Form.EVENTS if _decode(first) is not None else _Form.JSON
        # Only the new part is searched: searching the whole tail again for each part would make a long line quadratic.
        if self._form is _Form.EVENTS and b"\n" in part:
            *lines, rest = self._tail.split(b"\n")
            self._tail = rest
            return "".join([self._take_line(bytes(line)) for line in lines if not self.finished])
        # A JSON body ends with the connection, and a line with a newline: neither has to come from a hostile server.
        self._check_size(len(self._tail) + self._data_size)
        if self._form is _Form.JSON and self._json_tries and part.rstrip().endswith((b"}", b"]")):
            # The answer may be whole although the server keeps the connection open.
            self._json_tries -= 1
            if _decode(self._tail) is not None:
                tail, self._tail = bytes(self._tail), bytearray()
                return self._take_body(tail)
        return ""

    def end(self) -> str:
        """Take what no line end or blank line has completed: the server has closed. Raises as `feed`."""
        tail, self._tail = bytes(self._tail), bytearray()
        text = ""
        if not self.finished:
            if self._form is _Form.JSON:
                return self._take_body(tail)
            if self._form is _Form.EVENTS:
                text = self._take_line(tail)
                try:
                    text += self._take_line(b"")
                except UnreadableError as error:
                    raise UnreadableError(str(error), truncated=bool(tail)) from None
        self._raise_word()
        return text

    def _raise_word(self) -> None:
        """Raise what the server said in place of an answer, or of its end, if it did."""
        if self.finish is not FinishReason.NONE:
            return
        word = self._word or {}
        # After text, pings and counts are passed over still: a message is none.
        if word and (not self.has_text or isinstance(word.get("message"), str)):
            raise EventError(word)
        if self._stray and not self.has_text and not self.done:
            raise EventError(self._stray)

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
        if not line or line.startswith(b":"):
            self._idle_size += len(line) + 1
            if self._idle_size > IDLE_MAX_BYTES:
                raise UnreadableError("nothing but comments came")
            if line:
                return ""
            data, name = b"\n".join(self._data), self._event
            self._data, self._data_size, self._event = [], 0, b""
            if not data.strip():
                return ""
            chunk = _decode(data)
            if chunk is None and name == b"error":
                raise EventError(data.decode("utf-8", "replace"))
            if chunk is None:
                raise UnreadableError("what came is no JSON object")
            return self._dispatch(name, chunk)
        # A byte order mark may stand before the first line only, but never belongs to a field's name.
        field, _, value = line.lstrip(b"\xef\xbb\xbf").partition(b":")
        if field == b"data":
            return self._take_data(value)
        if line.startswith(b"{"):
            return self._take_data(line)
        if field == b"event":
            self._event = value.strip()
        elif field not in {b"", b"id", b"retry"} and not self._stray:
            self._stray = line[:STRAY_MAX_CHARS].decode("utf-8", "replace").strip()
        return ""

    def _take_data(self, value: bytes) -> str:
        value = value.removeprefix(b" ")
        # Proxies wrap what another one has wrapped already, its comments included.
        for _ in range(WRAPPED_MAX):
            if not value.startswith(b"data:"):
                break
            value = value[5:].lstrip(b" ")
        if value.startswith(b":"):
            return ""
        # A line that is a whole event is taken as one: some servers leave out the blank line after it.
        if not self._data and (chunk := _decode(value)) is not None:
            return self._dispatch(self._event, chunk)
        if value.startswith(b"[DONE]"):
            self.done = True
            return ""
        self._data.append(value)
        self._data_size += len(value)
        # Many lines of one event that never ends: each of them is short.
        self._check_size(self._data_size)
        return ""

    def _dispatch(self, name: bytes, chunk: dict[str, Any]) -> str:
        if name == b"error" or _is_error(chunk):
            raise EventError(chunk)
        if (tool := read_tool_event(name, chunk)) is not None:
            # Nothing of an answer, whatever fields it has.
            self._note(Activity(ActivityKind.TOOL, tool))
            return ""
        return self._take_chunk(chunk, ("delta", "message", "text"))

    def _take_body(self, data: bytes) -> str:
        body = self._decode_body(data)
        if _is_error(body) or _choose(body.get("choices"), None) is None:
            raise EventError(body)
        text = self._take_chunk(body, ("message", "delta", "text"))
        self.done = True
        return text

    @staticmethod
    def _decode_body(data: bytes) -> dict[str, Any]:
        body = _decode(data)
        if body is None:
            raise UnreadableError("what came is no JSON object", truncated=True)
        if _is_error(body):
            raise EventError(body)
        return body

    def _take_chunk(self, chunk: dict[str, Any], holders: tuple[str, ...]) -> str:
        """Take a chunk's choice, whose text is in one of `holders`: `delta` in a stream, `message` in a whole body."""
        self.model = self.model or clip_text(chunk.get("model"))
        self.id = self.id or clip_text(chunk.get("id"))
        # Usage comes with the last chunk, which has no choices, or with each; the last count stands.
        usage = parse_usage(chunk.get("usage"))
        self.usage = usage or self.usage
        choices = chunk.get("choices")
        choice = _choose(choices, self._index)
        if choice is None:
            # Vendors' pings and counts have no choices either: it is a word only if nothing else comes.
            self._word = self._word if usage else chunk
            return ""
        self._index = choice.get("index") or 0
        word = clip_text(choice.get("finish_reason"))
        if FinishReason.parse(word) is not FinishReason.NONE:
            self.finish_reason = word
        if self._on_activity is not None and (doing := read_activity(choice)) is not None:
            self._note(doing)
        for holder in holders:
            if self._holder in {"", holder} and (text := _extract_text(choice.get(holder))):
                self._holder = holder
                return self._append(text)
        return ""

    def _note(self, activity: Activity) -> None:
        if self._on_activity is not None and activity != self._activity:
            self._activity = activity
            self._on_activity(activity)

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
        # It speaks: what it does after that is told anew.
        self._activity = None
        return text


def clip_text(value: object) -> str:
    """Return the beginning of a short text that somebody else chose; an empty one for any other type."""
    return value[:FIELD_MAX_CHARS] if isinstance(value, str) else ""


def _decode(data: bytes | bytearray) -> dict[str, Any] | None:
    """Return the JSON object that `data` is, or that a list of one holds; None for anything else."""
    try:
        # A decoder's error carries the text, which may be private: it goes no further.
        value = json.loads(data.lstrip(_BLANK))
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


def _is_error(chunk: dict[str, Any]) -> bool:
    """Whether it is an error by its own words, with or without an event's name (docs/openclaw.md)."""
    if chunk.get("error"):
        return True
    if _choose(chunk.get("choices"), None) is not None:
        return False
    codes = chunk.get("code"), chunk.get("status"), chunk.get("status_code")
    return chunk.get("object") == "error" or chunk.get("type") == "error" or any(map(_is_refusal, codes))


def _is_refusal(code: object) -> bool:
    return type(code) is int and 400 <= code < 600


def _choose(choices: object, index: object) -> dict[str, Any] | None:
    """Return the choice of that index; the first time the one of index 0, or the first where a server counts from 1."""
    usable = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    wanted = 0 if index is None else index
    for each in usable:
        if each.get("index", 0) in (wanted, None):  # May be unhashable.
            return each
    return usable[0] if usable and index is None else None


def _extract_text(said: object) -> str:
    """Return what a delta or message says to the person; reasoning and tool calls are not said to anybody."""
    if isinstance(said, dict):
        said = said.get("content") or said.get("refusal") or (said.get("text") if "type" not in said else "")
    if isinstance(said, dict):
        said = [said]
    if isinstance(said, list):
        parts = [part for part in said if isinstance(part, dict) and part.get("type") in (None, "text", "output_text")]
        return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return said if isinstance(said, str) else ""


def parse_usage(value: object, names: tuple[str, str] = ("prompt_tokens", "completion_tokens")) -> TokenUsage | None:
    """Return the counts; None where there are none, or where both are 0 because the server did not count.

    `names`: what the API calls the tokens that went in, and those that came out.
    """
    if not isinstance(value, dict):
        return None
    counts = value.get(names[0]), value.get(names[1])
    # `type(...) is int`: a JSON `true` is an int to Python.
    sent, made = (each if type(each) is int and 0 <= each < TOKENS_MAX else 0 for each in counts)
    return TokenUsage(sent, made) if sent or made else None

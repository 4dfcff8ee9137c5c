"""Any JSON value -> what we can use: bounded, and never an exception but FrameError.

DingTalk sends the same field as a number, a text, an object or JSON text in its place, and hostile senders anything.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from claw.errors import FrameError

TEXT_MAX_CHARS: Final = 200_000
"""Characters of a message that are kept; what a person can type ends far below, a model's window as well."""
NODES_MAX: Final = 10_000
"""Nodes of a nested card, records of a forwarded chat and items of a rich text that are looked at."""
CONTAINERS_MAX: Final = 200_000
"""Objects and lists of one JSON text. An empty list is 3 characters and takes 64 bytes: 8 MiB of them would become 180
MB, and a second of the loop's time."""
YEAR_9999_S: Final = 253_402_300_799.0


def loads(text: str, size: int, message_id: str = "") -> Any:
    """JSON as standardised: no NaN, no number of 4 301 digits, no nesting beyond the interpreter's stack."""
    try:
        return _parse(text)
    except (ValueError, RecursionError):
        raise FrameError("a frame is not JSON", size=size, message_id=message_id) from None


def _parse(text: str) -> Any:
    # Counted with those in strings, which is no more than a guess, but takes no time and no memory.
    if text.count("[") + text.count("{") > CONTAINERS_MAX:
        raise ValueError("too many objects")
    # NaN would pass here and fail later, in a store or at the model, where nobody knows any more who sent it.
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def compact(value: Any) -> str:
    """JSON text without blanks."""
    return json.dumps(value, separators=(",", ":"))


def maybe_json(value: Any) -> Any:
    """Return an object or list that may have come as JSON text; a text that is none stays a text."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            opened = _parse(value)
        except (ValueError, RecursionError):
            return value
        return opened if isinstance(opened, dict | list) else value
    return value


def as_list(value: Any) -> list[Any]:
    """Return a list, bounded; empty where it is none."""
    return value[:NODES_MAX] if isinstance(value, list) else []


def first_text(value: Any, *names: str) -> str:
    """Return the first of the named fields that holds text; a plain text stands for itself."""
    if isinstance(value, dict):
        return next(filter(None, (text_of(value.get(name)) for name in names)), "")
    return text_of(value)


def text_of(value: Any) -> str:
    """Return a text that every store and socket can carry: bounded, and without lone surrogates."""
    # Before numbers: to Python a bool is one, and "True" is no id.
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return ""
    # Cut first, so that what follows costs no more for a text of 8 MiB.
    text: str = value[:TEXT_MAX_CHARS]
    try:
        text.encode()
    except UnicodeEncodeError:
        # SQLite, sockets and JSON encoders refuse half a pair; UTF-16 mends pairs that came as two escapes.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def seconds_of(milliseconds: Any) -> float:
    """Seconds since the epoch out of milliseconds, which come as a number or as text; 0 where they are no time."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float | str):
        return 0.0
    try:
        seconds = float(milliseconds) / 1000
    except (ValueError, OverflowError):
        return 0.0
    # Beyond the year 9999 no date can be made of it, and a log line would fail.
    return seconds if math.isfinite(seconds) and 0 < seconds <= YEAR_9999_S else 0.0

"""The characters of a text: those that can be sent, what they take on the wire, and where one that is seen ends."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final

ENTITY: Final = "&lt;"
"""What is sent for an angle bracket."""
_CONTROLS: Final = {code: None for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"}
_CHARACTER_MAX_POINTS: Final = 64
"""Code points of one visible character that are kept together; longer piles are made to annoy."""
_ZERO_WIDTH_JOINER: Final = "\u200d"

Measure = Callable[[str], int]
"""Bytes of a text on the wire; additive: measure(a + b) == measure(a) + measure(b)."""


def measure_utf8(text: str) -> int:
    """Count the bytes of a text."""
    return len(text.encode())


def measure_json(text: str) -> int:
    """Count the bytes of a cleaned text inside a JSON string, where quotes, backslashes and line breaks take two."""
    return len(text.encode()) + sum(map(text.count, '"\\\n\t'))


def clean(text: str) -> str:
    """Make `text` one that can be sent: newlines, no control characters, no half of a surrogate pair."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Halves that belong together become the character that they stand for; the others U+FFFD.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def align_to_character(text: str, position: int) -> int:
    """Return `position`, or the nearest one before it that does not tear an emoji or an accent off its letter."""
    for back in range(position, max(position - _CHARACTER_MAX_POINTS, 0), -1):
        if back >= len(text) or not _is_joined(text, back):
            return back
    return position


def _is_joined(text: str, position: int) -> bool:
    """Whether the code points on both sides of `position` are seen as one character (after UAX 29)."""
    before, after = text[position - 1], text[position]
    if _ZERO_WIDTH_JOINER in (after, before):
        return True
    if unicodedata.category(after) in {"Mn", "Me", "Mc"} or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    if "\U000e0020" <= after <= "\U000e007f":
        return True
    # An entity is seen as one character; half of one as what it is written with (angles.py).
    if ENTITY in text[max(position - len(ENTITY) + 1, 0) : position + len(ENTITY) - 1]:
        return True
    if not (_is_flag_half(before) and _is_flag_half(after)):
        return False
    # Flags are pairs, and stand in rows without a gap: only counting from the row's begin tells the halves apart.
    halves = 0
    while halves < position and _is_flag_half(text[position - 1 - halves]):
        halves += 1
    return halves % 2 == 1


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"

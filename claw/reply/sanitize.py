"""Makes harmless what a model wrote: whoever talks to it, or wrote a page that it read, has put words into its mouth.

Order of events: the text is gone through block by block, until there is as much as can be sent; code stays as it is.
In between, embedded data (a picture in a `data:` URL may have megabytes) becomes a mark. A link whose scheme is none of
http, https and mailto is no link any more: `dingtalk://` acts within the client of whoever touches it. A mention of all
mentions nobody. Nothing else is taken away: a character without width is put where it breaks the construct, so that
people read what was written.

All of it is linear: each pattern looks a bounded number of characters ahead from wherever it may begin.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from claw.language import Language, Text
from claw.reply.fences import find_blocks
from claw.reply.spans import find_code_spans

EMBEDDED: Final = Text("（此处的内嵌图片或文件无法显示）", "(an embedded picture or file that cannot be shown here)")
"""What stands in the place of embedded data."""
SCHEMES: Final = frozenset({"http", "https", "mailto"})
"""Schemes of links that are left as they are."""
BREAK: Final = "\u200b"
"""Zero width space: seen by no person, and by every parser."""

_DATA: Final = r"data:[^\s()<>]*(?:\n[A-Za-z0-9+/=]{20,}(?=[\n)]))*"
_DATA_LINK: Final = re.compile(
    rf'!?\[([^\[\]\n]{{0,200}})\]\([ \t]*<?{_DATA}>?(?:[ \t]+"[^"\n]{{0,200}}")?[ \t]*\)?', re.I
)
_DATA_BARE: Final = re.compile(r"(?<![a-z0-9])data:[a-z]+/[a-z0-9.+-]+(?:;[a-z0-9=_.+-]+)*,[^\s()<>\"'`]*", re.I)
_TARGET: Final = r"[ \t]*+(?:\n[ \t]*+)?(<[^<>\n]{0,256}|[^\s<>]{1,256})"
_LINK: Final = re.compile(rf"\](?=[(:]{_TARGET})")
"""The end of a link's text, or of a reference's name, before its target; looked at only, as another may begin in it."""
_ATTRIBUTE: Final = re.compile(r"\b(?:href|src)(?=[ \t]*=[ \t]*[\"']?([^\s\"'<>]{1,256}))", re.I)
_AUTOLINK: Final = re.compile(r"<(?=([a-z][a-z0-9.+-]{1,31}:))", re.I)
_BARE: Final = re.compile(r"(?<![a-z0-9])(?:dingtalk[a-z0-9+-]{0,32}|javascript|vbscript)(?=:(?!\d)\S)", re.I)
"""What clients make a link of by itself. Others (`redis://host`) are words, and copied into somebody's settings."""
_MENTION: Final = re.compile(
    r"(?<![a-z0-9_.+-])[@＠](?=(?:all|everyone)(?![a-z0-9_-])|所有人|全体成员|全員)", re.I | re.ASCII
)
_SCHEME: Final = re.compile(r"([^/?#:]*):")
_HIDDEN: Final = re.compile(r"[\s\\\x00-\x20\u200b-\u200f\u2060\ufeff]")
"""What a reader of addresses passes over."""


class Sanitized(NamedTuple):
    """A text that can be shown, and how many characters of it were left out at its end."""

    text: str
    dropped: int


def sanitize(text: str, language: Language, max_chars: int) -> Sanitized:
    """Make the head of a cleaned text harmless: at most `max_chars` characters."""
    kept: list[str] = []
    room = max_chars
    for piece, is_code, end in _walk(text):
        # Before anything is cut: a picture of megabytes takes the room of its mark.
        shown = piece if is_code else _mark_data(piece, language)
        kept.append(shown[:room] if is_code else _disarm(shown[:room]))
        if len(shown) >= room:
            # What comes after it was not looked at, and costs nothing.
            return Sanitized("".join(kept), len(shown) - room + len(text) - end)
        room -= len(shown)
    return Sanitized("".join(kept), 0)


def _walk(text: str) -> Iterator[tuple[str, bool, int]]:
    """Yield prose and fenced code by turns, each with whether it is code and with its end."""
    position = 0
    for block in find_blocks(text, lambda _: True):
        if block.start > position:
            yield text[position : block.start], False, block.start
        yield text[block.start : block.end], True, block.end
        position = block.end
    yield text[position:], False, len(text)


def _mark_data(prose: str, language: Language) -> str:
    mark = EMBEDDED[language]
    prose = _DATA_LINK.sub(lambda found: found[1] + mark, prose)
    return _DATA_BARE.sub(mark, prose)


def _disarm(prose: str) -> str:
    done: list[str] = []
    position = 0
    for start, end in find_code_spans(prose):
        done += (_disarm_text(prose[position:start]), prose[start:end])
        position = end
    done.append(_disarm_text(prose[position:]))
    return "".join(done)


def _disarm_text(text: str) -> str:
    # Targets first: a word that is broken within one would hide its scheme from the check.
    for pattern in (_LINK, _ATTRIBUTE, _AUTOLINK):
        text = pattern.sub(_break_unless_allowed, text)
    text = _BARE.sub(rf"\g<0>{BREAK}", text)
    return _MENTION.sub(rf"\g<0>{BREAK}", text)


def _break_unless_allowed(found: re.Match[str]) -> str:
    return found[0] if _is_allowed(found[1]) else found[0] + BREAK


def _is_allowed(target: str) -> bool:
    """Whether a link's target, as a client reads it, has an allowed scheme or none."""
    # As clients do: entities stand for characters, and what has no place in an address is passed over.
    scheme = _SCHEME.match(_HIDDEN.sub("", html.unescape(target)).lstrip("<"))
    return scheme is None or scheme[1].lower() in SCHEMES

"""Titles: what the conversation list shows of an answer, and a notification. They are plain text.

A title is the first line that says something: not code, not a picture, not the rule of a table. Its markup is taken
away, but nothing of its words: a `*` between two numbers is a word's, and so is `List<String>`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final

from claw.language import Language, Text
from claw.reply.angles import show_angles
from claw.reply.characters import align_to_character, clean
from claw.reply.fences import find_blocks

TITLE_MAX_CHARS: Final = 24
"""Characters of a title; the conversation list shows about as many."""
HEAD_MAX_CHARS: Final = 4000
"""Characters of an answer in which its title is looked for; it bounds what the patterns below may cost."""
LINE_MAX_CHARS: Final = 400
"""Characters of a line that are looked at: links before the first words may be long."""
NAMELESS: Final = Text("回复", "Reply")
"""The title of an answer that is only code, or only a picture."""
_TARGET: Final = r"\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:[ \t]+[\"'][^\n]*?[\"'])?\)"
_PICTURE: Final = re.compile(rf"!\[[^\[\]]*\]{_TARGET}")
_LINK: Final = re.compile(rf"\[([^\[\]]*)\](?:{_TARGET}|\[[^\[\]]*\])")
_AUTOLINK: Final = re.compile(r"<(https?://[^\s<>]+)>")
_BR: Final = re.compile(r"</?br[ \t]*/?>", re.I)
_LEAD: Final = re.compile(r"^(?:[#>\s]+|[-*+]\s+(?:\[[ xX]\]\s+)?|[0-9]{1,9}[.)]\s+)+")
_HEADING_END: Final = re.compile(r"\s#+\s*$")
_MARKUP: Final = re.compile(
    r"(?<![0-9])\*\*+|\*\*+(?![0-9])|~~+|`+|(?<![\w*])[*_]+|[*_]+(?![\w*])|\\(?=[!-/:-@\[-`{-~])"
)
"""Emphasis, code, and backslashes that escape. `_` and a `*` between two words are none, nor `**` between numbers."""
_MENTION: Final = re.compile(r"[@＠]\u200b?")


def make_title(text: str, language: Language = Language.ZH) -> str:
    """Make a title of the first words of `text`, without markup: never empty, 24 characters at most."""
    for line in _list_lines(clean(text.lstrip()[:HEAD_MAX_CHARS])):
        if not any(map(str.isalnum, line)):
            continue  # Rules, and lines of nothing but signs, are quickly passed over.
        words = " ".join(_strip_markup(line[:LINE_MAX_CHARS]).split())
        if not any(map(str.isalnum, words)):
            continue  # Its words were a picture's.
        # The list cuts what is too long as well, but not between two characters that are seen as one.
        if len(words) <= TITLE_MAX_CHARS:
            return words
        return words[: align_to_character(words, TITLE_MAX_CHARS - 1)].rstrip() + "…"
    return NAMELESS[language]


def _list_lines(text: str) -> Iterator[str]:
    """Yield the lines of a text that are not code."""
    position = 0
    for block in find_blocks(text, lambda _: True):
        yield from text[position : block.start].split("\n")
        position = block.end
    yield from text[position:].split("\n")


def _strip_markup(line: str) -> str:
    # Of a row the pipes say nothing; elsewhere they may be a program's.
    row = line.lstrip("> \t").startswith("|")
    line = _LEAD.sub("", line)
    # Pictures before links: one that is a link's text would hide the link's end.
    line = _PICTURE.sub("", line)
    line = _LINK.sub(r"\1", line)
    line = _BR.sub(" ", _AUTOLINK.sub(r"\1", line))
    line = _MARKUP.sub("", _HEADING_END.sub("", line))
    # What an entity stands for is seen in the answer, and here nobody else would read it.
    line = html.unescape(line)
    # Clients look for the words of a mention in titles, too: within an address a blank stands for it.
    line = _MENTION.sub(lambda found: " " if found.start() and line[found.start() - 1].isalnum() else "", line)
    return show_angles(line.replace("|", " ") if row else line)

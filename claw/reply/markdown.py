"""Markdown as DingTalk shows it: pure functions from text to text.

Order of events for an answer: `for_dingtalk` makes line breaks and tables visible, `split` cuts the result into
parts that a call can carry, `title_of` names it in the conversation list. All are deterministic, since a restart
must find the same parts again, and linear in time, since a model may say anything, megabytes of it.

`split` works on a window of a few limits at a time. For each part it looks for the code fences in the window, then
for the best place to cut; a fence that is open at the cut is closed there and opened again in the next part. The
next window is read afresh, as a renderer would read that part, so every part is balanced by construction.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from claw.language import Language

SMALLEST_LIMIT: Final = 64
"""Bytes below which a part could not hold a fence and anything in it."""
TITLE_CHARACTERS: Final = 24
"""Characters of a title; the conversation list shows about as many."""

_FENCE_LINE: Final = re.compile(r"^([ \t]*)(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_FENCE_INDENT: Final = 4
"""Columns by which a closing fence may be further in than its opening one is less than this (CommonMark 4.5)."""
_BLANK_LINES: Final = re.compile(r"(?:[ \t]*\n)+")
_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n")
_SENTENCE: Final = re.compile(r"[。！？；…][”’」』）】]*|[.!?][\"')\]]*(?=\s)")
_BLANKS: Final = " \t\u3000"
_WORD: Final = re.compile(r"(?<![ \t\u3000])[ \t\u3000]++(?![#>*+=|-]|[0-9]+[.)]|`{3}|~{3})")
"""A gap between words after which no word would become a heading, a list or a fence by standing first in a line."""
_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_LEAD: Final = re.compile(r"^(?:[#>\s]+|[-*+]\s+|[0-9]{1,9}[.)]\s+)+")
_EMPHASIS: Final = re.compile(r"[*`~|]+|<[^<>]{0,200}>|(?<!\w)_+|_+(?!\w)")
_CONTROLS: Final = {code: None for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"}
_BLOCK: Final = re.compile(r"[ \t]*(?:[#>|]|[-*+][ \t]|[0-9]{1,9}[.)][ \t]|[-=*_]{3,}[ \t]*$|<)| {4}|\t")
"""The start of a line that is no plain text of a paragraph."""
_TABLE_RULE: Final = frozenset("|:- \t")
_CHARACTER_MAX: Final = 64
"""Code points of one visible character that are kept together; longer piles are made to annoy."""
_ZERO_WIDTH_JOINER: Final = "\u200d"

Size = Callable[[str], int]
"""Bytes of a text on the wire; additive: size(a + b) == size(a) + size(b)."""


def utf8_size(text: str) -> int:
    return len(text.encode())


def json_size(text: str) -> int:
    """Bytes of a cleaned text inside a JSON string, where quotes, backslashes and line breaks take two."""
    return len(text.encode()) + sum(map(text.count, '"\\\n\t'))


def clean(text: str) -> str:
    """`text` as it can be sent: line ends as newlines, no control characters, no half of a surrogate pair."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Halves that belong together become the character that they stand for; the others U+FFFD.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


# --- fences --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fence:
    """How a fence is opened again and closed."""

    opening: str
    closing: str


@dataclass(frozen=True, slots=True)
class _Block:
    """Fenced code from `start` to `end`, its fence lines included; `inner` is where its first line of code begins.

    A block that nothing closes ends with the text, and `closer` is None; else that is where its closing line begins.
    """

    start: int
    inner: int
    end: int
    closer: int | None
    fence: _Fence


def _columns(indent: str) -> int:
    return len(indent.expandtabs(4))


def _blocks(text: str, opens: Callable[[str], bool], *, within: _Fence | None, complete: bool) -> list[_Block]:
    """The fenced blocks of `text`, which begins within a fence that was opened before if `within` is given.

    A line that `opens` denies opens no fence. If `text` is not `complete`, its last line is unknown and is not taken
    for a fence. Deeper indentation than CommonMark's three columns is accepted: models put code into list items.
    """
    blocks: list[_Block] = []
    fence, start, inner = within, 0, 0
    for line in _FENCE_LINE.finditer(text):
        if not complete and line.end() == len(text):
            break
        indent, marker, info = line.groups()
        after = min(line.end() + 1, len(text))
        if fence is None:
            if (marker[0] == "`" and "`" in info) or not opens(line[0]):
                continue
            fence, start, inner = _Fence(line[0].rstrip(), indent + marker), line.start(), after
        elif _closes(fence, indent, marker, info):
            blocks.append(_Block(start, inner, after, line.start(), fence))
            fence = None
    if fence is not None:
        blocks.append(_Block(start, inner, len(text), None, fence))
    return blocks


def _closes(fence: _Fence, indent: str, marker: str, info: str) -> bool:
    opened = fence.closing.lstrip()
    opened_at = _columns(fence.closing[: len(fence.closing) - len(opened)])
    return marker.startswith(opened) and not info.strip() and _columns(indent) < opened_at + _FENCE_INDENT


def _open_at_end(blocks: list[_Block]) -> _Fence | None:
    return blocks[-1].fence if blocks and blocks[-1].closer is None else None


# --- cutting -------------------------------------------------------------------------------------------------------


def split(text: str, limit_bytes: int, *, size: Size = utf8_size) -> list[str]:
    """Cut `text` into parts of at most `limit_bytes`, measured by `size`; blank text gives none.

    Cuts are made at the end of a paragraph, else of a line, of a sentence, of a word, else between two characters.
    Nothing is lost but white space at cuts and control characters; nothing is added but fence lines.
    """
    if limit_bytes < SMALLEST_LIMIT:
        raise ValueError("the limit is too small for a part")
    text = clean(text).rstrip()

    def opens(line: str) -> bool:
        # A longer line could not be repeated in each part.
        return size(line) <= limit_bytes // 4

    parts: list[str] = []
    position = 0
    fence: _Fence | None = None
    while position < len(text):
        # Two limits: one for this part, one to see whether a block that begins in it would fit into the next.
        window = text[position : position + 2 * limit_bytes + 1]
        if fence is None and (blank := _BLANK_LINES.match(window)):
            position += blank.end()
            continue
        complete = position + len(window) == len(text)
        blocks = _blocks(window, opens, within=fence, complete=complete)
        opening = f"{fence.opening}\n" if fence else ""
        cut = _Cut(window, blocks, limit_bytes - size(opening), limit_bytes, size, complete)
        end = cut.find()
        # Read again as it will be shown: a line that was cut in its middle may look like a fence now.
        left_open = _open_at_end(_blocks(window[:end], opens, within=fence, complete=True))
        if window[:end].strip():
            body = window[:end].rstrip("\n" if left_open else None)
            parts.append(f"{opening}{body}\n{left_open.closing}" if left_open else opening + body)
        after, fence = cut.resume(end, left_open)
        position += after
    return parts


@dataclass(frozen=True, slots=True)
class _Cut:
    """The search for the end of one part at the head of `window`; all positions are in the window."""

    window: str
    blocks: list[_Block]
    room: int
    """Bytes that the part has left."""
    limit: int
    size: Size
    complete: bool
    """The window reaches to the end of the text."""

    def find(self) -> int:
        """Where the part ends: at least one character on."""
        reach = self._fits(self.room)
        block = self._torn(reach)
        if self.complete and reach == len(self.window):
            if block is None or self.size(self.window) + self._closing(block) <= self.room:
                return reach
        elif block is None:
            ended = max((each.end for each in self.blocks if each.end <= reach), default=0)
            return self._best(ended, reach, (_paragraph, _line, _sentence, _gap))
        if block.start > 0 and (self._fits_alone(block) or block.start > reach * 3 // 4):
            return block.start
        reach = self._fits(self.room - self._closing(block))
        if block.start > 0 and not _line(self.window, block.inner, reach):
            return block.start  # Not one line of code would come with the fence.
        return self._best(block.inner, reach, (_line, _word))

    def resume(self, end: int, left_open: _Fence | None) -> tuple[int, _Fence | None]:
        """Where the next part begins, and the fence that it begins within."""
        if left_open is not None:
            block = self._torn(end)
            if block is not None and block.closer is not None and not self.window[end : block.closer].strip():
                return block.end, None  # Only the closing line is left, and the part before has one.
            return end, left_open
        if self.window[end - 1] == "\n":
            return end, None
        # In the middle of a line: indentation would turn the rest into code.
        return len(self.window) - len(self.window[end:].lstrip(_BLANKS)), None

    def _torn(self, position: int) -> _Block | None:
        """The block that a cut at `position` would tear, or leave open at the end of the text."""
        for block in self.blocks:
            if block.start < position and (position < block.end or block.closer is None):
                return block
        return None

    def _fits(self, room: int) -> int:
        """How many characters of the window take at most `room` bytes."""
        most = min(len(self.window), room)
        return bisect.bisect_right(range(most + 1), room, key=lambda count: self.size(self.window[:count])) - 1

    def _closing(self, block: _Block) -> int:
        return self.size(f"\n{block.fence.closing}")

    def _fits_alone(self, block: _Block) -> bool:
        if block.closer is not None:
            return self.size(self.window[block.start : block.end].rstrip("\n")) <= self.limit
        return self.complete and self.size(self.window[block.start :]) + self._closing(block) <= self.limit

    def _best(self, start: int, reach: int, finders: Sequence[_Finder]) -> int:
        """The best place that makes a good half of a part, else the best, else one between two characters.

        Nothing before `start` is looked at; `start` itself, where it is not 0, is the end of a fence.
        """
        for least in (reach // 2, 0):
            for find in finders:
                position = find(self.window, max(start, least), reach)
                if position > least and not self._fakes_fence(position):
                    return position
                if find is _paragraph and start > least:
                    return start
        return _between_characters(self.window, max(reach, 1))

    def _fakes_fence(self, position: int) -> bool:
        """Whether a cut here would leave, as the last line of the part, a fence that the whole line is not."""
        if self.window[position - 1] == "\n":
            return False
        begin = self.window.rfind("\n", 0, position) + 1
        return _FENCE_LINE.match(self.window[begin:position]) is not None


_Finder = Callable[[str, int, int], int]
"""(text, low, reach) -> the last place to cut after `low` such that what is before it, stripped, ends by `reach`."""


def _paragraph(text: str, low: int, reach: int) -> int:
    return max((found.start() + 1 for found in _PARAGRAPH.finditer(text, low, reach + 2)), default=0)


def _line(text: str, low: int, reach: int) -> int:
    return text.rfind("\n", low, reach + 1) + 1


def _sentence(text: str, low: int, reach: int) -> int:
    ends = (found.end() for found in _SENTENCE.finditer(text, low, reach + 2))
    return max((end for end in ends if end <= reach), default=0)


def _gap(text: str, low: int, reach: int) -> int:
    """Before the blanks between two words."""
    return max((found.start() for found in _WORD.finditer(text, low, reach + 2) if found.start() <= reach), default=0)


def _word(text: str, low: int, reach: int) -> int:
    """After the blanks between two words, since code keeps them."""
    return max((found.end() for found in _WORD.finditer(text, low, reach + 1) if found.end() <= reach), default=0)


def _between_characters(text: str, position: int) -> int:
    """`position`, or the nearest one before it that does not tear an emoji or an accent off its letter."""
    for back in range(position, max(position - _CHARACTER_MAX, 0), -1):
        if back >= len(text) or not _joined(text, back):
            return back
    return position


def _joined(text: str, position: int) -> bool:
    """Whether the code points on both sides of `position` are seen as one character (after UAX 29)."""
    before, after = text[position - 1], text[position]
    if _ZERO_WIDTH_JOINER in (after, before):
        return True
    if unicodedata.category(after) in {"Mn", "Me", "Mc"} or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    if "\U000e0020" <= after <= "\U000e007f":
        return True
    if not (_is_flag_half(before) and _is_flag_half(after)):
        return False
    halves = 0
    while halves < position and _is_flag_half(text[position - 1 - halves]):
        halves += 1
    return halves % 2 == 1


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


# --- what DingTalk shows -------------------------------------------------------------------------------------------


def for_dingtalk(text: str) -> str:
    """`text` with its line breaks made visible: DingTalk joins lines unless two spaces end them (PROTOCOL 6.7).

    Only plain lines of one paragraph are touched, never code, lists, quotes, headings or tables; a table gets the
    blank line before it that DingTalk's newer clients need to show it as one.
    """
    text = clean(text)
    done: list[str] = []
    position = 0
    for block in _blocks(text, lambda _: True, within=None, complete=True):
        done += (_break_lines(text[position : block.start]), text[block.start : block.end])
        position = block.end
    done.append(_break_lines(text[position:]))
    return "".join(done)


def _break_lines(text: str) -> str:
    lines = text.split("\n")
    done: list[str] = []
    in_table = False
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if in_table:
            in_table = "|" in line
        elif "|" in line and _is_table_rule(following):
            in_table = True
            if done and done[-1].strip():
                done.append("")
        plain = not in_table and _is_plain(line) and _is_plain(following)
        starts_table = "|" in following and index + 2 < len(lines) and _is_table_rule(lines[index + 2])
        done.append(f"{line.rstrip()}  " if plain and not starts_table else line)
    return "\n".join(done)


def _is_plain(line: str) -> bool:
    return bool(line.strip()) and not _BLOCK.match(line)


def _is_table_rule(line: str) -> bool:
    return "-" in line and "|" in line and _TABLE_RULE.issuperset(line)


def title_of(text: str, language: Language = Language.ZH) -> str:
    """The first words of `text` without markup, for the conversation list: never empty, 24 characters at most."""
    for line in clean(text.lstrip()[:1000]).split("\n"):
        if _FENCE_LINE.match(line):
            continue
        words = " ".join(_EMPHASIS.sub("", _LINK.sub(r"\1", _LEAD.sub("", line))).split())
        if not any(character.isalnum() for character in words):
            continue
        if len(words) <= TITLE_CHARACTERS:
            return words
        return words[: _between_characters(words, TITLE_CHARACTERS - 1)].rstrip() + "…"
    return "回复" if language is Language.ZH else "Reply"

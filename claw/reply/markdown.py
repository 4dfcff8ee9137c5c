"""Markdown as DingTalk shows it: pure functions from text to text.

Order of events for an answer: `format_for_dingtalk` makes line breaks and tables visible, `split` cuts the result into
parts that a call can carry, `make_title` names it in the conversation list. All are deterministic, since a restart
must find the same parts again, and linear in time, since a model may say anything, megabytes of it.

`split` works on a window of two limits at a time. For each part it looks for the code fences in the window, then for
the best place to cut. A fence that is open at the cut is closed there and opened again in the next part. The next
window is read afresh, as a renderer would read that part, so every part is balanced by construction.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from claw.language import Language
from claw.reply.fences import FENCE_LINE, Block, Fence, find_blocks, find_open_fence

LIMIT_MIN_BYTES: Final = 64
"""Bytes below which a part could not hold a fence and anything in it."""
TITLE_MAX_CHARS: Final = 24
"""Characters of a title; the conversation list shows about as many."""

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


# --- cutting -------------------------------------------------------------------------------------------------------


class _Cursor(NamedTuple):
    """Where the next part begins, and the fence that it begins within."""

    position: int
    fence: Fence | None


class Head(NamedTuple):
    """The first parts of a text; not `complete` where something was left out, which the last part says."""

    parts: list[str]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Knife:
    """Cuts parts off a text. A line above `fence_max_bytes` opens no fence: each part would have to repeat it."""

    text: str
    measure: Measure
    fence_max_bytes: int

    def opens(self, line: str) -> bool:
        # A character has no more than four bytes: a text of nothing but fences has hundreds of thousands to measure.
        return 4 * len(line) <= self.fence_max_bytes or self.measure(line) <= self.fence_max_bytes

    def cut(self, cursor: _Cursor, limit_bytes: int) -> tuple[str, _Cursor]:
        """Cut a part off; it is empty where only blanks were found on the way to the new place."""
        position, fence = cursor
        # Two limits: one for this part, one to see whether a block that begins in it would fit into the next.
        window = self.text[position : position + 2 * limit_bytes + 1]
        if fence is None and (blank := _BLANK_LINES.match(window)):
            # A part that begins with them shows a gap; within code they count.
            return "", _Cursor(position + blank.end(), None)
        complete = position + len(window) == len(self.text)
        blocks = list(find_blocks(window, self.opens, within=fence, complete=complete))
        opening = f"{fence.opening}\n" if fence else ""
        room = limit_bytes - self.measure(opening)
        search = _PartSearch(window, blocks, room, limit_bytes, self.measure, complete)
        end = search.find_end()
        # Read again as it will be shown: a line that was cut in its middle may look like a fence now. What counts for
        # balance is what a renderer sees of this part alone.
        left_open = find_open_fence(find_blocks(window[:end], self.opens, within=fence))
        part = ""
        if window[:end].strip():
            body = window[:end].rstrip("\n" if left_open else None)
            part = f"{opening}{body}\n{left_open.closing}" if left_open else opening + body
        after, fence = search.find_next(end, left_open)
        return part, _Cursor(position + after, fence)


def split(text: str, limit_bytes: int, *, measure: Measure = measure_utf8) -> list[str]:
    """Cut `text` into parts of at most `limit_bytes`, measured by `measure`; blank text gives none.

    Cuts are made at the end of a paragraph, else of a line, of a sentence, of a word, else between two characters.
    Nothing is lost but white space at cuts and control characters; nothing is added but fence lines.
    """
    return split_head(text, limit_bytes, len(text), lambda _: "", measure=measure).parts


def split_head(
    text: str,
    limit_bytes: int,
    parts_max: int,
    make_notice: Callable[[int], str],
    *,
    dropped: int = 0,
    later: int = 0,
    measure: Measure = measure_utf8,
) -> Head:
    """Cut the first `parts_max` parts off `text`; the last ends with a notice of how many characters are left out.

    `dropped` are characters of the same text that were left out before; `later` are some of other texts, which are left
    out if there is no part for them. Cuts are made as by `split`.
    """
    # The longest that it can become.
    notice = make_notice(len(text) + dropped + later)
    notice_bytes = measure(f"\n\n{notice}") if notice else 0
    if limit_bytes - notice_bytes < LIMIT_MIN_BYTES:
        raise ValueError("the limit is too small for a part")
    text = clean(text).rstrip()
    knife = _Knife(text, measure, (limit_bytes - notice_bytes) // 4)
    parts: list[str] = []
    cursor = _Cursor(0, None)
    while cursor.position < len(text):
        part, after = knife.cut(cursor, limit_bytes)
        left = len(text) - after.position + dropped
        is_last = len(parts) + 1 == parts_max
        if part and ((is_last and left + later) or (dropped and after.position == len(text))):
            # Cut once more, so that the notice has room: whether there is one, only the cut of a full part tells.
            part, after = knife.cut(cursor, limit_bytes - notice_bytes)
            left = len(text) - after.position + dropped + later
            return Head([*parts, f"{part}\n\n{make_notice(left)}".lstrip("\n")], complete=False)
        if part:
            parts.append(part)
        cursor = after
    return Head(parts, complete=True)


@dataclass(frozen=True, slots=True)
class _PartSearch:
    """The search for the end of one part at the head of `window`; all positions are in the window.

    A cut inside of a block is the worst one: it costs two fence lines, and people copy code by the block. So the
    questions are, in this order: does all that is left fit; is any block torn by the limit; can the block go whole
    into the next part; and only then, where inside of it to cut.
    """

    window: str
    blocks: list[Block]
    room: int
    """Bytes of this part without the fence line that it begins with, if any."""
    limit: int
    """Bytes of a part that begins with none."""
    measure: Measure
    complete: bool
    """The window reaches to the end of the text."""

    def find_end(self) -> int:
        """Find where the part ends: at least one character on, or `split` would never end."""
        reach = self._count_fitting(self.room)
        block = self._find_torn_block(reach)
        if self.complete and reach == len(self.window):
            # The rest of the text fits. A block that nothing closes needs room for a closing line of ours.
            if block is None or self.measure(self.window) + self._measure_closing(block) <= self.room:
                return reach
        elif block is None:
            # Prose at the limit. What lies before the end of the last block is not looked at: an empty line there may
            # be code, and would be taken for the end of a paragraph.
            ended = max((each.end for each in self.blocks if each.end <= reach), default=0)
            return self._find_best(ended, reach, (_find_paragraph, _find_line, _find_sentence, _find_gap))
        # The limit is in a block. It moves into the next part if it fits there whole, or if little is lost by that.
        if block.start > 0 and (self._can_stand_alone(block) or block.start > reach * 3 // 4):
            return block.start
        # It has to be torn, after a line of code if there is one. The part needs room for the closing line.
        reach = self._count_fitting(self.room - self._measure_closing(block))
        if block.start > 0 and not _find_line(self.window, block.inner, reach):
            return block.start  # Not one line of code would come with the fence.
        return self._find_best(block.inner, reach, (_find_line, _find_word))

    def find_next(self, end: int, left_open: Fence | None) -> tuple[int, Fence | None]:
        """Find where the next part begins, and the fence that it begins within."""
        if left_open is not None:
            block = self._find_torn_block(end)
            if block is not None and block.closer is not None and not self.window[end : block.closer].strip():
                return block.end, None  # Only the closing line is left, and the part before has one.
            return end, left_open
        if self.window[end - 1] == "\n":
            return end, None
        # In the middle of a line: indentation would turn the rest into code.
        return len(self.window) - len(self.window[end:].lstrip(_BLANKS)), None

    def _find_torn_block(self, position: int) -> Block | None:
        """Find the block that a cut at `position` would tear, or leave open at the end of the text."""
        for block in self.blocks:
            if block.start < position and (position < block.end or block.closer is None):
                return block
        return None

    def _count_fitting(self, room: int) -> int:
        """Count the characters of the window that take at most `room` bytes."""
        # By halving, since measures add up: each character alone would be measured a thousand times over.
        most = min(len(self.window), room)
        return bisect.bisect_right(range(most + 1), room, key=lambda count: self.measure(self.window[:count])) - 1

    def _measure_closing(self, block: Block) -> int:
        return self.measure(f"\n{block.fence.closing}")

    def _can_stand_alone(self, block: Block) -> bool:
        """Whether all of the block fits into a part of its own."""
        if block.closer is not None:
            return self.measure(self.window[block.start : block.end].rstrip("\n")) <= self.limit
        return self.complete and self.measure(self.window[block.start :]) + self._measure_closing(block) <= self.limit

    def _find_best(self, start: int, reach: int, finders: Sequence[_Finder]) -> int:
        """Find the best place that makes a good half of a part, else the best, else one between two characters.

        Nothing before `start` is looked at; `start` itself, where it is not 0, is the end of a fence.
        """
        # The second round takes small parts, such as a heading before one long line, rather than to tear a line.
        for least in (reach // 2, 0):
            for find in finders:
                position = find(self.window, max(start, least), reach)
                if position > least and not self._is_fake_fence(position):
                    return position
                if find is _find_paragraph and start > least:
                    return start  # The end of a block is worth as much as that of a paragraph.
        return _align_to_character(self.window, max(reach, 1))

    def _is_fake_fence(self, position: int) -> bool:
        """Whether a cut here would leave, as the last line of the part, a fence that the whole line is not."""
        if self.window[position - 1] == "\n":
            return False
        begin = self.window.rfind("\n", 0, position) + 1
        return FENCE_LINE.match(self.window[begin:position]) is not None


_Finder = Callable[[str, int, int], int]
"""(text, low, reach) -> the last place to cut after `low` such that what is before it, stripped, ends by `reach`."""


def _find_paragraph(text: str, low: int, reach: int) -> int:
    return max((found.start() + 1 for found in _PARAGRAPH.finditer(text, low, reach + 2)), default=0)


def _find_line(text: str, low: int, reach: int) -> int:
    return text.rfind("\n", low, reach + 1) + 1


def _find_sentence(text: str, low: int, reach: int) -> int:
    ends = (found.end() for found in _SENTENCE.finditer(text, low, reach + 2))
    return max((end for end in ends if end <= reach), default=0)


def _find_gap(text: str, low: int, reach: int) -> int:
    """Before the blanks between two words."""
    return max((found.start() for found in _WORD.finditer(text, low, reach + 2) if found.start() <= reach), default=0)


def _find_word(text: str, low: int, reach: int) -> int:
    """After the blanks between two words, since code keeps them."""
    return max((found.end() for found in _WORD.finditer(text, low, reach + 1) if found.end() <= reach), default=0)


def _align_to_character(text: str, position: int) -> int:
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
    if not (_is_flag_half(before) and _is_flag_half(after)):
        return False
    # Flags are pairs, and stand in rows without a gap: only counting from the row's begin tells the halves apart.
    halves = 0
    while halves < position and _is_flag_half(text[position - 1 - halves]):
        halves += 1
    return halves % 2 == 1


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


# --- what DingTalk shows -------------------------------------------------------------------------------------------


def format_for_dingtalk(text: str) -> str:
    """Make line breaks visible: DingTalk joins lines unless two spaces end them (docs/protocol.md section 6.7).

    Only plain lines of one paragraph are touched, never code, lists, quotes, headings or tables; a table gets the
    blank line before it that DingTalk's newer clients need to show it as one.
    """
    text = clean(text)
    done: list[str] = []
    position = 0
    for block in find_blocks(text, lambda _: True):
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


def make_title(text: str, language: Language = Language.ZH) -> str:
    """Make a title of the first words of `text`, without markup: never empty, 24 characters at most."""
    # Its head is enough, and bounds what the patterns below may cost.
    for line in clean(text.lstrip()[:1000]).split("\n"):
        if FENCE_LINE.match(line):
            continue  # "```python" names no answer.
        words = " ".join(_EMPHASIS.sub("", _LINK.sub(r"\1", _LEAD.sub("", line))).split())
        if not any(character.isalnum() for character in words):
            continue
        if len(words) <= TITLE_MAX_CHARS:
            return words
        return words[: _align_to_character(words, TITLE_MAX_CHARS - 1)].rstrip() + "…"
    return "回复" if language is Language.ZH else "Reply"

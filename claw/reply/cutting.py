"""Cuts an answer into parts that a call can carry: a pure function from text to texts.

It is deterministic, since a restart must find the same parts again, and linear in time, since a model may say anything,
megabytes of it.

`split` works on a window of two limits at a time. For each part it looks for the code fences in the window, then for
the best place to cut. A fence that is open at the cut is closed there and opened again in the next part. The next
window is read afresh, as a renderer would read that part, so every part is balanced by construction. A table that is
cut goes on below its header and rule; its rows are torn only where one takes more than a part.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from claw.reply.characters import Measure, align_to_character, clean, measure_utf8
from claw.reply.fences import FENCE_LINE, Block, Fence, find_blocks, find_open_fence
from claw.reply.tables import Table, TableHead, count_cells, find_tables

LIMIT_MIN_BYTES: Final = 64
"""Bytes below which a part could not hold a fence and anything in it."""
_BLANK_LINES: Final = re.compile(r"(?:[ \t]*\n)+")
_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n")
_SENTENCE: Final = re.compile(r"[。！？；…][”’」』）】]*|[.!?][\"')\]]*(?=\s)")
_ROW_OPENING: Final = re.compile(r"[> \t|]*+")
_BLANKS: Final = " \t\u3000"
_WORD: Final = re.compile(r"(?<![ \t\u3000])[ \t\u3000]++(?![#>*+=|-]|[0-9]+[.)]|`{3}|~{3})")
"""A gap between words after which no word would become a heading, a list or a fence by standing first in a line."""


class _Cursor(NamedTuple):
    """Where the next part begins, and the fence or the table that it begins within."""

    position: int
    fence: Fence | None = None
    table: TableHead | None = None
    cells: int | None = None
    """Cells of the row that the parts before have, if it begins within a row."""

    @property
    def opening(self) -> str:
        """What the part begins with: a table that goes on needs its header to be one."""
        if self.fence is not None:
            return f"{self.fence.opening}\n"
        return f"{self.table.opening}\n" if self.table is not None else ""

    @property
    def lead(self) -> str:
        """What the part's first line begins with, so that the rest of a row stays in its column."""
        return "" if self.table is None or self.cells is None else self.table.make_lead(self.cells)


class Head(NamedTuple):
    """The first parts of a text; not `complete` where something was left out, which the last part says."""

    parts: list[str]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Knife:
    """Cuts parts off a text. What would be repeated in each part is `repeat_max_bytes` at most.

    A longer line opens no fence, and a longer header of a table is not carried over.
    """

    text: str
    measure: Measure
    repeat_max_bytes: int

    def opens(self, line: str) -> bool:
        line = line.rstrip()  # As it would be repeated, and as it is if it ends a part.
        # A character has no more than four bytes: a text of nothing but fences has hundreds of thousands to measure.
        return 4 * len(line) <= self.repeat_max_bytes or self.measure(line) <= self.repeat_max_bytes

    def cut(self, cursor: _Cursor, limit_bytes: int) -> tuple[str, _Cursor]:
        """Cut a part off; it is empty where only blanks were found on the way to the new place."""
        position, fence = cursor.position, cursor.fence
        # Two limits: one for this part, one to see whether a block that begins in it would fit into the next.
        window = self.text[position : position + 2 * limit_bytes + 1]
        complete = position + len(window) == len(self.text)
        if fence is None and (blank := _BLANK_LINES.match(window)):
            # A part that begins with them shows a gap; within code they count.
            return "", _Cursor(position + blank.end())
        window = cursor.lead + window
        room = limit_bytes - self.measure(cursor.opening)
        # What begins after this part, the next one will see: a text may have a hundred thousand of them.
        found = find_blocks(window, self.opens, within=fence, complete=complete)
        blocks = list(itertools.takewhile(lambda block: block.start <= room, found))
        among = find_tables(window, blocks, cursor.table, len(cursor.lead))
        tables = list(itertools.takewhile(lambda table: table.start <= room, among))
        search = _PartSearch(window, blocks, tables, room, limit_bytes, self.measure, complete)
        end = search.find_end()
        # Read again as it will be shown: a line that was cut in its middle may look like a fence now. What counts for
        # balance is what a renderer sees of this part alone.
        left_open = find_open_fence(find_blocks(window[:end], self.opens, within=fence))
        part = ""
        if window[:end].strip():
            body = cursor.opening + window[:end].rstrip("\n" if left_open else None)
            part = f"{body}\n{left_open.closing}" if left_open else body
        after = search.find_next(end, left_open)
        # A row that is torn begins anew with its lead, which is not in the text.
        return part, self._shorten(after._replace(position=position + after.position - len(cursor.lead)))

    def _shorten(self, cursor: _Cursor) -> _Cursor:
        """Let a table go on below a head of empty cells, or below none, if its own takes too much of each part."""
        if cursor.table is None:
            return cursor
        for head in (cursor.table, cursor.table.without_words()):
            if self.measure(f"{head.opening}\n") <= self.repeat_max_bytes:
                return cursor._replace(table=head)
        return _Cursor(cursor.position)


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
    cursor = _Cursor(0)
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


def cut_first(text: str, limit: int, *, measure: Measure = measure_utf8) -> tuple[str, str]:
    """Cut the first part off, as `split` does; return it and the rest, which begins as a next part would."""
    text = clean(text).rstrip()
    knife = _Knife(text, measure, limit // 4)
    cursor, part = _Cursor(0), ""
    while not part and cursor.position < len(text):
        part, cursor = knife.cut(cursor, limit)
    rest = text[cursor.position :]
    return part, f"{cursor.opening}{cursor.lead}{rest}" if rest.strip() else ""


@dataclass(frozen=True, slots=True)
class _PartSearch:
    """The search for the end of one part at the head of `window`; all positions are in the window.

    A cut inside of a block is the worst one: it costs two fence lines, and people copy code by the block. So the
    questions are, in this order: does all that is left fit; is any block torn by the limit; can the block go whole
    into the next part; and only then, where inside of it to cut. A table bears to be cut between its rows.
    """

    window: str
    blocks: list[Block]
    tables: list[Table]
    room: int
    """Bytes of this part without what it begins with, a fence line or a table's head."""
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
            table = self._find_torn_table(reach)
            if table is not None:
                return self._find_end_in_table(table, reach)
            # Prose at the limit. What lies before the end of the last block is not looked at: an empty line there may
            # be code, and would be taken for the end of a paragraph.
            ends = [*(each.end for each in self.blocks), *(each.end for each in self.tables)]
            ended = max((end for end in ends if end <= reach), default=0)
            return self._find_best(ended, reach, _PROSE)
        # The limit is in a block. It moves into the next part if it fits there whole, or if little is lost by that.
        if block.start > 0 and (self._can_stand_alone(block) or block.start > reach * 3 // 4):
            return block.start
        # It has to be torn, after a line of code if there is one. The part needs room for the closing line.
        reach = self._count_fitting(self.room - self._measure_closing(block))
        if block.start > 0 and not _find_line(self.window, block.inner, reach):
            return block.start  # Not one line of code would come with the fence.
        return self._find_best(block.inner, reach, (_find_line, _find_word))

    def _find_end_in_table(self, table: Table, reach: int) -> int:
        """Find where the part ends that cannot have all of a table: before it, between two rows, else in a row."""
        small = self.measure(self.window[table.start : table.end].rstrip("\n")) <= self.limit
        if table.start > 0 and (table.start > reach * 3 // 4 or (small and table.start > reach // 2)):
            # Little is lost by that. One that begins earlier is cut: a message costs more than a header.
            return table.start
        if reach > table.body and (end := _find_line(self.window, table.body, reach)):
            return end
        if table.start > 0:
            return table.start  # Not one row would come with the header.
        if reach <= table.body:
            return self._find_best(0, reach, _PROSE)
        # A cut after the pipe that a row begins with would leave a row of nothing.
        opened = _ROW_OPENING.match(self.window, table.body)
        start = opened.end() if opened and opened.end() < reach else table.body
        return self._find_best(start, reach, (_find_cell, _find_gap))

    def find_next(self, end: int, left_open: Fence | None) -> _Cursor:
        """Find where the next part begins, with the fence or table that it begins within."""
        if left_open is not None:
            block = self._find_torn_block(end)
            if block is not None and block.closer is not None and not self.window[end : block.closer].strip():
                return _Cursor(block.end)  # Only the closing line is left, and the part before has one.
            return _Cursor(end, left_open)
        table = self._find_torn_table(end)
        head = table.head if table is not None and table.body <= end else None
        if self.window[end - 1] == "\n":
            return _Cursor(end, table=head)
        # In the middle of a line: indentation would turn the rest into code.
        after = len(self.window) - len(self.window[end:].lstrip(_BLANKS))
        if head is None:
            return _Cursor(after)
        line = self.window.find("\n", after) + 1 or (len(self.window) if self.complete else 0)
        if line and not self.window[after:line].strip("| \t\n"):
            # Only the row's closing pipe is left, which nobody misses.
            return _Cursor(line, table=head if table is not None and line < table.end else None)
        row = self.window.rfind("\n", 0, end) + 1
        return _Cursor(after, table=head, cells=count_cells(self.window[row:end]))

    def _find_torn_block(self, position: int) -> Block | None:
        """Find the block that a cut at `position` would tear, or leave open at the end of the text."""
        for block in self.blocks:
            if block.start < position and (position < block.end or block.closer is None):
                return block
        return None

    def _find_torn_table(self, position: int) -> Table | None:
        for table in self.tables:
            if table.start < position < table.end:
                return table
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
        position = align_to_character(self.window, max(reach, 1))
        # Before `start` lies what the part begins with anyway: a part that had nothing else would have no end.
        return position if position > start else max(reach, 1)

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


def _find_cell(text: str, low: int, reach: int) -> int:
    """After the last pipe between two cells."""
    end = text.rfind("|", low, reach) + 1
    return 0 if text[max(end - 2, 0) : end] == "\\|" else end


def _find_word(text: str, low: int, reach: int) -> int:
    """After the blanks between two words, since code keeps them."""
    return max((found.end() for found in _WORD.finditer(text, low, reach + 1) if found.end() <= reach), default=0)


_PROSE: Final = (_find_paragraph, _find_line, _find_sentence, _find_gap)
"""Where prose is cut, the best places first."""

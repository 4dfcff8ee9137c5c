"""Markdown as DingTalk shows it: pure functions from text to text.

Order of events for an answer: `format_for_dingtalk` makes its lines, tables and angle brackets visible, `split`
(cutting.py) cuts the result into parts that a call can carry, `make_title` (titles.py) names it in the conversation
list. All are deterministic, since a restart must find the same parts again, and linear in time, since a model may say
anything, megabytes of it.

Code is left alone. Of what is between, drawings become code (trees.py), angle brackets are escaped (angles.py), and
then each line is joined to the one before it: by a break that is seen, by a blank line, or as it was.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from claw.reply.angles import LINE_BREAK, escape_angles
from claw.reply.characters import clean
from claw.reply.fences import FENCE_LINE, find_blocks
from claw.reply.tables import is_row, read_head
from claw.reply.trees import fence_tree, keep_blanks, split_trees

TABLE_INDENT_MAX_COLUMNS: Final = 3
"""Columns that a table is indented by at most: in a part of its own, without its list, more would make it code."""
_CELL_BREAK: Final = " / "
"""Stands for a `<br>` in a table's cell, which has one line only."""
_QUOTE: Final = re.compile(r"(?: {0,3}>[ \t]?)*+")
_ITEM: Final = re.compile(r"[ \t]*(?:[-*+]|([0-9]{1,9})[.)])(?:[ \t]+(?=\S)|[ \t]*$)")
_HEADING: Final = re.compile(r"[ \t]*#{1,6}(?:[ \t]|$)")
_LINE: Final = re.compile(r"[ \t]*+(?:=++|-++|(?:-[ \t]*+){3,}+|(?:\*[ \t]*+){3,}+|(?:_[ \t]*+){3,}+)[ \t]*$")
_TEXT_STARTS: Final = frozenset("#-=*_+0123456789")
"""What a line begins with that may be more than text."""


class _Kind(Enum):
    """What a line is, by what it begins with."""

    BLANK = auto()
    TEXT = auto()
    ITEM = auto()
    """The first line of a list's item."""
    HEADING = auto()
    LINE = auto()
    """A line of `---` or `===`: it makes a heading of the text above it, or stands for itself (CommonMark 4.1, 4.3)."""
    TABLE = auto()


def format_for_dingtalk(text: str) -> str:
    """Make visible what was written: DingTalk joins lines unless two spaces end them (docs/protocol.md section 6.7).

    What a renderer would take for one paragraph, in a list or a quote, too, gets these spaces between its lines; a
    table and a list get the blank line before them that DingTalk's clients need, a table one after it.
    """
    text = clean(text)
    done: list[str] = []
    position = 0
    for block in find_blocks(text, lambda _: True):
        done += (_format_prose(text[position : block.start]), text[block.start : block.end])
        position = block.end
    done.append(_format_prose(text[position:]))
    return "".join(done)


def _format_prose(prose: str) -> str:
    done: list[str] = []
    for piece, is_tree in split_trees(prose):
        done.append(fence_tree(piece) if is_tree else _Layout().lay_out(escape_angles(piece)))
    return "".join(done)


class _Layout:
    """Lines that are put below one another; the last of them is what the next one is joined to."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._kind = _Kind.BLANK
        self._quotes = 0
        self._in_list = False

    def lay_out(self, prose: str) -> str:
        lines = prose.split("\n")
        index = 0
        while index < len(lines):
            line = lines[index]
            if "|" in line and index + 1 < len(lines) and (rows := _count_table_lines(lines, index)):
                self._add_table(lines[index : index + rows])
                index += rows
                continue
            if LINE_BREAK in line:
                for each in _break_line(line):
                    self._add(each)
            else:
                self._add(line)
            index += 1
        return "\n".join(self._done)

    def _add_table(self, lines: list[str]) -> None:
        # Rows are lines by themselves, and keep what is at their ends.
        quotes = lines[0][: _end_quote(lines[0])]
        if self._kind is not _Kind.BLANK:
            self._separate(quotes)
        self._done += (_limit_indent(line).replace(LINE_BREAK, _CELL_BREAK) for line in lines)
        self._kind, self._quotes = _Kind.TABLE, quotes.count(">")

    def _add(self, line: str) -> None:
        # Each of these steps only where it may matter: there may be half a million lines, or a million empty ones.
        if not line:
            self._done.append(line)
            self._in_list = self._in_list and not self._quotes
            self._kind, self._quotes = _Kind.BLANK, 0
            return
        end = _end_quote(line) if ">" in line else 0
        margin, text = line[:end], line[end:]
        quotes = margin.count(">") if end else 0
        kind, number = _classify(text)
        if quotes != self._quotes or (self._kind is _Kind.BLANK and kind is not _Kind.ITEM and not _is_indented(text)):
            # A blank line ends a list only where no indentation goes on with it.
            self._in_list = self._in_list and quotes == self._quotes and kind is _Kind.BLANK
        if self._kind is _Kind.TABLE and kind is not _Kind.BLANK:
            # By the standard, text right below a table is one more row of it; whoever wrote it meant text.
            self._separate(margin)
        elif self._kind is _Kind.TEXT or self._kind is _Kind.ITEM:
            kind = self._join(kind, number, margin, text)
        self._in_list = self._in_list or kind is _Kind.ITEM
        self._done.append(margin + keep_blanks(text) if kind is _Kind.TEXT else line)
        self._kind, self._quotes = kind, quotes

    def _join(self, kind: _Kind, number: str | None, margin: str, text: str) -> _Kind:
        """Join a line to the text before it; return its kind, which that text may change."""
        quotes = margin.count(">")
        if kind is _Kind.ITEM and quotes == self._quotes and not self._in_list and not _is_indented(text):
            if number is None or int(number) == 1:
                # A list by the standard: the blank line changes nothing there, and helps renderers of less.
                self._separate(margin)
                return kind
            # Only a list that begins with 1 ends a paragraph (CommonMark 5.3): the number stays, as text.
            kind = _Kind.TEXT
        # Fewer quotes: by CommonMark 5.1 the text still belongs to the quote above; more of them begin a new one.
        if kind is _Kind.TEXT and quotes <= self._quotes:
            self._done[-1] = _end_with_break(self._done[-1])
        return kind

    def _separate(self, margin: str) -> None:
        """Put a blank line below the last one, within the quote that both are in."""
        same = margin.count(">") == self._quotes
        self._done.append(margin.rstrip() if same else "")


def _count_table_lines(lines: list[str], index: int) -> int:
    """Count the lines of the table that begins at `index`; 0 if none does."""
    if "|" not in lines[index + 1] or "-" not in lines[index + 1]:
        return 0
    head = read_head(_limit_indent(lines[index]), _limit_indent(lines[index + 1]))
    if head is None:
        return 0
    end = index + 2
    while end < len(lines) and is_row(lines[end], head):
        end += 1
    return end - index


def _limit_indent(line: str) -> str:
    # A table of a nested list: its indentation says nothing any more once the list is in another part.
    text = line.lstrip(" \t")
    columns = len(line[: len(line) - len(text)].expandtabs(4))
    return line if columns <= TABLE_INDENT_MAX_COLUMNS else " " * TABLE_INDENT_MAX_COLUMNS + text


def _end_quote(line: str) -> int:
    found = _QUOTE.match(line)
    return found.end() if found else 0


def _is_indented(text: str) -> bool:
    return text[:1] in {" ", "\t"}


def _classify(text: str) -> tuple[_Kind, str | None]:
    """Return what a line is, and the number of a numbered list's item."""
    if not text or text.isspace():
        return _Kind.BLANK, None
    first = text[0] if text[0] not in " \t" else text.lstrip()[0]
    if first not in _TEXT_STARTS:
        return _Kind.TEXT, None
    if _LINE.match(text):
        return _Kind.LINE, None
    if item := _ITEM.match(text):
        return _Kind.ITEM, item[1]
    return (_Kind.HEADING if _HEADING.match(text) else _Kind.TEXT), None


def _break_line(line: str) -> list[str]:
    """Make lines of one that has `<br>` in it, in the same quote and the same item of a list."""
    end = _end_quote(line)
    first, *others = (each.strip(" \t") for each in line[end:].split(LINE_BREAK))
    # Below the words of an item, not below its mark: there it would be text beside the list.
    item = _ITEM.match(line, end)
    indent = len(line) - len(line[end:].lstrip(" \t")) - end
    margin = line[:end] + " " * (len(item[0]) if item else indent)
    # The last of them breaks nothing: the line ends there anyway.
    while others and not others[-1]:
        others.pop()
    lines = [line[: end + indent] + first, *(margin + each if each else margin.rstrip() for each in others)]
    # A line that begins with ``` by this would make code of all that comes.
    return [line.replace(LINE_BREAK, " ")] if any(map(FENCE_LINE.match, lines)) else lines


def _end_with_break(line: str) -> str:
    """End a line with the break that DingTalk knows; one of a backslash (CommonMark 6.7) it would show."""
    slashes = len(line) - len(line.rstrip("\\")) if line[-1] == "\\" else 0
    return f"{(line[:-1] if slashes % 2 else line).rstrip()}  "

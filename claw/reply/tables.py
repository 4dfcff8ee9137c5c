"""Tables, as renderers of GitHub's Markdown find them: a header, a rule below it with as many columns, then rows.

A table may stand in a quote, each line with its `>`. It ends where a line has no `|`, or begins another block. (The
standard takes a line without `|` for a row with one cell; whoever wrote it right below a table meant text.)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from claw.reply.fences import Block

QUOTES_MAX: Final = 8
"""Quotes within quotes in which a table is looked for."""
_MARGIN: Final = re.compile(r"(?: {0,3}>[ \t]?)*+ {0,3}(?![ \t])")
"""What stands before a line of a table: the marks of quotes, and less indentation than makes code."""
_RULE: Final = re.compile(r"^[> \t]*+[: \t-]*+\|[|: \t-]*+$", re.MULTILINE)
_RULE_CELL: Final = re.compile(r"[ \t]*:?-+:?[ \t]*")
_PIPE: Final = re.compile(r"(?<!\\)\|")


class TableHead(NamedTuple):
    """What a part begins with that continues a table."""

    margin: str
    header: str
    rule: str
    columns: int

    @property
    def opening(self) -> str:
        return f"{self.margin}{self.header}\n{self.margin}{self.rule}"

    def without_words(self) -> TableHead:
        """Return a head of empty cells: it keeps the columns where the words take too much room."""
        return self._replace(header="| " * self.columns + "|", rule="|-" * self.columns + "|")

    def make_lead(self, cells: int) -> str:
        """Make the begin of a line that goes on with a row after so many of its cells."""
        return self.margin + "| " * (min(cells, self.columns - 1) + 1)


class Table(NamedTuple):
    """A table from `start` to `end`; its first row begins at `body`."""

    start: int
    body: int
    end: int
    head: TableHead


def read_head(header: str, rule: str) -> TableHead | None:
    """Read the head of a table from two lines, if they are one."""
    margin, below = _match_margin(header), _match_margin(rule)
    if margin is None or below is None or margin.count(">") != below.count(">"):
        return None
    # Compared without what stands before them: the one may be indented, the other not.
    header, rule = header[len(margin) :].rstrip(), rule[len(below) :].rstrip()
    if "|" not in header or "|" not in rule or not _compile_rows(0)[0].match(header):
        return None
    # Two lines of a text, or of a program's output, have pipes and dashes, too; but hardly as many of both.
    columns = len(_split_cells(rule))
    if columns != len(_split_cells(header)) or not all(map(_RULE_CELL.fullmatch, _split_cells(rule))):
        return None
    return TableHead(margin, header, rule, columns)


def is_row(line: str, head: TableHead) -> bool:
    """Whether a line goes on with the table of a head."""
    return _compile_rows(head.margin.count(">"))[0].match(line) is not None


def count_cells(row: str) -> int:
    """Count the cells of a row's begin that are closed."""
    pipes = len(_PIPE.findall(row))
    return pipes - bool(_PIPE.match(row.lstrip("> \t")))


def find_tables(text: str, blocks: Sequence[Block], within: TableHead | None, body: int) -> Iterator[Table]:
    """Find the tables outside of `blocks` of code. Rows of a table `within` which the text begins start at `body`."""
    position = 0
    stops = [*((block.start, block.end) for block in blocks), (len(text), len(text))]
    if within is not None:
        # From the line's begin: what is left of a row in the text may have no pipe any more.
        position = _find_end(text, 0, within, stops[0][0])
        yield Table(0, body, position, within)
    for stop, after in stops:
        yield from _find_between(text, position, stop)
        position = after


def _find_between(text: str, floor: int, stop: int) -> Iterator[Table]:
    position = floor
    while position < stop and (rule := _RULE.search(text, position, stop)):
        position = rule.end()
        begin = rule.start()
        if begin <= floor:
            continue  # No line of this stretch stands above it.
        start = max(text.rfind("\n", floor, begin - 1) + 1, floor)
        head = read_head(text[start : begin - 1], rule[0])
        # Rows are not looked at again: one of them may look like a rule.
        if head is not None:
            body = min(position + 1, stop)
            floor = position = _find_end(text, body, head, stop)
            yield Table(start, body, floor, head)


def _find_end(text: str, body: int, head: TableHead, stop: int) -> int:
    rows = _compile_rows(head.margin.count(">"))[1].match(text, body, stop)
    return rows.end() if rows else body


def _match_margin(line: str) -> str | None:
    found = _MARGIN.match(line)
    return found[0] if found and found[0].count(">") <= QUOTES_MAX else None


def _split_cells(row: str) -> list[str]:
    """Split a row without blanks at its ends; pipes there are none between cells."""
    # The pipes at both ends may be written or not.
    cells = _PIPE.split(row)
    return cells[row.startswith("|") : len(cells) - (len(cells) > 1 and not cells[-1])]


@functools.lru_cache(QUOTES_MAX + 1)
def _compile_rows(quotes: int) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what a row within so many quotes looks like, and what rows do that follow one another."""
    # All of it possessive: a line of a megabyte is gone through once, whatever it turns out to be.
    begin = rf"(?: {{0,3}}>[ \t]?){{{quotes}}}[ \t]*+"
    row = rf"{begin}(?!>|#{{1,6}}[ \t]|[-*+][ \t]|[0-9]{{1,9}}[.)][ \t]|`{{3}}|~{{3}})[^|\n]*+\|[^\n]*+"
    return re.compile(row), re.compile(rf"(?:{row}(?:\n|\Z))*+")

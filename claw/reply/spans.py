"""Code within lines of text, as a renderer of Markdown finds it (CommonMark 6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TICKS: Final = re.compile(r"`+")
_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n")


def find_code_spans(prose: str) -> Iterator[tuple[int, int]]:
    """Find code within lines of text (CommonMark 6.1), of one line each.

    One over several lines is told to be none: whether it reaches from a list's item into the next, say, is not known
    here, and text that is taken for code would be left as it is.
    """
    start = 0
    while start < len(prose):
        blank = _BLANK_LINE.search(prose, start)
        end = blank.start() if blank else len(prose)
        yield from _find_spans_of_paragraph(prose, start, end)
        start = blank.end() if blank else len(prose)


def _find_spans_of_paragraph(prose: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    runs = [found.span() for found in _TICKS.finditer(prose, start, end)]
    # From the last to the first, so that each run knows the next one of its length.
    following: dict[int, int] = {}
    closers: list[int | None] = [None] * len(runs)
    openers = [_count_escaped(prose, start, run[0]) for run in runs]
    for index in range(len(runs) - 1, -1, -1):
        begin, stop = runs[index]
        # A backslash takes one backtick off a run that opens; within code it is a character like any other.
        closers[index] = following.get(stop - begin - openers[index])
        following[stop - begin] = index
    index = 0
    while index < len(runs):
        closer = closers[index]
        if closer is None:
            index += 1
            continue
        begin, stop = runs[index][0] + openers[index], runs[closer][1]
        # One over several lines is passed over whole, so that its end does not open another.
        if "\n" not in prose[begin:stop]:
            yield begin, stop
        index = closer + 1


def _count_escaped(prose: str, start: int, position: int) -> int:
    """Count the backticks at `position` that a backslash makes a plain character: 1 or 0."""
    before = prose[max(start, position - 64) : position]
    return (len(before) - len(before.rstrip("\\"))) % 2

"""Code fences, as a renderer of Markdown finds them (CommonMark 4.5): which lines open and close blocks of code.

`find_blocks` goes through the lines that look like fences once, from the first to the last, and yields each block when
its end is found: who needs only the first blocks pays for no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

FENCE_LINE: Final = re.compile(r"^([ \t]*)(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_FENCE_INDENT_COLUMNS: Final = 4
"""Columns by which a closing fence may be further in than its opening one is less than this (CommonMark 4.5)."""


class Fence(NamedTuple):
    """How a fence is opened again and closed."""

    indent: str
    marker: str
    info: str

    @property
    def opening(self) -> str:
        return f"{self.indent}{self.marker}{self.info}".rstrip()

    @property
    def closing(self) -> str:
        return self.indent + self.marker


class Block(NamedTuple):
    """Fenced code from `start` to `end`, its fence lines included; `inner` is where its first line of code begins.

    A block that nothing closes ends with the text, and `closer` is None; else that is where its closing line begins.
    """

    start: int
    inner: int
    end: int
    closer: int | None
    fence: Fence


def _count_columns(indent: str) -> int:
    # Asked twice for each fence of a text that may have a hundred thousand, nearly none of them indented.
    return len(indent.expandtabs(4)) if indent else 0


def find_blocks(
    text: str, opens: Callable[[str], bool], *, within: Fence | None = None, complete: bool = True
) -> Iterator[Block]:
    """Find the fenced blocks of `text`, which begins within a fence that was opened before if `within` is given.

    A line that `opens` denies opens no fence. If `text` is not `complete`, its last line is unknown and is not taken
    for a fence. Deeper indentation than CommonMark's three columns is accepted: models put code into list items.
    """
    fence, start, inner = within, 0, 0
    for line in FENCE_LINE.finditer(text):
        if not complete and line.end() == len(text):
            break  # Its rest may lie beyond the window: ``` may be the begin of ```` or of a line of prose.
        indent, marker, info = line.groups()
        after = min(line.end() + 1, len(text))
        if fence is None:
            if (marker[0] == "`" and "`" in info) or not opens(line[0]):
                continue  # Backticks after it make it code in a line of text (CommonMark 4.5).
            fence, start, inner = Fence(indent, marker, info), line.start(), after
        elif _is_closing(fence, indent, marker, info):
            yield Block(start, inner, after, line.start(), fence)
            fence = None
    if fence is not None:
        yield Block(start, inner, len(text), None, fence)


def _is_closing(fence: Fence, indent: str, marker: str, info: str) -> bool:
    if not marker.startswith(fence.marker) or info.strip():
        return False
    return _count_columns(indent) < _count_columns(fence.indent) + _FENCE_INDENT_COLUMNS


def find_open_fence(blocks: Iterable[Block]) -> Fence | None:
    """Find the fence that is open at the end of a text."""
    for block in blocks:
        if block.closer is None:
            return block.fence
    return None

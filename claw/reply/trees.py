"""Trees of files, and other drawings made of box characters, that stand outside of code.

Such a drawing becomes a fence of code. It is all about alignment: clients show prose in a proportional font, and make
one blank of several, so that two blanks at the end of each line would keep the lines and lose the tree. A drawing with
markup in it (a link, bold words, code) stays prose, since the markup would be shown as written; its blanks become ones
that are kept (`keep_blanks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_BOX: Final = "\u2500-\u257f"
"""Unicode's box drawing characters."""
_DRAWN: Final = re.compile(rf"[ \t\u00a0|]*+(?:[{_BOX}]|(?<=\|)--[ \w.]|[`+\\]-{{2,3}}[ \w.])")
"""A line of a drawing; with `|-- ` and its like, as programs write that know ASCII only."""
_MAYBE: Final = re.compile(rf"^[ \t\u00a0]*+[|`+\\{_BOX}]", re.MULTILINE)
_UPRIGHT: Final = re.compile(r"[│┃║├└╰┣┗╚╠┌╭╔┏|`+\\]")
"""What a drawing has and a line between two paragraphs has not."""
_ROOT: Final = re.compile(r"[ \t]*(?=\S*[\w.])[\w.@~/\\-]{1,100}(?:[ \t]+(?:#|//|←|--?[ \t]).{0,100})?[ \t]*")
"""A name alone in its line, with a remark perhaps: the folder that the tree below is in."""
_MARKUP: Final = re.compile(r"\*\*|\]\(|`[^`\n]+`")
_LEAD: Final = re.compile(rf"[ \t\u00a0{_BOX}]+")
_TICKS: Final = re.compile(r"`{3,}")
LINES_MIN: Final = 2
"""Lines of a drawing, the folder's name included; one alone is a line between paragraphs, or a quotation mark."""


def split_trees(prose: str) -> Iterator[tuple[str, bool]]:
    """Yield text and drawings by turns, each with whether it is a drawing; together they are `prose`."""
    if _MAYBE.search(prose) is None:
        yield prose, False
        return
    *lines, last = prose.split("\n")
    yield from _split_lines([*(f"{line}\n" for line in lines), last])


def fence_tree(drawing: str) -> str:
    """Make code of a drawing."""
    lines = drawing.rstrip("\n").split("\n")
    indent = " " * min(len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip()) for line in lines)
    # A longer fence than any in the drawing.
    ticks = "`" * max((len(found) + 1 for found in _TICKS.findall(drawing)), default=3)
    end = "\n" if drawing.endswith("\n") else ""
    return f"{indent}{ticks}\n" + "\n".join(lines) + f"\n{indent}{ticks}{end}"


def keep_blanks(line: str) -> str:
    """Keep the blanks before the words of a line that is drawn, as it stays prose."""
    lead = _LEAD.match(line) if line[0] in " \t\u00a0" or "\u2500" <= line[0] <= "\u257f" else None
    if lead is None or lead[0].isspace():
        return line
    return lead[0].expandtabs(4).replace(" ", "\u00a0") + line[lead.end() :]


def _split_lines(lines: list[str]) -> Iterator[tuple[str, bool]]:
    text: list[str] = []
    drawing: list[str] = []
    # One line more than there are, so that a drawing at the end is seen to end.
    for line in [*lines, ""]:
        if line and _DRAWN.match(line):
            drawing.append(line)
            continue
        if drawing:
            # The folder's name is drawn with nothing, and would stand in another font above its tree.
            if text and _ROOT.fullmatch(text[-1].rstrip("\n")):
                drawing.insert(0, text.pop())
            joined = "".join(drawing)
            if len(drawing) >= LINES_MIN and _UPRIGHT.search(joined) and not _MARKUP.search(joined):
                yield "".join(text), False
                yield joined, True
                text = []
            else:
                text += drawing
            drawing = []
        text.append(line)
    yield "".join(text), False

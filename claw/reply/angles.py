"""Angle brackets as they were written, on clients that take them for HTML.

Order of events: outside of code, `escape_angles` makes of each one what no client swallows; `format_for_dingtalk`
breaks the lines where a `<br>` was (markdown.py). In a title, which is no markdown, `show_angles` does it.
"""

from __future__ import annotations

import re
from typing import Final

from claw.reply.characters import ENTITY
from claw.reply.sanitize import BREAK
from claw.reply.spans import find_code_spans

LINE_BREAK: Final = "\x1e"
"""Stands for a `<br>` until its line is broken there: a control character, of which a cleaned text has none."""
_BR: Final = re.compile(r"(?<!\\)</?br[ \t]*/?>", re.I)
_AUTOLINK: Final = re.compile(r"<(https?://[^\s<>\[\]]{1,1000})>", re.I)
_TARGET: Final = re.compile(r"\]\(<([^<>\n]{1,1000})>")
_TAG: Final = re.compile(r"(?<!\\)(\\*+)<(?=[^\s\d=>-])")
"""What may begin a tag. Not only what does by the standard: nobody knows which patterns the clients look for."""


def escape_angles(prose: str) -> str:
    """Make the angle brackets of `prose` visible; code within lines stays as it is, as fenced code does.

    A `<` that could begin a tag becomes `&lt;`, with these reasons:

    - DingTalk renders HTML in markdown messages. Tags vanish on the desktop, whole messages are shown blank on phones,
      and `&lt;` was seen to put it right on both (eryajf/chatgpt-dingtalk#213, with pictures, 2023-04). Markdown knows
      entities (CommonMark 2.5), and a bot that sends `&nbsp;` shows that DingTalk does (satorijs/satori, its adapter).
    - In code, clients since 7.0.20 (2023-04) show an entity as it is written: two weeks later the same bot had to leave
      fences alone (#219, #222). So code is sent raw, and what is copied from it is right. Older clients swallow tags in
      code, and are given up.
    - A character without width behind the bracket would be safe as well, and was not chosen: it is copied with the
      text, and a filter that looks for `<...>` in the source would still swallow what is in there. In a title, which
      clients show as plain text, an entity would be seen as such: there it is the better one (`show_angles`).
    - Full-width brackets would not be what was written.

    Markdown of its own goes on to work: `<https://...>` and `](<...>)` become links in the one form that DingTalk
    documents, and a `<br>` the mark that its line is broken at. Brackets that no tag begins with (`a < b`, `->`) stay.
    """
    if "<" not in prose:
        return prose
    done: list[str] = []
    position = 0
    for start, end in find_code_spans(prose):
        done += (_escape(prose[position:start]), prose[start:end])
        position = end
    done.append(_escape(prose[position:]))
    return "".join(done)


def show_angles(line: str) -> str:
    """Make the angle brackets of a plain line, such as a title, ones that begin no tag."""
    return _TAG.sub(rf"\1<{BREAK}", line)


def _escape(text: str) -> str:
    # Links before tags: what is left of the brackets then is none of Markdown's own.
    text = _BR.sub(LINE_BREAK, text)
    text = _TARGET.sub(lambda found: f"]({_encode(found[1])}", text)
    text = _AUTOLINK.sub(_make_link, text)
    return _TAG.sub(_escape_tag, text)


def _make_link(found: re.Match[str]) -> str:
    address, text = found[1], found.string
    before = text[max(found.start() - 3, 0) : found.start()].rstrip()
    if before.endswith("]:") or text.startswith("](", found.end()):
        return address  # It is the target of a reference, or all of a link's text: a link in there would break it.
    return f"[{address}]({_encode(address)})"


def _encode(address: str) -> str:
    """Encode what would end a link's target."""
    return address.replace(" ", "%20").replace("(", "%28").replace(")", "%29")


def _escape_tag(found: re.Match[str]) -> str:
    # A backslash that escapes the bracket would escape the entity's "&" instead, which would be seen then.
    slashes = len(found[1])
    return "\\" * (slashes - slashes % 2) + ENTITY

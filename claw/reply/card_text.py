"""The text of a card: pure functions from what a model said to what a card shows (docs/protocol.md section 7.3).

While the model speaks, `show_so_far` gives the head of the text, and below it what the agent is doing. At the end
`plan_card` gives what stays in the card, and the rest, which goes out as messages.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from claw.language import Language
from claw.reply import texts
from claw.reply.characters import clean
from claw.reply.cutting import cut_first
from claw.reply.fences import find_blocks, find_open_fence
from claw.reply.markdown import format_for_dingtalk
from claw.reply.sanitize import sanitize

ROOM_MIN_CHARS: Final = 32
"""Characters of an answer that fit into the smallest of cards whatever is done to make them visible."""
_SHRINK: Final = 0.9
"""Part of the room that seems to be right which is tried next: a text that is denser at its head needs less."""
_BREAK: Final = re.compile(r" {2,}\n(?=[^\n])((?:[ ]{0,3}>[ ]?)*)")
"""A break within a paragraph, and the marks of the quote that the next line stands in."""


class CardPlan(NamedTuple):
    """An answer over a card and messages."""

    shown: str
    rest: str
    """Markdown as models write it; empty where the card shows all."""


def plan_card(text: str, language: Language, max_chars: int) -> CardPlan:
    """Divide an answer: what a card of `max_chars` shows, and what follows as messages."""
    text = clean(text).strip("\n")
    # Not the whole of a long text is formatted: nothing here may take more than a moment.
    if len(text) <= max_chars and len(whole := _format(text, language)) <= max_chars:
        return CardPlan(whole, "")
    note = texts.CONTINUED[language]
    limit = room = max_chars - len(note) - 2
    head, rest = cut_first(text, room, measure=len)
    # The limit is on what is shown, and formatting adds to it: a bracket alone becomes four characters.
    while len(shown := _format(head, language)) > limit and room > ROOM_MIN_CHARS:
        # In proportion, and not by what is over: that may be more than all of the room. Always less than before, or a
        # text could keep the loop, and with it everybody, for ever.
        room = max(ROOM_MIN_CHARS, int(len(head) * limit / len(shown) * _SHRINK))
        head, rest = cut_first(text, room, measure=len)
    return CardPlan(f"{shown}\n\n{note}", rest)


def show_so_far(text: str, doing: str, language: Language, max_chars: int) -> str:
    """Show the text so far, its head where it is long already, and what the agent is doing below it."""
    room = max_chars - len(doing) - 2
    head = _format(clean(text[:room]).strip("\n"), language)
    if len(head) > room:
        head = cut_first(head, room, measure=len)[0]
    return "\n\n".join(each for each in (head, doing) if each)


def add_note(shown: str, note: str, max_chars: int) -> str:
    """Put a word of ours below what a card shows."""
    fence = find_open_fence(find_blocks(shown, lambda _: True))
    # Half an answer may end within code, where our word would be read as the program's.
    head = shown if fence is None else f"{shown}\n{fence.closing}"
    room = max_chars - len(note) - 2
    if len(head) > room:
        head = cut_first(shown, room, measure=len)[0]
    return "\n\n".join(each for each in (head, note) if each)


def _format(text: str, language: Language) -> str:
    return loosen(format_for_dingtalk(sanitize(text, language, len(text)).text))


def loosen(text: str) -> str:
    """Put a blank line in the place of each break in prose.

    Whether cards know the two blanks that break a line in messages is not known, and one report says that they do not
    (docs/protocol.md section 6.7); a paragraph of its own is seen as a line by every renderer.
    """
    done: list[str] = []
    position = 0
    for block in find_blocks(text, lambda _: True):
        done += (_loosen_prose(text[position : block.start]), text[block.start : block.end])
        position = block.end
    done.append(_loosen_prose(text[position:]))
    return "".join(done)


def _loosen_prose(prose: str) -> str:
    return _BREAK.sub(lambda found: f"\n{found[1].rstrip()}\n{found[1]}", prose)

"""Mentions for real: people whom an answer names as `@name` or `@staffId` (docs/protocol.md section 6.1).

Only those of the message that is answered: who wrote it, and who is @-ed in it. DingTalk rings at the people whose ids
stand in `at`, and highlights the literal `@id` in the text, which it shows as their name: a name is written as the id
therefore. Code is left alone, as are addresses and longer words.
"""

from __future__ import annotations

import re
from typing import Final

from claw.messages import ChatKind, Inbound

ID_MAX_CHARS: Final = 64
"""Characters of a staff id that is mentioned; DingTalk's userId is no longer."""
NAME_MIN_CHARS: Final = 2
"""Characters of a name that is looked for: one is part of too many words."""
_CODE: Final = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`)", re.DOTALL)


def is_mentionable(staff_id: str) -> bool:
    """Whether an id can stand in a text as `@id`: one with blanks would end early, and show half of it."""
    return 0 < len(staff_id) <= ID_MAX_CHARS and staff_id.isprintable() and " " not in staff_id


def mention(text: str, inbound: Inbound) -> tuple[str, list[str]]:
    """Return a text in which people are named by their ids, and these ids, in the order of the people."""
    if inbound.conversation.kind is not ChatKind.GROUP or not ("@" in text or "＠" in text):
        return text, []
    names = _list_names(inbound)
    if not names:
        return text, []
    # Longest first: one name may begin like another.
    ordered = sorted(names, key=len, reverse=True)
    pattern = re.compile(
        r"(?<![A-Za-z0-9._%+-])[@＠](" + "|".join(map(re.escape, ordered)) + r")(?![A-Za-z0-9_@-]|\.[A-Za-z0-9])"
    )
    found: dict[str, None] = {}

    def replace(match: re.Match[str]) -> str:
        staff_id = names[match[1]]
        found[staff_id] = None
        # A blank ends the id, which DingTalk would read on otherwise.
        after = text_part[match.end() : match.end() + 1]
        return f"@{staff_id}" + ("" if not after or after.isspace() else " ")

    # Every second piece is code: a decorator or an address in there is nobody's name.
    pieces = _CODE.split(text)
    for index in range(0, len(pieces), 2):
        text_part = pieces[index]
        pieces[index] = pattern.sub(replace, text_part)
    return "".join(pieces), [each for each in dict.fromkeys(names.values()) if each in found]


def _list_names(inbound: Inbound) -> dict[str, str]:
    """Return by what people may be named, with their staff ids; a name that two of them bear names nobody."""
    sender = inbound.sender
    people = [(sender.staff_id, sender.nick), *((each.staff_id, each.name) for each in inbound.people)]
    names: dict[str, str] = {}
    taken: set[str] = set()
    for staff_id, name in people:
        if not is_mentionable(staff_id):
            continue
        names[staff_id] = staff_id
        if len(name) < NAME_MIN_CHARS or name in taken:
            continue
        # Two people of one name: to ring at the wrong one is worse than to ring at none.
        if names.setdefault(name, staff_id) != staff_id:
            taken.add(name)
            del names[name]
    return names

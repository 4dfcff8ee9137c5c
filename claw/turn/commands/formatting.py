"""What commands answer with: people, policies and the model's health as lines."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from claw.language import Language, choose
from claw.turn import texts
from claw.turn.access import Override, Rules

TITLE_MAX_CHARS: Final = 24
"""Of a chat's title in `/chats`."""
PEOPLE_SHOWN_MAX: Final = 100
"""Of each list in `/list`."""
REASON_MAX_CHARS: Final = 120
"""Of the model's last error in `/status`."""
_MARKUP: Final = re.compile(r"[`*_\[\]()<>#|~\\\s]+")


def format_people(people: Collection[str], language: Language) -> str:
    """Write people as a list of ids, at most PEOPLE_SHOWN_MAX of them."""
    # As code: an id may look like markup, and is copied from here.
    shown = ", ".join(f"`{each}`" for each in sorted(people)[:PEOPLE_SHOWN_MAX])
    left = len(people) - PEOPLE_SHOWN_MAX
    return (shown + (f" …（+{left}）" if left > 0 else "")) or texts.NOBODY[language]


def format_policies(rules: Rules, language: Language) -> str:
    """Write the policies in force in one line; what was changed at run time is marked."""

    def mark(override: Override) -> str:
        return texts.CHANGED[language] if override in rules.overrides else ""

    return texts.POLICIES[language].format(
        group=rules.group_policy.value + mark(Override.GROUP),
        direct=rules.direct_policy.value + mark(Override.DIRECT),
        listed=len(rules.group_listed | rules.direct_listed),
        denied=len(rules.denied),
        lists=mark(Override.LISTS),
    )


def format_health(snapshot: Mapping[str, Any], language: Language) -> list[str]:
    """Write how the model does, one line for its last success and one for its last error, as far as there were any."""
    lines = []
    if at := snapshot.get("last_success"):
        lines.append(texts.LAST_SUCCESS[language].format(at=at))
    if error := snapshot.get("last_error"):
        # A server's words may hold markup that makes the message unreadable.
        told = strip_markup(error["reason"], REASON_MAX_CHARS)
        lines.append(
            texts.LAST_ERROR[language].format(**error | {"reason": told, "remedy": choose(error["remedy"], language)})
        )
    return lines


def strip_markup(text: str, chars: int = TITLE_MAX_CHARS) -> str:
    """Return a text that cannot break the list it stands in: somebody else chose it."""
    return _MARKUP.sub(" ", text)[:chars].strip()

"""Whom a command names: by who is @-ed, or, in a direct chat, by ids."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from claw.messages import ChatKind
from claw.turn import texts
from claw.turn.commands.formatting import (
    strip_markup,
)
from claw.turn.commands.registry import Invocation

NAMED_MAX: Final = 20
"""People that one command may name."""
_ID: Final = re.compile(r"[A-Za-z0-9._-][A-Za-z0-9._@-]{0,63}|\$:[A-Za-z0-9_]{1,20}:\$[A-Za-z0-9+/=_-]{1,120}")


class People(NamedTuple):
    """Whom a command names: staff ids, and DingTalk's ids of guests. `unknown` is the first word that is no id."""

    ids: tuple[str, ...]
    unknown: str = ""


def find_people(call: Invocation) -> People:
    """Return whom a command names: who is @-ed, or, in a direct chat, whose ids it lists."""
    if call.inbound.mentioned:
        # By structure alone: the words are nicks, which their bearers chose, and which may look like somebody's id.
        # In order and each once: DingTalk lists somebody as often as they are @-ed.
        return People(tuple(dict.fromkeys(call.inbound.mentioned)))
    if call.inbound.conversation.kind is ChatKind.GROUP:
        # Not by words, either: they may be the nick of somebody for whom DingTalk gave no id.
        return People(())
    words = [word for word in re.split(r"[,，\s]+", " ".join(call.command.words)) if word]
    unknown = next((word for word in words if not _ID.fullmatch(word)), "")
    return People(() if unknown else tuple(dict.fromkeys(words)), unknown)


def check_people(call: Invocation) -> str:
    """Return what the person is told where a command does not name people as it should; empty where it does."""
    people = find_people(call)
    if people.unknown:
        return texts.NO_ID[call.language].format(word=strip_markup(people.unknown) or "?")
    if not people.ids:
        return texts.WHOM[call.language].format(command=call.command.spec.name)
    return texts.TOO_MANY[call.language].format(most=NAMED_MAX) if len(people.ids) > NAMED_MAX else ""

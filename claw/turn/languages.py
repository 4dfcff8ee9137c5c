"""The language in which a person is answered: the one that they last wrote in.

Order of events: `choose` looks at the message; where that shows a language well enough, it is remembered, if it is
another than before. A command's Latin name, a picture, a word or some code show none: then the remembered one counts.
"""

from __future__ import annotations

import logging
from typing import Final

from claw.errors import StoreError
from claw.language import Language, find_language, is_telling
from claw.messages import Inbound
from claw.store.ports import People
from claw.turn.commands.parser import parse_command
from claw.turn.commands.registry import Command

log: Final = logging.getLogger(__name__)

TEXT_MAX_CHARS: Final = 2_000
"""Characters that are looked at."""


class PersonalLanguages:
    """Chooses languages; `default` is the operator's (CLAW_LANG)."""

    def __init__(self, people: People, default: Language) -> None:
        self._people = people
        self._default = default

    async def choose(self, inbound: Inbound, command: Command | None = None) -> Language:
        """Return the language of a message's sender. A store that fails costs no answer."""
        text = inbound.text[:TEXT_MAX_CHARS]
        # A command's name is Latin whoever writes it: it says nothing about the language of the person.
        found = find_language(text) if command is None or command.chinese else None
        # By robot: the same person may write to one in English, and to another one in Chinese.
        person = f"{inbound.robot_code}:{inbound.sender.key}"
        try:
            known = await self._people.language(person)
            if found is not None and is_telling(text):
                # Only what is new: a write for each message would cost more than the message.
                if found.value != known:
                    await self._people.set_language(person, found.value)
                return found
        except StoreError as error:
            log.warning("the language of a person is not known", extra={"cause": str(error)})
            known = ""
        # Not an error: a language that a newer version knows is none of ours.
        if known in set(Language):
            return Language(known)
        return found or self._default

    async def recall(self, inbound: Inbound) -> Language:
        """Return it for a message that was looked at before."""
        return await self.choose(inbound, parse_command(inbound.text))

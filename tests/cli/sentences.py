"""Sentences of the text table as patterns, so that tests and documents can be compared with what is really said."""

from __future__ import annotations

import re

from claw.cli.doctor.texts import TEXTS
from claw.language import Language


def pattern(template: str) -> str:
    """A regular expression for what `template` becomes; a value may be missing, with the blank before it."""
    parts = re.split(r"\{\w+\}", template)
    return ".*".join(re.escape(part.rstrip() if index < len(parts) - 1 else part) for index, part in enumerate(parts))


def says(key: str, language: Language, text: str) -> bool:
    return re.fullmatch(pattern(TEXTS[key].message[language]), text) is not None


def known(text: str, language: Language) -> list[str]:
    """The keys whose sentence this is."""
    return [key for key in TEXTS if says(key, language, text)]

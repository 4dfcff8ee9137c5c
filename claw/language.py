"""The languages in which people are answered, and how one is detected in what they write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_CJK: Final = re.compile("[㐀-䶿一-鿿豈-﫿]")
_LATIN_WORD: Final = re.compile(r"[A-Za-z]{2,}")


class Language(StrEnum):
    """A language in which people are answered."""

    ZH = "zh"
    EN = "en"


@dataclass(frozen=True, slots=True)
class Text:
    """A text in both languages; `text[language]` is the one to show. Both may be empty."""

    zh: str
    en: str

    def __getitem__(self, language: Language) -> str:
        return self.zh if language is Language.ZH else self.en


def detect_language(text: str, default: Language) -> Language:
    """Detect the language a person writes in: Chinese as soon as one Han character occurs, English for Latin words."""
    if _CJK.search(text):
        return Language.ZH
    if _LATIN_WORD.search(text):
        return Language.EN
    return default

"""The languages in which people are answered, and how one is detected in what they write."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_CJK: Final = re.compile("[㐀-䶿一-鿿豈-﫿]")
_LATIN_WORD: Final = re.compile(r"[A-Za-z]{2,}")
_LINK: Final = re.compile(r"\S+://\S+|\S+@\S+")
_CODE: Final = re.compile(r"[{};<>=\\`$|]|\w\(|\b(SELECT|FROM|WHERE|def|import|return|Traceback)\b")
WORDS_MIN: Final = 2
"""Latin words from which on somebody is taken to write English."""


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


class Bilingual(str):
    """A sentence for the operator: a text in English, which also knows its Chinese.

    It is a `str`, so that errors, logs and JSON take it as any other; whoever shows it asks `choose` for the reader's
    language. A sentence that is made of others keeps both languages by `join`, and by being made anew: an f-string of
    it would be English alone.
    """

    __slots__ = ("zh",)
    zh: str

    @property
    def both(self) -> str:
        """Both languages in one line, for readers who cannot be asked: a probe's answer, an event of a cluster."""
        return f"{self.zh} / {self}"

    def __new__(cls, en: str, zh: str) -> Bilingual:
        # English as the text itself: what compares, searches or logs it without asking gets what programs know.
        made = super().__new__(cls, en)
        made.zh = zh
        return made


def choose(text: str, language: Language) -> str:
    """Return `text` in `language`; as it is where it has one language alone."""
    return text.zh if language is Language.ZH and isinstance(text, Bilingual) else str(text)


def join(separator: str, texts: Iterable[str]) -> Bilingual:
    """Return the texts as one, in both languages."""
    both = list(texts)
    return Bilingual(separator.join(both), separator.join(choose(each, Language.ZH) for each in both))


def detect_language(text: str, default: Language) -> Language:
    """Detect the language a person writes in; `default` where it does not show."""
    return find_language(text) or default


def find_language(text: str) -> Language | None:
    """Find the language of a text: Chinese as soon as one Han character occurs, English for Latin words; else None."""
    if _CJK.search(text):
        return Language.ZH
    return Language.EN if _LATIN_WORD.search(text) else None


def is_telling(text: str) -> bool:
    """Whether a text tells the language of who wrote it: a word, a link or some code may be anybody's."""
    if _CJK.search(text):
        return True
    words = _LATIN_WORD.findall(_LINK.sub(" ", text))
    return len(words) >= WORDS_MIN and not _CODE.search(text)

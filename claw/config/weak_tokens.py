"""Tokens that are easy to guess: how short one may be, and what is warned about.

DingTalk, the model's server and Redis judge their own secrets; the admin token is judged by nobody but us.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from claw.language import Bilingual
from claw.secret import Secret

CHARS_MIN: Final = 8
"""Characters below which a token is refused: all shorter ones can be tried within days."""
CHARS_SAFE: Final = 16
DISTINCT_MIN: Final = 6
"""Different characters below which a token is called weak; 16 random hex digits have ten."""
REST_CHARS_MIN: Final = 5
"""Letters and digits that must be left when the well-known words are taken out."""
REMEDY: Final = Bilingual("make one with `openssl rand -hex 32`", "可用 `openssl rand -hex 32` 生成一个")
_WORDS: Final = re.compile(
    "administrator|admin|root|user|claw|dingtalk|openclaw|test(?:ing)?|dev|demo|example|sample|default|dummy"
    "|change[-_. ]?(?:me|it|this)|replace[-_. ]?(?:me|it|this)|password|passwd|passw0rd|pass|secret|token|bearer|key"
    "|letmein|welcome|hello|world|foo|bar|baz|your|here|my|qwerty(?:uiop)?|asdf(?:ghjkl)?|zxcv(?:bnm)?"
)
"""What people write where they have no idea, and what examples hold."""


def describe_weakness(token: Secret) -> str:
    """Say why a token is easy to guess, in a few words that hold nothing of it; empty where it is not."""
    text = token.reveal()
    if not text:
        return ""
    if len(text) < CHARS_SAFE:
        return Bilingual(f"fewer than {CHARS_SAFE} characters", f"不足 {CHARS_SAFE} 个字符")
    if len(set(text)) < DISTINCT_MIN:
        return Bilingual(f"fewer than {DISTINCT_MIN} different characters", f"不同的字符不足 {DISTINCT_MIN} 个")
    # Upwards, downwards, or the same again: what a hand on a keyboard does, and no random text.
    steps = [ord(after) - ord(before) for before, after in itertools.pairwise(text)]
    if sum(abs(step) <= 1 for step in steps) > len(steps) // 2:
        return Bilingual("characters in order", "字符是连续的")
    rest, found = _WORDS.subn("", text.lower())
    # Digits after a word are counted too: a random number is no weaker for the word in front of it.
    left = re.sub(r"[^a-z0-9]", "", rest)
    return Bilingual("well-known words", "常见的词") if found and len(left) < REST_CHARS_MIN else ""

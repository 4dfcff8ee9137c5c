"""Which optional fields of a request a server refuses, by its own words, so that it can be asked without them.

Servers that know no `stream_options` or `user` refuse the whole request, each in words of its own. A field is only
named here where the words leave no doubt: to leave out `user` makes a new session of each question at a gateway that
keeps sessions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from claw.turn.model.body import WORDS_MAX_CHARS, ErrorBody

REQUIRED: Final = frozenset({"model", "messages", "input"})
"""Without these there is no question."""
STATUSES: Final = frozenset({400, 422})

_REFUSAL: Final = (
    r"unrecogni[sz]ed|unknown|unsupported|unexpected|not (?:permitted|allowed|supported|recogni[sz]ed|valid)"
    r"|extra inputs|extra_forbidden|does not (?:support|exist)|cannot find|no such|不支持|未知|无效|多余"
)
# Where a server goes on to list what it does take.
_LISTS: Final = re.compile(
    r"\bexpected\b|\bone of\b|\b(?:allowed|valid|supported|available|known) (?:fields|parameters|arguments|keys|are)\b",
    re.IGNORECASE,
)
_NOUN: Final = (
    r"arguments?|parameters?|params?|fields?|propert(?:y|ies)|keywords?|names?|keys?|inputs?|options?|参数|字段"
)


def find_refused_fields(status: int, body: ErrorBody, sent: Iterable[str]) -> frozenset[str]:
    """Return those of the fields that were `sent` which the server does not take; none where it is not sure."""
    # A context that overflowed may be told by the limit of tokens, which is not refused by it.
    if status not in STATUSES or body.is_too_long:
        return frozenset()
    optional = set(sent) - REQUIRED
    named = {each.partition(".")[0] for each in body.fields} & optional
    words = _LISTS.split(body.message[:WORDS_MAX_CHARS], maxsplit=1)[0]
    return frozenset(named or {field for field in optional if _is_refused(field, words)})


def _is_refused(field: str, words: str) -> bool:
    """Whether `words` refuse a field of that name: "Unrecognized request argument supplied: user"."""
    if "_" in field and field in words:
        # A name that is no English word stands in a refusal for one reason only.
        return True
    # Not a part of a longer name or path: "messages[0].user" is another thing.
    name = rf"(?<![\w.\]])(?:body\.)?[\"'`]?(?:body\.)?{re.escape(field)}[\"'`]?(?![\w.\[])"
    # The noun keeps "unknown role 'user'" apart, a word that stands alone in a list "arguments supplied: a, user".
    before = rf"(?:{_REFUSAL})[^.;\n]{{0,60}}?(?:{_NOUN})\b[^.;\n]{{0,60}}?{name}"
    noun_first = rf"(?:{_NOUN})\b[^.;\n]{{0,20}}?{name}[^.;\n]{{0,40}}?(?:{_REFUSAL})"
    at_start = rf"(?:^|[\n;(])\s*{name}\W{{0,4}}\s*(?:was |is |are |were )?(?:{_REFUSAL})"
    return any(re.search(each, words, re.IGNORECASE) for each in (before, noun_first, at_start))

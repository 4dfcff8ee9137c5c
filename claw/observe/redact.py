"""Redaction: no secret leaves the process in a text.

Secrets are known in two ways. By value: what `pin` was given at the start and what `register` learned at run time,
also URL-quoted, JSON-escaped and in base64. Only secrets that live long are worth that (client secret, keys, access
tokens). By pattern: whatever follows a name such as `ticket=` or `Authorization:`, which covers what lives for one
message or one connection (session webhooks, tickets, download URLs).
"""

from __future__ import annotations

import base64
import json
import re
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

from claw.secret import Secret

MASK: Final = "***"
SECRET_CHARS_MIN: Final = 4
"""Characters; a shorter secret would black out half of every line and protects nothing."""
REGISTERED_MAX: Final = 64
"""Secrets kept that were learned at run time, the newest ones: an access token lives 2 h
(docs/protocol.md section 6.2)."""

_NAMES: Final = (
    "secret", "ticket", "token", "session", "password", "passwd", "cookie",
    "api[_-]?key", "access[_-]?key", r"sign(?<![a-z]sign)(?:ature)?",
)  # fmt: skip
_URL_NAMES: Final = ("download_?url", "session_?webhook", "webhook_?url")
_EQUALS: Final = r"(?:\s?=\s?|%3d)\\{0,4}[\"']?"
_QUOTED: Final = r"\\{0,4}[\"']\s{0,4}[:,]\s{0,4}b?\\{0,4}[\"']"
_HEADER: Final = r"(?:\\{0,4}[\"']\s{0,4}[:,]|\s{0,4}[:=])\s{0,4}(?:b?\\{0,4}[\"'])?"
_SCHEME: Final = r"(?:(?:bearer|basic|digest)\s{1,4})?+"
_VALUE: Final = r"[^\s\"'\\&<>]++"
_PATTERNS: Final = re.compile(
    "|".join(
        [
            # An address that is a secret as a whole; JSON may write its / and & as escapes.
            *(
                rf"{name}(?:{_EQUALS}|{_QUOTED}|:\s{{0,4}})()(?:[^\s\"'\\<>]|\\++(?:/|u[0-9a-f]{{4}}))++"
                for name in _URL_NAMES
            ),
            # A header, with or without its scheme.
            *(rf"{name}{_HEADER}{_SCHEME}(){_VALUE}" for name in ("authorization", "access-token")),
            # name=value and "name": "value"; after a bare `name: ` only what cannot be a word of a sentence.
            *(rf"{name}{_EQUALS}(){_VALUE}" for name in _NAMES),
            *(rf"{name}{_QUOTED}()[^\"'\\]++" for name in _NAMES),
            *(rf"{name}:\s{{0,4}}()[\w.~+/=%-]{{16,}}+" for name in _NAMES),
            # What shows by itself that it is a secret.
            r"bearer(?<!\wbearer)\s{1,4}()[^\s\"'\\&<>,;]{4,}+",
            r"basic(?<!\wbasic)\s{1,4}()[a-z0-9+/]{16,}+={0,2}",
            r"sk-(?<![a-z0-9]sk-)()[\w-]{8,}+",
            # User and password in an address, as in HTTPS_PROXY.
            r"://()[^/\s:@\"'\\]{0,128}+:[^/\s@\"'\\]{1,256}+(?=@)",
        ]
    )
)
"""For lower-case text. The empty group marks where the secret begins. Each alternative begins with a letter as it is,
which is what lets `re` skip text where none can begin; and none can look at a stretch of text more than once."""
SECRET_FIELD: Final = re.compile(
    f"(?:secret|ticket|token|password|passwd|api[_-]?key|authorization|cookie|{'|'.join(_URL_NAMES)})$", re.IGNORECASE
)
"""Names of fields whose value is never shown, whatever it is."""
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def _mask_patterns(text: str) -> str:
    lower = text.lower()
    if len(lower) != len(text):  # A few letters (U+0130) become two: positions must be the same in both.
        lower = text.translate(_LOWER)
    parts = []
    end = 0
    for match in _PATTERNS.finditer(lower):
        parts += [text[end : match.start(match.lastindex or 0)], MASK]
        end = match.end()
    return "".join([*parts, text[end:]]) if parts else text


def _base64_forms(raw: bytes) -> Iterable[str]:
    """Yield what of `raw` is the same in every base64 text that contains it, as in `Basic user:secret`."""
    yield base64.b64encode(raw).decode()
    for shift, changed in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        ending = (0, 3, 2)[(shift + len(raw)) % 3]
        yield encoded[changed : len(encoded) - ending]


def _forms(value: str) -> frozenset[str]:
    """Return the texts by which a secret can be told in a line."""
    raw = value.encode("utf-8", "surrogatepass")
    quoted = quote(raw, safe="")
    forms = {value, quoted, quote(raw), quote_plus(raw), quote(quoted, safe=""), repr(value)[1:-1], repr(raw)[2:-1]}
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        forms |= {escaped, escaped.replace("/", "\\/"), json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]}
    for each in _base64_forms(raw):
        if len(each) >= 2 * SECRET_CHARS_MIN:
            forms |= {each, each.translate({43: "-", 47: "_"}), quote(each, safe="")}
    return frozenset(form for form in forms if len(form) >= SECRET_CHARS_MIN)


def _by_length(form: str) -> int:
    return -len(form)


class Redactor:
    """Replaces secrets in texts by asterisks, in time linear in the text.

    Threads may share it: readers see the old forms or the new ones, writers take a lock.
    """

    def __init__(self, limit: int = REGISTERED_MAX) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._pinned: dict[str, frozenset[str]] = {}
        self._recent: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._known: tuple[str, ...] = ()
        self._starred: tuple[str, ...] = ()

    def pin(self, secrets: Iterable[Secret]) -> None:
        """Know exactly these secrets for good, besides what is registered."""
        values = [secret.reveal() for secret in secrets]
        with self._lock:
            self._pinned = {value: _forms(value) for value in values if len(value) >= SECRET_CHARS_MIN}
            self._rebuild()

    def register(self, secret: Secret) -> None:
        """Know a secret that was learned at run time; the oldest one is forgotten where there are too many."""
        value = secret.reveal()
        if len(value) < SECRET_CHARS_MIN:
            return
        with self._lock:
            known = value in self._recent
            self._recent[value] = self._recent[value] if known else _forms(value)
            self._recent.move_to_end(value)
            if known:
                return
            while len(self._recent) > self._limit:
                self._recent.popitem(last=False)
            self._rebuild()

    def _rebuild(self) -> None:
        # Longest first: else a secret that contains another one would show what surrounds it.
        forms = frozenset().union(*self._pinned.values(), *self._recent.values())
        self._known = tuple(sorted(forms, key=_by_length))
        self._starred = tuple(form for form in self._known if "*" in form)

    def redact(self, text: str) -> str:
        """Return the text without any known secret and without what follows a telling name."""
        known = self._known
        for index in range(bisect_left(known, -len(text), key=_by_length), len(known)):
            if known[index] in text:
                text = text.replace(known[index], MASK)
        text = _mask_patterns(text)
        # The asterisks put in may make up a secret that holds asterisks itself.
        if any(form in text for form in self._starred):
            return MASK
        return text


_redactor: Final = Redactor()
"""Of the process: every line and body that leaves it passes here."""


def pin(secrets: Iterable[Secret]) -> None:
    """Know exactly these secrets for good: those of the settings."""
    _redactor.pin(secrets)


def redact(text: str) -> str:
    """Return the text without secrets: for every text that leaves the process and was not written by us."""
    return _redactor.redact(text)


def register(secret: Secret) -> None:
    """Keep a secret out of all later lines. Meant for what lives long and is few: access tokens, changed secrets.

    Tickets and session webhooks need not be registered: patterns know them by the names in front of them.
    """
    _redactor.register(secret)

"""What a model's server says when it fails, and what that means: pure functions, without any client library.

Servers tell a failure as an HTTP status, as an `error` event inside of an answer, or both, in bodies of many shapes;
`Told.of` brings those to one, `of_status` and `of_event` classify it (OPENCLAW.md; tables in
tests/turn/test_llm_faults.py). What an operator is shown goes through `covered` first: servers echo keys and messages.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from claw.errors import ModelError, ModelErrorKind
from claw.turn.model.sse import word

REASON_MAX: Final = 300
"""Characters of a server's own words that an operator is shown."""
ECHO_MIN: Final = 4
"""Characters of the shortest private text that is looked for."""
ECHO_RUN: Final = 8
"""Characters in a row that words may share with a longer private text before they are covered."""
RETRY_AFTER_MAX: Final = 3600.0
"""Seconds that we believe a server wants us to wait at most."""
CAUSES_MAX: Final = 10
"""Errors that may be wrapped in one another."""

_TOO_LONG: Final = re.compile(
    r"context[ _](length|size|window)|maximum context|prompt is too long|too many (input )?tokens", re.IGNORECASE
)
_UPSTREAM: Final = re.compile(r"upstream provider (error|timeout)", re.IGNORECASE)
_REFUSED: Final = re.compile(r"temporarily disabled|(invalid|incorrect) api key|unauthorized", re.IGNORECASE)
_SAYS_RETRY: Final = re.compile(r"\bretry\b|try again|overloaded|rate.?limit|too many requests", re.IGNORECASE)
_RACE: Final = re.compile(r"\binternal error\b", re.IGNORECASE)
_KEY: Final = re.compile(r"\b(?:(?:sk|pk)-|Bearer )[A-Za-z0-9*._~+/-]{6,}")
_USERINFO: Final = re.compile(r"//[^/@\s]+@")


class Told(NamedTuple):
    """A server's words; each is empty where it said none."""

    message: str = ""
    type: str = ""
    code: str = ""

    @classmethod
    def of(cls, body: object) -> Told:
        """The words in a body of any shape: an object, perhaps within `error`; a text; a page; nothing."""
        if isinstance(body, dict) and isinstance(body.get("error"), dict | str):
            body = body["error"]
        if isinstance(body, dict):
            message, code = body.get("message") or body.get("detail"), body.get("code")
            return cls(
                message if isinstance(message, str) else "",
                word(body.get("type")),
                str(code) if type(code) is int and 0 <= code < 1000 else word(code),
            )
        text = body.strip() if isinstance(body, str) else ""
        return cls("an HTML page" if text.startswith("<") else text)

    @property
    def name(self) -> str:
        """The one word for the failure; a type says more than a code that repeats the status."""
        return self.type if self.type and (not self.code or self.code.isdecimal()) else self.code

    @property
    def too_long(self) -> bool:
        """Llama.cpp has a type of its own for it, OpenAI a code, others only words."""
        named = self.type == "exceed_context_size_error" or self.code == "context_length_exceeded"
        return named or bool(_TOO_LONG.search(self.message))

    @property
    def race(self) -> bool:
        """OpenClaw says so to one of two simultaneous first requests of a session."""
        return bool(_RACE.search(self.message))

    @property
    def refused(self) -> bool:
        """The provider wants another key, or money."""
        return (
            "insufficient_quota" in {self.type, self.code}
            or self.code in {"401", "402", "403", "invalid_api_key"}
            or bool(_REFUSED.search(self.message))
        )

    @property
    def wants_retry(self) -> bool:
        return self.code in {"429", "503", "529"} or bool(_SAYS_RETRY.search(f"{self.message} {self.type} {self.code}"))


_STATUSES: Final = {
    401: (ModelErrorKind.UNAUTHORIZED, False),
    402: (ModelErrorKind.UNAUTHORIZED, False),
    403: (ModelErrorKind.UNAUTHORIZED, False),
    408: (ModelErrorKind.TIMEOUT, True),
    409: (ModelErrorKind.BUSY, True),
    413: (ModelErrorKind.TOO_LONG, False),
    425: (ModelErrorKind.BUSY, True),
    429: (ModelErrorKind.BUSY, True),
    500: (ModelErrorKind.SERVER, True),
    502: (ModelErrorKind.SERVER, True),
    503: (ModelErrorKind.BUSY, True),
    504: (ModelErrorKind.TIMEOUT, True),
    529: (ModelErrorKind.BUSY, True),
}


def of_status(status: int, told: Told) -> tuple[ModelErrorKind, bool]:
    """The fault behind an HTTP status of 400 or more, and whether another try is worth it."""
    if status in {400, 422, 500} and told.too_long:
        return ModelErrorKind.TOO_LONG, False
    if status == 429 and told.refused:
        return ModelErrorKind.UNAUTHORIZED, False
    return _STATUSES.get(status, (ModelErrorKind.SERVER if status >= 500 else ModelErrorKind.BAD_REQUEST, False))


def of_event(told: Told) -> tuple[ModelErrorKind, bool]:
    """The fault behind an error event. It may have taken minutes, so only an express wish is worth another try."""
    if told.too_long:
        return ModelErrorKind.TOO_LONG, False
    if upstream := _UPSTREAM.search(told.message):
        return (ModelErrorKind.TIMEOUT if upstream[1].lower() == "timeout" else ModelErrorKind.SERVER), False
    if told.refused:
        return ModelErrorKind.UNAUTHORIZED, False
    if told.wants_retry:
        return ModelErrorKind.BUSY, True
    return ModelErrorKind.SERVER, False


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait (RFC 9110, 10.2.3); a date is measured by the server's own clock."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), RETRY_AFTER_MAX)
    try:
        then = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        seconds = (then - email.utils.parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


_REMEDIES: Final = {
    ModelErrorKind.UNREACHABLE: "check OPENAI_BASE_URL, the server, and HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE",
    ModelErrorKind.TIMEOUT: "look at the model's server; raise CLAW_TURN_TIMEOUT if its answers need longer",
    ModelErrorKind.BUSY: "wait; if it lasts, lower CLAW_MAX_CONCURRENCY or raise the server's limits",
    ModelErrorKind.UNAUTHORIZED: "check OPENAI_API_KEY, and the account's balance and permissions at the provider",
    ModelErrorKind.BAD_REQUEST: "the server understood and refused: check OPENAI_MODEL against its words",
    ModelErrorKind.TOO_LONG: "lower CLAW_HISTORY_TURNS, shorten CLAW_SYSTEM_PROMPT, or raise the server's context size",
    ModelErrorKind.BROKEN_OFF: "look at the model's server and at proxies on the way: the answer had no end",
    ModelErrorKind.EMPTY: "look at the model's server: it ended without any text",
    ModelErrorKind.SERVER: "look at the log of the model's server; OPENAI_BASE_URL must name a chat completions API",
}


def remedy_of(error: ModelError) -> str:
    """What an operator can do about it."""
    if error.status == 404:
        return "check OPENAI_BASE_URL (for most servers it ends in /v1) and OPENAI_MODEL"
    return _REMEDIES[error.kind]


def root_of(error: BaseException) -> str:
    """The innermost cause that has words, as the system told it: connection errors come wrapped several times."""
    root, each = error, error.__cause__ or error.__context__
    for _ in range(CAUSES_MAX):
        if each is None:
            break
        root, each = (each if str(each) else root), each.__cause__ or each.__context__
    return f"{type(root).__name__}: {root}"


def covered(text: str, private: Iterable[str] = ()) -> str:
    """One short line of `text`, without keys and without any run of characters that it shares with a private text."""
    text = _USERINFO.sub("//***@", _KEY.sub("***", " ".join(text.split())[: 2 * REASON_MAX]))
    hidden = [False] * len(text)
    for each in private:
        size = min(len(each), ECHO_RUN)
        for start in range(len(text) - size + 1) if size >= ECHO_MIN else ():
            if text[start : start + size] in each:
                hidden[start : start + size] = [True] * size
    shown = "".join("\0" if hide else each for each, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", "***", shown)[:REASON_MAX]

"""What a model's server says when it fails, and what that means for a person and for an operator.

Servers tell a failure as an HTTP status, as an `error` event inside of an answer, or both, in bodies of many shapes
(docs/openclaw.md). Order of events: `ErrorBody.parse` brings a body to one shape; `classify_status` or
`classify_event` find its kind; `classify_error` makes the ModelError of whatever was raised; `suggest_remedy` says
what helps. What an operator is shown goes through `mask_echo` first, since servers echo keys and messages. The table
is in tests/turn/test_model_errors.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from claw.errors import ModelError, ModelErrorKind
from claw.retry import RETRY_AFTER_MAX_S, parse_retry_after
from claw.turn.model.sse import EventError, UnreadableError, clip_text

REASON_MAX_CHARS: Final = 300
"""What an operator is shown of a server's own words."""
ECHO_MIN_CHARS: Final = 4
"""The shortest private text that is looked for: a shorter one would mask half of every sentence."""
ECHO_RUN_CHARS: Final = 8
"""A run that a reason may not share with a longer private text: servers quote messages in part, too."""
CAUSES_MAX: Final = 10
"""Errors that may be wrapped in one another; a chain may be a ring."""
SESSION_RACE: Final = "internal_error"
"""`ModelError.code` of the failure that two first requests of a session cause in each other at OpenClaw."""

# By words only: some servers send neither a type nor a code with them (rows in tests/turn/test_model_errors.py).
_TOO_LONG: Final = re.compile(
    r"context[ _](length|size|window)|maximum context|prompt is too long|too many (input )?tokens", re.IGNORECASE
)
# OpenClaw's sentences for the provider behind it, which it sends with status 200 and no code (docs/openclaw.md).
_UPSTREAM: Final = re.compile(r"upstream provider (error|timeout)", re.IGNORECASE)
_REFUSED: Final = re.compile(r"temporarily disabled|(invalid|incorrect) api key|unauthorized", re.IGNORECASE)
_SAYS_RETRY: Final = re.compile(r"\bretry\b|try again|overloaded|rate.?limit|too many requests", re.IGNORECASE)
_RACE: Final = re.compile(r"\binternal error\b", re.IGNORECASE)
# OpenAI quotes a wrong key half masked; the stars belong to it.
_KEY: Final = re.compile(r"\b(?:(?:sk|pk)-|Bearer )[A-Za-z0-9*._~+/-]{6,}")
_USERINFO: Final = re.compile(r"//[^/@\s]+@")


class ErrorBody(NamedTuple):
    """The body of an error, brought to one shape; each field is empty where the server said none."""

    message: str = ""
    type: str = ""
    code: str = ""

    @classmethod
    def parse(cls, body: object) -> ErrorBody:
        """Read a body of any shape: an object, perhaps within `error`; a text; a page; nothing."""
        if isinstance(body, dict) and isinstance(body.get("error"), dict | str):
            body = body["error"]
        if isinstance(body, dict):
            message, code = body.get("message") or body.get("detail"), body.get("code")
            return cls(
                message if isinstance(message, str) else "",
                clip_text(body.get("type")),
                # llama.cpp repeats the status as a number here.
                str(code) if type(code) is int and 0 <= code < 1000 else clip_text(code),
            )
        # A proxy's page tells an operator nothing that its status does not.
        text = body.strip() if isinstance(body, str) else ""
        return cls("an HTML page" if text.startswith("<") else text)

    @property
    def name(self) -> str:
        """The server's one word for the failure; a type says more than a code that repeats the status."""
        return self.type if self.type and (not self.code or self.code.isdecimal()) else self.code

    @property
    def is_too_long(self) -> bool:
        """Whether the context overflowed: llama.cpp has a type of its own for it, OpenAI a code, others only words."""
        named = self.type == "exceed_context_size_error" or self.code == "context_length_exceeded"
        return named or bool(_TOO_LONG.search(self.message))

    @property
    def is_session_race(self) -> bool:
        """Whether OpenClaw says so to one of two simultaneous first requests of a session."""
        return bool(_RACE.search(self.message))

    @property
    def is_refused(self) -> bool:
        """Whether the provider wants another key, or money."""
        return (
            "insufficient_quota" in {self.type, self.code}
            or self.code in {"401", "402", "403", "invalid_api_key"}
            or bool(_REFUSED.search(self.message))
        )

    @property
    def wants_retry(self) -> bool:
        # In a stream the status is 200 already: some gateways put the real one into `code`.
        return self.code in {"429", "503", "529"} or bool(_SAYS_RETRY.search(f"{self.message} {self.type} {self.code}"))


_STATUSES: Final = {
    # Status: (kind, whether another try is worth it). 402 is DeepSeek's for an empty account, 529
    # Anthropic's for too much load.
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


def classify_status(status: int, body: ErrorBody) -> tuple[ModelErrorKind, bool]:
    """Return the kind behind an HTTP status of 400 or more, and whether another try is worth it."""
    if status in {400, 422, 500} and body.is_too_long:
        return ModelErrorKind.TOO_LONG, False
    if status == 429 and body.is_refused:
        # OpenAI says 429 to an account without money, too, and no wait cures that.
        return ModelErrorKind.UNAUTHORIZED, False
    return _STATUSES.get(status, (ModelErrorKind.SERVER if status >= 500 else ModelErrorKind.BAD_REQUEST, False))


def classify_event(body: ErrorBody) -> tuple[ModelErrorKind, bool]:
    """Return the kind behind an error event, and whether another try is worth it.

    The event may have taken minutes to come (docs/openclaw.md), so only an express wish is worth another try.
    """
    if body.is_too_long:
        return ModelErrorKind.TOO_LONG, False
    if upstream := _UPSTREAM.search(body.message):
        return (ModelErrorKind.TIMEOUT if upstream[1].lower() == "timeout" else ModelErrorKind.SERVER), False
    if body.is_refused:
        return ModelErrorKind.UNAUTHORIZED, False
    if body.wants_retry:
        return ModelErrorKind.BUSY, True
    return ModelErrorKind.SERVER, False


def classify_error(
    error: BaseException, *, began: bool, history_kept_elsewhere: bool, wall: float, private: Iterable[str] = ()
) -> ModelError:
    """Make the ModelError of `error`. `began`: text had come; `private`: texts that the reason must not show.

    Another try is worth it where the server asks for one or could not be reached. It is not where the settings are at
    fault or the failure took minutes, nor where text had come and the gateway keeps the history: after its restart it
    takes such a turn up by itself, and another try would run the agent's tools twice (docs/openclaw.md). `wall` is now,
    in seconds since the epoch.
    """
    import openai  # noqa: PLC0415 - half a second, off the critical path; who holds an error of it has it loaded

    kind, retry, body, wait = ModelErrorKind.SERVER, False, ErrorBody(), None
    status: int | None = None
    match error:
        case ModelError():
            return error
        case TimeoutError():
            kind, reason = ModelErrorKind.TIMEOUT, "no whole answer before the deadline"
        case openai.APIStatusError():
            status, body = error.status_code, ErrorBody.parse(error.body)
            kind, retry = classify_status(status, body)
            reason = f"HTTP {status}: {body.message}" if body.message else f"HTTP {status}"
            wait = parse_wait(error.response.headers, wall)
        case openai.APIConnectionError():
            kind, retry = (ModelErrorKind.BROKEN_OFF if began else ModelErrorKind.UNREACHABLE), True
            reason = root_cause(error)
        case EventError() | openai.APIError():
            body = ErrorBody.parse(error.body)
            kind, retry = classify_event(body)
            reason = body.message or "an error event without words"
        case UnreadableError():
            kind, reason = (ModelErrorKind.BROKEN_OFF if began else ModelErrorKind.SERVER), str(error)
        case _:
            # Its words may quote what was said: nobody foresaw it.
            reason = f"unexpected {type(error).__name__}"
    # The gateway takes the turn up again by itself: asking once more would run the agent's tools twice.
    retry = retry and not (began and history_kept_elsewhere)
    return ModelError(
        kind,
        mask_echo(reason, private),
        status=status,
        code=SESSION_RACE if body.is_session_race else mask_echo(body.name, private),
        began=began,
        retryable=retry,
        retry_after=wait if retry else None,
    )


def parse_wait(headers: Mapping[str, str], wall: float) -> float | None:
    """Return the seconds that the server asks us to wait, or None; OpenAI and Azure tell milliseconds as well."""
    with suppress(ValueError):
        milliseconds = float(headers.get("retry-after-ms", ""))
        if math.isfinite(milliseconds):
            return min(max(milliseconds / 1000, 0.0), RETRY_AFTER_MAX_S)
    # A date is measured by the server's own clock where it tells that: ours may differ.
    with suppress(ValueError, TypeError, OverflowError):
        wall = parsedate_to_datetime(headers.get("date", "")).timestamp()
    return parse_retry_after(headers.get("retry-after"), wall)


REMEDIES: Final = {
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


def suggest_remedy(error: Exception) -> str:
    """Say what an operator can do about a failed turn."""
    if not isinstance(error, ModelError):
        return "see the exception in the log"
    if error.status == 404:
        # Nearly always the address is wrong; the remedy of its kind would point to the model's name.
        return "check OPENAI_BASE_URL (for most servers it ends in /v1) and OPENAI_MODEL"
    return REMEDIES[error.kind]


def root_cause(error: BaseException) -> str:
    """Return the innermost cause that has words, as the system told it: connection errors come wrapped."""
    root, each = error, error.__cause__ or error.__context__
    for _ in range(CAUSES_MAX):
        if each is None:
            break
        root, each = (each if str(each) else root), each.__cause__ or each.__context__
    return f"{type(root).__name__}: {root}"


def mask_echo(text: str, private: Iterable[str] = ()) -> str:
    """Return one short line of `text`, without keys and without any run of characters of a private text."""
    text = _USERINFO.sub("//***@", _KEY.sub("***", " ".join(text.split())[: 2 * REASON_MAX_CHARS]))
    masked = [False] * len(text)
    for each in private:
        size = min(len(each), ECHO_RUN_CHARS)
        # Each run of the short text is looked up in the long one: a message may be a book, the reason is a line.
        for start in range(len(text) - size + 1) if size >= ECHO_MIN_CHARS else ():
            if text[start : start + size] in each:
                masked[start : start + size] = [True] * size
    shown = "".join("\0" if mask else each for each, mask in zip(text, masked, strict=True))
    return re.sub("\0+", "***", shown)[:REASON_MAX_CHARS]

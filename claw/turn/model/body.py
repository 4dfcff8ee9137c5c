"""The body of an error, of any shape that servers were seen to send, brought to one.

Order of events: `ErrorBody.parse` walks through what wraps the words (`error`, a list, a vendor's header) and takes the
innermost of each. `find_kind` then looks for what has a cure of its own, whatever status it came with: by type and
code where the vendor's are known, else by words. The table is in tests/turn/test_model_errors.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from claw.errors import ModelErrorKind
from claw.turn.model.sse import FIELD_MAX_CHARS, clip_text

WORDS_MAX_CHARS: Final = 600
"""What is searched of a server's words: some quote the whole question."""
NESTED_MAX: Final = 5
"""Objects that may be wrapped in one another."""
DETAILS_MAX: Final = 3
"""Entries of a list of faults that are told."""

# `base_resp` is MiniMax's, `header` Spark's, `response` Tencent's.
_WRAPPERS: Final = (
    "error",
    "errors",
    "err",
    "response",
    "base_resp",
    "header",
    "fault",
    "message",
    "detail",
    "details",
)
_MESSAGES: Final = (
    "message",
    "msg",
    "detail",
    "error_msg",
    "status_msg",
    "error_message",
    "error_description",
    "error",
)
_CODES: Final = ("code", "error_code", "status_code", "errcode", "err_code", "status")
_TYPES: Final = ("type", "__type", "error_type", "status")

# By words only where need be: some servers send neither a type nor a code with them.
_TOO_LONG: Final = re.compile(
    r"context[ _](length|size|window)|maximum context|prompt is too long|too many (input )?tokens"
    r"|tokens per minute \(TPM\): Limit \d+, Requested|range of input length",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(
    r"insufficient[ _](user[ _])?(quota|balance|credits?|funds)|arrear|overdue|credit balance is too low"
    r"|billing_|billing disabled|exceeded_current_quota|free ?tier ?only|out of credits|payment required"
    r"|余额不足|欠费|额度(已用|不足)|请.{0,4}充值",
    re.IGNORECASE,
)
_FILTERED: Final = re.compile(
    r"data[_ ]?inspection|content[ _-]?(policy|filter|moderation|safety|exists risk)|content management policy"
    r"|responsible ?ai ?policy|inappropriate content|sensitive[ _]?(content|words?)|moderation[ _]blocked"
    r"|prohibited[ _]content|considered high risk|flagged (as|by|for)|safety system|敏感|违规|内容安全|风控",
    re.IGNORECASE,
)
# OpenClaw's sentences for the provider behind it, which it sends with status 200 and no code (docs/openclaw.md).
_REFUSED: Final = re.compile(r"temporarily disabled|(invalid|incorrect) api[ _]?key|unauthorized", re.IGNORECASE)
_UNAVAILABLE: Final = re.compile(
    r"gateway_unavailable|unavailable_error|(shutting|shut) down|draining|starting up|still starting|loading model"
    r"|model is (still )?loading",
    re.IGNORECASE,
)
_BUSY: Final = re.compile(
    r"\bretry\b|try again|overloaded|rate.?limit|too many requests|throttl|resource_exhausted|at capacity"
    r"|请求过于频繁|繁忙|no available channel|无可用渠道",
    re.IGNORECASE,
)
_PICTURES: Final = re.compile(
    r"image|picture|vision|visual|multi-?modal|mmproj|content parts?|must be a string|图片|图像|视觉|多模态",
    re.IGNORECASE,
)
_RACE: Final = re.compile(r"\binternal error\b", re.IGNORECASE)

# What vendors' numbers stand for (Zhipu 1113, 1301; MiniMax 1008, 1026, 1027) where they come without a type.
_KINDS_BY_CODE: Final = {
    "1113": ModelErrorKind.QUOTA,
    "1008": ModelErrorKind.QUOTA,
    "1301": ModelErrorKind.FILTERED,
    "1026": ModelErrorKind.FILTERED,
    "1027": ModelErrorKind.FILTERED,
    "401": ModelErrorKind.UNAUTHORIZED,
    "402": ModelErrorKind.QUOTA,
    "403": ModelErrorKind.UNAUTHORIZED,
    "invalid_api_key": ModelErrorKind.UNAUTHORIZED,
    "invalidapikey": ModelErrorKind.UNAUTHORIZED,
    "context_length_exceeded": ModelErrorKind.TOO_LONG,
    "exceed_context_size_error": ModelErrorKind.TOO_LONG,
}
_KINDS_BY_TYPE: Final = {
    "authentication_error": ModelErrorKind.UNAUTHORIZED,
    "permission_error": ModelErrorKind.UNAUTHORIZED,
    "permission_denied": ModelErrorKind.UNAUTHORIZED,
    "billing_error": ModelErrorKind.QUOTA,
    "request_too_large": ModelErrorKind.TOO_LARGE,
    "rate_limit_error": ModelErrorKind.BUSY,
    "overloaded_error": ModelErrorKind.BUSY,
    "timeout_error": ModelErrorKind.TIMEOUT,
    "invalid_request_error": ModelErrorKind.BAD_REQUEST,
    "not_found_error": ModelErrorKind.BAD_REQUEST,
}


class ErrorBody(NamedTuple):
    """The words of an error; each field is empty where the server said none.

    `fields` are the fields of the request that it names as the fault.
    """

    message: str = ""
    type: str = ""
    code: str = ""
    fields: tuple[str, ...] = ()

    @classmethod
    def parse(cls, body: object) -> ErrorBody:
        """Read a body of any shape: an object, perhaps within `error` or a list; a text; a page; nothing."""
        message, kind, code = "", "", ""
        fields: list[str] = []
        faults: list[str] = []
        for each in _unwrap(body, NESTED_MAX):
            if isinstance(each, str):
                # A proxy's page tells an operator nothing that its status does not.
                message = message or ("an HTML page" if each.lstrip().startswith("<") else each.strip())
                continue
            if isinstance(each.get("loc"), list):
                # pydantic's entries: the place tells as much as the words, which are the same for any place.
                faults.append(f"{'.'.join(map(str, each['loc'][:4]))}: {_find_text(each, _MESSAGES)}")
            else:
                message = message or _find_text(each, _MESSAGES)
            kind = kind or clip_text(_find_text(each, _TYPES))
            code = code or _find_code(each)
            fields += _find_fields(each)
        return cls("; ".join(faults) or message, kind, code, tuple(fields))

    @property
    def name(self) -> str:
        """The server's one word for the failure; a type says more than a code that repeats the status."""
        return self.type if self.type and (not self.code or self.code.isdecimal()) else self.code

    @property
    def status(self) -> int | None:
        """The HTTP status that it claims, as in an answer of status 200."""
        return int(self.code) if re.fullmatch(r"[45][0-9]{2}", self.code) else None

    @property
    def words(self) -> str:
        """All of it, as far as it is searched."""
        return f"{self.type} {self.code} {self.message[:WORDS_MAX_CHARS]}"

    @property
    def is_too_long(self) -> bool:
        """Whether the context overflowed: llama.cpp has a type of its own for it, OpenAI a code, others only words."""
        named = self.type == "exceed_context_size_error" or self.code == "context_length_exceeded"
        return named or bool(_TOO_LONG.search(self.words))

    @property
    def is_session_race(self) -> bool:
        """Whether OpenClaw says so of a session that another request begins, or that it recovers itself."""
        return bool(_RACE.search(self.message[:WORDS_MAX_CHARS]))

    @property
    def is_unavailable(self) -> bool:
        return bool(_UNAVAILABLE.search(self.words))

    @property
    def is_busy(self) -> bool:
        # In a stream the status is 200 already: some gateways put the real one into `code`.
        return self.code in {"429", "529"} or bool(_BUSY.search(self.words))

    @property
    def is_about_pictures(self) -> bool:
        """Whether it says that it takes no pictures, or no content but a text."""
        return bool(_PICTURES.search(self.words))

    def find_kind(self) -> ModelErrorKind | None:
        """Return what has a cure of its own, whatever the status; None where only the status tells."""
        if self.is_too_long:
            return ModelErrorKind.TOO_LONG
        by_code = _KINDS_BY_CODE.get(self.code.lower())
        if by_code is ModelErrorKind.QUOTA or _QUOTA.search(self.words):
            return ModelErrorKind.QUOTA
        if by_code is ModelErrorKind.FILTERED or _FILTERED.search(self.words):
            return ModelErrorKind.FILTERED
        if by_code is not None:
            return by_code
        return None

    def find_told_kind(self) -> ModelErrorKind:
        """Return the kind of an error that came without a status of its own, as in a stream."""
        if found := self.find_kind():
            return found
        if self.is_unavailable:
            return ModelErrorKind.UNAVAILABLE
        by_type = _KINDS_BY_TYPE.get(self.type.lower())
        # The words before a type that says as little as `invalid_request_error` does.
        if by_type is not ModelErrorKind.UNAUTHORIZED and _REFUSED.search(self.words):
            return ModelErrorKind.UNAUTHORIZED
        if by_type is not None:
            return by_type
        return ModelErrorKind.BUSY if self.is_busy else ModelErrorKind.SERVER


def _unwrap(body: object, depth: int) -> Iterator[dict[str, Any] | str]:
    """Yield the objects and texts that a body consists of, the innermost first."""
    if isinstance(body, list):
        for each in body[:DETAILS_MAX]:
            yield from _unwrap(each, depth - 1) if depth else ()
        return
    if isinstance(body, str):
        yield body
    if not isinstance(body, dict) or not depth:
        return
    # Some spell the names with a capital.
    lower = {str(name).lower(): value for name, value in body.items()}
    for name in _WRAPPERS:
        if isinstance(lower.get(name), dict | list):
            yield from _unwrap(lower[name], depth - 1)
    yield lower


def _find_text(body: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((value for name in names if isinstance(value := body.get(name), str) and value), "")


def _find_code(body: dict[str, Any]) -> str:
    for name in _CODES:
        value = body.get(name)
        # 0 and 200 stand for success where a vendor always sends a code.
        if type(value) is int and 0 < value < 10**9 and value != 200:
            return str(value)
        if isinstance(value, str) and value and name != "status":
            return value[:FIELD_MAX_CHARS]
    return ""


def _find_fields(body: dict[str, Any]) -> Iterator[str]:
    """Yield the fields that an entry names: OpenAI's `param`, or the place within pydantic's `loc`."""
    if isinstance(param := body.get("param"), str) and param:
        yield param
    place = body.get("loc")
    if isinstance(place, list) and place:
        names = place[1:] if place[0] == "body" else place
        yield from (name for name in names[:1] if isinstance(name, str))

"""What a model's server says when it fails, and what that means for a person and for an operator.

Servers tell a failure as an HTTP status, as an `error` event inside of an answer, as an object in place of one, or by
silence (docs/openclaw.md). Order of events: body.py brings what was said to one shape; `classify_status` or
`classify_event` find its kind; `classify_error` makes the ModelError of whatever was raised; `suggest_remedy` says
what helps. What an operator is shown goes through `mask_echo` first, since servers echo keys and messages. The table
is in tests/turn/test_model_errors.py.
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from claw.errors import ModelError, ModelErrorKind
from claw.language import Bilingual
from claw.retry import RETRY_AFTER_MAX_S, parse_retry_after
from claw.turn.model.body import ErrorBody
from claw.turn.model.sse import EventError, UnreadableError

REASON_MAX_CHARS: Final = 300
"""What an operator is shown of a server's own words."""
ECHO_MIN_CHARS: Final = 4
"""The shortest private text that is looked for: a shorter one would mask half of every sentence."""
ECHO_RUN_CHARS: Final = 8
"""A run that a reason may not share with a longer private text: servers quote messages in part, too."""
ECHO_LOOKS_MAX: Final = 32_768
"""Runs of private texts that are looked for exactly; a reason may share longer runs with a longer conversation."""
ECHO_EXACT_CHARS: Final = 256
CAUSES_MAX: Final = 10
"""Errors that may be wrapped in one another; a chain may be a ring."""
SESSION_RACE: Final = "session_race"
"""`ModelError.code` of the failure that two first requests of a session, or a request and the gateway's own recovery
after a crash, cause in each other at OpenClaw."""
OWN_RETRIES_S: Final = 60.0
"""A server that refuses after so long has tried by itself (docs/openclaw.md: 71 to 122 s): asking again costs the
person as long once more, and the provider as many calls."""
NOT_BEGUN_S: Final = 15.0
"""A server that takes no work says so before this; what fails later may have been worked on."""

_UPSTREAM: Final = re.compile(r"upstream provider (error|timeout)", re.IGNORECASE)
# OpenAI quotes a wrong key half masked; the stars belong to it.
_KEY: Final = re.compile(r"\b(?:(?:sk|pk)-|Bearer )[A-Za-z0-9*._~+/-]{6,}")
_USERINFO: Final = re.compile(r"//[^/@\s]+@")
_ANSWERS_ABOUT_CONTENT: Final = frozenset({400, 403, 422, 451})
_ANSWERS_ABOUT_MONEY: Final = frozenset({400, 401, 403, 429})
_ANSWERS_ABOUT_LENGTH: Final = frozenset({400, 413, 422, 500})

_STATUSES: Final = {
    # Status: (kind, whether another try is worth it). 402 is DeepSeek's for an empty account, 529
    # Anthropic's for too much load.
    401: (ModelErrorKind.UNAUTHORIZED, False),
    402: (ModelErrorKind.QUOTA, False),
    403: (ModelErrorKind.UNAUTHORIZED, False),
    408: (ModelErrorKind.TIMEOUT, True),
    409: (ModelErrorKind.BUSY, True),
    413: (ModelErrorKind.TOO_LARGE, False),
    425: (ModelErrorKind.BUSY, True),
    429: (ModelErrorKind.BUSY, True),
    500: (ModelErrorKind.SERVER, True),
    502: (ModelErrorKind.SERVER, True),
    503: (ModelErrorKind.UNAVAILABLE, True),
    504: (ModelErrorKind.TIMEOUT, True),
    529: (ModelErrorKind.BUSY, True),
}


def classify_status(status: int, body: ErrorBody) -> tuple[ModelErrorKind, bool]:
    """Return the kind behind an HTTP status of 300 or more, and whether another try is worth it."""
    if status < 400:
        return ModelErrorKind.REDIRECTED, False
    found = body.find_kind()
    if (
        (found is ModelErrorKind.TOO_LONG and status in _ANSWERS_ABOUT_LENGTH)
        # OpenAI says 429 to an account without money, too, and no wait cures that.
        or (found is ModelErrorKind.QUOTA and status in _ANSWERS_ABOUT_MONEY)
        or (found is ModelErrorKind.FILTERED and status in _ANSWERS_ABOUT_CONTENT)
    ):
        return found, False
    if status == 502 and not body.name:
        # A gateway's page or plain text: there was nobody behind it.
        return ModelErrorKind.UNAVAILABLE, True
    if status == 503 and body.is_busy and not body.is_unavailable:
        return ModelErrorKind.BUSY, True
    return _STATUSES.get(status, (ModelErrorKind.SERVER if status >= 500 else ModelErrorKind.BAD_REQUEST, False))


def classify_event(body: ErrorBody) -> tuple[ModelErrorKind, bool]:
    """Return the kind behind an error that came with status 200, and whether another try is worth it.

    Something was done for it already, hence only what says that it passes is worth another try.
    """
    if upstream := _UPSTREAM.search(body.message):
        return (ModelErrorKind.TIMEOUT if upstream[1].lower() == "timeout" else ModelErrorKind.SERVER), False
    kind = body.find_told_kind()
    if kind is ModelErrorKind.SERVER and body.status:
        kind, _ = classify_status(body.status, body)
    return kind, kind in {ModelErrorKind.BUSY, ModelErrorKind.UNAVAILABLE} or body.is_session_race


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where a request was when it failed.

    `head`: the response had begun; `text`: what had come of the answer; `elapsed`: seconds since it was sent; `wall` is
    now, in seconds since the epoch.
    """

    history_kept_elsewhere: bool
    wall: float
    head: bool = False
    text: str = ""
    elapsed: float = 0.0


def classify_error(error: BaseException, at: Circumstances, private: Iterable[str] = ()) -> ModelError:
    """Make the ModelError of `error`; `private` are texts that the reason must not show.

    Another try is worth it where the server asks for one or could not be reached. It is not where the settings are at
    fault or the server has tried for a minute by itself, nor where text had come and the gateway keeps the history:
    after its restart it takes such a turn up by itself, and another try would run the agent's tools twice
    (docs/openclaw.md).
    """
    import openai  # noqa: PLC0415 - half a second, off the critical path; who holds an error of it has it loaded

    began = bool(at.text)
    kind, retry, body, wait = ModelErrorKind.SERVER, False, ErrorBody(), None
    status: int | None = None
    waits = False
    match error:
        case ModelError():
            return error
        case TimeoutError():
            kind, reason = ModelErrorKind.TIMEOUT, "no whole answer before the deadline"
        case openai.APIStatusError():
            status, body = error.status_code, ErrorBody.parse(error.body)
            kind, retry = classify_status(status, body)
            reason = _describe_status(status, body, error.response.headers)
            wait = parse_wait(error.response.headers, at.wall)
            waits = kind is ModelErrorKind.UNAVAILABLE or (status == 504 and not body.name)
        case openai.APIConnectionError():
            kind, retry = (ModelErrorKind.BROKEN_OFF if began else ModelErrorKind.UNREACHABLE), True
            reason = root_cause(error)
            waits = not at.head and _may_come_back(error)
        case EventError() | openai.APIError():
            body = ErrorBody.parse(error.body)
            status = body.status
            kind, retry = classify_event(body)
            reason = body.message or _describe_shape(error.body)
            waits = kind is ModelErrorKind.UNAVAILABLE
        case UnreadableError():
            retry = error.truncated
            kind = ModelErrorKind.BROKEN_OFF if began or retry else ModelErrorKind.SERVER
            reason = str(error)
        case _:
            # Its words may quote what was said: nobody foresaw it.
            reason = f"unexpected {type(error).__name__}"
    told = not isinstance(error, openai.APIConnectionError | UnreadableError)
    retry = retry and not (told and at.elapsed >= OWN_RETRIES_S) and not (began and at.history_kept_elsewhere)
    # To have no connection takes time, and begins nothing.
    in_time = at.elapsed < NOT_BEGUN_S or _is_connect_error(error)
    return ModelError(
        kind,
        mask_echo(reason, private),
        status=status,
        code=SESSION_RACE if body.is_session_race else mask_echo(body.name, private),
        began=began,
        partial=at.text,
        retryable=retry,
        waits=waits and retry and in_time and not began,
        retry_after=wait if retry else None,
        about_pictures=body.is_about_pictures,
    )


def _describe_status(status: int, body: ErrorBody, headers: Mapping[str, str]) -> str:
    if status < 400:
        # The host only: an address may hold a key.
        target = urlsplit(headers.get("location", "")).hostname
        return f"HTTP {status}: it points to {target or 'another path'}, which is not followed"
    return f"HTTP {status}: {body.message}" if body.message else f"HTTP {status}"


def _describe_shape(body: object) -> str:
    if isinstance(body, dict) and body:
        # Names of fields tell an operator which API answered, and nothing of what was said.
        return f"no answer, but an object of: {', '.join(sorted(map(str, body)))}"
    return "an error without words"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, outermost first."""
    each: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if each is None:
            return
        yield each
        each = each.__cause__ or each.__context__


def _is_connect_error(error: BaseException) -> bool:
    names = {type(each).__name__ for each in _chain(error)}
    return bool(names & {"ConnectError", "ConnectTimeout"})


def _may_come_back(error: BaseException) -> bool:
    """Whether the server may be there a little later: what is set up wrongly is not cured by waiting."""
    chain = list(_chain(error))
    # A certificate, or TLS where there is none.
    if any(
        isinstance(each, ssl.SSLError | aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError)
        for each in chain
    ):
        return False
    for each in chain:
        if isinstance(each, aiohttp.ClientHttpProxyError):
            # A proxy that knows no way, and not one that lets nobody through.
            return each.status in {502, 503, 504}
    return any(
        # What the SDK tells without a cause is its own limit for a connection.
        isinstance(each, OSError | aiohttp.ServerDisconnectedError) or type(each).__name__ == "APITimeoutError"
        for each in chain
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
    ModelErrorKind.UNREACHABLE: Bilingual(
        "check OPENAI_BASE_URL, the server, and HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE",
        "检查 OPENAI_BASE_URL、模型服务本身，以及 HTTPS_PROXY、NO_PROXY、SSL_CERT_FILE",
    ),
    ModelErrorKind.UNAVAILABLE: Bilingual(
        "look at the model's server and the gateway before it: it starts, drains or is away",
        "查看模型服务和它前面的网关：正在启动、正在停止或不在线",
    ),
    ModelErrorKind.TIMEOUT: Bilingual(
        "look at the model's server; raise CLAW_TURN_TIMEOUT if its answers need longer",
        "查看模型服务；如果回答确实需要更久，调大 CLAW_TURN_TIMEOUT",
    ),
    ModelErrorKind.BUSY: Bilingual(
        "wait; if it lasts, lower CLAW_MAX_CONCURRENCY or raise the server's limits",
        "稍等；若持续如此，调小 CLAW_MAX_CONCURRENCY，或提高服务的限额",
    ),
    ModelErrorKind.UNAUTHORIZED: Bilingual(
        "check OPENAI_API_KEY, and the account's permissions at the provider",
        "检查 OPENAI_API_KEY，以及账号在服务商处的权限",
    ),
    ModelErrorKind.QUOTA: Bilingual(
        "pay or raise the account at the model's provider: its balance or allowance is used up",
        "在模型服务商处充值或提高额度：余额或额度已用完",
    ),
    ModelErrorKind.BAD_REQUEST: Bilingual(
        "the server understood and refused: check OPENAI_MODEL against its words",
        "服务看懂了但拒绝了：对照它的说明检查 OPENAI_MODEL",
    ),
    ModelErrorKind.REDIRECTED: Bilingual(
        "put the address that the server points to into OPENAI_BASE_URL, if it is yours",
        "如果所指的地址是你的，把它填入 OPENAI_BASE_URL",
    ),
    ModelErrorKind.FILTERED: Bilingual(
        "nothing, unless it is too strict: then change the content policy at the provider",
        "无需处理；若过于严格，在服务商处调整内容策略",
    ),
    ModelErrorKind.TOO_LONG: Bilingual(
        "lower CLAW_HISTORY_TURNS, shorten CLAW_SYSTEM_PROMPT, or raise the server's context size",
        "调小 CLAW_HISTORY_TURNS、缩短 CLAW_SYSTEM_PROMPT，或加大服务的上下文长度",
    ),
    ModelErrorKind.TOO_LARGE: Bilingual(
        "raise the size of a request that the server, or a proxy before it, takes",
        "加大服务（或它前面的代理）允许的请求大小",
    ),
    ModelErrorKind.BROKEN_OFF: Bilingual(
        "look at the model's server and at proxies on the way: the answer had no end",
        "查看模型服务和沿途的代理：回答没有结尾",
    ),
    ModelErrorKind.EMPTY: Bilingual(
        "look at the model's server: it ended without any text",
        "查看模型服务：它没有给出任何文字就结束了",
    ),
    ModelErrorKind.SERVER: Bilingual(
        "look at the log of the model's server; OPENAI_BASE_URL must name a chat completions API",
        "查看模型服务的日志；OPENAI_BASE_URL 必须是 chat completions 接口",
    ),
}


def suggest_remedy(error: Exception) -> str:
    """Say what an operator can do about a failed turn, in both languages."""
    if not isinstance(error, ModelError):
        return Bilingual("see the exception in the log", "见日志中的异常")
    if error.status == 404:
        # Nearly always the address is wrong; the remedy of its kind would point to the model's name.
        return Bilingual(
            "check OPENAI_BASE_URL (for most servers it ends in /v1) and OPENAI_MODEL",
            "检查 OPENAI_BASE_URL（多数服务以 /v1 结尾）和 OPENAI_MODEL",
        )
    return REMEDIES[error.kind]


def root_cause(error: BaseException) -> str:
    """Return the innermost cause that has words, as the system told it: connection errors come wrapped."""
    root = error
    for each in _chain(error):
        root = each if str(each) else root
    return f"{type(root).__name__}: {root}"


def mask_echo(text: str, private: Iterable[str] = ()) -> str:
    """Return one short line of `text`, without keys and without any run of characters of a private text.

    Takes some milliseconds at most: of private texts that are long together only each so-manieth run is looked for, and
    what is around a hit is masked along with it.
    """
    # Cut first: the rest of the work is in proportion to what is left.
    line = " ".join(text[: 8 * REASON_MAX_CHARS].split())[: 2 * REASON_MAX_CHARS]
    text = _USERINFO.sub("//***@", _KEY.sub("***", line))
    texts = list(private)
    step = sum(map(len, texts)) // ECHO_LOOKS_MAX + 1
    masked = [False] * len(text)
    for echo, around in _find_echoes(text, texts, step):
        start = text.find(echo)
        while start >= 0:
            begin, end = max(start - around, 0), min(start + len(echo) + around, len(text))
            masked[begin:end] = [True] * (end - begin)
            start = text.find(echo, start + 1)
    shown = "".join("\0" if mask else each for each, mask in zip(text, masked, strict=True))
    return re.sub("\0+", "***", shown)[:REASON_MAX_CHARS]


def _find_echoes(text: str, private: Iterable[str], step: int) -> set[tuple[str, int]]:
    """Return the runs that `text` shares with private texts, each with how much around it may be shared, too."""
    size = ECHO_RUN_CHARS
    runs = frozenset(text[start : start + size] for start in range(len(text) - size + 1))
    echoes = set()
    for each in private:
        if len(each) < size:
            if len(each) >= ECHO_MIN_CHARS:
                echoes.add((each, 0))
            continue
        # A key is always looked for exactly.
        stride = 1 if len(each) <= ECHO_EXACT_CHARS else step
        # The private text's runs among the reason's, and not the other way: to search a book for each run of the reason
        # takes the product of both.
        found = runs.intersection(each[start : start + size] for start in range(0, len(each) - size + 1, stride))
        echoes.update((run, stride - 1) for run in found)
    return echoes

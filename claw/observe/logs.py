"""Logs: one line for each event, which never raises, never breaks and never tells a secret.

Order of events for one record: `configure` has put one handler on the root logger, with stderr behind it; the handler
lets through `claw` at the chosen level and everybody else from WARNING on (their DEBUG prints bodies and headers); the
record becomes plain JSON values, each text among them redacted and then cut; the values become one line, as JSON or
readable. Since texts are redacted before the line is built, no secret can break the line's grammar, not even
one that reads `null`.

`redact` knows secrets in two ways. By value: what `configure` was given and what `register` learned at run time, also
URL-quoted, JSON-escaped and in base64. Only secrets that live long are worth that (client secret, keys, access
tokens). By pattern: whatever follows a name such as `ticket=` or `Authorization:`, which covers what lives for
one message or one connection (session webhooks, tickets, download URLs).
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import sys
import threading
import traceback
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO
from urllib.parse import quote, quote_plus

from opentelemetry import trace

from claw.secret import Secret

MASK: Final = "***"
SECRET_MIN: Final = 4
"""Characters; a shorter secret would black out half of every line and protects nothing."""
REGISTERED_MAX: Final = 64
"""Secrets kept that were learned at run time, the newest ones: an access token lives 2 h (PROTOCOL section 6.2)."""
FIELD_MAX: Final = 8 * 1024
"""Characters of one text in a line."""
LINE_MAX: Final = 32 * 1024
"""Characters of all texts in a line, about; container runtimes split lines, and a split line is no JSON."""
ITEMS_MAX: Final = 100
DEPTH_MAX: Final = 5
THIRD_PARTY_LEVEL: Final = logging.WARNING

_THIRD_PARTIES: Final = (
    "aiohttp", "asyncio", "dingtalk_stream", "httpcore2", "httpx2", "openai", "opentelemetry", "redis", "tenacity",
    "urllib3",
)  # fmt: skip
_SCAN_MAX: Final = 8 * FIELD_MAX
"""Characters of a text that are looked at; the rest would be cut anyway."""

log: Final = logging.getLogger(__name__)

# --- redaction -----------------------------------------------------------------------------------------------

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
_SECRET_FIELD: Final = re.compile(
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
    """What of `raw` is the same in every base64 text that contains it, as in `Basic user:secret`."""
    yield base64.b64encode(raw).decode()
    for shift, changed in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        ending = (0, 3, 2)[(shift + len(raw)) % 3]
        yield encoded[changed : len(encoded) - ending]


def _forms(value: str) -> frozenset[str]:
    """The texts by which a secret can be told in a line."""
    raw = value.encode("utf-8", "surrogatepass")
    quoted = quote(raw, safe="")
    forms = {value, quoted, quote(raw), quote_plus(raw), quote(quoted, safe=""), repr(value)[1:-1], repr(raw)[2:-1]}
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        forms |= {escaped, escaped.replace("/", "\\/"), json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]}
    for each in _base64_forms(raw):
        if len(each) >= 2 * SECRET_MIN:
            forms |= {each, each.translate({43: "-", 47: "_"}), quote(each, safe="")}
    return frozenset(form for form in forms if len(form) >= SECRET_MIN)


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
            self._pinned = {value: _forms(value) for value in values if len(value) >= SECRET_MIN}
            self._rebuild()

    def register(self, secret: Secret) -> None:
        """Know a secret that was learned at run time; the oldest one is forgotten where there are too many."""
        value = secret.reveal()
        if len(value) < SECRET_MIN:
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
        """The text without any known secret and without what follows a telling name."""
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


def redact(text: str) -> str:
    """The text without secrets: for every text that leaves the process and was not written by us."""
    return _redactor.redact(text)


def register(secret: Secret) -> None:
    """Keep a secret out of all later lines. Meant for what lives long and is few: access tokens, changed secrets.

    Tickets and session webhooks need not be registered: patterns know them by the names in front of them.
    """
    _redactor.register(secret)


# --- a record as plain values ----------------------------------------------------------------------------------

_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What logging itself puts into a record; everything else came by `extra`."""


def _text(value: object) -> str:
    try:
        return repr(value) if isinstance(value, bytes | bytearray) else str(value)
    except Exception:  # noqa: BLE001 - a log line never raises, whatever it is told to show
        return f"<{type(value).__name__}>"


def _cut(text: str, limit: int, *, tail: bool = False) -> str:
    """At most about `limit` characters: the beginning, or (`tail`) a quarter from the beginning and the end."""
    if len(text) <= limit:
        return text
    gone = f"...({len(text) - limit} characters more)"
    if not tail:
        return text[:limit] + gone
    return text[: limit // 4] + f"\n{gone}\n" + text[len(text) - (limit - limit // 4) :]


class _Plain:
    """Makes JSON values of anything, redacted, within one line's budget of characters."""

    def __init__(self) -> None:
        self._left = LINE_MAX

    def text(self, value: str, *, tail: bool = False) -> str:
        value = str.__str__(value)
        if len(value) > _SCAN_MAX:
            # Cut at blanks first: a secret that is cut in two would not be known any more.
            kept = value[-_SCAN_MAX:].partition(" ")[2] if tail else value[:_SCAN_MAX].rpartition(" ")[0]
            shown = _cut(redact(kept), FIELD_MAX, tail=tail) + f"...({len(value)} characters in all)"
        else:
            shown = _cut(redact(value), FIELD_MAX, tail=tail)
        shown = _cut(shown, max(self._left, 256), tail=tail)
        self._left -= len(shown)
        return shown

    def value(self, value: object, depth: int = 0) -> Any:
        try:
            return self._value(value, depth)
        except Exception:  # noqa: BLE001 - a mapping, a number or a list of somebody's own making
            return f"<{type(value).__name__}>"

    def _value(self, value: object, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float) and abs(value) < 2**63:
            shown = str(value)
            return value if redact(shown) == shown else MASK
        if depth < DEPTH_MAX and isinstance(value, Mapping):
            return self.mapping(value, depth + 1)
        if depth < DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
            items = [self.value(each, depth + 1) for each in list(value)[:ITEMS_MAX]]
            return items if len(value) <= ITEMS_MAX else [*items, f"...({len(value) - ITEMS_MAX} more)"]
        return self.text(_text(value))

    def mapping(self, value: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, each in list(value.items())[:ITEMS_MAX]:
            name = self.text(_text(key))
            secret = _SECRET_FIELD.search(name) and not (each is None or isinstance(each, bool))
            plain[name] = MASK if secret else self.value(each, depth)
        return plain


def _exception(
    info: tuple[type[BaseException] | None, BaseException | None, TracebackType | None], plain: _Plain
) -> dict[str, str] | None:
    kind = info[0]
    if kind is None:
        return None
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "traceback": plain.text("".join(traceback.format_exception(*info)).rstrip(), tail=True)}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the text: the text alone tells enough
        return _text(record.msg)


def _time(record: logging.LogRecord) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The record as JSON values, in reading order; what `extra` calls like one of our fields gets an underscore."""
    plain = _Plain()
    fields: dict[str, Any] = {
        "time": _time(record),
        "severity": record.levelname,
        "logger": record.name,
        "message": plain.text(_message(record)),
    }
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        fields["trace_id"] = trace.format_trace_id(span.trace_id)
        fields["span_id"] = trace.format_span_id(span.span_id)
    # First the exception: it must not be the one for which the budget does not suffice.
    exception = _exception(record.exc_info, plain) if record.exc_info else None
    extra = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
    for name, value in plain.mapping(extra).items():
        fields[f"{name}_" if name in fields or name in {"exception", "stack"} else name] = value
    if exception:
        fields["exception"] = exception
    if record.stack_info:
        fields["stack"] = plain.text(record.stack_info, tail=True)
    return fields


# --- lines -----------------------------------------------------------------------------------------------------

_LINE_BREAKS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""What JSON may hold as it is and some readers take for the end of a line."""
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | _LINE_BREAKS
"""What could move a terminal's cursor or change its colours."""
_COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}


def _encodable(line: str) -> str:
    """The line with lone surrogates as escapes, which JSON reads as such."""
    return line.encode("utf-8", "backslashreplace").decode()


class JsonFormatter(logging.Formatter):
    """One JSON object, without any line break."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            line = json.dumps(_fields(record), ensure_ascii=False, allow_nan=False)
            return _encodable(line).translate(_LINE_BREAKS)
        except Exception as error:  # noqa: BLE001 - a log line never raises
            fallback = {"severity": "ERROR", "logger": __name__, "message": "a log record could not be written"}
            return json.dumps(fallback | {"cause": type(error).__name__})


class TextFormatter(logging.Formatter):
    """For a person's terminal: time of day, severity, logger, message, fields; exceptions indented below."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        try:
            return _encodable(self._lines(record))
        except Exception as error:  # noqa: BLE001 - a log line never raises
            return f"a log record could not be written ({type(error).__name__})"

    def _lines(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        severity, logger, message = fields["severity"], fields["logger"], fields["message"]
        below = [fields.pop("exception", {}).get("traceback", ""), fields.pop("stack", "")]
        shown = [
            f"{name}={self._shown(value)}"
            for name, value in fields.items()
            if name not in {"time", "severity", "logger", "message", "span_id"}
        ]
        head = f"{moment}.{int(record.msecs):03d} {severity:<8} {logger}: {message}"
        line = "  ".join([head, *shown]).translate(_CONTROLS)
        if self._colour and severity in _COLOURS:
            line = f"{_COLOURS[severity]}{line}\x1b[0m"
        lines = [each.translate(_CONTROLS) for text in below for each in text.split("\n") if text]
        return "\n    ".join([line, *lines])

    @staticmethod
    def _shown(value: object) -> str:
        if isinstance(value, str) and value and not re.search(r"[\s\"=]", value):
            return value
        return json.dumps(value, ensure_ascii=False)


# --- set up ------------------------------------------------------------------------------------------------------


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler of ours; a level of its own for those who are not claw holds even if a library lowers theirs."""

    def filter(self, record: logging.LogRecord) -> Any:
        ours = record.name == "claw" or record.name.startswith("claw.")
        return (ours or record.levelno >= THIRD_PARTY_LEVEL) and super().filter(record)


def configure(level: str, fmt: str, secrets: Iterable[Secret], stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (stderr) as `json` or `text`; may be called again. `level` is that of claw alone.

    `secrets` are kept out of every line, as long as they have SECRET_MIN characters. What nobody caught (in the main
    thread, another thread or a destructor) and Python's warnings become log lines too.
    """
    _redactor.pin(secrets)
    target = stream or sys.stderr
    if fmt == "json" and hasattr(target, "reconfigure"):
        target.reconfigure(encoding="utf-8", errors="backslashreplace")
    handler = _Handler(target)
    colour = target.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    handler.setFormatter(TextFormatter(colour=colour) if fmt == "text" else JsonFormatter())
    root = logging.getLogger()
    for other in list(root.handlers):
        # A plain handler (logging.basicConfig, by whatever library) would show every line twice, and not redacted.
        if type(other) is logging.StreamHandler or isinstance(other, _Handler):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(THIRD_PARTY_LEVEL)
    for name in _THIRD_PARTIES:
        logging.getLogger(name).setLevel(THIRD_PARTY_LEVEL)
    logging.getLogger("claw").setLevel(level.upper())
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    log.critical("unhandled error", exc_info=(kind, error, where))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread else ""
    info = (args.exc_type, args.exc_value, args.exc_traceback)
    log.error("unhandled error in a thread", extra={"thread_name": name}, exc_info=info)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is None:
        return
    info = (args.exc_type, args.exc_value, args.exc_traceback)
    log.error("unhandled error in a destructor or callback", extra={"cause": args.err_msg or ""}, exc_info=info)


def asyncio_exception_handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler`: what a task, a callback or a transport left unhandled."""
    task = context.get("task") or context.get("future")
    extra = {"cause": context.get("message", "")}
    if isinstance(task, asyncio.Task):
        extra["task"] = task.get_name()
    log.error("unhandled error in a task", extra=extra, exc_info=context.get("exception"))

"""Logs: one line for each event, which never raises, never breaks and never tells a secret.

Order of events for one record: `configure` has put one handler on the root logger, with stderr behind it; the handler
lets through `claw` at the chosen level and everybody else from WARNING on (their DEBUG prints bodies and headers); the
record becomes plain JSON values, each text among them redacted and then cut; the values become one line, as JSON or
readable. Since texts are redacted before the line is built, no secret can break the line's grammar, not even
one that reads `null`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, TextIO

from opentelemetry import trace

from claw.clock import format_rfc3339
from claw.language import Bilingual, Language, choose
from claw.observe.line_writer import LineWriter
from claw.observe.redact import MASK, SECRET_FIELD, pin, redact
from claw.secret import Secret

FIELD_CHARS_MAX: Final = 8 * 1024
"""Characters of one text in a line."""
LINE_CHARS_MAX: Final = 32 * 1024
"""Characters of all texts in a line, about; container runtimes split lines, and a split line is no JSON."""
ITEMS_MAX: Final = 100
DEPTH_MAX: Final = 5
THIRD_PARTY_LEVEL: Final = logging.WARNING

_THIRD_PARTIES: Final = (
    "aiohttp", "asyncio", "dingtalk_stream", "httpcore2", "httpx2", "openai", "opentelemetry", "redis", "tenacity",
    "urllib3",
)  # fmt: skip
_SCAN_CHARS_MAX: Final = 8 * FIELD_CHARS_MAX
"""Characters of a text that are looked at; the rest would be cut anyway."""

_language = Language.EN

log: Final = logging.getLogger(__name__)

# --- a record as plain values ----------------------------------------------------------------------------------

_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What logging itself puts into a record; everything else came by `extra`."""


def _text(value: object) -> str:
    try:
        return repr(value) if isinstance(value, bytes | bytearray) else str(value)
    except Exception:  # noqa: BLE001 - a log line never raises, whatever it is told to show
        return f"<{type(value).__name__}>"


def _cut(text: str, limit: int, *, tail: bool = False) -> str:
    """Return at most about `limit` characters: the beginning, or (`tail`) a quarter from the beginning and the end."""
    if len(text) <= limit:
        return text
    gone = f"...({len(text) - limit} characters more)"
    if not tail:
        return text[:limit] + gone
    return text[: limit // 4] + f"\n{gone}\n" + text[len(text) - (limit - limit // 4) :]


class _Plain:
    """Makes JSON values of anything, redacted, within one line's budget of characters."""

    def __init__(self) -> None:
        self._left = LINE_CHARS_MAX

    def text(self, value: str, *, tail: bool = False) -> str:
        # By the very type: a class of somebody's own making may do anything where it is asked.
        value = choose(value, _language) if type(value) is Bilingual else str.__str__(value)
        if len(value) > _SCAN_CHARS_MAX:
            # Cut at blanks first: a secret that is cut in two would not be known any more.
            kept = value[-_SCAN_CHARS_MAX:].partition(" ")[2] if tail else value[:_SCAN_CHARS_MAX].rpartition(" ")[0]
            shown = _cut(redact(kept), FIELD_CHARS_MAX, tail=tail) + f"...({len(value)} characters in all)"
        else:
            shown = _cut(redact(value), FIELD_CHARS_MAX, tail=tail)
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
            secret = SECRET_FIELD.search(name) and not (each is None or isinstance(each, bool))
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


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the record as JSON values, in reading order; a name of `extra` that is ours gets an underscore."""
    plain = _Plain()
    fields: dict[str, Any] = {
        "time": format_rfc3339(record.created),
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
    """Return the line with lone surrogates as escapes, which JSON reads as such."""
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


class _Handler(logging.Handler):
    """The one handler of ours; a level of its own for those who are not claw holds even if a library lowers theirs."""

    def __init__(self, formatter: logging.Formatter, stream: TextIO | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._stream = stream
        self._lines = LineWriter(sys.stderr.fileno(), self._describe_dropped) if stream is None else None

    def filter(self, record: logging.LogRecord) -> Any:
        ours = record.name == "claw" or record.name.startswith("claw.")
        return (ours or record.levelno >= THIRD_PARTY_LEVEL) and super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if self._lines is not None:
            self._lines.put(line)
        elif self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # Closed, or without the line's characters.
                self._stream.write(line + "\n")

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
        super().close()

    def _describe_dropped(self, count: int) -> str:
        told = {"msg": "log lines dropped: the reader of the log did not keep up", "levelname": "WARNING"}
        fields = {"name": __name__, "levelno": logging.WARNING, "dropped": count}
        return self.format(logging.makeLogRecord(told | fields))


def configure(
    level: str,
    fmt: str,
    secrets: Iterable[Secret],
    stream: TextIO | None = None,
    *,
    language: Language = Language.EN,
) -> None:
    """Send all logs to `stream` (stderr) as `json` or `text`; may be called again. `level` is that of claw alone.

    `language` is that of remedies; messages are English, since programs look for them.
    `secrets` are kept out of every line, as long as they have 4 characters. What nobody caught (in the main thread,
    another thread or a destructor) and Python's warnings become log lines too.
    """
    global _language  # noqa: PLW0603 - of the process, as the handlers are
    # Before the first line: warnings of the settings are the first that has two languages.
    _language = language
    pin(secrets)
    target = stream or sys.stderr
    colour = target.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    formatter = TextFormatter(colour=colour) if fmt == "text" else JsonFormatter()
    # What is no file (a test's StringIO) cannot hang, and is written at once.
    handler = _Handler(formatter, None if stream is None and _has_descriptor(sys.stderr) else target)
    root = logging.getLogger()
    for other in list(root.handlers):
        # A plain handler (logging.basicConfig, by whatever library) would show every line twice, and not redacted.
        if type(other) is logging.StreamHandler or isinstance(other, _Handler):
            root.removeHandler(other)
            other.close()
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


def close() -> None:
    """Write what is left, within a second. The last thing that a process does."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.close()


def _has_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


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

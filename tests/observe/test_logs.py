"""Logs: a line for everything, valid in every case, and never a secret in it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from claw.observe import logs
from claw.observe import redact as redaction
from claw.observe.logs import asyncio_exception_handler, configure
from claw.observe.redact import MASK, REGISTERED_MAX, Redactor, redact, register
from claw.secret import Secret

LOG = logging.getLogger("claw.test")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """What `configure` changes in the process is put back."""
    root = logging.getLogger()
    handlers, level, ours = list(root.handlers), root.level, logging.getLogger("claw").level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("claw").setLevel(ours)
    for name in logs._THIRD_PARTIES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions = hooks
    redaction._redactor.pin([])
    redaction._redactor._recent.clear()
    redaction._redactor._rebuild()


class Sink(io.StringIO):
    """A stream that counts its lines as JSON or as text."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal

    def lines(self) -> list[str]:
        return self.getvalue().split("\n")[:-1]

    def last(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.lines()[-1], parse_constant=pytest.fail)
        return line


@pytest.fixture
def sink() -> Sink:
    """Logs as JSON at level info."""
    stream = Sink()
    configure("info", "json", [Secret("dingsecret-0123456789"), Secret("sk-fake-key-00112233")], stream)
    return stream


# --- the line ----------------------------------------------------------------------------------------------------


def test_a_line_has_the_fields_of_the_contract(sink: Sink) -> None:
    """A line holds time (UTC, ms), severity, logger, message and what came by extra."""
    LOG.info("stream is open", extra={"connection": "c1", "lived_s": 1.5, "tries": 2, "clean": True, "why": None})
    line = sink.last()
    moment = line.pop("time")
    assert moment.endswith("Z")
    assert abs(datetime.fromisoformat(moment).timestamp() - time.time()) < 60
    assert len(moment) == len("2026-11-21T21:00:00.000Z")
    assert line == {
        "severity": "INFO",
        "logger": "claw.test",
        "message": "stream is open",
        "connection": "c1",
        "lived_s": 1.5,
        "tries": 2,
        "clean": True,
        "why": None,
    }


def test_a_line_names_the_current_span(sink: Sink) -> None:
    """Inside a span, a line carries its trace and span ids as hex; outside, neither."""
    LOG.info("outside")
    assert "trace_id" not in sink.last()
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False))
    with trace.use_span(span):
        LOG.info("inside")
    assert sink.last()["trace_id"] == f"{0xABC:032x}"
    assert sink.last()["span_id"] == f"{0xDEF:016x}"


def test_own_fields_win_over_extra(sink: Sink) -> None:
    """An extra field that is called like one of ours gets an underscore and hides nothing."""
    LOG.info("real", extra={"severity": "fake", "time": "never", "exception": "none"})
    line = sink.last()
    assert (line["severity"], line["message"]) == ("INFO", "real")
    assert (line["severity_"], line["time_"], line["exception_"]) == ("fake", "never", "none")


def test_an_exception_is_one_field(sink: Sink) -> None:
    """An exception is told by type and traceback, causes included, in the same line, redacted."""
    error = ValueError("line one\nline two")
    error.__cause__ = OSError("at dingsecret-0123456789")
    LOG.error("it failed", exc_info=error)
    assert len(sink.lines()) == 1
    exception = sink.last()["exception"]
    assert exception["type"] == "ValueError"
    assert exception["traceback"].endswith("ValueError: line one\nline two")
    assert f"OSError: at {MASK}" in exception["traceback"]


class Hostile:
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class HostileMapping(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError("no")


SELF: list[Any] = []
SELF.append(SELF)


@pytest.mark.parametrize(
    "value",
    [
        Hostile(),
        HostileMapping(a="b"),
        SELF,
        {"deep": {"deep": {"deep": {"deep": {"deep": {"deep": 1}}}}}},
        {Hostile(): Hostile()},
        float("nan"),
        float("-inf"),
        10**5000,
        b"\xff\x00",
        "\ud800 alone",
        "a\nb\r\x1b[31m\u2028\u2029\x85\x00",
        {1, "two"},
        Path("x"),
        ValueError("x"),
        Secret("hidden"),
        asyncio.Lock,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("fmt", ["json", "text"])
def test_no_value_breaks_a_line(value: object, fmt: str) -> None:
    """Whatever is logged gives exactly one line, encodable, which is JSON in JSON mode."""
    stream = Sink()
    configure("info", fmt, [], stream)
    LOG.info("an event", extra={"value": value})
    LOG.info("an event of %s", value)
    assert len(stream.lines()) == 2
    for line in stream.lines():
        assert "an event" in line
        assert len(line.splitlines()) == 1
        line.encode()
        if fmt == "json":
            json.loads(line, parse_constant=pytest.fail)


def test_arguments_that_do_not_fit_are_left_out(sink: Sink) -> None:
    """A message whose arguments do not fit is logged as it stands."""
    LOG.info("%s and %s", 1)  # noqa: PLE1206 - the rule is about this very mistake
    assert sink.last()["message"] == "%s and %s"


def test_huge_fields_are_cut(sink: Sink) -> None:
    """A line stays short whatever it is given; a traceback keeps its end, which says most."""
    LOG.info(
        "big", extra={"text": "x" * 10_000_000, "list": list(range(100_000)), "map": {str(n): n for n in range(999)}}
    )
    assert len(sink.lines()[-1]) < 3 * logs.LINE_CHARS_MAX
    error = ValueError("x" * 50_000 + "the end")
    LOG.error("big", extra={f"f{n}": "y" * 9000 for n in range(50)}, exc_info=error)
    assert sink.last()["exception"]["traceback"].endswith("the end")
    assert len(sink.lines()[-1]) < 3 * logs.LINE_CHARS_MAX


def test_a_closed_stream_is_no_error(sink: Sink) -> None:
    """Logging into a closed stream does nothing, and says nothing."""
    sink.close()
    LOG.error("nobody hears")


@given(
    message=st.text(),
    extra=st.dictionaries(
        st.text(min_size=1).filter(lambda name: name not in logs._OWN_FIELDS),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=8,
        ),
        max_size=4,
    ),
)
def test_every_line_is_json(message: str, extra: dict[str, Any]) -> None:
    """For any message and any extra fields, JSON mode writes one line of JSON."""
    record = LOG.makeRecord("claw.test", logging.INFO, "f", 1, message, (), None, extra=extra)
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line, parse_constant=pytest.fail)["logger"] == "claw.test"


# --- text --------------------------------------------------------------------------------------------------------


def test_text_is_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text mode writes one readable line, values quoted where needed, and an exception below it, indented."""
    stream = Sink()
    configure("info", "text", [], stream)
    LOG.warning("stream is lost", extra={"reason": "pongs missed", "lanes": 1})
    line = stream.lines()[0]
    assert line[12:] == ' WARNING  claw.test: stream is lost  reason="pongs missed"  lanes=1'
    LOG.error("failed", exc_info=ValueError("one\ntwo\x1b[31m"))
    *_, third, last = stream.lines()
    assert third == "    ValueError: one"
    assert last == "    two\\x1b[31m"


@pytest.mark.parametrize(
    ("terminal", "no_color", "colour"),
    [(True, None, True), (True, "", True), (True, "1", False), (False, None, False)],
)
def test_colour_only_on_a_terminal(
    terminal: bool, no_color: str | None, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colour needs a terminal, and NO_COLOR switches it off; an empty one counts as unset."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = Sink()
    stream.terminal = terminal
    configure("info", "text", [], stream)
    LOG.error("red")
    assert ("\x1b[" in stream.getvalue()) is colour


# --- levels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_that_of_claw(level: str, seen: int) -> None:
    """CLAW_LOG_LEVEL decides what claw logs."""
    stream = Sink()
    configure(level, "json", [], stream)
    for log in (LOG.debug, LOG.info, LOG.warning, LOG.error):
        log("event")
    assert len(stream.lines()) == seen


@pytest.mark.parametrize(
    "name", ["aiohttp.client", "openai", "httpx2", "httpcore2.http11", "dingtalk_stream.client", "x"]
)
def test_third_parties_never_speak_below_warning(name: str) -> None:
    """A library's INFO and DEBUG stay out even at level debug, and even if the library lowers its own level."""
    stream = Sink()
    configure("debug", "json", [], stream)
    library = logging.getLogger(name)
    library.info("ticket is 123")
    library.setLevel(logging.DEBUG)
    library.info("ticket is 123")
    assert stream.lines() == []
    library.warning("it matters")
    assert sink_loggers(stream) == [name]
    library.setLevel(logging.NOTSET)


def sink_loggers(stream: Sink) -> list[str]:
    return [json.loads(line)["logger"] for line in stream.lines()]


def test_a_library_that_configures_logging_itself_stays_quiet() -> None:
    """OPENAI_LOG=debug makes openai set levels and handlers at import, after us: still no body and no second line."""
    code = """
import logging
from claw.observe import logs
from claw.observe import redact as redaction
logs.configure("debug", "json", [])
import openai
logging.getLogger("openai._base_client").debug("Request options: the whole conversation")
logging.getLogger("httpx2").info("HTTP Request")
logging.getLogger("claw.test").debug("ours")
"""
    environ = {**os.environ, "OPENAI_LOG": "debug"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["ours"]
    assert done.stdout == ""


def test_configure_again_replaces() -> None:
    """A second `configure` and a library's basicConfig leave one handler, hence one line for each event."""
    first, second, third = Sink(), Sink(), Sink()
    configure("info", "json", [], first)
    plain = logging.StreamHandler(third)
    logging.getLogger().addHandler(plain)
    configure("info", "json", [], second)
    LOG.info("once")
    assert [len(each.lines()) for each in (first, second, third)] == [0, 1, 0]


# --- what nobody caught ------------------------------------------------------------------------------------------


async def test_an_unhandled_error_in_a_task_is_logged(sink: Sink) -> None:
    """The loop's handler logs the error and the task's name."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(asyncio_exception_handler)

    async def fail() -> None:
        raise ValueError("at dingsecret-0123456789")

    task = asyncio.create_task(fail(), name="worker")
    await asyncio.wait([task])
    del task
    await asyncio.sleep(0)
    line = sink.last()
    assert (line["message"], line["severity"], line["task"]) == ("unhandled error in a task", "ERROR", "worker")
    assert line["exception"]["traceback"].endswith(f"ValueError: at {MASK}")


@pytest.mark.parametrize("context", [{}, {"message": "x"}, {"exception": None, "task": "no task", "message": None}])
def test_any_context_of_the_loop_is_logged(context: dict[str, Any], sink: Sink) -> None:
    """The loop's handler takes every context that a library may pass."""
    loop = asyncio.new_event_loop()
    asyncio_exception_handler(loop, context)
    loop.close()
    assert sink.last()["message"] == "unhandled error in a task"


def test_unhandled_errors_elsewhere_are_lines_too(sink: Sink) -> None:
    """The main thread, other threads and destructors: each unhandled error is a line."""
    sys.excepthook(ValueError, ValueError("main"), None)
    assert (sink.last()["severity"], sink.last()["exception"]["type"]) == ("CRITICAL", "ValueError")

    def fail() -> None:
        raise KeyError("thread")

    thread = threading.Thread(target=fail, name="digger")
    thread.start()
    thread.join()
    assert (sink.last()["thread_name"], sink.last()["exception"]["type"]) == ("digger", "KeyError")

    class Bad:
        def __del__(self) -> None:
            raise OSError("gone")

    Bad()
    assert sink.last()["exception"]["type"] == "OSError"


def test_warnings_are_lines(sink: Sink) -> None:
    """Python's warnings go the way of logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old", UserWarning, stacklevel=1)
        assert sink.last()["logger"] == "py.warnings"
        logging.captureWarnings(False)


# --- redaction by name -------------------------------------------------------------------------------------------

HEX = "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"POST https://oapi.dingtalk.com/robot/sendBySession?session={HEX} 200", f"session={MASK} 200"),
        (f"wss://gateway/connect?ticket={HEX}&x=1", f"?ticket={MASK}&x=1"),
        (f"https%3A%2F%2Fa.b%2Fc%3Fsession%3D{HEX}", f"%3Fsession%3D{MASK}"),
        (f"/media/upload?access_token={HEX}&type=image", f"access_token={MASK}&type=image"),
        (f"/gettoken?appkey=ding1&appsecret={HEX}", f"appkey=ding1&appsecret={MASK}"),
        (f'{{"clientId":"d","clientSecret":"{HEX}"}}', f'"clientSecret":"{MASK}"}}'),
        (f'{{"clientSecret": "with, blanks & {HEX}"}}', f'"clientSecret": "{MASK}"}}'),
        (f"{{'client_secret': '{HEX}'}}", f"'client_secret': '{MASK}'}}"),
        (
            f'"{{\\"ticket\\":\\"{HEX}\\",\\"endpoint\\":\\"wss\\"}}"',
            f'\\"ticket\\":\\"{MASK}\\",\\"endpoint\\":\\"wss',
        ),
        (f"x-acs-dingtalk-access-token: {HEX}", f"x-acs-dingtalk-access-token: {MASK}"),
        (f"('X-Acs-Dingtalk-Access-Token', '{HEX}')", f"Token', '{MASK}')"),
        (f"(b'Authorization', b'Bearer {HEX}')", f"Bearer {MASK}')"),
        (f"Authorization: Bearer {HEX}", f"Authorization: Bearer {MASK}"),
        (f"authorization={HEX}", f"authorization={MASK}"),
        (f"Authorization: Basic {HEX}==", f"Authorization: Basic {MASK}"),
        (f"bearer {HEX}, realm", f"bearer {MASK}, realm"),
        (f"key sk-proj-{HEX} is wrong", f"key sk-{MASK} is wrong"),
        (f'{{"downloadUrl":"https:\\/\\/h\\/p?Expires=1\\u0026Signature={HEX}"}}', f'"downloadUrl":"{MASK}"}}'),
        (f"downloadUrl=https://h/p?a=1&b={HEX} end", f"downloadUrl={MASK} end"),
        (f"'sessionWebhook': 'https://h/{HEX}'", f"'sessionWebhook': '{MASK}'"),
        (f"https://h/p?Expires=1&Signature={HEX}", f"Signature={MASK}"),
        (f"proxy http://user:{HEX}@proxy:3128 failed", f"http://{MASK}@proxy:3128 failed"),
        (f"DINGTALK_CLIENT_SECRET={HEX}", f"DINGTALK_CLIENT_SECRET={MASK}"),
        (f"CLAW_ADMIN_TOKEN = '{HEX}'", f"CLAW_ADMIN_TOKEN = '{MASK}'"),
        (f"client_secret: {HEX}", f"client_secret: {MASK}"),
        (f"\u0130\u0130 ticket={HEX} \u0130", f"\u0130\u0130 ticket={MASK} \u0130"),
    ],
)
def test_what_follows_a_telling_name_is_masked(text: str, shown: str) -> None:
    """Tickets, sessions, tokens, keys and download addresses are masked wherever their name stands before them."""
    redacted = redact(text)
    assert HEX not in redacted
    assert shown in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "DINGTALK_CLIENT_SECRET (or DINGTALK_APP_SECRET): is not set; it must hold: Client Secret",
        "CLAW_ADMIN_TOKEN: its value is not usable",
        "the basic information and a task-force",
        "input_tokens=5 max_tokens: 12",
        "GatewayError: authFailed (HTTP 401)",
        "https://api.example.com:8443/v1/models?page=2",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """What only resembles a secret stays readable."""
    assert redact(text) == text


def test_fields_with_telling_names_are_masked(sink: Sink) -> None:
    """A field that is called like a secret shows none, whatever its type; that it is absent may be told."""
    LOG.info("x", extra={"ticket": 12345, "admin_token": None, "body": {"accessToken": ["a"], "clientSecret": False}})
    line = sink.last()
    assert (line["ticket"], line["admin_token"]) == (MASK, None)
    assert line["body"] == {"accessToken": MASK, "clientSecret": False}


@pytest.mark.parametrize(
    "unit",
    ["token", "ticket=", '"ticket" : ', "://", "://a:b", "sk-", "bearer ", "\\", 'downloadUrl="\\', "secret:a",
     "session = ", "authorization ", "authorization: bearer", "basic a", "sign", "=", "%3d", "\u0130", "a"],
)  # fmt: skip
def test_redaction_is_linear(unit: str) -> None:
    """Ten times the text takes about ten times as long, whatever it repeats (50 times would be allowed)."""

    def cost(size: int) -> float:
        text = unit * (size // len(unit))
        tries = []
        for _ in range(3):
            start = time.process_time()
            redact(text)
            tries.append(time.process_time() - start)
        return min(tries)

    assert cost(200_000) < 50 * cost(20_000) + 0.02


# --- redaction by value ------------------------------------------------------------------------------------------

SECRETS = st.text(min_size=4, max_size=40)
PLAIN_SECRETS = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~+/=", min_size=8, max_size=64
)


@given(secret=SECRETS, before=st.text(), after=st.text(), others=st.lists(SECRETS, max_size=3))
def test_a_known_secret_never_survives_in_text(secret: str, before: str, after: str, others: list[str]) -> None:
    """A registered secret at any place of any text is gone, also beside other secrets that overlap it."""
    redactor = Redactor()
    redactor.pin([Secret(each) for each in others])
    redactor.register(Secret(secret))
    shown = redactor.redact(before + secret + after)
    assert secret not in shown
    assert all(other not in shown for other in others)


@given(secret=PLAIN_SECRETS, before=st.text(), after=st.text())
@pytest.mark.parametrize(
    "form",
    [
        lambda text: quote(text, safe=""),
        quote,
        quote_plus,
        lambda text: json.dumps({"v": text}),
        lambda text: json.dumps(json.dumps({"v": text})),
        repr,
        lambda text: repr(text.encode()),
        lambda text: f"https://h/p?q={quote(text, safe='')}&r=1",
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
        lambda text: "Basic " + base64.b64encode(b"u:" + text.encode()).decode(),
    ],
    ids=range(11),
)
def test_no_form_of_a_secret_survives(form: Any, secret: str, before: str, after: str) -> None:
    """URL-quoted, as JSON, as repr or in base64: what a reader could turn back into the secret is gone."""
    redactor = Redactor()
    redactor.register(Secret(secret))
    shown = redactor.redact(before + form(secret) + after)
    assert secret not in shown
    assert form(secret) not in shown


def leaves(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names included; numbers as text."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield str(value)


@given(secret=SECRETS, number=st.integers(1000, 10**15), place=st.integers(0, 5), around=st.text())
def test_a_known_secret_never_survives_in_a_line(secret: str, number: int, place: int, around: str) -> None:
    """Message, argument, field, nested field, field's name, exception: a secret is in none, and the line is JSON."""
    text = around + secret + around
    redaction._redactor.pin([Secret(secret), Secret(str(number))])
    info = (ValueError, ValueError(text), None)
    spots: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (text.replace("%", "%%"), (), {}),
        ("at %s", (text,), {}),
        ("at", (), {"field": text}),
        ("at", (), {"field": {"list": [text, number]}}),
        ("at", (), {text: 1} if text not in logs._OWN_FIELDS else {}),
        ("at", (), {"number": number}),
    ]
    message, args, extra = spots[place]
    record = LOG.makeRecord("claw.test", logging.INFO, "f", 1, message, args, info, extra=extra)
    line = json.loads(logs.JsonFormatter().format(record))
    # Our own words stay even where a secret happens to be one of them.
    del line["time"], line["severity"], line["logger"]
    own = {"message", "exception", "type", "traceback", "field", "list", "number"}
    shown = [leaf for leaf in leaves(line) if leaf not in own]
    assert not any(secret in leaf or str(number) in leaf for leaf in shown)


@pytest.mark.parametrize(
    "secret", ["null", "true", "time", "message", '":""', "{}{}", '", "', "INFO", "claw", "****", "***a"]
)
def test_a_secret_cannot_break_a_line(secret: str) -> None:
    """A secret that reads like JSON or like our own words leaves valid lines (OPENAI_API_KEY=null is common)."""
    stream = Sink()
    configure("info", "json", [Secret(secret)], stream)
    LOG.info("it is %s", secret, extra={"a": None, "b": True, "c": secret * 3})
    assert stream.last()["severity"] == "INFO"
    assert secret not in stream.last()["message"]
    assert secret not in stream.last()["c"]


def test_short_secrets_are_not_known() -> None:
    """Fewer than four characters are not registered: they would black out half of every line."""
    redactor = Redactor()
    redactor.register(Secret("abc"))
    redactor.pin([Secret("x"), Secret("")])
    assert redactor.redact("abc x") == "abc x"


def test_the_newest_secrets_are_kept() -> None:
    """Of secrets learned at run time the newest are kept, one seen again counts as new; pinned ones stay for good."""
    redactor = Redactor()
    redactor.pin([Secret("pinned-one")])
    for number in range(REGISTERED_MAX):
        redactor.register(Secret(f"learned-{number:03d}"))
    redactor.register(Secret("learned-000"))
    redactor.register(Secret("learned-new"))
    assert redactor.redact("learned-000 learned-new learned-002 pinned-one") == f"{MASK} {MASK} {MASK} {MASK}"
    assert redactor.redact("learned-001") == "learned-001"


def test_register_holds_for_the_next_line(sink: Sink) -> None:
    """A secret that is registered at run time is out of every line from then on."""
    register(Secret("fresh/token+1"))
    LOG.info("got fresh/token+1 and fresh%2Ftoken%2B1")
    assert sink.last()["message"] == f"got {MASK} and {MASK}"


def test_a_cut_never_shows_half_a_secret(sink: Sink) -> None:
    """Where a huge text is cut, no beginning of a secret is left over."""
    secret = "dingsecret-0123456789"
    for lead in range(logs._SCAN_CHARS_MAX - 30, logs._SCAN_CHARS_MAX + 2):
        text = ("x " * lead)[: lead - 1] + " " + secret + " " + "y " * 40_000
        LOG.info(text)
        assert "dings" not in sink.lines()[-1]

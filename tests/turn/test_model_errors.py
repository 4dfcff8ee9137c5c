"""The table of what can go wrong at a model, row by row, and what an operator may see of it."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.cli.doctor import texts as doctor_texts
from claw.cli.doctor.network import MODEL_TEXTS
from claw.errors import ModelError, ModelErrorKind
from claw.language import Language
from claw.retry import RETRY_AFTER_MAX_S
from claw.turn import texts
from claw.turn.model.body import ErrorBody
from claw.turn.model.errors import (
    REMEDIES,
    Circumstances,
    classify_error,
    classify_status,
    mask_echo,
    parse_wait,
    root_cause,
    suggest_remedy,
)
from claw.turn.model.sse import EventError, UnreadableError

REQUEST = httpx2.Request("POST", "http://model.test/v1/chat/completions")


WALL = 1_792_567_680.0
"""Wed, 21 Oct 2026 07:28:00 GMT."""


def classify(error: BaseException, *, began: bool = False, elsewhere: bool = False, elapsed: float = 0.0) -> ModelError:
    at = Circumstances(elsewhere, WALL, text="text" if began else "", elapsed=elapsed)
    return classify_error(error, at)


def status(code: int, body: object = None, **headers: str) -> openai.APIStatusError:
    response = httpx2.Response(code, request=REQUEST, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return openai.APIStatusError(f"Error code: {code}", response=response, body=body)


def connection(cause: Exception) -> openai.APIConnectionError:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = httpx2.ConnectError("All connection attempts failed")
    error.__cause__.__cause__ = cause
    return error


def in_stream(message: str, **more: Any) -> openai.APIError:
    """Make what the SDK raises for an error event: no status, the words in the body."""
    return openai.APIError(message, REQUEST, body={"message": message} | more)


UNREACHABLE, TIMEOUT, BUSY, SERVER = (
    ModelErrorKind.UNREACHABLE,
    ModelErrorKind.TIMEOUT,
    ModelErrorKind.BUSY,
    ModelErrorKind.SERVER,
)
UNAUTHORIZED, QUOTA, UNAVAILABLE, REDIRECTED, FILTERED, TOO_LARGE, BAD_REQUEST, TOO_LONG, BROKEN_OFF = (
    ModelErrorKind.UNAUTHORIZED,
    ModelErrorKind.QUOTA,
    ModelErrorKind.UNAVAILABLE,
    ModelErrorKind.REDIRECTED,
    ModelErrorKind.FILTERED,
    ModelErrorKind.TOO_LARGE,
    ModelErrorKind.BAD_REQUEST,
    ModelErrorKind.TOO_LONG,
    ModelErrorKind.BROKEN_OFF,
)

TABLE: list[tuple[BaseException, ModelErrorKind, bool]] = [
    (TimeoutError(), TIMEOUT, False),
    (status(307, None, location="https://elsewhere.test/v1"), REDIRECTED, False),
    (status(400, {"code": "data_inspection_failed", "message": "x"}), FILTERED, False),
    (status(400, {"code": "Arrearage", "message": "x"}), QUOTA, False),
    (in_stream("401 no", type="authentication_error"), UNAUTHORIZED, False),
    (in_stream("404 no", type="invalid_request_error"), BAD_REQUEST, False),
    (in_stream("no", type="insufficient_quota"), QUOTA, False),
    (connection(ConnectionRefusedError(111, "Connection refused")), UNREACHABLE, True),
    (connection(ssl.SSLCertVerificationError(1, "certificate verify failed")), UNREACHABLE, True),
    (openai.APITimeoutError(request=REQUEST), UNREACHABLE, True),
    (status(400, {"message": "Missing user message"}), BAD_REQUEST, False),
    (status(400, {"message": "x", "type": "exceed_context_size_error"}), TOO_LONG, False),
    (status(400, {"message": "x", "code": "context_length_exceeded"}), TOO_LONG, False),
    (status(400, "prompt is too long: 9 tokens > 5 maximum"), TOO_LONG, False),
    (status(401, {"message": "unauthorized", "type": "unauthorized"}), UNAUTHORIZED, False),
    (status(402, {"message": "Insufficient Balance"}), QUOTA, False),
    (status(403), UNAUTHORIZED, False),
    (status(404, {"message": "model not found"}), BAD_REQUEST, False),
    (status(405), BAD_REQUEST, False),
    (status(408), TIMEOUT, True),
    (status(409), BUSY, True),
    (status(413), TOO_LARGE, False),
    (status(413, "<html>413 Request Entity Too Large</html>"), TOO_LARGE, False),
    (status(422, {"detail": [{"type": "missing"}]}), BAD_REQUEST, False),
    (status(429, {"message": "Rate limit reached"}), BUSY, True),
    (status(429, {"message": "You exceeded your quota", "code": "insufficient_quota"}), QUOTA, False),
    (status(500, {"message": "internal error"}), SERVER, True),
    (status(501), SERVER, False),
    (status(502, "<html>Bad Gateway</html>"), UNAVAILABLE, True),
    (status(503, {"message": "shutting down", "type": "gateway_unavailable"}), UNAVAILABLE, True),
    (status(504), TIMEOUT, True),
    (status(529), BUSY, True),
    (in_stream("upstream provider timeout"), TIMEOUT, False),
    (in_stream("upstream provider error"), SERVER, False),
    (in_stream("internal error", type="api_error"), SERVER, True),
    (in_stream("too long", code="context_length_exceeded"), TOO_LONG, False),
    (in_stream("This account is temporarily disabled"), UNAUTHORIZED, False),
    (in_stream("slow down", code=429), BUSY, True),
    (in_stream("Overloaded", type="overloaded_error"), BUSY, True),
    (EventError({"message": "boom"}), SERVER, False),
    (EventError("upstream provider timeout"), TIMEOUT, False),
    (EventError(["boom", 7]), SERVER, False),
    (UnreadableError("what came is not JSON"), SERVER, False),
    (RecursionError("very deep"), SERVER, False),
    (UnicodeEncodeError("utf-8", "private \ud800", 8, 9, "surrogates not allowed"), SERVER, False),
]


@pytest.mark.parametrize(("error", "kind", "retryable"), TABLE)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_before_text(error: BaseException, kind: ModelErrorKind, retryable: bool, elsewhere: bool) -> None:
    """Before text has come, the error alone decides."""
    found = classify(error, elsewhere=elsewhere)
    assert (found.kind, found.retryable, found.began) == (kind, retryable, False)
    assert suggest_remedy(found)


@pytest.mark.parametrize(("error", "kind", "retryable"), TABLE)
def test_after_text(error: BaseException, kind: ModelErrorKind, retryable: bool) -> None:
    """After text, a broken connection is an answer broken off; and no gateway that keeps the history is asked twice."""
    broken = kind is UNREACHABLE or isinstance(error, UnreadableError)
    ours = classify(error, began=True)
    assert (ours.kind, ours.retryable, ours.began) == (BROKEN_OFF if broken else kind, retryable, True)
    assert not classify(error, began=True, elsewhere=True).retryable


@pytest.mark.parametrize(
    ("error", "head", "elapsed", "waits"),
    [
        (connection(ConnectionRefusedError(111, "Connection refused")), False, 0.0, True),
        (connection(socket.gaierror(-2, "Name or service not known")), False, 0.0, True),
        (connection(aiohttp.ServerDisconnectedError()), False, 0.0, True),
        (connection(ConnectionResetError(104, "reset")), True, 0.0, False),
        (openai.APITimeoutError(request=REQUEST), False, 10.0, True),
        (connection(ssl.SSLCertVerificationError(1, "certificate verify failed")), False, 0.0, False),
        (connection(ValueError("Got more than 65536 bytes")), False, 0.0, False),
        (status(502, "<html>Bad Gateway</html>"), True, 0.0, True),
        (status(503, "no healthy upstream"), True, 0.0, True),
        (status(504, "<html>Gateway Time-out</html>"), True, 5.0, True),
        # The agent may have worked by then.
        (status(504, "<html>Gateway Time-out</html>"), True, 30.0, False),
        (status(503, {"type": "gateway_unavailable"}), True, 0.0, True),
        (in_stream("x", type="gateway_unavailable"), True, 0.0, True),
        (status(503, {"message": "overloaded"}), True, 0.0, False),
        (status(500), True, 0.0, False),
        (status(429), True, 0.0, False),
    ],
)
def test_what_is_waited_for(error: Exception, head: bool, elapsed: float, waits: bool) -> None:
    """A server that cannot be reached, or takes no work yet, is waited for, unless something had begun."""
    assert classify_error(error, Circumstances(True, WALL, head=head, elapsed=elapsed)).waits is waits
    assert not classify_error(error, Circumstances(False, WALL, head=head, text="Half")).waits


@pytest.mark.parametrize(("error", "kind", "retryable"), TABLE)
def test_after_a_minute(error: BaseException, kind: ModelErrorKind, retryable: bool) -> None:
    """What a server says after a minute is the end of its own tries; only a broken way is tried again."""
    found = classify(error, elapsed=61.0)
    assert found.retryable is (retryable and kind is UNREACHABLE)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": 400, "type": "exceed_context_size_error", "message": "x"}, "exceed_context_size_error"),
        ({"code": "model_not_found", "type": "invalid_request_error"}, "model_not_found"),
        ({"code": 429}, "429"),
        ({"error": {"type": "api_error"}}, "api_error"),
        ("words", ""),
        (None, ""),
    ],
)
def test_the_servers_word_for_it(body: object, code: str) -> None:
    """The code of an error is the server's most telling word."""
    assert classify(status(400, body)).code == code


def test_a_model_error_stays_what_it_is() -> None:
    """What has been classified is not classified again."""
    error = ModelError(BUSY, "reason", retryable=True)
    assert classify(error, began=True, elsewhere=True) is error


def test_the_cause_is_told_in_the_systems_words() -> None:
    """An operator sees why a connection failed, not that one failed."""
    found = classify(connection(ConnectionRefusedError(111, "Connection refused")))
    assert found.reason == "ConnectionRefusedError: [Errno 111] Connection refused"
    silent = classify(openai.APITimeoutError(request=REQUEST))
    assert "timed out" in silent.reason


def test_causes_in_a_ring_end() -> None:
    """Errors that name one another as cause are followed for a while only."""
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__cause__ = second, first
    assert root_cause(first).startswith("ValueError")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "-3"}, 0.0),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "1e300"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:20 GMT"}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "today"}, 30.0),
    ],
)
def test_wait_that_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds, seconds or a date, which is measured by the server's own clock where it tells that."""
    assert parse_wait(headers, WALL) == seconds


@pytest.mark.parametrize("kind", list(ModelErrorKind))
def test_every_kind_has_words(kind: ModelErrorKind) -> None:
    """No kind leaves a person, an operator or doctor without a sentence: each is in all four tables."""
    assert REMEDIES[kind]
    assert all(texts.FAILURES[kind][language] for language in Language)
    finding = doctor_texts.TEXTS[MODEL_TEXTS[kind]]
    assert all(finding.message[language] and finding.remedy[language] for language in Language)


def test_retry_after_goes_with_a_retry_only() -> None:
    """A wait is handed on where another try is worth it, and nowhere else."""
    waits = classify(status(503, retry_after="7"))
    refused = classify(status(401, retry_after="7"))
    assert (waits.retry_after, refused.retry_after) == (7.0, None)


@pytest.mark.parametrize(
    ("text", "private", "shown"),
    [
        ("plain words", (), "plain words"),
        ("two\n lines \x1b", (), "two lines \x1b"),
        ("Incorrect API key provided: sk-proj-abc***xyz9", (), "Incorrect API key provided: ***"),
        ("no Bearer abcdef.ghijkl here", (), "no *** here"),
        ("token is 0123456789 twice 0123456789", ("0123456789",), "token is *** twice ***"),
        ("starts 012345678", ("0123456789",), "starts ***"),
        ("via http://user:pass@proxy:8080", (), "via http://***@proxy:8080"),
        ("input 'the whole question' is bad", ("the whole question",), "input '***' is bad"),
        ("说了「请帮我翻译这一句话」", ("你好，请帮我翻译这一句话，谢谢",), "说了「***」"),
        ("a short hi stays", ("hi",), "a short hi stays"),
        ("x" * 999, (), "x" * 300),
        ("", ("abcdefgh",), ""),
    ],
)
def test_what_an_operator_may_see(text: str, private: tuple[str, ...], shown: str) -> None:
    """Server's words are shown short, on one line, without keys and without what somebody said."""
    assert mask_echo(text, private) == shown


@settings(deadline=None)
@given(st.text(max_size=40), st.text(min_size=8, max_size=40), st.text(max_size=40))
def test_a_key_is_never_shown(before: str, key: str, after: str) -> None:
    """Whatever stands around it, a key of eight characters or more does not get through as it is."""
    key = "".join(key.split()) or "k" * 8
    if len(key) >= 8 and "***" not in key:
        assert key not in mask_echo(f"{before} {key} {after}", [key])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "detail", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON, st.integers(400, 599), st.booleans(), st.booleans())
def test_bodies_of_any_shape(body: object, code: int, began: bool, elsewhere: bool) -> None:
    """No body makes the classification itself fail, and what it says can be written anywhere."""
    for error in (status(code, body), EventError(body), openai.APIError("m", REQUEST, body=body)):
        found = classify(error, began=began, elsewhere=elsewhere)
        assert isinstance(found.kind, ModelErrorKind)
        assert len(found.reason) <= 300
    assert classify_status(code, ErrorBody.parse(body))

"""What servers really send, and what is taken for an answer: docs/openclaw.md row by row, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import pytest

from claw.errors import ModelError, ModelErrorKind
from claw.turn.model import sse
from claw.turn.model.chat import Completion
from claw.turn.model.errors import suggest_remedy
from claw.turn.model.finish import FinishReason
from claw.turn.model.sse import TokenUsage
from tests.turn.asking import ID, KEY, QUESTION, USER, ask, fault, model_at, open_connections
from tests.turn.servers import (
    DONE,
    ROLE,
    STOP,
    Behaviour,
    ModelServer,
    answer,
    chunk,
    dies,
    event,
    opened,
    refuses,
    sends,
    text,
    usage,
)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([answer("Hi")], Completion("Hi", FinishReason.STOP, TokenUsage(7, 1), "fake-1", ID), id="openai"),
        pytest.param(
            [ROLE + text("Hi") + STOP + usage(0, 0) + DONE],
            Completion("Hi", FinishReason.STOP, None, "fake-1", ID),
            id="usage of zeros is none (OpenClaw)",
        ),
        pytest.param(
            [ROLE + text("Hi") + STOP + DONE],
            Completion("Hi", FinishReason.STOP, None, "fake-1", ID),
            id="no usage at all",
        ),
        pytest.param(
            [
                chunk({"role": "assistant", "reasoning_content": "Secret thought", "content": None})
                + chunk({"reasoning_content": "more", "content": ""}, timings={"prompt_ms": 1.5})
                + chunk({"content": "Hi", "tool_calls": None}, usage=None)
                + STOP
                + DONE
            ],
            Completion("Hi", FinishReason.STOP, None, "fake-1", ID),
            id="vendors' fields, reasoning kept out",
        ),
        pytest.param(
            [text("Hi") + chunk({"content": "!"}, "length") + DONE],
            Completion("Hi!", FinishReason.LENGTH, None, "fake-1", ID),
            id="cut by the model's limit",
        ),
        pytest.param(
            [b": keep-alive\n\n", b"\r\n", text("Hi").replace(b"\n", b"\r\n"), STOP],
            Completion("Hi", FinishReason.STOP, None, "fake-1", ID),
            id="comments, CRLF, no [DONE]",
        ),
        pytest.param(
            [bytes([byte]) for byte in answer("Grüß", " 你好", " 😀")],
            Completion("Grüß 你好 😀", FinishReason.STOP, TokenUsage(7, 3), "fake-1", ID),
            id="byte by byte, two halves of one character",
        ),
        pytest.param(
            [
                b'{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant",',
                b'"content":"Whole"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}',
            ],
            Completion("Whole", FinishReason.STOP, TokenUsage(3, 1), "m", "x"),
            id="a whole body, `stream` ignored",
        ),
        pytest.param(
            [chunk({"content": [{"type": "text", "text": "Parts"}, {"type": "x"}]}) + STOP + DONE],
            Completion("Parts", FinishReason.STOP, None, "fake-1", ID),
            id="content in parts",
        ),
    ],
)
async def test_reads_what_servers_really_send(server: ModelServer, parts: list[bytes], expected: Completion) -> None:
    """Each kind of stream that a server was seen to send is read as the answer that it means."""
    server.behaviours = [sends(*parts)]
    assert await ask(server) == expected


async def test_silence_within_the_deadline_is_no_failure(server: ModelServer) -> None:
    """After the role chunk a server may be silent: there is no read timeout below the turn's deadline."""

    async def behave(request: Any) -> Any:
        response = await opened(request, ROLE)
        await asyncio.sleep(0.3)
        await response.write(text("late") + STOP + DONE)
        return response

    server.behaviours = [behave]
    async with model_at(server.base_url) as model:
        assert (await model.ask(QUESTION, user=USER)).text == "late"
        assert model._endpoint._client is not None
        limits = model._endpoint._client.timeout
        assert getattr(limits, "read", 0) is None
        assert getattr(limits, "pool", 0) is None


async def test_an_endless_answer_is_cut(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer beyond the bound is cut there, told so, and the server is left at once."""
    monkeypatch.setattr(sse, "TEXT_MAX_CHARS", 50)

    async def behave(request: Any) -> Any:
        response = await opened(request, ROLE)
        while True:
            await response.write(text("la"))
            await asyncio.sleep(0)

    server.behaviours = [behave]
    async with model_at(server.base_url) as model:
        completion = await model.ask(QUESTION, user=USER)
        assert (completion.text, completion.finish) == ("la" * 25, FinishReason.LENGTH)
        async with asyncio.timeout(10):
            await server.gone.acquire()
        assert open_connections(model) == 0


@pytest.mark.parametrize(
    ("behaviour", "kind", "retryable"),
    [
        pytest.param(sends(b""), ModelErrorKind.EMPTY, True, id="nothing"),
        pytest.param(sends(DONE), ModelErrorKind.EMPTY, True, id="only [DONE]"),
        pytest.param(sends(ROLE + STOP + usage(5, 0) + DONE), ModelErrorKind.EMPTY, True, id="no content"),
        pytest.param(sends(ROLE + text(" \n", "\t") + STOP + DONE), ModelErrorKind.EMPTY, True, id="only blanks"),
        pytest.param(
            sends(ROLE + chunk({}, "length") + DONE), ModelErrorKind.EMPTY, False, id="all spent on reasoning"
        ),
        pytest.param(sends(ROLE + chunk({}, "tool_calls") + DONE), ModelErrorKind.EMPTY, False, id="only a tool call"),
        pytest.param(
            sends(b"<!doctype html><title>Sign in</title>", kind="text/html"), ModelErrorKind.SERVER, False, id="HTML"
        ),
        pytest.param(sends(b"data: {broken\n\n", DONE), ModelErrorKind.SERVER, False, id="broken JSON"),
        pytest.param(sends(b"data: [1, 2]\n\n", DONE), ModelErrorKind.SERVER, False, id="no object"),
        pytest.param(sends(b"data: \xff\xfe\n\n", DONE), ModelErrorKind.SERVER, False, id="no UTF-8"),
        pytest.param(sends(b"data: " + b"[" * 100_000 + b"\n\n"), ModelErrorKind.SERVER, False, id="nested for ever"),
        pytest.param(sends(b"Hello, I am plain text"), ModelErrorKind.SERVER, False, id="text without events"),
        pytest.param(
            sends(b"data: " + b"x" * (sse.EVENT_MAX_BYTES + 1)), ModelErrorKind.SERVER, False, id="endless line"
        ),
        pytest.param(sends(text("A") + b"data: {broken\n\n"), ModelErrorKind.BROKEN_OFF, False, id="broken after text"),
        pytest.param(
            sends(event({"choices": "none", "usage": [1], "model": 5})), ModelErrorKind.SERVER, False, id="types"
        ),
        pytest.param(dies(ROLE), ModelErrorKind.UNREACHABLE, True, id="killed before text"),
        pytest.param(dies(ROLE + text("Half an")), ModelErrorKind.BROKEN_OFF, True, id="killed within text"),
        pytest.param(
            sends(ROLE, event({"error": {"message": "upstream provider timeout"}}, "error"), DONE),
            ModelErrorKind.TIMEOUT,
            False,
            id="provider silent",
        ),
        pytest.param(
            sends(ROLE, text("Half"), event({"error": {"message": "upstream provider error"}}), DONE),
            ModelErrorKind.SERVER,
            False,
            id="provider failing",
        ),
        pytest.param(sends(ROLE, event("boom", "error")), ModelErrorKind.SERVER, False, id="an error event of a text"),
        pytest.param(
            sends(ROLE, event({"message": "boom"}, "error")),
            ModelErrorKind.SERVER,
            False,
            id="an error event without key",
        ),
        pytest.param(
            sends(ROLE, event({"error": {"message": "Overloaded, please try again", "code": 529}})),
            ModelErrorKind.BUSY,
            True,
            id="an error event that asks for a retry",
        ),
        pytest.param(
            sends(b'{"error": "model not loaded"}'), ModelErrorKind.SERVER, False, id="an error as whole body"
        ),
    ],
)
async def test_what_is_no_answer_is_an_error(
    server: ModelServer, behaviour: Behaviour, kind: ModelErrorKind, retryable: bool
) -> None:
    """Status 200 is no answer yet: what follows may be an error, which is never taken for one."""
    server.behaviours = [behaviour]
    error = await fault(server)
    assert (error.kind, error.retryable) == (kind, retryable)
    assert len(server.asked) == 1


async def test_partial_text_before_an_error_is_no_answer(server: ModelServer) -> None:
    """Text that came before an error event is handed out and told with the error, and is no answer."""
    pieces: list[str] = []
    server.behaviours = [sends(ROLE + text("The capital"), event({"error": {"message": "internal error"}}), DONE)]
    error = await fault(server, on_text=pieces.append)
    assert error.began
    assert "".join(pieces) == error.partial == "The capital", "also where it came in one read with the error"
    assert len(server.asked) == 1, "no second try once text had come"


@pytest.mark.parametrize(("elsewhere", "retryable"), [(False, True), (True, False)])
async def test_a_break_within_text_is_not_run_twice_at_a_gateway(
    server: ModelServer, elsewhere: bool, retryable: bool
) -> None:
    """Where the gateway keeps the history, it repeats a broken turn by itself: ours is not tried again."""
    server.behaviours = [dies(ROLE + text("Half an"))]
    error = await fault(server, elsewhere=elsewhere)
    assert (error.kind, error.began, error.retryable) == (ModelErrorKind.BROKEN_OFF, True, retryable)


@pytest.mark.parametrize("behaviour", [sends(DONE), sends(ROLE + STOP + DONE)])
async def test_an_empty_answer_is_not_asked_again_of_a_gateway(server: ModelServer, behaviour: Behaviour) -> None:
    """A gateway has the question in its session by now: another try would put it there twice."""
    server.behaviours = [behaviour]
    assert not (await fault(server, elsewhere=True)).retryable


# --- refusals --------------------------------------------------------------------------------------------------


async def test_each_question_is_one_request(server: ModelServer) -> None:
    """The SDK does not retry by itself: the worker's durable attempts are the only retry."""
    server.behaviours = [
        refuses(503, {"error": {"type": "gateway_unavailable", "message": "x"}}, **{"retry-after": "7"})
    ]
    error = await fault(server)
    assert (error.kind, error.status, error.code) == (ModelErrorKind.UNAVAILABLE, 503, "gateway_unavailable")
    assert (error.retryable, error.waits, error.retry_after) == (True, True, 7.0)
    assert len(server.asked) == 1


async def test_the_words_of_a_400_reach_the_operator(server: ModelServer) -> None:
    """A refused model name is told with the server's words, a remedy, and nothing of what was said."""
    server.behaviours = [refuses(400, {"error": {"message": f"Invalid `model`: use openclaw/<agentId>. key {KEY}"}})]
    error = await fault(server)
    assert (error.kind, error.retryable, error.status) == (ModelErrorKind.BAD_REQUEST, False, 400)
    assert error.reason == "HTTP 400: Invalid `model`: use openclaw/<agentId>. key ***"
    assert "OPENAI_MODEL" in suggest_remedy(error)


async def test_an_echoed_message_is_not_shown(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    """Servers that quote the question in their error do not bring it into logs or dead letters."""
    server.behaviours = [refuses(422, {"detail": f"bad input: {QUESTION[0]['content']!r} at messages[0]"})]
    with caplog.at_level(logging.DEBUG, "claw"):
        error = await fault(server)
    assert "capital" not in "".join(traceback.format_exception(error)) + caplog.text
    assert "messages[0]" in error.reason


async def test_unreachable(server: ModelServer) -> None:
    """A server that nobody listens for is told as unreachable, with the system's words."""
    async with model_at("http://127.0.0.1:9/v1") as model:
        with pytest.raises(ModelError) as caught:
            await model.ask(QUESTION, user=USER)
    assert (caught.value.kind, caught.value.retryable) == (ModelErrorKind.UNREACHABLE, True)
    assert "refused" in caught.value.reason.lower() or "connect" in caught.value.reason.lower()

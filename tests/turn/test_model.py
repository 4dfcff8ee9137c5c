"""`claw.turn.model.client` against local servers that behave as OPENCLAW.md tells, row by row."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from claw.config import settings
from claw.errors import ModelError, ModelErrorKind
from claw.secret import Secret, hash_id
from claw.turn.model import client as llm
from claw.turn.model import sse
from claw.turn.model.client import Completion, ModelClient, Usage, remedy_of
from claw.turn.model.transport import AiohttpTransport
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

KEY = "sk-0123456789abcdef"
USER = hash_id("robot:conversation#1")
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
INTERNAL = {"error": {"message": "internal error", "type": "api_error"}}
OVERFLOW = {"error": {"code": 400, "message": "the request is too big", "type": "exceed_context_size_error"}}


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer().serve() as serving:
        yield serving


@asynccontextmanager
async def model_at(
    base_url: str, *, key: str = KEY, elsewhere: bool = False, timeout: float = 30.0
) -> AsyncIterator[ModelClient]:
    """A Model that is closed in the end, with no task of it left."""
    chosen = settings.ModelSettings(api_key=Secret(key), base_url=base_url, name="openclaw", turn_timeout=timeout)
    before = asyncio.all_tasks()
    model = ModelClient(chosen, history_kept_elsewhere=elsewhere)
    try:
        yield model
    finally:
        await model.close()
        gc.collect()
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() - before if "aclose" in repr(task)] == []


async def ask(server: ModelServer, **options: Any) -> Completion:
    model_options = {name: options.pop(name) for name in ("key", "elsewhere", "timeout") if name in options}
    async with model_at(server.base_url, **model_options) as model:
        return await model.ask(options.pop("messages", QUESTION), user=USER, **options)


async def fault(server: ModelServer, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(server, **options)
    return caught.value


def open_connections(model: ModelClient) -> int:
    """How many connections the model's client holds, in use or kept alive."""
    assert model._client is not None
    transport = model._client._client._transport
    assert isinstance(transport, AiohttpTransport)
    assert transport._session is not None
    connector = transport._session.connector
    assert connector is not None
    return len(connector._acquired) + sum(len(kept) for kept in connector._conns.values())


# --- what is asked ---------------------------------------------------------------------------------------------


async def test_streams_with_usage_and_the_conversation_as_user(server: ModelServer) -> None:
    """A question is one streamed chat completion that names the conversation by its hash."""
    assert await ask(server) == Completion("Hello there", "stop", Usage(7, 2), "fake-1", cut=False)
    assert server.asked == [
        {
            "model": "openclaw",
            "messages": QUESTION,
            "user": USER,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_no_key_no_header(server: ModelServer) -> None:
    """A server without keys is sent no Authorization header, rather than an invented key."""
    await ask(server, key="")
    assert "authorization" not in server.headers[0]


async def test_pictures_pass_unchanged(server: ModelServer) -> None:
    """A picture goes as the data URL that it came as: OpenClaw takes no other."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 9999}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]
    await ask(server, messages=messages)
    assert server.asked[0]["messages"] == messages


async def test_text_is_handed_out_as_it_comes(server: ModelServer) -> None:
    """`on_text` gets each piece while the server is still writing the next."""
    pieces: list[str] = []
    first = asyncio.Event()

    async def behave(request: Any) -> Any:
        response = await opened(request, ROLE + text("Paris"))
        await first.wait()
        await response.write(text(".") + STOP + DONE)
        return response

    server.behaviours = [behave]

    def on_text(piece: str) -> None:
        pieces.append(piece)
        first.set()

    assert (await ask(server, on_text=on_text)).text == "Paris."
    assert pieces == ["Paris", "."]


async def test_what_on_text_raises_comes_out(server: ModelServer) -> None:
    """A fault of ours in `on_text` is not taken for the server's, and leaves no connection behind."""

    def on_text(_: str) -> None:
        raise KeyError("ours")

    server.behaviours = [server.hangs(ROLE + text("Hello"))]
    async with model_at(server.base_url) as model:
        with pytest.raises(KeyError):
            await model.ask(QUESTION, user=USER, on_text=on_text)
        async with asyncio.timeout(10):
            await server.gone.acquire()
        assert open_connections(model) == 0


# --- what servers send -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([answer("Hi")], Completion("Hi", "stop", Usage(7, 1), "fake-1", cut=False), id="openai"),
        pytest.param(
            [ROLE + text("Hi") + STOP + usage(0, 0) + DONE],
            Completion("Hi", "stop", None, "fake-1", cut=False),
            id="usage of zeros is none (OpenClaw)",
        ),
        pytest.param(
            [ROLE + text("Hi") + STOP + DONE], Completion("Hi", "stop", None, "fake-1", cut=False), id="no usage at all"
        ),
        pytest.param(
            [
                chunk({"role": "assistant", "reasoning_content": "Secret thought", "content": None})
                + chunk({"reasoning_content": "more", "content": ""}, timings={"prompt_ms": 1.5})
                + chunk({"content": "Hi", "tool_calls": None}, usage=None)
                + STOP
                + DONE
            ],
            Completion("Hi", "stop", None, "fake-1", cut=False),
            id="vendors' fields, reasoning kept out",
        ),
        pytest.param(
            [text("Hi") + chunk({"content": "!"}, "length") + DONE],
            Completion("Hi!", "length", None, "fake-1", cut=True),
            id="cut by the model's limit",
        ),
        pytest.param(
            [b": keep-alive\n\n", b"\r\n", text("Hi").replace(b"\n", b"\r\n"), STOP],
            Completion("Hi", "stop", None, "fake-1", cut=False),
            id="comments, CRLF, no [DONE]",
        ),
        pytest.param(
            [bytes([byte]) for byte in answer("Grüß", " 你好", " 😀")],
            Completion("Grüß 你好 😀", "stop", Usage(7, 3), "fake-1", cut=False),
            id="byte by byte, two halves of one character",
        ),
        pytest.param(
            [
                b'{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant",',
                b'"content":"Whole"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}',
            ],
            Completion("Whole", "stop", Usage(3, 1), "m", cut=False),
            id="a whole body, `stream` ignored",
        ),
        pytest.param(
            [chunk({"content": [{"type": "text", "text": "Parts"}, {"type": "x"}]}) + STOP + DONE],
            Completion("Parts", "stop", None, "fake-1", cut=False),
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
        assert model._client is not None
        limits = model._client.timeout
        assert getattr(limits, "read", 0) is None
        assert getattr(limits, "pool", 0) is None


async def test_an_endless_answer_is_cut(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer beyond the bound is cut there, told so, and the server is left at once."""
    monkeypatch.setattr(sse, "TEXT_MAX", 50)

    async def behave(request: Any) -> Any:
        response = await opened(request, ROLE)
        while True:
            await response.write(text("la"))
            await asyncio.sleep(0)

    server.behaviours = [behave]
    async with model_at(server.base_url) as model:
        completion = await model.ask(QUESTION, user=USER)
        assert (completion.text, completion.cut, completion.finish_reason) == ("la" * 25, True, "length")
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
        pytest.param(sends(ROLE + text("Half an")), ModelErrorKind.BROKEN_OFF, True, id="no end"),
        pytest.param(
            sends(b"<!doctype html><title>Sign in</title>", kind="text/html"), ModelErrorKind.SERVER, False, id="HTML"
        ),
        pytest.param(sends(b"data: {broken\n\n", DONE), ModelErrorKind.SERVER, False, id="broken JSON"),
        pytest.param(sends(b"data: [1, 2]\n\n", DONE), ModelErrorKind.SERVER, False, id="no object"),
        pytest.param(sends(b"data: \xff\xfe\n\n", DONE), ModelErrorKind.SERVER, False, id="no UTF-8"),
        pytest.param(sends(b"data: " + b"[" * 100_000 + b"\n\n"), ModelErrorKind.SERVER, False, id="nested for ever"),
        pytest.param(sends(b"Hello, I am plain text"), ModelErrorKind.EMPTY, True, id="text without events"),
        pytest.param(sends(b"data: " + b"x" * (sse.EVENT_MAX + 1)), ModelErrorKind.SERVER, False, id="endless line"),
        pytest.param(sends(text("A") + b"data: {broken\n\n"), ModelErrorKind.BROKEN_OFF, False, id="broken after text"),
        pytest.param(
            sends(event({"choices": "none", "usage": [1], "model": 5})), ModelErrorKind.EMPTY, True, id="types"
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
    """Text that came before an error event is thrown away, and the error says that it had come."""
    pieces: list[str] = []
    server.behaviours = [sends(ROLE + text("The capital"), event({"error": {"message": "internal error"}}), DONE)]
    error = await fault(server, on_text=pieces.append)
    assert error.began
    assert "".join(pieces) in {"", "The capital"}, "void either way: it may come in one read with the error"
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
    assert (error.kind, error.status, error.code) == (ModelErrorKind.BUSY, 503, "gateway_unavailable")
    assert (error.retryable, error.retry_after) == (True, 7.0)
    assert len(server.asked) == 1


async def test_the_words_of_a_400_reach_the_operator(server: ModelServer) -> None:
    """A refused model name is told with the server's words, a remedy, and nothing of what was said."""
    server.behaviours = [refuses(400, {"error": {"message": f"Invalid `model`: use openclaw/<agentId>. key {KEY}"}})]
    error = await fault(server)
    assert (error.kind, error.retryable, error.status) == (ModelErrorKind.BAD_REQUEST, False, 400)
    assert error.reason == "HTTP 400: Invalid `model`: use openclaw/<agentId>. key ***"
    assert "OPENAI_MODEL" in remedy_of(error)


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


# --- the second try --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "race", [sends(ROLE, event(INTERNAL, "error"), DONE), sends(ROLE, event(INTERNAL)), refuses(500, INTERNAL)]
)
async def test_the_race_of_first_requests_is_tried_again_at_once(server: ModelServer, race: Behaviour) -> None:
    """OpenClaw's "internal error" to one of two first requests is cured by asking again, once."""
    server.behaviours = [race, sends(answer("Paris"))]
    assert (await ask(server)).text == "Paris"
    server.behaviours = [race]
    server.asked.clear()
    assert (await fault(server)).kind is ModelErrorKind.SERVER
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "overflow",
    [
        refuses(400, OVERFLOW),
        refuses(400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
        sends(ROLE, event({"error": {"message": "too long", "code": "context_length_exceeded"}}), DONE),
        refuses(400, {"object": "error", "message": "This model's maximum context length is 4096 tokens."}),
    ],
    ids=["llama.cpp", "openai", "in the stream", "only words"],
)
async def test_an_overflow_is_tried_again_with_less(server: ModelServer, overflow: Behaviour) -> None:
    """A context overflow is answered by one request with the shortened messages."""
    long = [{"role": "user", "content": "old"}, *QUESTION]
    server.behaviours = [overflow, sends(answer("Paris"))]
    assert (await ask(server, messages=long, shorten=lambda: QUESTION)).text == "Paris"
    assert [asked["messages"] for asked in server.asked] == [long, QUESTION]


@pytest.mark.parametrize(("shorten", "requests"), [(None, 1), (lambda: None, 1), (lambda: QUESTION, 2)])
async def test_an_overflow_that_stays_is_told(
    server: ModelServer, shorten: Callable[[], Any] | None, requests: int
) -> None:
    """What cannot be shortened, or is still too long, is TOO_LONG and not tried again."""
    server.behaviours = [refuses(400, OVERFLOW)]
    error = await fault(server, shorten=shorten)
    assert (error.kind, error.retryable) == (ModelErrorKind.TOO_LONG, False)
    assert len(server.asked) == requests


# --- the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", ROLE, ROLE + text("Half")], ids=["head", "role", "text"])
async def test_the_deadline_ends_everything(server: ModelServer, body: bytes) -> None:
    """A turn ends at its deadline wherever the server hangs, and the server sees the client go."""
    server.behaviours = [server.hangs(body)]
    async with model_at(server.base_url, timeout=1.0) as model:
        await model.warm()
        with pytest.raises(ModelError) as caught:
            await model.ask(QUESTION, user=USER)
        async with asyncio.timeout(10):
            await server.gone.acquire()
        assert open_connections(model) == 0
    assert (caught.value.kind, caught.value.retryable) == (ModelErrorKind.TIMEOUT, False)
    assert caught.value.began == (b"Half" in body)


async def test_the_second_try_has_no_deadline_of_its_own(server: ModelServer) -> None:
    """Both tries share one deadline."""
    server.behaviours = [sends(ROLE, event(INTERNAL)), server.hangs(ROLE)]
    assert (await fault(server, timeout=2.0)).kind is ModelErrorKind.TIMEOUT
    assert len(server.asked) == 2


@pytest.mark.parametrize("body", [ROLE, ROLE + text("Half")], ids=["silent", "writing"])
async def test_stop_closes_the_stream(server: ModelServer, body: bytes) -> None:
    """Cancelling the question closes its connection at once, by which the server stops working."""
    server.behaviours = [server.hangs(body)]
    async with model_at(server.base_url, timeout=300) as model:
        asking = asyncio.create_task(model.ask(QUESTION, user=USER), name="ask")
        async with asyncio.timeout(10):
            while not server.running:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            await server.gone.acquire()
        assert asking.cancelled()
        assert open_connections(model) == 0


async def test_stop_at_any_moment_leaves_nothing(server: ModelServer) -> None:
    """Whenever a question is cancelled, no connection and no task is left, and the next question is answered."""
    server.behaviours = [sends(ROLE, *[text("a")] * 20, STOP, DONE)]
    async with model_at(server.base_url) as model:
        await model.ask(QUESTION, user=USER)
        for rounds in range(60):
            asking = asyncio.create_task(model.ask(QUESTION, user=USER), name="ask")
            for _ in range(rounds):
                await asyncio.sleep(0)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
        assert open_connections(model) <= 1, "only the kept-alive one"
        assert (await model.ask(QUESTION, user=USER)).finish_reason == "stop"


async def test_connections_are_used_again(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions in a row share one connection, a TLS handshake each would be wasted: the body's end is waited for."""
    monkeypatch.setattr(llm, "DRAIN_TIMEOUT", 20)
    ports = set()

    async def behave(request: Any) -> Any:
        ports.add(request.transport.get_extra_info("peername")[1])
        response = await opened(request, answer("Hi"))
        await asyncio.sleep(0.02)
        return response

    server.behaviours = [behave]
    async with model_at(server.base_url) as model:
        for _ in range(5):
            await model.ask(QUESTION, user=USER)
    assert len(ports) == 1


async def test_a_body_without_end_is_left(server: ModelServer) -> None:
    """After `[DONE]` the answer is there, whether or not the server ever ends the body."""
    server.behaviours = [server.hangs(answer("Hi"))]
    async with model_at(server.base_url, timeout=300) as model, asyncio.timeout(20):
        assert (await model.ask(QUESTION, user=USER)).text == "Hi"
        await server.gone.acquire()
        assert open_connections(model) == 0


async def test_many_conversations_at_once(server: ModelServer) -> None:
    """More streams than HTTPX2's own limit of 100 run at the same time: CLAW_MAX_CONCURRENCY goes to 1000."""
    count, together = 120, asyncio.Event()

    async def behave(request: Any) -> Any:
        response = await opened(request, ROLE)
        if server.running == count:
            together.set()
        await together.wait()
        await response.write(text("Hi") + STOP + DONE)
        return response

    server.behaviours = [behave]
    async with model_at(server.base_url, timeout=60) as model:
        answers = await asyncio.gather(*[model.ask(QUESTION, user=USER) for _ in range(count)])
        assert {each.text for each in answers} == {"Hi"}


async def test_warm_is_shared_and_never_fails(
    monkeypatch: pytest.MonkeyPatch, server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Warming twice builds one client; what makes it impossible is logged by `warm` and told by `ask`."""
    async with model_at(server.base_url) as model:
        await asyncio.gather(model.warm(), model.warm())
        client = model._client
        await model.ask(QUESTION, user=USER)
        assert model._client is client
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    async with model_at(server.base_url) as model:
        await model.warm()
        assert "cannot be built" in caplog.text
        with pytest.raises(ModelError):
            await model.ask(QUESTION, user=USER)

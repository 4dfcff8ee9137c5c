"""`claw.turn.model.client`: what it asks, when it asks a second time, and how it ends; over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from claw.errors import ModelError, ModelErrorKind
from claw.turn.model import client as client_module
from claw.turn.model.chat import Completion
from claw.turn.model.finish import FinishReason
from claw.turn.model.sse import TokenUsage
from tests.turn.asking import ID, KEY, QUESTION, USER, QuickClock, ask, fault, model_at, open_connections
from tests.turn.servers import (
    DONE,
    ROLE,
    STOP,
    Behaviour,
    ModelServer,
    answer,
    event,
    opened,
    refuses,
    sends,
    text,
)

INTERNAL = {"error": {"message": "internal error", "type": "api_error"}}
OVERFLOW = {"error": {"code": 400, "message": "the request is too big", "type": "exceed_context_size_error"}}


# --- what is asked ---------------------------------------------------------------------------------------------


async def test_streams_with_usage_and_the_conversation_as_user(server: ModelServer) -> None:
    """A question is one streamed chat completion that names the conversation by its hash."""
    assert await ask(server) == Completion("Hello there", FinishReason.STOP, TokenUsage(7, 2), "fake-1", ID)
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


# --- the second try --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "race", [sends(ROLE, event(INTERNAL, "error"), DONE), sends(ROLE, event(INTERNAL)), refuses(500, INTERNAL)]
)
async def test_the_race_on_a_session_is_waited_out(server: ModelServer, race: Behaviour) -> None:
    """OpenClaw's "internal error" is asked again soon, and for as long as it takes to recover a session: some 15 s."""
    clock = QuickClock()
    server.behaviours = [race, race, race, sends(answer("Paris"))]
    assert (await ask(server, clock=clock)).text == "Paris"
    assert clock.slept == [0.2, 1.0, 2.0]
    server.behaviours = [race]
    server.asked.clear()
    clock = QuickClock()
    error = await fault(server, clock=clock)
    assert (error.kind, error.code, error.retryable) == (ModelErrorKind.SERVER, "session_race", False)
    assert len(server.asked) == 6
    assert 10 < sum(clock.slept) < 16


async def test_the_recovery_of_a_gateway_that_keeps_sessions_is_waited_for(server: ModelServer) -> None:
    """It says so for as long as it runs the turn that a crash broke: nothing has begun, so the worker waits."""
    server.behaviours = [sends(ROLE, event(INTERNAL, "error"), DONE)]
    error = await fault(server, clock=QuickClock(), elsewhere=True)
    assert (error.code, error.waits, error.retryable, error.began) == ("session_race", True, True, False)


async def test_an_internal_error_within_text_is_no_race(server: ModelServer) -> None:
    """Once text has come the agent has worked: nothing is asked again."""
    server.behaviours = [sends(ROLE + text("Half"), event(INTERNAL, "error"), DONE)]
    assert (await fault(server)).partial == "Half"
    assert len(server.asked) == 1


async def test_a_race_that_took_minutes_is_none(server: ModelServer) -> None:
    """What the server says after a minute is the end of its own tries."""
    clock = QuickClock()

    async def behave(request: Any) -> Any:
        await clock.sleep(70)
        return await refuses(500, INTERNAL)(request)

    server.behaviours = [behave]
    assert not (await fault(server, clock=clock)).retryable
    assert len(server.asked) == 1


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
        assert (await model.ask(QUESTION, user=USER)).is_whole


async def test_connections_are_used_again(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions in a row share one connection, a TLS handshake each would be wasted: the body's end is waited for."""
    monkeypatch.setattr(client_module, "DRAIN_TIMEOUT_S", 20)
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
        client = model._endpoint._client
        await model.ask(QUESTION, user=USER)
        assert model._endpoint._client is client
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    async with model_at(server.base_url) as model:
        await model.warm()
        assert "cannot be built" in caplog.text
        with pytest.raises(ModelError):
            await model.ask(QUESTION, user=USER)

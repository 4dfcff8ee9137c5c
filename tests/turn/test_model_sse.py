"""Parsing an answer off the wire: hostile bytes, split anywhere."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc
from contextlib import suppress

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from claw.config import settings as claw_settings
from claw.errors import ModelError
from claw.secret import Secret
from claw.turn.model import sse
from claw.turn.model.chat import Completion
from claw.turn.model.client import ModelClient
from claw.turn.model.sse import EventError, StreamParser, UnreadableError
from tests.turn.servers import DONE, ModelServer, answer, chunk, event, opened, sends, text

SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
FIELD = st.sampled_from(
    [
        "choices",
        "delta",
        "message",
        "content",
        "finish_reason",
        "index",
        "usage",
        "prompt_tokens",
        "error",
        "id",
        "text",
    ]
)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=5),
    max_leaves=15,
)
CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "choices": JSON
        | st.lists(
            st.fixed_dictionaries({}, optional={"index": JSON, "delta": JSON, "message": JSON, "finish_reason": JSON}),
            max_size=3,
        ),
        "usage": JSON | st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), JSON),
        "model": JSON,
        "id": JSON,
        "error": JSON,
    },
)
WIRE = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([b"\n", b"\r\n", b"data: ", b"event: error\n", b": ping\n\n", b"data: [DONE]\n\n", b"<", b"{"])
    | (CHUNK | JSON).map(event)
    | st.text(max_size=9).map(text),
    max_size=8,
)


def read(parts: list[bytes]) -> tuple[StreamParser, str]:
    parser, got = StreamParser(), ""
    for part in parts:
        got += parser.feed(part)
        if parser.finished:
            break
    return parser, got + parser.end()


@given(WIRE)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_but_two_errors(parts: list[bytes]) -> None:
    """Whatever comes, it is text that can be written anywhere, or one of two errors."""
    with suppress(EventError, UnreadableError):
        parser, got = read(parts)
        assert got == parser.text
        got.encode()


@given(st.lists(st.text(st.characters(), max_size=6), max_size=4), st.lists(st.integers(1, 90), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_where_it_is_split_does_not_matter(pieces: list[str], sizes: list[int]) -> None:
    """Packets may end anywhere: within a line, within a character."""
    wire, parts = answer(*pieces), []
    for size in itertools.cycle(sizes):
        parts.append(wire[:size])
        wire = wire[size:]
        if not wire:
            break
    parser, got = read(parts)
    assert got == parser.text == "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert parser.done


def test_halves_of_a_character() -> None:
    """A character whose two halves come escaped in two chunks is put together; a half alone is replaced."""
    wire = [chunk({"content": "a\ud83d"}), chunk({"content": "\ude00b"}), chunk({"content": "\ude00"}), DONE]
    assert read(wire)[1] == "a😀b\ufffd"


def test_an_event_over_several_lines() -> None:
    """Data lines of one event belong together, as the standard has it."""
    wire = b'event: message\nid: 7\nretry: 10\ndata: {"choices": [{"delta":\ndata: {"content": "Hi"}}]}\n\n' + DONE
    assert read([wire])[1] == "Hi"


@pytest.mark.parametrize("blanks", [b"", b"\xef\xbb\xbf", b"\r\n\r\n  "])
def test_what_comes_first_may_be_blank(blanks: bytes) -> None:
    """A byte order mark or blank lines before the answer say nothing."""
    assert read([blanks, answer("Hi")])[1] == "Hi"
    assert read([blanks, b'{"choices": [{"message": {"content": "Hi"}}]}'])[1] == "Hi"


@pytest.mark.parametrize("part", [b" ", b"data: x\n", b"{", b"data"])
def test_size_is_bounded(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no end is given up before it fills the memory."""
    monkeypatch.setattr(sse, "EVENT_MAX_BYTES", 1000)
    parser = StreamParser()

    def feed() -> None:
        for _ in range(2000):
            parser.feed(part)

    with pytest.raises(UnreadableError):
        feed()


async def test_a_line_of_100_megabytes() -> None:
    """A line of 100 MB ends in an error early, in bounded memory; the SDK's reader would keep all of it."""
    part, written = b"x" * 65_536, 0

    async def behave(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = await opened(request, b"data: ")
        while written < 100 * 1_048_576:
            await response.write(part)
            written += len(part)
        return response

    async with ModelServer().serve() as server:
        server.behaviours = [behave]
        chosen = claw_settings.ModelSettings(api_key=Secret("k"), base_url=server.base_url)
        model = ModelClient(chosen, history_kept_elsewhere=False)
        await model.warm()
        tracemalloc.start()
        try:
            with pytest.raises(ModelError, match="an event came that has no end"):
                await model.ask([{"role": "user", "content": "?"}], user="u")
            assert tracemalloc.get_traced_memory()[1] < 6 * sse.EVENT_MAX_BYTES
            async with asyncio.timeout(10):
                await server.gone.acquire()
        finally:
            tracemalloc.stop()
            await model.close()
    assert written < 50 * 1_048_576


def test_only_the_first_choice_counts() -> None:
    """A second choice is no part of the answer."""
    choices = [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}]
    assert read([event({"choices": choices}), DONE])[1] == "yes"


def test_nothing_after_done_is_read() -> None:
    """`[DONE]` ends the answer, whatever follows it."""
    assert read([text("Hi") + DONE + text("more") + b"data: {broken\n\n"])[1] == "Hi"


def test_hostile_servers_end_in_an_answer_or_a_model_error() -> None:
    """Over a real socket too, an answer or a ModelError is all that comes out."""
    server = ModelServer()

    async def ask(model: ModelClient, parts: list[bytes]) -> None:
        server.behaviours = [sends(*[part for part in parts if part])]
        with suppress(ModelError):
            assert isinstance(await model.ask([{"role": "user", "content": "?"}], user="u"), Completion)

    with asyncio.Runner() as runner:
        serving = server.serve()
        runner.run(serving.__aenter__())
        model = ModelClient(
            claw_settings.ModelSettings(api_key=Secret("k"), base_url=server.base_url), history_kept_elsewhere=False
        )

        @given(WIRE)
        @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @example([json.dumps({"choices": [{"message": {"content": "x"}}]}).encode()])
        def check(parts: list[bytes]) -> None:
            runner.run(ask(model, parts))

        try:
            check()
        finally:
            runner.run(model.close())
            runner.run(serving.__aexit__(None, None, None))

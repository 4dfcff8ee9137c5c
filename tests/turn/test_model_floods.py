"""What a server sends in floods: the loop goes on meanwhile, and the answer has an end."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from claw.errors import ModelError, ModelErrorKind
from claw.turn.model.errors import mask_echo
from claw.turn.model.sse import EVENT_MAX_BYTES, StreamParser, UnreadableError
from claw.turn.model.transport import ERROR_BODY_MAX_BYTES
from tests.turn.asking import ask, fault, model_at
from tests.turn.servers import DONE, STOP, Behaviour, ModelServer, opened, refuses, sends, text

LAG_MAX_S = 1.0
"""What `/health` may take at most; the tests' servers share the loop, and the machine others' work."""


@asynccontextmanager
async def watch_lag() -> AsyncIterator[list[float]]:
    """Give a list of one figure, the longest time that the loop took for a turn."""
    worst = [0.0]

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            worst[0] = max(worst[0], time.perf_counter() - before)

    task = asyncio.create_task(watch(), name="tests.lag")
    try:
        yield worst
    finally:
        task.cancel()


def floods(part: bytes, times: int) -> Behaviour:
    """Answer with status 200 and the same part many times."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await opened(request)
        for _ in range(times):
            await response.write(part)
        return response

    return behave


@pytest.mark.parametrize("line", [b":\n", b"\n", b": comment\n\n"])
async def test_a_flood_of_comments(server: ModelServer, line: bytes) -> None:
    """Comments only keep a connection alive: a flood of them ends the request, and the loop goes on meanwhile."""
    server.behaviours = [floods(b"data: {}\n\n" + line * (65_536 // len(line)), 400)]
    async with watch_lag() as worst:
        assert (await fault(server)).kind is ModelErrorKind.SERVER
    assert worst[0] < LAG_MAX_S


async def test_comments_between_texts_are_no_flood(server: ModelServer) -> None:
    """A keep-alive each second, for hours, is passed over."""
    server.behaviours = [sends(b": ping\n\n" * 20_000, text("fine"), STOP, DONE)]
    assert (await ask(server)).text == "fine"


def test_wrapped_lines_are_linear() -> None:
    """A line of nothing but `data:` is looked at a few times only."""
    parser = StreamParser()
    before = time.perf_counter()
    parser.feed(b"data:" * (EVENT_MAX_BYTES // 10) + b"\n")
    assert time.perf_counter() - before < LAG_MAX_S
    with pytest.raises(UnreadableError):
        parser.feed(b"\n")


async def test_an_echo_of_long_conversations(server: ModelServer) -> None:
    """24 long conversations that meet an error of many words at once: the loop goes on, and no words are shown."""
    messages = [{"role": "user", "content": f"{n} " + "abcdefg " * 2_500} for n in range(12)]
    server.behaviours = [refuses(400, {"error": {"message": "abcdefgh abcdefg1" * 40}})]
    async with model_at(server.base_url) as model:
        # One client, built before: a certificate store for each of them is the test's work, not the service's.
        await model.warm()
        async with watch_lag() as worst:
            questions = (model.ask(messages, user=str(n)) for n in range(24))
            errors = await asyncio.gather(*questions, return_exceptions=True)
    for error in errors:
        assert isinstance(error, ModelError)
        assert "abcdefg " not in error.reason
    assert worst[0] < LAG_MAX_S


def test_echoes_are_looked_for_in_bounded_time() -> None:
    """A million characters of private texts cost milliseconds, and what a reason quotes of them is masked still."""
    book = "".join(chr(0x4E00 + (n * n * 7 + n) % 20_011) for n in range(1_000_000))
    before = time.perf_counter()
    for start in (0, 500_003, 999_800):
        shown = mask_echo(f"no such {book[start : start + 200]} field", [book, "k" * 20])
        assert not set(shown) & set(book[start + 10 : start + 190])
    assert mask_echo("unknown kkkkkkkkkk word", [book, "k" * 20]) == "unknown *** word"
    assert time.perf_counter() - before < 1


async def test_no_encodings_are_asked_for(server: ModelServer) -> None:
    """Bodies come as they are."""
    await ask(server)
    assert server.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [200, 400])
async def test_a_packed_body_is_not_unpacked(server: ModelServer, status: int) -> None:
    """A few kilobytes that stand for gigabytes are refused unread, also as an error."""
    packed = gzip.compress(b": comment\n" * 2_000_000)

    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=packed, headers={"content-encoding": "gzip"})

    server.behaviours = [behave]
    async with watch_lag() as worst:
        error = await fault(server)
    assert worst[0] < LAG_MAX_S
    assert ("compressed" in error.reason) if status == 200 else (error.reason == "HTTP 400")
    assert not error.retryable


async def test_an_error_without_an_end(server: ModelServer) -> None:
    """Of an error only the beginning is read, which holds its words."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=400, headers={"content-type": "text/plain"})
        await response.prepare(request)
        while True:
            await response.write(b"no such thing " + b"x" * ERROR_BODY_MAX_BYTES)
            await asyncio.sleep(0)

    server.behaviours = [behave]
    async with asyncio.timeout(20), watch_lag() as worst:
        assert (await fault(server)).reason.startswith("HTTP 400: no such thing")
    assert worst[0] < LAG_MAX_S
    async with asyncio.timeout(5):
        await server.gone.acquire()


@pytest.mark.parametrize("word", ["unknown ", "param unknown ", "unsupported field ", "key ", "input not valid "])
async def test_refusals_are_searched_quickly(server: ModelServer, word: str) -> None:
    """Words that nearly refuse a field, again and again, keep nobody waiting."""
    server.behaviours = [refuses(400, {"error": {"message": word * 100}})]
    async with watch_lag() as worst:
        await fault(server)
    assert worst[0] < LAG_MAX_S

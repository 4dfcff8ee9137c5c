"""`/metrics`: the text of the meters for everybody, rendered once for all who ask, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

from claw.http.metrics import CACHE_S, CONTENT_TYPE, routes
from claw.http.server import Server
from claw.secret import Secret
from tests.clock import FakeClock

TEXT = b"# TYPE claw_stream_connected gauge\nclaw_stream_connected 2.0\n"


@asynccontextmanager
async def serving(render: Callable[[], bytes | None], clock: FakeClock) -> AsyncIterator[aiohttp.ClientSession]:
    """A server with that route alone, and a client of it."""
    token = Secret("admin-token-of-this-test")
    server = Server("127.0.0.1", 0, public=routes(render, clock), admin_token=lambda: token)
    await server.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client
    await server.stop()


async def test_the_text_is_for_everybody() -> None:
    """Without a token the text comes as it was rendered, with the content type of Prometheus' format."""
    async with serving(lambda: TEXT, FakeClock()) as client, client.get("/metrics") as response:
        assert (response.status, await response.read()) == (200, TEXT)
        assert response.headers["Content-Type"] == CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
        assert response.headers["Server"] == "claw"
        assert response.headers["Cache-Control"] == "no-store"


async def test_what_cannot_be_read_is_said() -> None:
    """Where no reader of ours is installed the answer is 503 with a reason, so that the target is seen to be down."""
    async with serving(lambda: None, FakeClock()) as client, client.get("/metrics") as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "no_metrics"


async def test_a_crowd_costs_one_rendering() -> None:
    """Whoever asks while the text is rendered, or within CACHE_S after, gets the same; then it is rendered anew."""
    clock, asked = FakeClock(), 0

    def render() -> bytes:
        nonlocal asked
        asked += 1
        return b"%d" % asked

    async def read(client: aiohttp.ClientSession) -> bytes:
        async with client.get("/metrics") as response:
            return await response.read()

    async with serving(render, clock) as client:
        assert set(await asyncio.gather(*(read(client) for _ in range(20)))) == {b"1"}
        await clock.advance(CACHE_S)
        assert await read(client) == b"2"


async def test_rendering_leaves_the_loop_alone() -> None:
    """While a thread renders, the loop answers others."""
    begun, go_on = threading.Event(), threading.Event()

    def render() -> bytes:
        begun.set()
        go_on.wait(30)
        return threading.current_thread().name.encode()

    async with serving(render, FakeClock()) as client:
        asking = asyncio.create_task(client.get("/metrics"))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        async with client.get("/nothing") as response:
            assert response.status == 404
        assert not asking.done()
        go_on.set()
        async with await asking as response:
            assert (await response.text()) != threading.main_thread().name


async def test_only_get_is_answered() -> None:
    """Another method is refused with 405."""
    async with serving(lambda: TEXT, FakeClock()) as client, client.post("/metrics") as response:
        assert response.status == 405

"""Sending: what is sent a second time, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from claw import http_client
from claw.http_client import http_session, read_at_most, send

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers and keeps its connections, but closes those in `doomed` when the next request comes on them."""

    def __init__(self) -> None:
        self.url = URL()
        self.requests = 0
        self.opened: list[asyncio.StreamWriter] = []
        self.doomed: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                if writer in self.doomed:
                    break
                writer.write(ANSWER)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = URL(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/")
    try:
        yield server
    finally:
        listener.close()
        for writer in server.opened:
            writer.close()


async def post(session: aiohttp.ClientSession, url: URL) -> bytes | None:
    async with await send(session, "POST", url) as response:
        return await read_at_most(response, 100)


async def test_several_dead_connections_of_the_pool_cost_nothing() -> None:
    """Each pooled connection that turns out to be dead is passed over; a new one brings the answer."""
    async with serving() as server, http_session() as session:
        await asyncio.gather(*(post(session, server.url) for _ in range(3)))
        server.doomed = set(server.opened)
        assert await post(session, server.url) == b"ok"
        assert len(server.opened) == 4


async def test_a_new_connection_that_breaks_is_an_error() -> None:
    """The server had the request: it is not sent again."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        heard.append(writer)
        writer.close()

    heard: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listener, http_session() as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(session, URL(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"))
    assert len(heard) == 1


async def test_a_pooled_connection_that_dies_late_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """After DEAD_WITHIN_S the server has ended it, who may have begun to work."""
    monkeypatch.setattr(http_client, "DEAD_WITHIN_S", 0.0)
    async with serving() as server, http_session() as session:
        await post(session, server.url)
        server.doomed = set(server.opened)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(session, server.url)
        assert server.requests == 2


async def test_a_session_without_the_trace_sends_once() -> None:
    """Where nobody can tell that a connection was pooled, nothing is sent a second time."""
    async with serving() as server, aiohttp.ClientSession() as session:
        await post(session, server.url)
        server.doomed = set(server.opened)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(session, server.url)


async def test_other_requests_of_the_session_are_left_alone() -> None:
    """A WebSocket or a registration on a pooled connection brings no note, and works as ever."""
    async with serving() as server, http_session() as session:
        for _ in range(2):
            async with session.get(server.url) as response:
                assert await response.read() == b"ok"
        assert len(server.opened) == 1


@pytest.mark.parametrize(("max_bytes", "body"), [(2, b"ok"), (1, None)])
async def test_a_body_is_read_up_to_its_limit(max_bytes: int, body: bytes | None) -> None:
    """A longer body is told apart from an empty one."""
    async with (
        serving() as server,
        http_session() as session,
        await send(session, "GET", server.url) as response,
    ):
        assert await read_at_most(response, max_bytes) == body

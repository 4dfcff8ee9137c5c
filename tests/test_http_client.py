"""Sending: once, whatever the server does with its connections."""

from __future__ import annotations

import asyncio
import gzip
import select
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest
from yarl import URL

from claw.http_client import GRACE_S, TunnelError, deadline, http_session, read_at_most, send

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


class HostileServer:
    """Answers the first request of each connection, then does `then` with it, in a thread with plain sockets.

    So a test says exactly what is read and when a connection ends, also while the loop stands still.
    """

    def __init__(self, then: Callable[[HostileServer, socket.socket], None]) -> None:
        self._then = then
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = URL(f"http://127.0.0.1:{self._listener.getsockname()[1]}/")
        self.requests = 0
        self.connections = 0

    def read(self, connection: socket.socket) -> bool:
        """Read one request, in whatever pieces it comes."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            piece = connection.recv(65536)
            if not piece:
                return False
            raw += piece
        self.requests += 1
        return True

    def run(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        # A close alone would leave the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection:
            try:
                if self.read(connection):
                    connection.sendall(ANSWER)
                    self._then(self, connection)
            except OSError:
                pass


@contextmanager
def hostile(then: Callable[[HostileServer, socket.socket], None]) -> Iterator[HostileServer]:
    server = HostileServer(then)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(5)


def close_after_reading(server: HostileServer, connection: socket.socket) -> None:
    server.read(connection)


def reset_after_reading(server: HostileServer, connection: socket.socket) -> None:
    server.read(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def close_before_reading(_: HostileServer, connection: socket.socket) -> None:
    select.select([connection], [], [], 5)


def close_at_once(_: HostileServer, connection: socket.socket) -> None:
    """Close as soon as the answer is out, as a server does with whom it does not want to keep."""


class Server:
    """Answers, and keeps its connections."""

    def __init__(self) -> None:
        self.url = URL()
        self.requests = 0
        self.opened: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
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


@pytest.mark.parametrize("then", [close_after_reading, reset_after_reading, close_before_reading])
async def test_a_kept_connection_that_breaks_at_its_next_use_is_an_error(
    then: Callable[[HostileServer, socket.socket], None],
) -> None:
    """Whether the second request was read cannot be told from here: it is never sent again behind anybody's back."""
    with hostile(then) as server:
        async with http_session() as session:
            await post(session, server.url)
            with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
                await post(session, server.url)
            assert server.connections == 1
            assert server.requests == 1 + (then is not close_before_reading)
            # The broken one is out of the pool.
            assert await post(session, server.url) == b"ok"


async def test_connections_that_died_while_the_loop_was_busy_cost_nothing() -> None:
    """Their ends wait in the kernel, unread: the request goes out once, on a new connection."""
    with hostile(close_at_once) as server:
        async with http_session() as session:
            await asyncio.gather(*(post(session, server.url) for _ in range(3)))
            time.sleep(0.2)  # noqa: ASYNC251 - nothing but this test's loop is to stand still
            assert await post(session, server.url) == b"ok"
            assert (server.requests, server.connections) == (4, 4)


async def test_a_kept_connection_is_used_again() -> None:
    """Looking for dead connections costs none that live."""
    async with serving() as server, http_session() as session:
        for _ in range(3):
            assert await post(session, server.url) == b"ok"
        assert (server.requests, len(server.opened)) == (3, 1)


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


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", 407),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", 502),
        (b"", None),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(answer: bytes, status: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses CONNECT, or hangs up: surely nothing was sent, and the error names neither address nor header."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    heard: list[bytes] = []
    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    async with listener, http_session() as session:
        with pytest.raises(TunnelError) as caught:
            await send(session, "POST", URL("https://api.example/path?session=00ff"), data=b"x")
    assert caught.value.status == status
    assert "00ff" not in str(caught.value)
    assert [head.split()[0] for head in heard] == [b"CONNECT"]


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


async def test_a_body_that_is_packed_stays_packed() -> None:
    """Nobody asked for it, and a few kilobytes may stand for gigabytes."""
    packed = gzip.compress(bytes(50_000_000))
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = URL(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/")
    async with listener, http_session() as session, await send(session, "GET", url) as response:
        assert await read_at_most(response, 1_000_000) == packed
    assert b"Accept-Encoding: identity" in asked[0]


# --- a deadline ----------------------------------------------------------------------------------------------------


def stand_still(seconds: float, after: float) -> None:
    """Let the whole loop stand still, as in a process that is stopped."""
    asyncio.get_running_loop().call_later(after, time.sleep, seconds)


def answer_late(server: HostileServer, connection: socket.socket) -> None:
    server.read(connection)
    time.sleep(0.4)
    connection.sendall(ANSWER)


async def test_an_answer_that_came_while_we_stood_still_is_read() -> None:
    """A timer that fires late measured our own sleep: the answer lies in the socket."""
    with hostile(answer_late) as server:
        async with http_session() as session:
            await post(session, server.url)
            stand_still(1.0, after=0.1)
            async with deadline(0.3):
                assert await post(session, server.url) == b"ok"


async def test_standing_still_is_no_answer() -> None:
    """Where none came meanwhile the call ends after a moment; one in time is not given one."""
    began = time.monotonic()
    stand_still(0.8, after=0.05)
    with pytest.raises(TimeoutError):
        async with deadline(0.1):
            await asyncio.sleep(60)
    assert 0.8 + GRACE_S - 0.1 < time.monotonic() - began < 0.8 + GRACE_S + 1
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with deadline(0.1):
            await asyncio.sleep(60)
    assert time.monotonic() - began < GRACE_S


async def test_a_process_that_always_stands_still_has_deadlines_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each grace may be late, too: there are only so many."""
    monkeypatch.setattr("claw.http_client.GRACE_S", 0.05)
    done = asyncio.Event()

    async def stutter() -> None:
        while not done.is_set():
            time.sleep(0.4)  # noqa: ASYNC251 - the loop is to stand still
            await asyncio.sleep(0)

    task = asyncio.create_task(stutter())
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with deadline(0.05):
            await asyncio.sleep(60)
    done.set()
    await task
    assert time.monotonic() - began < 10


async def test_what_ends_in_time_meets_no_deadline() -> None:
    """The block's own end, error and cancellation pass through; nothing fires afterwards."""
    async with deadline(0.05):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="own"):
        async with deadline(0.05):
            raise ValueError("own")

    async def wait() -> None:
        async with deadline(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)

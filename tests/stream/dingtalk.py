"""A small DingTalk on loopback for this room: a gateway and its sockets, with a switch for each fault."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.test_utils import TestServer

PATH = "/v1.0/gateway/connections/open"


class Peer:
    """DingTalk's end of one socket."""

    def __init__(self, number: int, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.number = number
        self.socket = socket
        self.request = request
        self.acks: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.pings = 0
        self.pongs: list[bytes] = []
        self.closed = asyncio.Event()
        self.close_code: int | None = None

    async def push(self, text: str) -> None:
        await self.socket.send_str(text)

    async def ack(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return await self.acks.get()

    def reset(self) -> None:
        """Drop the connection without a word."""
        transport = self.request.transport
        if transport is not None:
            transport.abort()


class DingTalk:
    """Switches: `answer` (gateway), `upgrade` (status to refuse with, and `location`), `greet` (after open), `pongs`.

    `single`: each new socket closes the others.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.host = "127.0.0.1"
        self._tls = tls
        self.registrations: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.peers: list[Peer] = []
        self.journal: list[str] = []
        self.answer: Callable[[], Awaitable[web.Response]] | None = None
        self.upgrade = 0
        self.location = ""
        self.greet: Callable[[Peer], Awaitable[None]] | None = None
        self.pongs = True
        self.single = False
        self._numbers = itertools.count(1)
        self._opened: asyncio.Queue[Peer] = asyncio.Queue()
        self._server = TestServer(self._app(), host="127.0.0.1")

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post(PATH, self._gateway)
        app.router.add_get("/connect", self._connect)
        return app

    @property
    def port(self) -> int:
        assert self._server.port is not None
        return self._server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://{self.host}:{self.port}/connect"

    async def peer(self) -> Peer:
        """The next socket that was opened."""
        async with asyncio.timeout(10):
            return await self._opened.get()

    async def _gateway(self, request: web.Request) -> web.Response:
        self.registrations.append(await request.json())
        self.headers.append(dict(request.headers))
        if self.answer is not None:
            return await self.answer()
        return web.json_response({"endpoint": self.endpoint, "ticket": f"ticket-{len(self.registrations)}"})

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        if self.upgrade:
            headers = {"Location": self.location} if self.location else None
            return web.json_response({"code": "authFailed"}, status=self.upgrade, headers=headers)
        socket = web.WebSocketResponse(autoping=False, timeout=1)
        await socket.prepare(request)
        peer = Peer(next(self._numbers), socket, request)
        if self.single:
            for other in self.peers:
                other.reset()
        self.peers.append(peer)
        self.journal.append(f"open {peer.number}")
        self._opened.put_nowait(peer)
        try:
            await self._serve(peer)
        finally:
            peer.close_code = socket.close_code
            self.journal.append(f"close {peer.number}")
            peer.closed.set()
        return socket

    async def _serve(self, peer: Peer) -> None:
        if self.greet is not None:
            await self.greet(peer)
        async for message in peer.socket:
            if message.type is WSMsgType.PING:
                peer.pings += 1
                if self.pongs:
                    await peer.socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                peer.pongs.append(bytes(message.data))
            elif message.type is WSMsgType.TEXT:
                peer.acks.put_nowait(json.loads(message.data))

    async def __aenter__(self) -> DingTalk:
        await self._server.start_server(ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.peers:
            with contextlib.suppress(ConnectionError):
                await peer.socket.close(code=WSCloseCode.GOING_AWAY)
        await self._server.close()


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail when a task is alive at the end that was not there before."""
    before = asyncio.all_tasks()
    yield
    own = asyncio.current_task()  # a fixture's end runs in a task of its own
    deadline = asyncio.get_running_loop().time() + 5
    while left := asyncio.all_tasks() - before - {own}:
        assert asyncio.get_running_loop().time() < deadline, left
        await asyncio.wait(left, timeout=0.01)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds, for 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)

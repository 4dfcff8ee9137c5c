"""A TCP relay on a port of its own, between claw and whatever it talks to: Redis, or DingTalk.

Order of events: a client connects, its first line is looked at, the target is dialled, and bytes pass both ways until
either side ends. `stall` holds everything back as a network does that lost its way: connections stay open and nobody is
told. `cut` ends what is open and refuses the rest. `pretend` answers in the target's place, as a proxy does that cannot
reach it; a WebSocket is left alone, since such proxies sit before the HTTP calls only. `heal` takes each of them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Final

CHUNK_BYTES: Final = 1 << 16
WEBSOCKET: Final = b"GET /connect"
"""How the request for a session begins (docs/protocol.md section 1.4)."""
_LENGTH: Final = re.compile(rb"^content-length:\s*(\d+)", re.IGNORECASE | re.MULTILINE)


class Relay:
    """`open` and `peak` count connections, WebSockets left out; `refused` those that got another's answer."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.open = 0
        self.peak = 0
        self.refused = 0
        self._passes = asyncio.Event()
        self._passes.set()
        self._answer = b""
        self._is_cut = False
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], bytes] = {}
        """By the task that serves it: its first line."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._end(spare=b"-")

    # --- what goes wrong ---

    def stall(self) -> None:
        self._passes.clear()

    async def cut(self) -> None:
        self._is_cut = True
        await self._end(spare=b"-")

    async def pretend(self, answer: bytes) -> None:
        """Answer every call with these bytes, a whole HTTP response."""
        self._answer = answer
        await self._end(spare=WEBSOCKET)

    def heal(self) -> None:
        self._passes.set()
        self._is_cut = False
        self._answer = b""

    # --- passing on ---

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = b""
        try:
            if not self._is_cut:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    await self._serve(task, reader, writer)
        except asyncio.CancelledError:
            pass  # By `_end`, which waits for it; there is nothing above to be told.
        finally:
            del self._connections[task]
            writer.transport.abort()

    async def _serve(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        first = await reader.readuntil(b"\n")
        self._connections[task] = first
        is_socket = first.startswith(WEBSOCKET)
        if self._answer and not is_socket:
            self.refused += 1
            head = await reader.readuntil(b"\r\n\r\n")
            if length := _LENGTH.search(head):
                # Unread, the body would make the kernel reset the connection before the answer is seen.
                await reader.readexactly(int(length[1]))
            writer.write(self._answer)
            await writer.drain()
            writer.write_eof()
            await reader.read(1)
            return
        self.open += not is_socket
        self.peak = max(self.peak, self.open)
        try:
            await self._passes.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                far_writer.write(first)
                ways = [asyncio.create_task(self._pump(reader, far_writer), name="relay-there")]
                ways.append(asyncio.create_task(self._pump(far_reader, writer), name="relay-back"))
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            finally:
                far_writer.transport.abort()
        finally:
            self.open -= not is_socket

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
        # What was written last must be out before the caller ends both sides.
        with contextlib.suppress(OSError):
            writer.write_eof()
        await asyncio.sleep(0.05)

    async def _end(self, *, spare: bytes) -> None:
        chosen = [task for task, first in self._connections.items() if not first.startswith(spare)]
        for task in chosen:
            task.cancel()
        await asyncio.gather(*chosen, return_exceptions=True)


@contextlib.asynccontextmanager
async def relay_to(target: int) -> AsyncIterator[Relay]:
    """A relay to that port of the loopback, ended with its connections."""
    relay = Relay(target)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()

"""A forward proxy as companies have one, and a TLS end that tells who came to it.

Order of events at the proxy: the head of a request is read; without the right password it is refused with 407; CONNECT
opens a tunnel, a request with an absolute URI is sent on with the path alone; from then on bytes are carried both ways.
The proxy remembers the ports from which it called out, so that a server can tell what came by it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tests.certificates import Certificate

HOST: Final = "127.0.0.1"
REQUEST_LINE: Final = re.compile(rb"(?:GET|POST|PUT) (/[^ ?]*)\S* HTTP/1\.1\r\n")


class Stream(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def connect(host: str, port: int) -> Stream:
    return Stream(*await asyncio.open_connection(host, port))


async def carry(one: Stream, other: Stream, see: Callable[[bytes], None] = lambda _: None) -> None:
    """Carry bytes both ways until either side ends; `see` is shown what comes from `one`."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Callable[[bytes], None]) -> None:
        while data := await reader.read(1 << 16):
            see(data)
            writer.write(data)
            await writer.drain()

    ways = [
        asyncio.ensure_future(copy(one.reader, other.writer, see)),
        asyncio.ensure_future(copy(other.reader, one.writer, lambda _: None)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        # What was written goes out before the connection ends.
        one.writer.close()
        other.writer.close()


class Listener:
    """Serves each connection in a task of its own, on a free port. Use as a context manager."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Whoever goes away in the middle is no fault here, and the end of a test cancels what is still open.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(Stream(reader, writer))
        writer.close()

    async def _serve(self, client: Stream) -> None:
        raise NotImplementedError


class Proxy(Listener):
    """Wants `user:password` if it is given one. `refused` counts requests without it."""

    def __init__(self, credentials: str = "") -> None:
        super().__init__()
        self.ports: set[int] = set()
        """From which it has called out."""
        self.refused = 0
        self._authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""

    def url(self, credentials: str = "") -> str:
        return f"http://{credentials}{'@' if credentials else ''}{HOST}:{self.port}"

    async def _serve(self, client: Stream) -> None:
        head = (await client.reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n")
        line, *headers = head.split("\r\n")
        method, target, _ = line.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in headers)}
        if self._authorization and fields.get("proxy-authorization") != self._authorization:
            self.refused += 1
            page = b"<html>407</html>"
            refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n"
            refusal += f"Content-Type: text/html\r\nConnection: close\r\nContent-Length: {len(page)}\r\n\r\n"
            client.writer.write(refusal.encode() + page)
            await client.writer.drain()
            return
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        server = await connect(str(url.hostname), url.port or 80)
        self.ports.add(server.writer.get_extra_info("sockname")[1])
        if method == "CONNECT":
            client.writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server.writer.write(_for_server(method, target, headers, upgrades="upgrade" in fields))
        await carry(client, server)


def _for_server(method: str, target: str, headers: list[str], *, upgrades: bool) -> bytes:
    """The head of a request as its server gets it: with the path alone, and nothing of what is between us two."""
    url = urlsplit(target)
    path = f"{url.path or '/'}{'?' if url.query else ''}{url.query}"
    own = ("proxy-authorization:", "proxy-connection:", *(() if upgrades else ("connection:",)))
    kept = [each for each in headers if not each.lower().startswith(own)]
    # One request for each connection: the next one may be for another server.
    kept += [] if upgrades else ["Connection: close"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "", ""]).encode("latin-1")


class TlsEnd(Listener):
    """Takes TLS off and carries on to the plain server at `target`. `seen`: each path, with the port it came from."""

    def __init__(self, certificate: Certificate | None) -> None:
        super().__init__(certificate.context() if certificate else None)
        self.target = 0
        self.scheme = "https" if certificate else "http"
        self.seen: list[tuple[str, int]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.port}"

    async def _serve(self, client: Stream) -> None:
        port = client.writer.get_extra_info("peername")[1]

        def see(data: bytes) -> None:
            self.seen += [(path.decode(), port) for path in REQUEST_LINE.findall(data)]

        await carry(client, await connect(HOST, self.target), see)

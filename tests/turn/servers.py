"""Local model servers that behave as real ones do (docs/openclaw.md): real sockets, one behaviour per request.

`ModelServer` keeps what it was asked and answers by a list of behaviours, the last of which holds for the rest.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]

DONE: Final = b"data: [DONE]\n\n"


def event(value: object, name: str = "") -> bytes:
    """One server-sent event with `value` as JSON."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """Write a chunk of a streamed chat completion as OpenAI sends it, with vendors' fields added."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "chatcmpl-7", "object": "chat.completion.chunk", "model": "fake-1", "choices": [choice]} | more)


ROLE: Final = chunk({"role": "assistant", "content": None})
"""llama.cpp's first chunk; OpenClaw sends the same with an empty text."""
STOP: Final = chunk({}, "stop")


def text(*pieces: str) -> bytes:
    return b"".join(chunk({"content": piece}) for piece in pieces)


def usage(sent: int, made: int) -> bytes:
    """Write the last chunk, which has no choices."""
    counts = {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}
    return event({"id": "chatcmpl-7", "model": "fake-1", "choices": [], "usage": counts})


def answer(*pieces: str) -> bytes:
    return ROLE + text(*pieces) + STOP + usage(7, len(pieces)) + DONE


async def opened(request: web.Request, body: bytes = b"", kind: str = "text/event-stream") -> web.StreamResponse:
    """Begin a streamed response, with its head and `body` sent."""
    response = web.StreamResponse(headers={"content-type": kind})
    await response.prepare(request)
    if body:
        await response.write(body)
    return response


def sends(*parts: bytes, kind: str = "text/event-stream") -> Behaviour:
    """Answer with status 200 and these parts, each in a write of its own."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await opened(request, kind=kind)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0)
        return response

    return behave


def refuses(status: int, body: object, **headers: str) -> Behaviour:
    """Answer with an error status and `body`: a text as it is, anything else as JSON."""

    async def behave(_: web.Request) -> web.StreamResponse:
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return behave


def dies(body: bytes = b"") -> Behaviour:
    """Answer with status 200 and `body`; then the connection is reset: a gateway that is killed within a turn."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await opened(request, body)
        await asyncio.sleep(0.01)
        assert request.transport is not None
        request.transport.abort()
        return response

    return behave


class ModelServer:
    """An OpenAI-compatible server on loopback. `gone` counts requests whose client went away before the end."""

    def __init__(self) -> None:
        self.behaviours: list[Behaviour] = [sends(answer("Hello", " there"))]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.gone = asyncio.Semaphore(0)
        self.running = 0
        self.base_url = ""
        self._transports: set[asyncio.Transport] = set()

    def close_idle(self) -> None:
        """Close every connection, as a server does that restarts."""
        for transport in self._transports:
            transport.close()

    def hangs(self, body: bytes = b"") -> Behaviour:
        """Answer with status 200 and `body`, then silence until the client goes."""

        async def behave(request: web.Request) -> web.StreamResponse:
            response = await opened(request, body)
            await asyncio.Event().wait()
            return response

        return behave

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.asked.append(await request.json())
        self.paths.append(request.path)
        if isinstance(request.transport, asyncio.Transport):
            self._transports.add(request.transport)
        behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        self.running += 1
        try:
            return await behave(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.gone.release()
            raise
        finally:
            self.running -= 1

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[ModelServer]:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/v1/responses", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
            await site.start()
            port = runner.addresses[0][1]
            self.base_url = f"http://127.0.0.1:{port}/v1" if tls is None else f"https://localhost:{port}/v1"
            yield self
        finally:
            await runner.cleanup()

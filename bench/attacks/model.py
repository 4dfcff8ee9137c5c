"""A model's server for attacks: it holds nothing of what it is sent, and answers whatever an attack wants.

Order of events: the body is read piece by piece and thrown away, but for the last mark in it, which names the question;
the gate and the delay are waited for; then `respond` answers, or else one chunk with `answer`'s words. The emulator's
own model keeps every request, which here would be gigabytes of pictures.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

MARK: Final = re.compile(r"m-(\d+)-m\b")
"""What names a question, in its own words. No base64 has a hyphen, so no picture holds one."""
MARK_MAX_CHARS: Final = 24

Respond = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


class Model:
    """`asked` has the mark of every request, in order; `gate` holds all of them back while it is shut."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.in_flight = 0
        self.in_flight_max = 0
        self.received = 0
        """Bytes of all bodies."""
        self.delay = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Callable[[str], str] = lambda mark: f"answer to {mark}"
        self.respond: Respond | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return web.json_response({"object": "list", "data": []})
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            mark = await self._read(request)
            self.asked.append(mark)
            await asyncio.sleep(self.delay)
            await self.gate.wait()
            if self.respond is not None:
                return await self.respond(request, mark)
            return await stream(request, self.answer(mark))
        finally:
            self.in_flight -= 1

    async def _read(self, request: web.Request) -> str:
        found, carry = "", ""
        async for piece in request.content.iter_chunked(1 << 16):
            self.received += len(piece)
            text = carry + piece.decode("ascii", "replace")
            for match in MARK.finditer(text):
                found = match[0]
            carry = text[-MARK_MAX_CHARS:]
        return found


async def stream(request: web.Request, text: str, *, chunk: int = 1 << 16) -> web.StreamResponse:
    """Answer with these words, as servers stream them."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    try:
        await response.prepare(request)
        for start in range(0, max(1, len(text)), chunk):
            await response.write(event({"role": "assistant", "content": text[start : start + chunk]}))
        await response.write(event({}, "stop") + b"data: [DONE]\n\n")
    except ConnectionError:
        pass  # The caller has gone: killed, stopped, or tired of waiting.
    return response


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"

"""A model provider of our own for the gateway to ask: OpenAI's chat completions with streaming, on loopback.

Order of events: the gateway posts a request; the `Answer` that was scripted for its question, or else `answer`, says
what happens to it; the call is recorded with its text, its headers and how it ended. Nothing here is claw's: this is
the third party behind the gateway, whose failures a person must be told truthfully.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from aiohttp import web

MODEL: Final = "fake-1"
KEY: Final = "sk-provider-of-the-test"
INTERNAL: Final = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>"
"""What the gateway's own messages to the model begin with."""
_ADDED: Final = re.compile(r"^\[[^]]*\] |\n\nRuntime: .*", re.DOTALL)
STATUS_BODIES: Final = {
    401: {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"},
    429: {"message": "Rate limit reached for requests.", "type": "requests", "code": "rate_limit_exceeded"},
    500: {"message": "The server had an error.", "type": "server_error", "code": None},
}
"""What OpenAI's own server says with these."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of one request.

    `status`: an error of that HTTP status. Else a stream: `before_s` of silence, `parts` with `between_s` after each,
    and with `hangs` no end.
    """

    parts: Sequence[str] = ()
    """Empty: an echo of the question."""
    status: int = 200
    before_s: float = 0.0
    between_s: float = 0.0
    hangs: bool = False


@dataclasses.dataclass(slots=True)
class Call:
    """One request. `ended`: `whole`, `error`, or `cut` where the gateway closed the connection first."""

    question: str
    """Text of the newest message that a person wrote."""
    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    ended: str = ""

    @property
    def questions(self) -> list[str]:
        """What people have said in this session, the newest last."""
        return _questions(self.body["messages"])


class Provider:
    """An aiohttp server. `answer` is the rule; `once` makes an exception for one call.

    Calls are told apart by what was asked, not by their order: a gateway that comes back takes up broken turns by
    itself, so that calls of an earlier question come between those of a later one.
    """

    def __init__(self) -> None:
        self.answer = Answer()
        self._once: list[tuple[str, Answer]] = []
        self.calls: list[Call] = []
        self.port = 0
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def reset(self) -> None:
        """Answer everything again, and forget what was asked."""
        self.answer = Answer()
        self._once.clear()
        self.calls.clear()

    def once(self, text: str, answer: Answer) -> None:
        """Give that answer to the next call whose newest question has `text` in it; said twice, to the next two."""
        self._once.append((text, answer))

    def asked(self, text: str) -> list[Call]:
        """The calls in whose session somebody said `text`."""
        return [call for call in self.calls if any(text in question for question in call.questions)]

    async def wait_asked(self, text: str, count: int = 1, *, timeout: float = 120) -> None:
        """Wait until so many calls were `asked` that. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: len(self.asked(text)) >= count)

    def _answer_to(self, question: str) -> Answer:
        for each in self._once:
            if each[0] in question:
                self._once.remove(each)
                return each[1]
        return self.answer

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = _questions(body["messages"])
        call = Call(asked[-1] if asked else "", body, dict(request.headers), time.monotonic())
        answer = self._answer_to(call.question)
        self.calls.append(call)
        async with self._changed:
            self._changed.notify_all()
        call.ended = "cut"
        if answer.status != 200:
            call.ended = "error"
            return web.json_response({"error": STATUS_BODIES[answer.status]}, status=answer.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        # A gateway that closes or is killed shows as one of these at the next write.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await asyncio.sleep(answer.before_s)
            for part in answer.parts or (f"You said: {call.question}",):
                await response.write(_event({"delta": {"role": "assistant", "content": part}}))
                await asyncio.sleep(answer.between_s)
            if answer.hangs:
                await asyncio.Event().wait()
            await response.write(_event({"delta": {}, "finish_reason": "stop"}))
            await response.write(b"data: [DONE]\n\n")
            call.ended = "whole"
        return response

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Provider]:
        """Listen on a port of the system's choosing until the context ends."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        # Cancel handlers of connections that are gone: otherwise a silent answer would outlive its gateway.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


def _questions(messages: Sequence[dict[str, Any]]) -> list[str]:
    """The people's own words: the gateway adds the time before them, its runtime behind, and messages of its own."""
    texts = [_text(each) for each in messages if each["role"] == "user"]
    return [_ADDED.sub("", text) for text in texts if not text.startswith(INTERNAL)]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _event(choice: dict[str, Any]) -> bytes:
    chunk = {
        "id": "chatcmpl-provider",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "finish_reason": None} | choice],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"

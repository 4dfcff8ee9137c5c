"""A small model behind an OpenAI-compatible API: deterministic, so that tests and newcomers know what to expect.

Order of events: the request is recorded; fault switches act; the answer to the last user message is made at once and
streamed in about twenty chunks, or given whole. It answers in the language of the person and shows that it was given
the history. `long`, `slow 5`, `code` and `error` (or 长文, 慢 5, 代码, 出错) are commands.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from claw.emulator.faults import Faults
from claw.emulator.phrases import compose, read_command, read_text
from claw.emulator.responses import Hangs, is_gone, read_json, reply_html, reply_json, reset_transport

MODEL_NAME: Final = "claw-mini"
CHUNK_COUNT: Final = 20
"""Chunks that an answer is streamed in."""
SLOW: Final = re.compile(r"(?:slow|慢)\s*(\d{1,3}(?:\.\d+)?)\b", re.IGNORECASE)
ERROR_IN_STREAM: Final = {"error": {"message": "the model fell over", "type": "server_error", "code": "internal_error"}}
ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    429: "rate_limit_error",
    404: "not_found_error",
}


@dataclasses.dataclass(eq=False)
class ModelRequest:
    body: dict[str, Any]
    authorization: bool
    """A bearer key came with it; the key itself is not kept."""
    headers: dict[str, str]
    time: float = dataclasses.field(default_factory=time.monotonic)
    status: int = 0
    """HTTP status of the answer, 0 until there is one."""
    finished: bool = False
    """The answer went out whole."""
    aborted: bool = False
    """The caller went away before the end, as at a `/stop`."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        found = self.body.get("messages")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    @property
    def last_user_text(self) -> str:
        return next((read_text(each) for each in reversed(self.messages) if each.get("role") == "user"), "")

    def make_answer_head(self, kind: str) -> dict[str, Any]:
        """Make the fields that every answer begins with; all chunks of one stream share them."""
        model = self.body.get("model") or MODEL_NAME
        return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


class FakeModel:
    """`requests` remembers the last `keep`; `count` and `in_flight_max` all of them."""

    def __init__(self, *, faults: Faults, hangs: Hangs, keep: int) -> None:
        self.requests: collections.deque[ModelRequest] = collections.deque(maxlen=keep)
        self.count = 0
        self.in_flight = 0
        self.in_flight_max = 0
        self._faults = faults
        self._hangs = hangs

    async def list_models(self, _request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        return reply_json(
            {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "claw"}]}
        )

    async def complete_chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        body = await read_json(request)
        # Without the key: records are printed when a test fails, and somebody may test with a real one.
        headers = {name.lower(): value for name, value in request.headers.items()}
        key = headers.pop("authorization", "")
        record = ModelRequest(body or {}, key.startswith("Bearer "), headers)
        is_known = self._faults.model_key in {"", key.removeprefix("Bearer ")}
        self.count += 1
        self.requests.append(record)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            answer = await self._complete(request, record) if is_known else _reply_error(401, "Incorrect API key")
            record.status = answer.status
            return answer
        finally:
            self.in_flight -= 1

    async def _complete(self, request: web.Request, record: ModelRequest) -> web.StreamResponse:
        take = self._faults.take
        if take("model_hang"):
            return await self._hangs.hang(request)
        failure = self._find_failure(record)
        if failure is not None:
            return failure
        # A person's `slow 5` and the switch add up, so that a bench can be slow for everybody and slower for one.
        slow = SLOW.search(record.last_user_text)
        answer = "" if take("model_empty") else take("model_fixed_reply") or compose(record.messages)
        await self._hangs.sleep(take("model_delay") + (float(slow[1]) if slow else 0.0), request)
        if is_gone(request):
            # Nobody reads this answer; the status is what proxies write into their logs for such a caller.
            record.aborted = True
            return web.Response(status=499)
        if record.body.get("stream") is True:
            return await self._stream(request, record, answer)
        # Of a whole answer nothing has been written yet: the caller sees its connection end instead of an answer.
        if take("model_cut"):
            reset_transport(request.transport)
            return web.Response(status=500)
        record.finished = True
        message = {"role": "assistant", "content": answer, "refusal": None}
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
        usage = _count_usage(record.messages, answer)
        return reply_json(record.make_answer_head("chat.completion") | {"choices": choices, "usage": usage})

    def _find_failure(self, record: ModelRequest) -> web.Response | None:
        retry_after = self._faults.model_retry_after
        status = self._faults.take("model_status")
        if status == 502:
            return reply_html()  # As a proxy before the model answers: no JSON, whatever the client expects.
        if status:
            headers = {"Retry-After": f"{retry_after:g}"} if retry_after else None
            message = f"the emulator was asked to answer {status}"
            return _reply_error(status, message, headers, self._faults.model_error)
        if not record.messages:
            return _reply_error(400, "'messages' is a required property")
        if read_command(record.last_user_text) == "error":
            return _reply_error(500, "You asked for an error, and here it is. 按您的要求，出错了。")
        return None

    async def _stream(self, request: web.Request, record: ModelRequest, answer: str) -> web.StreamResponse:
        # Taken before the stream begins: a switch that is turned while it runs does not hit it.
        cut, error = self._faults.take("model_cut"), self._faults.take("model_error_in_stream")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            await response.prepare(request)
            record.status = 200
            async for number, event in self._make_events(request, record, answer):
                if number == CHUNK_COUNT // 2 and (cut or error):
                    # In the middle, when content has gone out: to be distinguished from a failure before the first.
                    if cut:
                        reset_transport(request.transport)
                    else:
                        await response.write(_encode_event(ERROR_IN_STREAM))
                    return response
                await response.write(event)
            # The end of the answer, without which a client must take it for cut off, however complete it looks.
            await response.write(b"data: [DONE]\n\n")
            record.finished = True
        except ConnectionError:
            record.aborted = True
        return response

    async def _make_events(
        self, request: web.Request, record: ModelRequest, answer: str
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Yield the chunks with their numbers; a short answer has empty ones, so that faults hit it as well."""
        head = record.make_answer_head("chat.completion.chunk")
        options = record.body.get("stream_options")
        with_usage = isinstance(options, dict) and options.get("include_usage") is True

        def make_chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
            # Who asks for usage gets the field in every chunk, empty in all but the last.
            return _encode_event(head | {"choices": choices} | ({"usage": None} if with_usage else {}))

        yield 0, make_chunk({"role": "assistant", "content": ""})
        # Cut by characters, not by words: a client must not rely on chunks that end well.
        size = max(1, math.ceil(len(answer) / CHUNK_COUNT))
        for number in range(CHUNK_COUNT):
            part = answer[number * size : (number + 1) * size]
            if not part and number > CHUNK_COUNT // 2:
                break
            yield number, make_chunk({"content": part})
            await self._hangs.sleep(self._faults.model_chunk_delay, request)
            if is_gone(request):
                # A caller that has gone is noticed by the next write only, and by none when the chunks are small.
                raise ConnectionResetError
        yield CHUNK_COUNT, make_chunk({}, "stop")
        if with_usage:
            usage = _count_usage(record.messages, answer)
            yield CHUNK_COUNT + 1, _encode_event(head | {"choices": [], "usage": usage})

    def to_dict(self) -> dict[str, Any]:
        return {"requests": self.count, "in_flight": self.in_flight, "in_flight_max": self.in_flight_max}

    def forget(self) -> None:
        self.requests.clear()
        self.count = 0
        self.in_flight_max = self.in_flight


def _encode_event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def _count_usage(messages: list[dict[str, Any]], answer: str) -> dict[str, int]:
    # Two characters a token: near enough for whoever adds up what was spent.
    prompt, completion = sum(len(read_text(each)) for each in messages) // 2 + 1, len(answer) // 2 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _reply_error(status: int, message: str, headers: dict[str, str] | None = None, kind: str = "") -> web.Response:
    # Servers that have one word for an error put it into both fields.
    code = kind or {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    kind = kind or ERROR_TYPES.get(status, "server_error")
    error = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return reply_json(error, status=status, headers=headers)

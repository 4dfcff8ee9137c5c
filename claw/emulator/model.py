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
from claw.emulator.responses import Hangs, is_gone, read_json, reply_html, reply_json, reset_transport

MODEL_NAME: Final = "claw-mini"
CHUNK_COUNT: Final = 20
"""Chunks that an answer is streamed in."""
SLOW: Final = re.compile(r"(?:slow|慢)\s*(\d{1,3}(?:\.\d+)?)\b", re.IGNORECASE)
COMMAND: Final = re.compile(r"(?:^|[:：]\s*)(long|长文|code|代码|error|出错|table|表格)\s*[!！.。]?$", re.IGNORECASE)
HAN: Final = re.compile(r"[\u3400-\u9fff]")
QUOTED_CHARS: Final = 300
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
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    @property
    def last_user_text(self) -> str:
        return next((_read_text(one) for one in reversed(self.messages) if one.get("role") == "user"), "")


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
        headers = {name.lower(): value for name, value in request.headers.items()}
        key = headers.pop("authorization", "")
        record = ModelRequest(body or {}, key.startswith("Bearer "), headers)
        self.count += 1
        self.requests.append(record)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            answer = await self._complete(request, record, body)
            record.status = answer.status
            return answer
        finally:
            self.in_flight -= 1

    async def _complete(
        self, request: web.Request, record: ModelRequest, body: dict[str, Any] | None
    ) -> web.StreamResponse:
        take = self._faults.take
        if take("model_hang"):
            return await self._hangs.hang(request)
        failure = self._find_failure(record, body)
        if failure is not None or body is None:
            return failure or _reply_error(400, "the body is not a JSON object")
        slow = SLOW.search(record.last_user_text)
        answer = "" if take("model_empty") else take("model_fixed_reply") or compose(record.messages)
        await self._hangs.sleep(take("model_delay") + (float(slow[1]) if slow else 0.0), request)
        if is_gone(request):
            record.aborted = True
            return web.Response(status=499)
        if body.get("stream") is True:
            return await self._stream(request, record, answer)
        if take("model_cut"):
            reset_transport(request.transport)
            return web.Response(status=500)
        record.finished = True
        return reply_json(_build_completion(body, record.messages, answer))

    def _find_failure(self, record: ModelRequest, body: dict[str, Any] | None) -> web.Response | None:
        retry_after = self._faults.model_retry_after
        status = self._faults.take("model_status")
        if status == 502:
            return reply_html()
        if status:
            headers = {"Retry-After": f"{retry_after:g}"} if retry_after else None
            return _reply_error(status, f"the emulator was asked to answer {status}", headers)
        if body is None or not record.messages:
            return _reply_error(400, "'messages' is a required property")
        command = COMMAND.search(record.last_user_text.strip())
        if command is not None and command[1].lower() in {"error", "出错"}:
            return _reply_error(500, "You asked for an error, and here it is. 按您的要求，出错了。")
        return None

    async def _stream(self, request: web.Request, record: ModelRequest, answer: str) -> web.StreamResponse:
        take = self._faults.take
        cut, error = take("model_cut"), take("model_error_in_stream")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            await response.prepare(request)
            record.status = 200
            async for number, event in self._events(request, record, answer):
                if number == CHUNK_COUNT // 2 and cut:
                    reset_transport(request.transport)
                    return response
                if number == CHUNK_COUNT // 2 and error:
                    failure = {
                        "error": {"message": "the model fell over", "type": "server_error", "code": "internal_error"}
                    }
                    await response.write(_encode_event(failure))
                    return response
                await response.write(event)
            await response.write(b"data: [DONE]\n\n")
            record.finished = True
        except ConnectionError:
            record.aborted = True
        return response

    async def _events(
        self, request: web.Request, record: ModelRequest, answer: str
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Yield the chunks with their numbers; a short answer has empty ones, so that faults hit it as well."""
        ident, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        model = record.body.get("model") or MODEL_NAME
        options = record.body.get("stream_options")
        with_usage = isinstance(options, dict) and options.get("include_usage") is True

        def chunk(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
            body = {
                "id": ident,
                "object": "chat.completion.chunk",
                "created": created,
                "model": model,
                "choices": choices,
            }
            return _encode_event(body | ({"usage": usage} if with_usage else {}))

        def choice(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
            return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

        yield 0, chunk(choice({"role": "assistant", "content": ""}))
        size = max(1, math.ceil(len(answer) / CHUNK_COUNT))
        for number in range(CHUNK_COUNT):
            part = answer[number * size : (number + 1) * size]
            if not part and number > CHUNK_COUNT // 2:
                break
            yield number, chunk(choice({"content": part}))
            await self._hangs.sleep(self._faults.model_chunk_delay, request)
            if is_gone(request):
                raise ConnectionResetError
        yield CHUNK_COUNT, chunk(choice({}, "stop"))
        if with_usage:
            yield CHUNK_COUNT + 1, chunk([], _count_usage(record.messages, answer))

    def to_dict(self) -> dict[str, Any]:
        return {"requests": self.count, "in_flight": self.in_flight, "in_flight_max": self.in_flight_max}

    def forget(self) -> None:
        self.requests.clear()
        self.count = 0
        self.in_flight_max = self.in_flight


def compose(messages: list[dict[str, Any]]) -> str:
    """Compose the answer to the last user message."""
    turns = [_read_text(one) for one in messages if one.get("role") == "user"]
    said = (turns[-1] if turns else "").strip()
    chinese = bool(HAN.search(said))
    command = COMMAND.search(said)
    if command is not None:
        word = command[1].lower()
        if word in {"long", "长文"}:
            return _compose_long(chinese=chinese)
        if word in {"code", "代码"}:
            return _compose_code(chinese=chinese)
        if word in {"table", "表格"}:
            return _compose_table(chinese=chinese)
    quote = "\n".join(f"> {line}" for line in said[:QUOTED_CHARS].splitlines() or [""])
    if chinese:
        memory = f"这是我们聊的第 **{len(turns)}** 句。" if len(turns) > 1 else "很高兴认识你！"
        tips = (
            "\n\n可以试试：\n\n- `长文` 一篇分段的长回答\n- `代码` 一段代码\n- `慢 5` 想 5 秒再答"
            if len(turns) == 1
            else ""
        )
        return f"收到，你说的是：\n\n{quote}\n\n{memory}{tips}"
    memory = f"That was message **{len(turns)}** of our chat." if len(turns) > 1 else "Nice to meet you!"
    tips = "\n\nTry one of these:\n\n- `long` for a long answer\n- `code` for some code\n- `slow 5` to wait 5 s"
    return f"I heard you say:\n\n{quote}\n\n{memory}{tips if len(turns) == 1 else ''}"


def _compose_long(*, chinese: bool) -> str:
    if chinese:
        part = (
            "消息先写入收件箱，再确认给钉钉：进程在任何一步退出，重启后都会从收件箱继续，既不丢失，也不重复回答。"
            "同一会话按到达顺序逐条处理，不同会话互不等待。"
        )
        sections = [
            f"## 第 {n} 节\n\n{part * 6}\n\n- 要点一：先落盘，后确认\n- 要点二：断线自动重连" for n in range(1, 9)
        ]
        return "# 一篇长文\n\n" + "\n\n".join(sections) + "\n\n" + _compose_code(chinese=True)
    part = (
        "A message is written to the inbox before it is acknowledged, so a crash at any point neither loses it nor "
        "answers it twice. Messages of one conversation keep their order; conversations do not wait for each other. "
    )
    sections = [
        f"## Part {n}\n\n{part * 5}\n\n- first durable, then acked\n- reconnects by itself" for n in range(1, 9)
    ]
    return "# A long read\n\n" + "\n\n".join(sections) + "\n\n" + _compose_code(chinese=False)


def _compose_code(*, chinese: bool) -> str:
    intro = "下面是一段示例代码：" if chinese else "Here is some code:"
    note = "逐行读即可。" if chinese else "That is all."
    lines = ("async def answer(message):", "    await inbox.put(message)  # durable first", "    await ack(message)")
    code = "\n".join(lines)
    return f"{intro}\n\n```python\n{code}\n```\n\n{note}"


def _compose_table(*, chinese: bool) -> str:
    head = "| 名称 | 数值 |" if chinese else "| name | value |"
    return f"{head}\n| --- | --- |\n| a | 1 |\n| b | 2 |"


def _read_text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("type") == "text")
    return content if isinstance(content, str) else ""


def _count_usage(messages: list[dict[str, Any]], answer: str) -> dict[str, int]:
    prompt = sum(len(_read_text(one)) for one in messages) // 2 + 1
    completion = len(answer) // 2 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _build_completion(body: dict[str, Any], messages: list[dict[str, Any]], answer: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer, "refusal": None}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model") or MODEL_NAME,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _count_usage(messages, answer),
    }


def _encode_event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def _reply_error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    kind = ERROR_TYPES.get(status, "server_error")
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    error = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return reply_json(error, status=status, headers=headers)

"""Shapes of answers that servers were seen to give, one a row: what is shown, what is told, how often it is asked.

Each row is one real server on loopback that behaves so, whatever it is asked; where a row names several behaviours, the
last one holds for the rest. `thought` may stand anywhere in what a server sends and must never be in what is shown.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from claw.errors import ModelError, ModelErrorKind
from claw.turn.model import client as client_module
from claw.turn.model.errors import suggest_remedy
from claw.turn.model.finish import FinishReason
from tests.turn.asking import QUESTION, USER, model_at
from tests.turn.servers import (
    DONE,
    ROLE,
    STOP,
    Behaviour,
    ModelServer,
    chunk,
    dies,
    event,
    opened,
    refuses,
    sends,
    text,
    usage,
)

K = ModelErrorKind
F = FinishReason
THOUGHT = "thought"


@dataclass(frozen=True)
class Right:
    """The right outcome. With `kind`, `text` is what had come when it failed."""

    text: str = ""
    kind: ModelErrorKind | None = None
    finish: FinishReason = F.STOP
    retryable: bool = False
    waits: bool = False
    requests: int = 1
    reason: str = ""


def fails(kind: ModelErrorKind, reason: str = "", **more: Any) -> Right:
    return Right(kind=kind, reason=reason, **more)


def waits(kind: ModelErrorKind, reason: str = "") -> Right:
    return Right(kind=kind, reason=reason, retryable=True, waits=True)


def hangs(*parts: bytes, kind: str = "text/event-stream") -> Behaviour:
    """Answer with these parts; then nothing more comes, and the connection stays open."""

    async def behave(request: web.Request) -> web.StreamResponse:
        response = await opened(request, b"".join(parts), kind)
        await asyncio.Event().wait()
        return response

    return behave


def raw(data: bytes, *, end: str = "close") -> Behaviour:
    """Write bytes that are no good HTTP, then close or reset the connection."""

    async def behave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.write(data)
        await asyncio.sleep(0.02)
        if end == "close":
            request.transport.close()
        else:
            request.transport.abort()
        return web.Response()

    return behave


def whole(body: object, **headers: str) -> Behaviour:
    """Answer with one JSON body."""

    async def behave(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, headers=headers)

    return behave


def chunked(*parts: bytes, last: bool = False) -> bytes:
    """Write a chunked response by hand, without its last chunk unless asked for."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + body + (b"0\r\n\r\n" if last else b"")


def until_close(*parts: bytes) -> bytes:
    """Write a response that ends with its connection."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + b"".join(parts)


def choice(finish: str | None = None, **fields: Any) -> bytes:
    return event({"id": "x", "model": "m", "choices": [{"index": 0, "finish_reason": finish, **fields}]})


def body(finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi", **message}
    return {"id": "x", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def told(**error: Any) -> bytes:
    """An error within a stream, as OpenAI's clients expect it."""
    return event({"error": {"message": "no", **error}})


def refused(status: int, message: str = "no", **error: Any) -> Behaviour:
    return refuses(status, {"error": {"message": message, **error}})


HI = Right("Hi")
HALF = ROLE + text("Half")

ROWS: dict[str, tuple[list[Behaviour], Right]] = {
    # --- endings ---
    "finish reason, then silence": ([hangs(ROLE, text("Hi"), STOP)], HI),
    "finish reason, usage, then silence": ([hangs(ROLE, text("Hi"), STOP, usage(1, 1))], HI),
    "finish reason with the text, then silence": ([hangs(ROLE, chunk({"content": "Hi"}, "stop"))], HI),
    "[DONE] without finish reason, then silence": ([hangs(ROLE, text("Hi"), DONE)], Right("Hi", finish=F.NONE)),
    "cut, then silence": ([hangs(text("Hi"), chunk({}, "length"))], Right("Hi", finish=F.LENGTH)),
    "JSON, then silence": ([hangs(json.dumps(body()).encode(), kind="application/json")], HI),
    "no last chunk after the finish reason": ([raw(chunked(ROLE, text("Hi"), STOP))], HI),
    "reset after the finish reason": ([raw(chunked(ROLE, text("Hi"), STOP), end="reset")], HI),
    "no last chunk after [DONE]": ([raw(chunked(text("Hi"), DONE))], Right("Hi", finish=F.NONE)),
    "no last chunk, no finish reason": (
        [raw(chunked(HALF))],
        Right("Half", K.BROKEN_OFF, retryable=True),
    ),
    "reset, no finish reason": ([dies(HALF)], Right("Half", K.BROKEN_OFF, retryable=True)),
    "clean end without finish reason": ([sends(ROLE, text("Hi"))], Right("Hi", finish=F.NONE)),
    "clean end of a chunked body": ([raw(chunked(text("Hi"), last=True))], Right("Hi", finish=F.NONE)),
    "ends with its connection": ([raw(until_close(text("Hi")))], Right("Hi", finish=F.NONE)),
    "ends with its connection within an event": (
        [raw(until_close(HALF, b'data: {"choices":[{"del'))],
        Right("Half", K.BROKEN_OFF, retryable=True),
    ),
    "JSON cut off": ([raw(until_close(b'{"choices":[{"message"'))], fails(K.BROKEN_OFF, retryable=True)),
    "an error after the finish reason": ([sends(text("Hi"), STOP, told(type="api_error"))], HI),
    "rubbish after the finish reason": ([sends(text("Hi"), STOP, b"data: {rubbish\n\n")], HI),
    "a page in the middle": (
        [sends(HALF, b"data: <html>502</html>\n\n")],
        Right("Half", K.BROKEN_OFF),
    ),
    "nothing": ([sends()], fails(K.EMPTY, retryable=True)),
    "status 204": ([refuses(204, "")], fails(K.EMPTY, retryable=True)),
    # --- finish reasons ---
    **{
        f"finish reason {word}": ([sends(text("Hi"), chunk({}, word), DONE)], Right("Hi", finish=finish))
        for word, finish in {
            "stop": F.STOP,
            "STOP": F.STOP,
            "eos": F.STOP,
            "eos_token": F.STOP,
            "end_turn": F.STOP,
            "stop_sequence": F.STOP,
            "length": F.LENGTH,
            "MAX_TOKENS": F.LENGTH,
            "model_context_window_exceeded": F.LENGTH,
            "content_filter": F.CONTENT_FILTER,
            "SAFETY": F.CONTENT_FILTER,
            "sensitive": F.CONTENT_FILTER,
            "tool_calls": F.TOOL_CALLS,
            "function_call": F.TOOL_CALLS,
            "": F.NONE,
            "null": F.NONE,
            "moon_phase": F.UNKNOWN,
        }.items()
    },
    "filter without text": ([sends(ROLE, chunk({}, "content_filter"), DONE)], fails(K.FILTERED)),
    "tool call without text": (
        [sends(ROLE, chunk({"tool_calls": [{"index": 0}]}, "tool_calls"), DONE)],
        fails(K.EMPTY, "tool_calls"),
    ),
    "a tool run by the agent itself": ([sends(text("H"), chunk({}, "tool_calls"), text("i"), STOP, DONE)], HI),
    "broken off by the server": (
        [sends(HALF, chunk({}, "insufficient_system_resource"), DONE)],
        Right("Half", K.BROKEN_OFF, retryable=True, reason="insufficient_system_resource"),
    ),
    "finish reason in each chunk": (
        [sends(choice("", delta={"content": "H"}), choice("null", delta={"content": "i"}), STOP)],
        HI,
    ),
    # --- framing ---
    "comments as data": ([sends(b"data: : wait\n\n", ROLE, b"data: : wait\n\n", text("Hi"), STOP, DONE)], HI),
    "single newlines": ([sends((ROLE + text("H", "i") + STOP + DONE).replace(b"\n\n", b"\n"))], HI),
    "single newlines, then silence": ([hangs((text("Hi") + STOP).replace(b"\n\n", b"\n"))], HI),
    "no blank after the colon": ([sends((text("Hi") + STOP + DONE).replace(b"data: ", b"data:"))], HI),
    "data twice": ([sends((text("Hi") + STOP).replace(b"data: ", b"data: data: "))], HI),
    "CRLF": ([sends((text("Hi") + STOP + DONE).replace(b"\n", b"\r\n"))], HI),
    "ids, retries and names": ([sends(b"retry: 9\n", b"id: 1\nevent: message\n", text("Hi"), STOP, DONE)], HI),
    "pings": ([sends(event({"type": "ping"}, "ping"), text("Hi"), event({"type": "ping"}), STOP)], HI),
    "one JSON object a line": (
        [sends(b'{"choices":[{"delta":{"content":"H"}}]}\n', b'{"choices":[{"delta":{"content":"i"}}]}\n')],
        Right("Hi", finish=F.NONE),
    ),
    "message in place of delta": ([sends(choice(message={"content": "Hi"}), STOP, DONE)], HI),
    "text in place of delta": ([sends(choice(text="H"), choice("stop", text="i"), DONE)], HI),
    "the whole again in the last chunk": (
        [sends(text("H", "i"), choice("stop", message={"role": "assistant", "content": "Hi"}), DONE)],
        HI,
    ),
    "counts choices from 1": (
        [sends(event({"choices": [{"index": 1, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}), DONE)],
        HI,
    ),
    "no index": ([sends(event({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}))], HI),
    "Azure's first chunk": (
        [sends(event({"choices": [], "prompt_filter_results": [{}]}), text("Hi"), STOP, DONE)],
        HI,
    ),
    "JSON in place of a stream": ([whole(body())], HI),
    "JSON of an old completion": ([whole({"choices": [{"text": "Hi", "finish_reason": "stop"}]})], HI),
    "content in parts": ([whole(body(content=[{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]))], HI),
    "a refusal": ([whole(body(content=None, refusal="Hi"))], HI),
    # --- thoughts ---
    "reasoning_content": ([sends(chunk({"reasoning_content": THOUGHT, "content": None}), text("Hi"), STOP)], HI),
    "reasoning": ([sends(chunk({"reasoning": THOUGHT, "content": ""}), text("Hi"), STOP, DONE)], HI),
    "thinking parts": (
        [sends(chunk({"content": [{"type": "thinking", "thinking": [{"text": THOUGHT}]}]}), text("Hi"), STOP)],
        HI,
    ),
    "thoughts only": ([sends(chunk({"reasoning_content": THOUGHT}), STOP, DONE)], fails(K.EMPTY, retryable=True)),
    "thoughts in JSON": ([whole(body(reasoning_content=THOUGHT))], HI),
    # --- headers ---
    "a header of 9 000 bytes": ([whole(body(), **{"x-policy": "p" * 9_000})], HI),
    "a header of 60 000 bytes": ([whole(body(), **{"x-policy": "p" * 60_000})], HI),
    "a header without end": ([whole(body(), **{"x-policy": "p" * 100_000})], fails(K.UNREACHABLE, retryable=True)),
    "no content type": ([raw(until_close(text("Hi"), STOP).replace(b"content-type: text/event-stream\r\n", b""))], HI),
    "events told as JSON": ([sends(text("Hi"), STOP, kind="application/json")], HI),
    **{
        f"redirect {status}": (
            [refuses(status, "", location="https://u:p@elsewhere.test/v1?key=1")],
            fails(K.REDIRECTED, f"HTTP {status}: it points to elsewhere.test, which is not followed"),
        )
        for status in (301, 302, 303, 307, 308)
    },
    "a redirect to another path": ([refuses(307, "", location="/other")], fails(K.REDIRECTED, "another path")),
    # --- statuses ---
    "400": ([refused(400)], fails(K.BAD_REQUEST, "HTTP 400: no")),
    "401": ([refused(401)], fails(K.UNAUTHORIZED)),
    "402": ([refused(402)], fails(K.QUOTA)),
    "403": ([refused(403)], fails(K.UNAUTHORIZED)),
    "404": ([refused(404)], fails(K.BAD_REQUEST)),
    "413": ([refused(413)], fails(K.TOO_LARGE)),
    "413 as a page": ([refuses(413, "<html><h1>413 Request Entity Too Large</h1></html>")], fails(K.TOO_LARGE)),
    "422 as a list": (
        [refuses(422, {"detail": [{"type": "missing", "loc": ["body", "messages"], "msg": "Field required"}]})],
        fails(K.BAD_REQUEST, "body.messages: Field required"),
    ),
    "429": ([refused(429, type="rate_limit_error")], fails(K.BUSY, retryable=True)),
    "429 of an empty account": ([refused(429, code="insufficient_quota")], fails(K.QUOTA)),
    "429 of a rate, in the words of money": (
        [refused(429, "You exceeded your current quota, please check your plan and billing details", code=429)],
        fails(K.BUSY, retryable=True),
    ),
    "500": ([refused(500, "boom")], fails(K.SERVER, retryable=True)),
    "502 of a gateway": ([refuses(502, "<html>Bad Gateway</html>")], waits(K.UNAVAILABLE, "HTTP 502: an HTML page")),
    "502 of the provider": ([refused(502, "upstream failed", code=502, type="e")], fails(K.SERVER, retryable=True)),
    "503 of a gateway": ([refuses(503, "no healthy upstream")], waits(K.UNAVAILABLE)),
    "503 of a gateway that drains": ([refused(503, type="gateway_unavailable")], waits(K.UNAVAILABLE)),
    "503 while loading": ([refused(503, "Loading model", type="unavailable_error", code=503)], waits(K.UNAVAILABLE)),
    "503 of an overloaded provider": ([refused(503, "The engine is overloaded")], fails(K.BUSY, retryable=True)),
    "504 of a gateway": ([refuses(504, "<html>Gateway Time-out</html>")], waits(K.TIMEOUT)),
    "529": ([refused(529, type="overloaded_error")], fails(K.BUSY, retryable=True)),
    "closed before a byte": ([raw(b"")], waits(K.UNREACHABLE)),
    "reset before a byte": ([raw(b"", end="reset")], waits(K.UNREACHABLE)),
    "reset after the head": ([dies()], fails(K.UNREACHABLE, retryable=True)),
    "not HTTP": ([raw(b"SSH-2.0-OpenSSH_9.6\r\n")], fails(K.UNREACHABLE, retryable=True)),
    # --- words about content and money ---
    **{
        f"filtered: {words}": ([refuses(400, {"error": error})], fails(K.FILTERED))
        for words, error in {
            "DashScope": {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content"},
            "OpenAI": {"code": "content_policy_violation", "message": "rejected by our safety system"},
            "Azure": {"code": "content_filter", "message": "Azure OpenAI's content management policy"},
            "DeepSeek": {"type": "invalid_request_error", "message": "Content Exists Risk"},
            "Moonshot": {"type": "content_filter", "message": "rejected because it was considered high risk"},
            "Zhipu": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"},
        }.items()
    },
    **{
        f"unpaid: {words}": ([refuses(status, {"error": error})], fails(K.QUOTA))
        for words, status, error in [
            ("DashScope", 400, {"code": "Arrearage", "message": "Access denied, account not in good standing"}),
            ("Anthropic", 400, {"type": "invalid_request_error", "message": "Your credit balance is too low"}),
            ("Moonshot", 429, {"type": "exceeded_current_quota_error", "message": "suspended"}),
            ("OpenAI", 400, {"code": "billing_hard_limit_reached", "message": "limit"}),
            ("Zhipu", 429, {"code": "1113", "message": "您的账户已欠费，请充值后重试"}),
            ("Volcengine", 403, {"code": "AccountOverdueError", "message": "overdue balance"}),
        ]
    },
    # --- the server's word with status 200 ---
    "200: 404 of vLLM": (
        [whole({"object": "error", "message": "no such model", "code": 404})],
        fails(K.BAD_REQUEST, "no such model"),
    ),
    "200: MiniMax": (
        [whole({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}})],
        fails(K.QUOTA, "insufficient balance"),
    ),
    "200: a wrong key": ([whole({"code": "InvalidApiKey", "message": "Invalid API-key"})], fails(K.UNAUTHORIZED)),
    "200: a rate": ([whole({"code": 429, "msg": "slow down"})], fails(K.BUSY, retryable=True)),
    "200: an error of text": ([whole({"error": "model 'x' not found"})], fails(K.SERVER, "model 'x' not found")),
    "200: a list of errors": ([whole({"errors": [{"message": "down"}]})], fails(K.SERVER, "down")),
    "200: a list": ([whole([{"error": {"code": 400, "message": "bad"}}])], fails(K.BAD_REQUEST, "bad")),
    "200: another API": ([whole({"output": {}, "request_id": "1"})], fails(K.SERVER, "an object of: output, request")),
    "200: no choices": ([whole({"choices": [], "model": "m"})], fails(K.SERVER, "choices, model")),
    "200: a page": ([refuses(200, "<html>Sign in</html>")], fails(K.SERVER, "HTML")),
    "200: plain text": ([refuses(200, "model is loading")], waits(K.UNAVAILABLE, "model is loading")),
    "200: an event": ([sends(event({"code": "DataInspectionFailed", "message": "x"}))], fails(K.FILTERED)),
    "200: an event after text": (
        [sends(HALF, event({"code": "DataInspectionFailed", "message": "Output may contain"}), DONE)],
        Right("Half", K.FILTERED),
    ),
    "200: draining": ([sends(ROLE, told(type="gateway_unavailable"))], waits(K.UNAVAILABLE)),
    # --- errors within a stream, by type ---
    **{
        f"in a stream: {kind}": ([sends(ROLE, told(type=kind), DONE)], right)
        for kind, right in {
            "authentication_error": fails(K.UNAUTHORIZED),
            "permission_error": fails(K.UNAUTHORIZED),
            "invalid_request_error": fails(K.BAD_REQUEST),
            "not_found_error": fails(K.BAD_REQUEST),
            "rate_limit_error": fails(K.BUSY, retryable=True),
            "insufficient_quota": fails(K.QUOTA),
            "overloaded_error": fails(K.BUSY, retryable=True),
            "timeout_error": fails(K.TIMEOUT),
            "api_error": fails(K.SERVER),
        }.items()
    },
    "in a stream, after text": ([sends(HALF, told(type="rate_limit_error"))], Right("Half", K.BUSY, retryable=True)),
    "in a stream, a text": ([sends(ROLE, b"event: error\ndata: it fell over\n\n")], fails(K.SERVER, "it fell over")),
    # --- fields that a server does not take ---
    **{
        f"without stream_options: {words}": (
            [refuses(status, error), sends(text("Hi"), STOP, DONE)],
            Right("Hi", requests=2),
        )
        for words, status, error in [
            (
                "Mistral",
                422,
                {
                    "object": "error",
                    "message": {
                        "detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "no"}]
                    },
                },
            ),
            ("OpenAI", 400, {"error": {"message": "Unknown parameter", "param": "stream_options.include_usage"}}),
            ("old OpenAI", 400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
            ("Go", 400, {"error": 'json: unknown field "stream_options"'}),
            ("Python", 400, {"detail": "create() got an unexpected keyword argument 'stream_options'"}),
            ("Rust", 422, "unknown field `stream_options`, expected one of `messages`, `user`"),
        ]
    },
}


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GRACE_S", 0.2)


@pytest.mark.parametrize("name", ROWS)
async def test_shape(name: str, server: ModelServer) -> None:
    """Each shape has its right outcome, is asked as often as that takes, and shows no thoughts."""
    behaviours, right = ROWS[name]
    server.behaviours = list(behaviours)
    pieces: list[str] = []
    error: ModelError | None = None
    async with model_at(server.base_url, name="fake-1", timeout=20) as model, asyncio.timeout(15):
        try:
            completion = await model.ask(QUESTION, user=USER, on_text=pieces.append)
        except ModelError as caught:
            error = caught
        else:
            assert (completion.text, completion.finish) == (right.text, right.finish)
    assert "".join(pieces) == right.text
    assert THOUGHT not in "".join(pieces)
    assert len(server.asked) == right.requests
    assert (error.kind if error else None) is right.kind
    if error:
        assert (error.retryable, error.waits, error.partial) == (right.retryable, right.waits, right.text)
        assert right.reason in error.reason
        assert suggest_remedy(error)


def test_there_are_enough_rows() -> None:
    """The table is meant to grow: a shape that is met in the field becomes a row."""
    assert len(ROWS) >= 80

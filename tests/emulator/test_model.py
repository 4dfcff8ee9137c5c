"""The built-in model speaks the OpenAI chat API: whole, streamed, and failing on demand."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from claw.emulator import Emulator

from .client import until


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]} | more


async def stream(http: aiohttp.ClientSession, emu: Emulator, body: dict[str, Any], timeout: float = 30) -> list[Any]:
    """Read the data lines of a streamed answer, parsed."""
    url, limit = f"{emu.url}/v1/chat/completions", aiohttp.ClientTimeout(total=timeout)
    async with http.post(url, json=body | {"stream": True}, timeout=limit) as answer:
        assert answer.content_type == "text/event-stream"
        lines = (await answer.text()).split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def content(chunks: list[Any]) -> str:
    return "".join(each["choices"][0]["delta"].get("content", "") for each in chunks[:-1] if each["choices"])


async def test_answer_is_in_the_language_of_the_question(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """Chinese is answered in Chinese and English in English, quoting what was said."""
    emu.faults.model_chunk_delay = 0
    chinese, english = content(await stream(http, emu, ask("你好"))), content(await stream(http, emu, ask("hello")))
    assert chinese.startswith("收到")
    assert "> 你好" in chinese
    assert english.startswith("I heard")


async def test_stream_ends_with_usage_and_done(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A stream ends with finish_reason, the usage if it was asked for, and [DONE]."""
    emu.faults.model_chunk_delay = 0
    chunks = await stream(http, emu, ask("hello", stream_options={"include_usage": True}))
    assert chunks[-1] == "[DONE]"
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["total_tokens"] > 0
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert len(chunks) > 20
    plain = await stream(http, emu, ask("hello"))
    assert all("usage" not in each for each in plain[:-1])


async def test_whole_answer(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """Without `stream` the answer comes as one completion, and the request is recorded."""
    body = ask("hello", messages=[{"role": "user", "content": "one"}, {"role": "user", "content": "two"}])
    async with http.post(f"{emu.url}/v1/chat/completions", json=body, headers={"Authorization": "Bearer k"}) as answer:
        completion = await answer.json()
    assert "message **2**" in completion["choices"][0]["message"]["content"]
    record = emu.model.requests[-1]
    assert (record.last_user_text, record.authorization, record.status, record.finished) == ("two", True, 200, True)
    assert "authorization" not in record.headers


async def test_the_word_of_an_error(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """An error can be called what a certain server calls it, such as a gateway that drains."""
    emu.faults.update({"model_status": 503, "model_error": "gateway_unavailable"})
    async with http.post(f"{emu.url}/v1/chat/completions", json=ask("hello")) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["type"], error["code"]) == (503, "gateway_unavailable", "gateway_unavailable")


async def test_only_one_key(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """With a key set every other one is refused, whatever else is switched on."""
    emu.faults.update({"model_key": "new-key", "model_fixed_reply": "fine"})
    for key, status in (("old-key", 401), ("new-key", 200)):
        headers = {"Authorization": f"Bearer {key}"}
        async with http.post(f"{emu.url}/v1/chat/completions", json=ask("hello"), headers=headers) as answer:
            assert answer.status == status
    assert [record.status for record in emu.model.requests] == [401, 200]


async def test_long_answer(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """`long` gives many paragraphs and a code fence, in either language."""
    emu.faults.model_chunk_delay = 0
    for command in ("long", "长文", "Ann: long"):
        text = content(await stream(http, emu, ask(command)))
        assert len(text.encode()) > 4000
        assert text.count("```") == 2


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "authentication_error"), (429, "rate_limit_error"), (500, "server_error")]
)
async def test_error_bodies(emu: Emulator, http: aiohttp.ClientSession, status: int, kind: str) -> None:
    """A failing model answers as OpenAI does, with Retry-After if it is set."""
    emu.faults.update({"model_status": status, "model_retry_after": 7})
    async with http.post(f"{emu.url}/v1/chat/completions", json=ask("hello")) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (status, "7")
        assert (await answer.json())["error"]["type"] == kind


async def test_error_by_command(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """`error` is a failure that a person can ask for."""
    async with http.post(f"{emu.url}/v1/chat/completions", json=ask("出错")) as answer:
        assert answer.status == 500


async def test_cut_stream(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A cut stream ends in the middle with a connection error."""
    emu.faults.update({"model_cut": True, "model_chunk_delay": 0})
    with pytest.raises(aiohttp.ClientError):
        await stream(http, emu, ask("hello"))
    assert not emu.model.requests[-1].finished


async def test_error_inside_the_stream(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """An error may arrive as a data line after content has begun."""
    emu.faults.update({"model_error_in_stream": True, "model_chunk_delay": 0})
    chunks = await stream(http, emu, ask("hello"))
    assert chunks[-1]["error"]["type"] == "server_error"


async def test_empty_and_fixed_answers(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """The answer can be made empty or fixed."""
    emu.faults.update({"model_fixed_reply": "42", "model_chunk_delay": 0})
    assert content(await stream(http, emu, ask("hello"))) == "42"
    emu.faults.model_empty = True
    assert content(await stream(http, emu, ask("hello"))) == ""


async def test_hanging_model_ends_with_its_caller(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A hanging answer occupies nothing once the caller has gone."""
    emu.faults.model_hang = True
    with pytest.raises(TimeoutError):
        await http.post(f"{emu.url}/v1/chat/completions", json=ask("hello"), timeout=aiohttp.ClientTimeout(total=0.2))
    await until(lambda: emu.model.in_flight == 0)


async def test_aborted_answer_is_recorded(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A caller that goes away before or within the answer ends it, and the record says so."""
    for faults in ({"model_delay": 60}, {"model_chunk_delay": 60}):
        emu.faults.reset()
        emu.faults.update({name: float(value) for name, value in faults.items()})
        with pytest.raises(TimeoutError):
            await stream(http, emu, ask("hello"), timeout=0.3)
        await until(lambda: emu.model.in_flight == 0)
        assert emu.model.requests[-1].aborted


async def test_bad_request_and_models(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A body without messages gets 400; the list of models is not empty."""
    async with http.post(f"{emu.url}/v1/chat/completions", json={"model": "m"}) as answer:
        assert answer.status == 400
    async with http.get(f"{emu.url}/v1/models") as answer:
        assert (await answer.json())["data"]

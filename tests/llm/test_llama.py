"""The model client against llama.cpp and a model that nobody faked. Asserts on the protocol, never on meaning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from claw.config import settings
from claw.errors import ModelError, ModelErrorKind
from claw.secret import Secret, hash_id
from claw.turn.model.client import ModelClient
from claw.turn.model.finish import FinishReason
from tests.llm.llama import CONTEXT

pytest.importorskip("xllamacpp", reason="make test-llm installs llama.cpp and a small model")

pytestmark = pytest.mark.llm

USER = hash_id("conversation")
QUESTION = [{"role": "user", "content": "Say hello."}]
ENDLESS = [{"role": "user", "content": "Count from 1 to 500, one number a line."}]
TOO_LONG = [{"role": "user", "content": "word " * (CONTEXT + 200)}]


@pytest.fixture
async def model(llama_server: str) -> AsyncIterator[ModelClient]:
    chosen = settings.ModelSettings(api_key=Secret(""), base_url=llama_server, name="smollm2", turn_timeout=100)
    asking = ModelClient(chosen, history_kept_elsewhere=False)
    try:
        yield asking
    finally:
        await asking.close()


async def test_a_streamed_answer(model: ModelClient) -> None:
    """A real answer comes in pieces, with an end and with counted tokens."""
    pieces: list[str] = []
    completion = await model.ask(QUESTION, user=USER, on_text=pieces.append)
    assert "".join(pieces) == completion.text != ""
    assert len(pieces) > 1
    assert completion.finish in {FinishReason.STOP, FinishReason.LENGTH}
    assert completion.usage is not None
    assert completion.usage.input_tokens > 0
    assert completion.usage.output_tokens >= len(pieces)


async def test_stop_frees_the_only_slot(model: ModelClient, llama_server: str) -> None:
    """Cancelling an answer makes the server stop working on it: its only slot is free for the next question."""
    began = asyncio.Event()
    asking = asyncio.create_task(model.ask(ENDLESS, user=USER, on_text=lambda _: began.set()), name="ask")
    await began.wait()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    assert asking.cancelled()
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            async with session.get(llama_server.removesuffix("/v1") + "/slots") as response:
                (slot,) = await response.json()
            if not slot["is_processing"]:
                break
            await asyncio.sleep(0.05)
    assert (await model.ask(QUESTION, user=USER)).text


async def test_an_overflow_is_shortened_once(model: ModelClient) -> None:
    """What does not fit is asked once more with less; what still does not fit is TOO_LONG."""
    assert (await model.ask(TOO_LONG, user=USER, shorten=lambda: QUESTION)).text
    shortened: list[int] = []

    def shorten() -> list[dict[str, str]]:
        shortened.append(1)
        return TOO_LONG

    with pytest.raises(ModelError) as caught:
        await model.ask(TOO_LONG, user=USER, shorten=shorten)
    assert (caught.value.kind, caught.value.status, caught.value.retryable) == (ModelErrorKind.TOO_LONG, 400, False)
    assert caught.value.code == "exceed_context_size_error"
    assert shortened == [1]


async def test_concurrent_questions_wait_for_the_slot(model: ModelClient) -> None:
    """Questions at the same time are all answered, one after the other."""
    answers = await asyncio.gather(*[model.ask(QUESTION, user=USER) for _ in range(3)])
    assert all(each.text for each in answers)

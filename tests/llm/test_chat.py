"""The whole round trip with a model that nobody faked: DingTalk's frame in, llama.cpp's words out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from claw.emulator import Emulator
from tests.collector import Collector
from tests.service import environment, running

pytestmark = [pytest.mark.llm, pytest.mark.timeout(240)]


async def test_a_real_model_answers_in_the_chat(llama_server: str, tmp_path: Path) -> None:
    """A streamed answer with usage reaches the chat, and its trace says what it cost."""
    async with Collector() as collector, Emulator(rate_limits=False) as emulator:
        environ = environment(
            emulator.url,
            tmp_path / "claw.db",
            OPENAI_BASE_URL=llama_server,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        async with running(environ, tmp_path) as service:
            reply = await emulator.wait_reply_to(await emulator.say("Say hello."), timeout=120)
            assert reply.text.strip()
            assert await service.terminate() == 0
    chat = next(span for span in collector.spans if span.name.startswith("chat "))
    assert chat.attributes["gen_ai.usage.input_tokens"] > 0
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0


async def test_stop_in_mid_stream_frees_the_slot(llama_server: str, tmp_path: Path) -> None:
    """/stop while llama.cpp still talks: the person is told at once, and its only slot is free for the next one."""

    async def busy(http: aiohttp.ClientSession) -> bool:
        async with http.get(llama_server.removesuffix("/v1") + "/slots") as response:
            (slot,) = await response.json()
            return bool(slot["is_processing"])

    async with Emulator(rate_limits=False) as emulator, aiohttp.ClientSession() as http:
        environ = environment(emulator.url, tmp_path / "claw.db", OPENAI_BASE_URL=llama_server)
        async with running(environ, tmp_path), asyncio.timeout(200):
            endless = await emulator.say("Count from 1 to 500, one number a line.")
            while not await busy(http):
                await asyncio.sleep(0.01)
            assert "Stopped." in (await emulator.wait_reply_to(await emulator.say("/stop"), timeout=60)).text
            while await busy(http):
                await asyncio.sleep(0.01)
            assert (await emulator.wait_reply_to(await emulator.say("Say hello."), timeout=120)).text
            assert not emulator.replies.to(endless.msg_id)

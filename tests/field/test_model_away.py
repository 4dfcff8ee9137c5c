"""A model's server that is not there yet, that drains, or that was given another key."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from claw.emulator import Emulator, Said
from tests.redis_server import free_port
from tests.roundtrip.conftest import Claw
from tests.service import environment, running

pytestmark = pytest.mark.timeout(90)

ANSWER = "here is the answer"
AWAY_S = 8.0
"""An agent's gateway needs 9 to 24 s for its start (docs/openclaw.md); here is what a test may take."""
DRAINING_S = 5.0


async def answered(emulator: Emulator, said: Sequence[Said]) -> list[str]:
    """Wait until each is answered, once; what else was said to each of them."""
    async with asyncio.timeout(40):
        while True:
            replies = [[reply.text for reply in emulator.replies.to(each.msg_id)] for each in said]
            if all(any(ANSWER in text for text in texts) for texts in replies):
                break
            await asyncio.sleep(0.05)
    assert all(sum(ANSWER in text for text in texts) == 1 for texts in replies)
    # Of a longer wait a person is told once.
    assert all(len(texts) <= 2 for texts in replies)
    return [text for text in itertools.chain(*replies) if ANSWER not in text]


async def test_a_server_that_starts_later(emulator: Emulator, tmp_path: Path) -> None:
    """What people ask before the model's server is up is answered once it is, and those who wait are told so."""
    model = Emulator(port=free_port())
    model.faults.update({"model_fixed_reply": ANSWER})
    environ = environment(emulator.url, tmp_path / "claw.db", OPENAI_BASE_URL=f"{model.url}/v1")
    async with running(environ, tmp_path):
        people = ("u-1001", "u-1002", "u-1003")
        said = [await emulator.say(f"question {number}", person=people[number % 3]) for number in range(5)]
        await asyncio.sleep(AWAY_S)
        # Whoever waits is told so, whenever a busy machine comes to it.
        async with asyncio.timeout(30):
            while not any(emulator.replies.to(each.msg_id) for each in said):
                await asyncio.sleep(0.05)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(model)
            told = await answered(emulator, said)
            assert model.model.count == len(said)
        assert told


async def test_a_server_that_drains(emulator: Emulator, claw: Claw) -> None:
    """A gateway that takes no work while it restarts is waited for, longer than the tries for a fault would last."""
    async with claw(CLAW_MAX_ATTEMPTS="1"):
        emulator.faults.update({"model_status": 503, "model_error": "gateway_unavailable", "model_fixed_reply": ANSWER})
        said = [await emulator.say("hello", person=person) for person in ("u-1001", "u-1002")]
        await asyncio.sleep(DRAINING_S)
        assert emulator.model.count < 20
        emulator.faults.update({"model_status": 0, "model_error": ""})
        await answered(emulator, said)


async def test_a_key_that_is_rotated(emulator: Emulator, tmp_path: Path) -> None:
    """A key in a file is read again when the old one is refused; nobody notices, and neither stands in the log."""
    file = tmp_path / "key"
    file.write_text("sk-the-old-key-of-the-test\n")
    environ = environment(emulator.url, tmp_path / "claw.db", OPENAI_API_KEY_FILE=str(file))
    del environ["OPENAI_API_KEY"]
    emulator.faults.update({"model_key": "sk-the-old-key-of-the-test", "model_fixed_reply": ANSWER})
    async with running(environ, tmp_path) as service:
        assert ANSWER in (await emulator.wait_reply_to(await emulator.say("one"))).text
        file.write_text("sk-the-new-key-of-the-test\n")
        emulator.faults.update({"model_key": "sk-the-new-key-of-the-test"})
        assert ANSWER in (await emulator.wait_reply_to(await emulator.say("two"))).text
        assert [record.status for record in emulator.model.requests] == [200, 401, 200]
        assert ANSWER in (await emulator.wait_reply_to(await emulator.say("three"))).text
        assert emulator.model.count == 4
        assert await service.terminate() == 0
    assert "key-of-the-test" not in "\n".join(service.lines)

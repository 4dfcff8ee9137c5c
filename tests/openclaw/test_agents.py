"""Groups with agents of their own at one gateway: no word of one reaches the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from claw.emulator import Emulator
from tests.openclaw import gateway as openclaw
from tests.openclaw.gateway import Gateway
from tests.openclaw.provider import Provider
from tests.openclaw.stack import Stack
from tests.service import Service

pytestmark = [pytest.mark.openclaw, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

MAIN, RESEARCH = "openclaw/main", "openclaw/research"


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    shared_provider: Provider, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> AsyncIterator[Stack]:
    """A stack whose gateway has two agents."""
    if reason := openclaw.missing():
        pytest.skip(reason)
    shared_provider.reset()
    gateway = Gateway(tmp_path / "gateway", shared_provider.url, agents=("main", "research"))
    try:
        await gateway.ensure_ready()
        async with Emulator(rate_limits=False) as emulator:
            yield Stack(emulator, gateway, shared_provider, tmp_path, record_property)
    finally:
        await gateway.kill()


async def choose(claw: Service, title: str, model: str | None) -> None:
    """Give a group an agent of its own, or take it away."""
    chats = (await claw.call("GET", "/api/chats"))[1]["chats"]
    chat = next(each for each in chats if each["title"] == title)
    status, _ = await claw.call("PUT", f"/api/chats/{quote(chat['id'], safe='')}", {"model": model})
    assert status == 200


async def test_two_groups_have_two_agents(stack: Stack) -> None:
    """Each agent knows its own group's words alone, also after the setting was changed back and forth."""
    for name in ("one", "two"):
        stack.emulator.chats.add_group(f"g-{name}", f"Group {name}")
    person = stack.person()
    async with stack.claw(OPENAI_MODEL=MAIN, CLAW_MODELS=RESEARCH, CLAW_CONTEXT="off") as claw:

        async def ask(text: str, chat: str) -> None:
            said = await stack.emulator.say(text, person=person, chat=chat)
            reply = await stack.emulator.wait_reply_to(said, timeout=120)
            assert f"You said: {text}" in reply.text

        await ask("The code of one is 111.", "g-one")
        await ask("The code of two is 222.", "g-two")
        await choose(claw, "Group two", RESEARCH)
        await ask("What is it in two?", "g-two")
        await ask("What is it in one?", "g-one")
        await choose(claw, "Group two", None)
        await ask("And now in two?", "g-two")
        await choose(claw, "Group two", RESEARCH)
        await ask("Once more in two?", "g-two")
    heard = {call.question: call.questions[:-1] for call in stack.provider.calls}
    assert heard["What is it in two?"] == []
    assert heard["What is it in one?"] == ["The code of one is 111."]
    assert heard["And now in two?"] == ["The code of two is 222."]
    assert heard["Once more in two?"] == ["What is it in two?"]

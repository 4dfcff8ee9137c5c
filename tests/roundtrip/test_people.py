"""Owner, policies and chats by a real process; and that an answer goes only to the conversation that asked."""

from __future__ import annotations

import asyncio

import pytest

from claw.emulator import Emulator, Person
from claw.language import Language
from claw.turn import texts
from tests.roundtrip.conftest import Claw
from tests.service import ADMIN_TOKEN

ZH = Language.ZH

pytestmark = pytest.mark.timeout(110)


def crowd(emulator: Emulator, size: int) -> list[str]:
    """So many people, by their staff ids."""
    ids = [f"p-{number}" for number in range(size)]
    for each in ids:
        emulator.chats.add_person(Person(each, f"person {each}", each))
    return ids


async def test_one_owner_out_of_fifty(emulator: Emulator, claw: Claw) -> None:
    """Of 50 first messages at the same moment one makes the owner, and each is answered."""
    people = crowd(emulator, 50)
    async with claw(CLAW_OWNER="") as service:
        said = [await emulator.say("你好", person=each) for each in people]
        replies = [await emulator.wait_reply_to(each, timeout=30) for each in said]
        assert sum(texts.PAIRED[ZH] in reply.text for reply in replies) == 1
        assert all("你好" in reply.text for reply in replies)
        access = (await service.get("/status", ADMIN_TOKEN))[1]["access"]
        assert len(access["owner"]) == 1
        assert await service.wait_log("no owner yet")


async def test_restart_keeps_what_was_settled(emulator: Emulator, claw: Claw) -> None:
    """Owner, chats and the policy set in chat hold after a restart; who is kept out costs no model call."""
    async with claw(CLAW_OWNER="") as service:
        await emulator.wait_reply_to(await emulator.say("你好"))
        await emulator.wait_reply_to(await emulator.say("大家好", person="u-1002", chat="g-team"))
        await emulator.wait_reply_to(await emulator.say("/policy group allowlist"))
        assert await service.terminate() == 0
    async with claw(CLAW_OWNER=""):
        asked = emulator.model.count
        told = await emulator.wait_reply_to(await emulator.say("/status"))
        assert "allowlist" in told.text
        await emulator.say("听得到吗", person="u-1002", chat="g-team")
        chats = await emulator.wait_reply_to(await emulator.say("/chats"))
        assert "产品研发群" in chats.text
        assert (
            texts.OWNER_ONLY[ZH] in (await emulator.wait_reply_to(await emulator.say("/chats", person="u-1002"))).text
        )
        assert emulator.model.count == asked


async def test_restart_by_the_owner(emulator: Emulator, claw: Claw) -> None:
    """/restart process is answered first, and then the process drains and leaves with 75."""
    async with claw(CLAW_OWNER="u-1001") as service:
        await emulator.wait_reply_to(await emulator.say("/restart process"))
        assert await service.ended() == 75
    async with claw():
        await emulator.wait_reply_to(await emulator.say("still there?"))
        assert len([reply for reply in emulator.replies.log if texts.RESTARTING[ZH] in reply.text]) == 1


async def test_answers_go_where_they_were_asked(emulator: Emulator, claw: Claw) -> None:
    """200 conversations at once, each answer with a mark of its own, and none in a wrong place."""
    people = crowd(emulator, 200)
    emulator.faults.update({"model_chunk_delay": 0.0})
    async with claw(CLAW_GROUP_SESSION="per_user"):
        said = {}
        for number, each in enumerate(people):
            chat = "direct" if number % 4 else "g-team"
            said[each] = [await emulator.say(f"(mark {each} {turn})", person=each, chat=chat) for turn in range(3)]
            await asyncio.sleep(0)
        for each, messages in said.items():
            for turn, message in enumerate(messages):
                reply = await emulator.wait_reply_to(message, timeout=90)
                assert f"(mark {each} {turn})" in reply.text
                assert reply.chat == message.message.chat
                assert reply.text.count("(mark ") == 1
        assert len(emulator.replies.log) == 600

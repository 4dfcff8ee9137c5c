"""The session webhook of the emulator: HTTP 200 always, and errcodes by docs/protocol.md section 6.1."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest

from claw.emulator import Emulator

from .client import FakeRobot
from .conftest import Connect

MARKDOWN = {"msgtype": "markdown", "markdown": {"title": "t", "text": "**hi**"}}


async def test_reply_is_delivered_to_its_chat(emu: Emulator, robot: FakeRobot) -> None:
    """A reply over the session webhook appears in the chat of the message that it answers."""
    said = await emu.say("hello", chat="g-team", person="u-1003")
    message = await robot.message()
    assert message["text"]["content"] == " hello"
    assert await robot.reply(message, "hi Ann", at={"atUserIds": ["u-1003"]}) == {"errcode": 0, "errmsg": "ok"}
    reply = await emu.wait_reply_to(said)
    assert (reply.chat, reply.text, reply.at, reply.via) == ("g-team", "hi Ann", ["u-1003"], "webhook")
    assert await emu.wait_reply("g-team", contains="Ann") is reply


async def test_session_serves_several_replies(emu: Emulator, robot: FakeRobot) -> None:
    """One session takes more than one message."""
    said = await emu.say("hello")
    message = await robot.message()
    for text in ("one", "two"):
        await robot.reply(message, text)
    assert [reply.text for reply in emu.replies.to(said.msg_id)] == ["one", "two"]


async def test_impatient_waiter_takes_nothing_from_others(emu: Emulator, robot: FakeRobot) -> None:
    """Of two that wait for one reply the first may give up; the other still gets it, and nothing is left behind."""
    said = await emu.say("hello")
    patient = asyncio.create_task(emu.wait_reply_to(said))
    with pytest.raises(TimeoutError, match=re.escape(said.msg_id[:10])):
        await emu.wait_reply_to(said, timeout=0.05)
    await robot.reply(await robot.message(), "here")
    assert (await patient).text == "here"
    assert not emu.replies._watchers_by_message


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40035),
        ([], 40035),
        ({"msgtype": "markdown"}, 40035),
        ({"msgtype": "markdown", "markdown": {"text": "no title"}}, 40035),
        ({"msgtype": "text", "text": {"content": ""}}, 40035),
        ({"msgtype": "voice", "voice": {}}, 400105),
        ({"msgtype": "text", "text": {"content": "x" * 20_000}}, 460101),
    ],
)
async def test_bad_body(emu: Emulator, robot: FakeRobot, body: Any, errcode: int) -> None:
    """What cannot be sent is refused with HTTP 200 and its errcode, and nothing is delivered."""
    await emu.say("hello")
    message = await robot.message()
    assert (await robot.post_json(message["sessionWebhook"], body))["errcode"] == errcode
    assert not len(emu.replies)


async def test_wrong_content_type(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession) -> None:
    """Only application/json is taken."""
    await emu.say("hello")
    message = await robot.message()
    async with http.post(message["sessionWebhook"], data=b"{}", headers={"Content-Type": "text/plain"}) as answer:
        assert (await answer.json())["errcode"] == 43004


async def test_expired_and_invented_sessions(emu: Emulator, robot: FakeRobot) -> None:
    """An expired session and one that was never issued get 300001."""
    await emu.say("hello")
    message = await robot.message()
    emu.act("expire_sessions")
    assert await robot.reply(message, "late") == {"errcode": 300001, "errmsg": "session 不存在"}
    invented = {"sessionWebhook": f"{emu.url}/robot/sendBySession?session=00ff"}
    assert (await robot.reply(invented, "x"))["errcode"] == 300001
    await emu.say("again")
    assert (await robot.reply(await robot.message(), "in time"))["errcode"] == 0


async def test_session_says_when_it_expires(emu: Emulator, robot: FakeRobot) -> None:
    """sessionWebhookExpiredTime is 90 minutes after createAt."""
    await emu.say("hello")
    message = await robot.message()
    assert abs(message["sessionWebhookExpiredTime"] - message["createAt"] - 5_400_000) < 1000


async def test_twenty_a_minute(http: aiohttp.ClientSession) -> None:
    """The 21st message of a session within a minute gets 130101, and so do all after it; another session does not."""
    async with Emulator(rate_limits=True) as emu:
        robot = await FakeRobot(emu, http).connect()
        await emu.wait_connections()
        await emu.say("hello")
        message = await robot.message()
        codes = [(await robot.reply(message, str(n)))["errcode"] for n in range(22)]
        assert codes == [0] * 20 + [130101] * 2
        await emu.say("hello")
        assert (await robot.reply(await robot.message(), "other session"))["errcode"] == 0
        await robot.close()


async def test_webhook_faults(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession) -> None:
    """A fault with a budget acts so many times and turns itself off."""
    await emu.say("hello")
    message = await robot.message()
    emu.faults.update({"webhook_errcode": -1, "webhook_status": 500})
    emu.faults.fault_budget = {"webhook_errcode": 1, "webhook_status": 1}
    async with http.post(message["sessionWebhook"], json=MARKDOWN) as answer:
        assert answer.status == 500
    assert [(await robot.reply(message, "x"))["errcode"] for _ in range(2)] == [-1, 0]
    assert emu.faults.active() == {}
    assert emu.webhook.calls == {"http 500": 1, "-1": 1, "ok": 1}


async def test_timeout_after_delivery(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession) -> None:
    """With this fault the message is delivered although the caller never learns it."""
    said = await emu.say("hello")
    message = await robot.message()
    emu.faults.webhook_timeout_after_delivery = True
    with pytest.raises(TimeoutError):
        await http.post(message["sessionWebhook"], json=MARKDOWN, timeout=aiohttp.ClientTimeout(total=0.3))
    assert len(emu.replies.to(said.msg_id)) == 1


@pytest.mark.parametrize(("when", "delivered"), [("before", 0), ("after", 1)])
async def test_cut(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession, when: str, delivered: int) -> None:
    """The connection ends without an answer; whether the message is out the emulator knows, and the caller does not."""
    said = await emu.say("hello")
    message = await robot.message()
    emu.faults.update({"webhook_cut": when, "fault_budget": {"webhook_cut": 1}})
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.post(message["sessionWebhook"], json=MARKDOWN)
    assert [reply.confirmed for reply in emu.replies.to(said.msg_id)] == [False] * delivered
    assert (await robot.reply(message, "again"))["errcode"] == 0
    assert emu.replies.to(said.msg_id)[-1].confirmed


@pytest.mark.parametrize("status", [0, 302, 407, 504])
async def test_page_of_a_gateway(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession, status: int) -> None:
    """A gateway before DingTalk answers with its own page, which has no errcode, and nothing is delivered."""
    await emu.say("hello")
    message = await robot.message()
    emu.faults.update({"webhook_status": status, "webhook_html": True})
    async with http.post(message["sessionWebhook"], json=MARKDOWN, allow_redirects=False) as answer:
        assert (answer.status, answer.content_type) == (status or 502, "text/html")
    assert not len(emu.replies)


async def test_over_the_monthly_quota_messages_are_empty(emu: Emulator, robot: FakeRobot) -> None:
    """Over the Stream quota a robot message comes with errCode 20001 and without text."""
    emu.faults.stream_month_limit = 1
    await emu.say("first")
    await emu.say("second")
    first, second = await robot.message(), await robot.message()
    assert "errCode" not in first
    assert second["errCode"] == "20001"
    assert "text" not in second


@pytest.mark.parametrize("msgtype", ["richText", "picture", "audio", "video", "file", "unknownMsgType"])
async def test_other_message_types_carry_content(emu: Emulator, robot: FakeRobot, msgtype: str) -> None:
    """Every message type but text has its body in `content`."""
    await emu.say("look", msgtype=msgtype)
    message = await robot.message()
    assert message["msgtype"] == msgtype
    assert isinstance(message["content"], dict)
    assert "text" not in message


async def test_quoted_message(emu: Emulator, robot: FakeRobot) -> None:
    """A quoting message carries the quoted one and names its id."""
    old = await emu.say("the old one")
    await robot.message()
    await emu.say("what is this?", quote=old.msg_id)
    message = await robot.message()
    assert message["originalMsgId"] == old.msg_id
    assert message["text"]["isReplyMsg"] is True
    assert message["text"]["repliedMsg"]["content"] == {"text": "the old one"}


async def test_group_message_without_mention_is_not_pushed(emu: Emulator, robot: FakeRobot) -> None:
    """In a group the robot gets only what mentions it; an external person has no staff id."""
    said = await emu.say("not for you", chat="g-team", at_robot=False)
    assert said.push is None
    await emu.say("for you", chat="g-team", person="x-2001")
    message = await robot.message()
    assert message["text"]["content"] == " for you"
    assert message["atUsers"][0]["dingtalkId"] == message["chatbotUserId"]
    assert "senderStaffId" not in message


async def test_many_messages_in_bounded_memory(connect: Connect, emu: Emulator) -> None:
    """A burst is acked whole, and no log grows over its bound."""
    robot = await connect()
    pushes = []
    for n in range(2500):
        pushes.append((await emu.say(f"{n}")).push)
        if n % 100 == 0:
            await asyncio.sleep(0)
    last = pushes[-1]
    assert last is not None
    await asyncio.wait_for(last.acked.wait(), 30)
    assert robot.frames.qsize() == 2500
    assert len(emu.pushes) == len(emu.chats.chat("direct:u-1001").messages) == 2000
    assert emu.gateway.pushes.count == 2500
    assert not emu.violations

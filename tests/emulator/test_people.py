"""What people send, as DingTalk sends it on (docs/protocol.md sections 5 and 10a)."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp
import pytest

from claw.emulator import Emulator, Person, UnknownError
from claw.emulator.bodies import DOCUMENT_URL
from tests.emulator.client import FakeRobot


async def sent(robot: FakeRobot) -> dict[str, Any]:
    message: dict[str, Any] = await robot.message()
    return message


@pytest.mark.parametrize(
    ("client", "msgtype", "body"),
    [
        ("usual", "text", {"content": " 请帮  写"}),
        ("leaves_mention", "text", {"content": "@小助手 请帮  写"}),
        ("harmony", "richText", {"richText": [{"text": "@小助手"}, {"text": "请帮  写"}]}),
    ],
)
async def test_clients_differ(emu: Emulator, robot: FakeRobot, client: str, msgtype: str, body: dict[str, Any]) -> None:
    """Others' names are taken out of plain text and stand in `atUsers`; some clients leave the robot's there."""
    await emu.say("请帮 @王大伟 写", chat="g-team", at=["u-1002"], client=client)
    message = await sent(robot)
    assert (message["msgtype"], message["text" if msgtype == "text" else "content"]) == (msgtype, body)
    assert message["atUsers"][0] == {"dingtalkId": message["chatbotUserId"]}
    assert message["atUsers"][1]["staffId"] == "u-1002"


async def test_a_mention_after_the_words(emu: Emulator, robot: FakeRobot) -> None:
    """Some clients leave the robot's name behind what was said; one name that begins another is taken out whole."""
    emu.chats.add_person(Person("u-9", "Anna", "u-9"))
    await emu.say("@Anna @Ann hi", chat="g-team", at=["u-1003", "u-9"], client="trails_mention")
    assert (await sent(robot))["text"] == {"content": "  hi @小助手"}
    picture = {"type": "picture", "downloadCode": "dcA1"}
    content = {"richText": [{"text": "look"}, picture]}
    await emu.say(msgtype="richText", content=content, chat="g-team", client="trails_mention")
    assert (await sent(robot))["content"]["richText"] == [{"text": "look"}, picture, {"text": "@小助手"}]


async def test_bodies_by_type(emu: Emulator, robot: FakeRobot) -> None:
    """Each body has the fields of vector V7, no more and no fewer."""
    pictures: dict[str, Any] = {"downloadCode": "dc", "pictureDownloadCode": "dc"}
    table: list[tuple[str, str, dict[str, Any]]] = [
        ("richText", "look: ", {"richText": [{"text": "look: "}, {"type": "picture"} | pictures]}),
        ("picture", "", pictures),
        ("audio", "明天提醒我开会", {"duration": 3200, "downloadCode": "dc", "recognition": "明天提醒我开会"}),
        ("audio", "", {"duration": 3200, "downloadCode": "dc", "recognition": ""}),
        ("video", "", {"duration": "5", "videoType": "mp4", "downloadCode": "dc"}),
        (
            "file",
            "report v2.pdf",
            {"spaceId": "900001", "fileName": "report v2.pdf", "downloadCode": "dc", "fileId": "800001"},
        ),
        ("unknownMsgType", "", {"unknownMsgType": "[不支持的消息]"}),
        ("markdown", "# x", {"text": "# x"}),
        ("interactiveCard", "三季度", {"biz_custom_action_url": DOCUMENT_URL}),
    ]
    for msgtype, text, body in table:
        await emu.say(text, msgtype=msgtype)
        message = await sent(robot)
        found = json.loads(re.sub(r'"dc[\w-]{30,}"', '"dc"', json.dumps(message["content"])))
        assert (message["msgtype"], found) == (msgtype, body)
        assert "text" not in message


async def test_an_outsider(emu: Emulator, robot: FakeRobot) -> None:
    """Somebody from outside has no staff id and no corporation."""
    await emu.say("hi", person="x-2001", chat="g-team", at=["u-1002"])
    message = await sent(robot)
    assert not {"senderStaffId", "senderCorpId"} & set(message)
    await emu.say("hi", chat="g-team", at=["x-2001"])
    assert set((await sent(robot))["atUsers"][1]) == {"dingtalkId"}


async def test_a_forwarded_chat(emu: Emulator, robot: FakeRobot) -> None:
    """Entries tell who spoke, or the summary's list alone does; rich texts and files stay what they are."""
    rich = {
        "richText": [{"text": "报错如下"}, {"type": "picture", "downloadCode": "dcA1", "pictureDownloadCode": "pdA1"}]
    }
    said = [
        await emu.say("发版吗", chat="g-team", at_robot=False),
        await emu.say(msgtype="richText", content=rich, person="u-1003", chat="g-team", at_robot=False),
    ]
    forward = [each.msg_id for each in said]
    spelt: dict[str, Any] = {
        "richText": [{"msgType": "text", "content": "报错如下"}, {"msgType": "picture", "downloadCode": "dcA1"}]
    }
    contents: list[dict[str, Any]] = [
        {"msgType": "text", "content": "发版吗"},
        {"msgType": "richText", "content": spelt},
    ]
    await emu.say(forward=forward)
    content = (await sent(robot))["content"]
    assert content["summary"] == "林小雨: 发版吗\nAnn: 报错如下[图片]"
    names: list[dict[str, Any]] = [{"senderNick": "林小雨"}, {"senderNick": "Ann"}]
    assert json.loads(content["chatRecord"]) == [name | each for name, each in zip(names, contents, strict=True)]
    await emu.say(forward=forward, named=False)
    content = (await sent(robot))["content"]
    ids = [{"senderId": emu.chats.person(each).dingtalk_id} for each in ("u-1001", "u-1003")]
    assert json.loads(content["chatRecord"]) == [who | each for who, each in zip(ids, contents, strict=True)]
    assert json.loads(content["summary"]) == ["林小雨:发版吗", "Ann:报错如下[图片]"]


async def test_quotes_by_type(emu: Emulator, robot: FakeRobot) -> None:
    """A quote has the shape of vector V7, nests what it quotes itself, and names the robot as the sender of its own."""
    picture = {"type": "picture", "downloadCode": "dcF1", "pictureDownloadCode": "pdF1"}
    first = await emu.say(
        msgtype="richText", content={"richText": [{"text": "see"}, picture]}, person="u-1002", chat="g-team"
    )
    await sent(robot)
    second = await emu.say("what?", chat="g-team", quote=first.msg_id)
    message = await sent(robot)
    replied = {
        "msgId": first.msg_id,
        "msgType": "richText",
        "senderId": emu.chats.person("u-1002").dingtalk_id,
        "createdAt": first.message.created_at,
        "content": {
            "richText": [{"msgType": "text", "content": "see"}, {"msgType": "picture", "downloadCode": "dcF1"}]
        },
    }
    assert message["text"] == {"content": " what?", "isReplyMsg": True, "repliedMsg": replied}
    assert message["originalMsgId"] == first.msg_id
    await robot.reply(message, "**so**")
    reply = await emu.wait_reply("g-team")
    await emu.say("hm", chat="g-team", quote=second.msg_id)
    nested = (await sent(robot))["text"]["repliedMsg"]
    assert nested["content"] == {"text": "what?", "isReplyMsg": True, "repliedMsg": replied}
    await emu.say("hm", chat="g-team", quote=reply.message.id)
    own = (await sent(robot))["text"]["repliedMsg"]
    assert (own["msgType"], own["content"], own["senderId"]) == (
        "markdown",
        {"text": "**so**"},
        message["chatbotUserId"],
    )


async def test_a_quoted_card_and_file_of_the_robot(
    emu: Emulator, http: aiohttp.ClientSession, robot: FakeRobot
) -> None:
    """A card is quoted as a tree under its carrierId, a file and a picture by a download code."""
    await robot.api(
        "POST",
        "/v1.0/card/instances/createAndDeliver",
        {
            "cardTemplateId": "8aebdfb9-28f4-4a98-98f5-396c3dde41a0.schema",
            "outTrackId": "trk",
            "cardData": {"cardParamMap": {"content": "three pages"}},
            "openSpaceId": "dtv1.card//IM_ROBOT.u-1001",
            "imRobotOpenDeliverModel": {"spaceType": "IM_ROBOT"},
        },
    )
    card = list(emu.chats.chat("direct:u-1001").messages)[-1]
    await emu.say("hm", quote=card.id)
    message = await sent(robot)
    assert message["originalProcessQueryKey"] == card.receipt
    assert message["text"]["repliedMsg"]["msgType"] == "interactiveCard"
    assert message["text"]["repliedMsg"]["content"]["cardContent"]["children"][0]["value"] == "three pages"
    form = aiohttp.FormData()
    form.add_field("media", b"%PDF", filename="a.pdf", content_type="application/pdf")
    async with http.post(f"{emu.url}/media/upload?access_token={await robot.token()}&type=file", data=form) as answer:
        media = (await answer.json())["media_id"]
    send = {"robotCode": emu.robot_code, "userIds": ["u-1001"]}
    params = {
        "sampleFile": {"mediaId": media, "fileName": "a.pdf", "fileType": "pdf"},
        "sampleImageMsg": {"photoURL": media},
    }
    for key, param in params.items():
        await robot.api(
            "POST", "/v1.0/robot/oToMessages/batchSend", send | {"msgKey": key, "msgParam": json.dumps(param)}
        )
        await emu.say("hm", quote=list(emu.chats.chat("direct:u-1001").messages)[-1].id)
        replied = (await sent(robot))["text"]["repliedMsg"]
        body = {"downloadCode": replied["content"]["downloadCode"], "robotCode": emu.robot_code}
        status, found = await robot.api("POST", "/v1.0/robot/messageFiles/download", body)
        assert (status, replied["msgType"]) == (200, {"sampleFile": "file", "sampleImageMsg": "picture"}[key])
        async with http.get(found["downloadUrl"]) as answer:
            assert await answer.read() == b"%PDF"


async def test_a_quote_by_reference(emu: Emulator, robot: FakeRobot) -> None:
    """Only the ids come; of the robot's own message its receipt as well."""
    said = await emu.say("你好")
    await sent(robot)
    payload = {"robotCode": emu.robot_code, "userIds": ["u-1001"], "msgKey": "sampleText"}
    answer = await robot.api("POST", "/v1.0/robot/oToMessages/batchSend", payload | {"msgParam": '{"content":"hi"}'})
    reply = await emu.wait_reply("direct:u-1001")
    await emu.say("什么意思", quote=reply.message.id, bare_quote=True)
    message = await sent(robot)
    assert message["originalMsgId"] == reply.message.id
    assert message["originalProcessQueryKey"] == reply.message.receipt
    assert message["text"] == {"content": "什么意思", "isReplyMsg": True}
    assert said.msg_id != reply.message.id
    assert answer


async def test_nobody_knows_such_a_client(emu: Emulator) -> None:
    """A name that is none is an error of the caller's."""
    with pytest.raises(UnknownError):
        await emu.say("x", chat="g-team", client="blackberry")


async def fetch(emu: Emulator, http: aiohttp.ClientSession, code: str) -> bytes:
    async with http.get(f"{emu.url}/files/{code}") as answer:
        answer.raise_for_status()
        return await answer.read()


async def test_the_third_fetch_fails(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A fault that lets two uses pass and has a budget of one hits the third alone."""
    code = emu.files.add(b"x")
    emu.faults.update({"file_status": 502, "fault_pass": {"file_status": 2}, "fault_budget": {"file_status": 1}})
    found = []
    for _ in range(4):
        # The page shows files by a way of its own, which uses up nothing.
        async with http.get(f"{emu.url}/_/files/{code}") as shown, http.get(f"{emu.url}/files/{code}") as answer:
            found.append((shown.status, answer.status))
    assert found == [(200, 200), (200, 200), (200, 502), (200, 200)]
    assert emu.faults.active() == {}
    assert emu.faults.fault_pass == {}


async def test_storage_lies_about_a_length(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A length that is too long ends in a broken body, one that is too short in a cut one, none in a whole one."""
    code = emu.files.add(bytes(1000))
    emu.faults.file_length = "longer"
    with pytest.raises(aiohttp.ClientPayloadError):
        await fetch(emu, http, code)
    emu.faults.file_length = "shorter"
    assert await fetch(emu, http, code) == bytes(500)
    emu.faults.file_length = "none"
    async with http.get(f"{emu.url}/files/{code}") as answer:
        assert "Content-Length" not in answer.headers
        assert await answer.read() == bytes(1000)


async def test_slow_storage(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A file that comes at a rate takes its time, and whoever waits no longer ends it; nothing else waits for it."""
    code = emu.files.add(bytes(1000))
    emu.faults.file_rate = 4000
    started = asyncio.get_running_loop().time()
    assert await fetch(emu, http, code) == bytes(1000)
    assert asyncio.get_running_loop().time() - started >= 0.2
    emu.faults.file_rate = 10
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await fetch(emu, http, code)


async def test_an_expired_code(emu: Emulator, robot: FakeRobot) -> None:
    """While the switch is on, every download code has expired."""
    body = {"downloadCode": emu.files.add(b"x"), "robotCode": emu.robot_code}
    emu.faults.update({"file_expired": True, "fault_budget": {"file_expired": 1}})
    status, found = await robot.api("POST", "/v1.0/robot/messageFiles/download", body)
    assert (status, found["code"]) == (400, "invalidParameter.robotCode.downloadCode")
    assert (await robot.api("POST", "/v1.0/robot/messageFiles/download", body))[0] == 200

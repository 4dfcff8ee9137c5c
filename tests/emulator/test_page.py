"""The emulator's page in a real Chromium: a person writes, the robot answers, a fault is switched on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page, Route, expect

from claw.emulator import Emulator
from claw.emulator.files import make_png
from tests.browser import MARKS

from .client import FakeRobot, until, upload

pytestmark = MARKS


async def test_conversation(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """What a person types reaches the robot, and its answer appears rendered."""
    await expect(page.locator("#connections")).to_contain_text("c1")
    await page.fill("#message", "你好")
    await page.press("#message", "Enter")
    message = await robot.message()
    assert message["text"]["content"] == "你好"
    await robot.reply(
        message,
        "## 标题\n\n用 List&lt;String> &amp;\n\n- **粗体**\n\n```\n<b>code</b>\n```\n\n[link](https://example.com/?a=1&b=2)",
    )
    answer = page.locator(".bubble.robot")
    await expect(answer.locator("strong")).to_have_text("粗体")
    await expect(answer.locator("pre")).to_have_text("<b>code</b>")
    await expect(answer.locator("p").first).to_have_text("用 List<String> &")
    await expect(answer.locator("a")).to_have_attribute("href", "https://example.com/?a=1&b=2")
    await expect(page.locator("#frames")).to_contain_text("CALLBACK")


async def test_group_with_and_without_mention(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """In a group only a message that mentions the robot reaches it."""
    await page.select_option("#person", "u-1003")
    await page.select_option("#chat", "g-team")
    await page.uncheck("#at-robot")
    await page.fill("#message", "among us")
    await page.click("#send")
    await expect(page.locator(".bubble.person")).to_have_text("among us")
    await page.check("#at-robot")
    await page.fill("#message", "robot?")
    await page.click("#send")
    message = await robot.message()
    assert (message["senderNick"], message["text"]["content"]) == ("Ann", " robot?")
    assert robot.frames.empty()


async def test_markup_of_a_message_is_text(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """Whatever anybody writes, no tag and no script of it comes alive."""
    attack = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
    link = "[x](javascript:document.title=1) ![y](https://example.com/t.png) `<i>` **<u>b</u>**"
    await emu.say(attack)
    await robot.reply(await robot.message(), f"{attack}\n\n{link}\n\n# <svg onload=alert(1)>\n\n```\n</code><b>\n```")
    await expect(page.locator(".bubble.person")).to_have_text(attack)
    answer = page.locator(".bubble.robot")
    await expect(answer).to_contain_text(attack)
    assert await answer.locator("img, script, svg, i, u, b").count() == 0
    assert await answer.locator("a").count() == 1
    assert await page.title() != "1"


async def test_streamed_card_and_reaction(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """A card grows on the page while it is streamed, and a reaction appears under its message."""
    await emu.say("hello")
    message = await robot.message()
    ids = {"openMsgId": message["msgId"], "openConversationId": message["conversationId"]}
    emotion = {"robotCode": emu.robot_code, "emotionType": 2, "emotionName": "思考中"}
    await robot.api("POST", "/v1.0/robot/emotion/reply", emotion | ids)
    await expect(page.locator(".reaction")).to_have_text("思考中")
    card = {
        "cardTemplateId": "8aebdfb9-28f4-4a98-98f5-396c3dde41a0.schema",
        "outTrackId": "trk",
        "openSpaceId": "dtv1.card//IM_ROBOT.u-1001",
        "imRobotOpenDeliverModel": {"spaceType": "IM_ROBOT"},
    }
    await robot.api("POST", "/v1.0/card/instances/createAndDeliver", card)
    for guid, text, final in (("1", "part", False), ("2", "part and **end**", True)):
        update = {"outTrackId": "trk", "guid": guid, "key": "content", "content": text, "isFull": True}
        await robot.api("PUT", "/v1.0/card/streaming", update | {"isFinalize": final})
        await expect(page.locator(".bubble.card")).to_contain_text(text.replace("*", ""))
    await expect(page.locator(".card-body[data-state=finished] strong")).to_have_text("end")


async def test_faults_and_actions(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """Switches and actions of the page act on the emulator, and it shows what others switch."""
    await page.check("[data-fault=zombie]")
    await until(lambda: emu.faults.zombie)
    await page.select_option("[data-fault=webhook_status]", "500")
    await until(lambda: emu.faults.webhook_status == 500)
    await page.fill("[data-fault=repush_after]", "5")
    await page.press("[data-fault=repush_after]", "Tab")
    await until(lambda: emu.faults.repush_after == 5)
    await page.click("#reset-faults")
    await until(lambda: not emu.faults.active())
    await expect(page.locator("[data-fault=zombie]")).not_to_be_checked()
    emu.faults.update({"webhook_errcode": -1, "fault_budget": {"webhook_errcode": 1}})
    await expect(page.locator("[data-fault=webhook_errcode]")).to_have_value("-1")
    await emu.say("hello")
    await robot.reply(await robot.message(), "fails")
    await expect(page.locator("[data-fault=webhook_errcode]")).to_have_value("0")
    await page.click("[data-action=reset]")
    await until(robot.ended.is_set)
    await expect(page.locator("[data-testid=live]")).to_contain_text("离线")


async def test_language_and_service_links(emu: Emulator, page: Page) -> None:
    """The page speaks both languages, and links to the service when it knows it."""
    await expect(page.locator("#send")).to_have_text("发送")
    await page.click("#lang")
    await expect(page.locator("#send")).to_have_text("Send")
    await page.goto(f"{emu.url}/?service=http://127.0.0.1:8080")
    await expect(page.locator("#service a").first).to_have_attribute("href", "http://127.0.0.1:8080/ready")


async def test_words_before_the_first_state_are_sent(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """Whoever is faster than the page's first reading is heard: what left the box has gone out."""
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await page.route("**/_/state", hold)
    try:
        await page.reload()
        await page.fill("#message", "early bird")
        await page.press("#message", "Enter")
        assert (await robot.message())["text"]["content"].strip() == "early bird"
    finally:
        held.set()
    await expect(page.locator(".bubble.person")).to_have_text("early bird")


async def test_follows_again_after_an_outage(emu: Emulator, page: Page) -> None:
    """When the emulator comes back, the page follows again by itself."""
    await emu.stop()
    await emu.start()
    await emu.say("while away")
    await expect(page.locator(".bubble.person")).to_have_text("while away")
    await emu.say("and now")
    await expect(page.locator(".bubble.person").last).to_have_text("and now")


async def sent(robot: FakeRobot) -> dict[str, Any]:
    message: dict[str, Any] = await robot.message()
    return message


async def test_what_a_message_can_carry(emu: Emulator, anywhere: Page, robot: FakeRobot, tmp_path: Path) -> None:
    """Pictures, a file, speech with and without words, a video, a document: each by the menu."""
    picture, text = tmp_path / "a.png", tmp_path / "notes.txt"
    picture.write_bytes(make_png())
    text.write_text("the fact", encoding="utf-8")
    await expect(anywhere.locator("#message")).to_be_focused()
    await anywhere.set_input_files("#pictures", str(picture))
    assert (await sent(robot))["msgtype"] == "picture"
    await anywhere.fill("#message", "比较")
    await anywhere.set_input_files("#pictures", [str(picture), str(picture)])
    items = (await sent(robot))["content"]["richText"]
    assert [item.get("text", "picture") for item in items] == ["比较", "picture", "picture"]
    await expect(anywhere.locator(".row.mine img")).to_have_count(3)
    await anywhere.set_input_files("#file", str(text))
    content = (await sent(robot))["content"]
    assert content["fileName"] == "notes.txt"
    assert emu.files._files[content["downloadCode"]].content == b"the fact"
    await anywhere.fill("#message", "明天开会")
    for kind, recognition in (("audio", "明天开会"), ("silence", "")):
        await anywhere.click("#attach summary")
        await anywhere.click(f"[data-kind={kind}]")
        assert (await sent(robot))["content"]["recognition"] == recognition
    for kind, msgtype in (("video", "video"), ("document", "interactiveCard"), ("unknown", "unknownMsgType")):
        await anywhere.click("#attach summary")
        await anywhere.click(f"[data-kind={kind}]")
        assert (await sent(robot))["msgtype"] == msgtype


async def test_quotes_and_forwarded_chats(emu: Emulator, anywhere: Page, robot: FakeRobot) -> None:
    """A message is quoted whole or by its id alone; several are forwarded with or without names."""
    said = await emu.say("预算五百万")
    await sent(robot)
    await anywhere.hover(f"[data-msgid='{said.msg_id}']")
    await anywhere.click(f"[data-quote='{said.msg_id}']")
    await anywhere.fill("#message", "够吗？")
    await anywhere.click("#send")
    quoted = await sent(robot)
    assert (quoted["originalMsgId"], quoted["text"]["repliedMsg"]["content"]) == (said.msg_id, {"text": "预算五百万"})
    await anywhere.click(f"[data-quote='{said.msg_id}']")
    await anywhere.check("#bare-quote")
    await anywhere.fill("#message", "再问")
    await anywhere.click("#send")
    assert "repliedMsg" not in (await sent(robot))["text"]
    await anywhere.click(f"[data-pick='{said.msg_id}']")
    await anywhere.click("#forward-send")
    record = await sent(robot)
    assert json.loads(record["content"]["chatRecord"])[0]["senderNick"] == "林小雨"


async def test_mentions_and_clients(emu: Emulator, anywhere: Page, robot: FakeRobot) -> None:
    """A colleague is picked from a list; another client leaves the robot's name in what was said."""
    await anywhere.select_option("#chat", "g-team")
    await anywhere.click("[data-person='u-1002']")
    await anywhere.type("#message", "写祝福")
    await anywhere.press("#message", "Enter")
    message = await sent(robot)
    assert [each.get("staffId") for each in message["atUsers"]] == [None, "u-1002"]
    assert message["text"]["content"].split() == ["写祝福"]
    await anywhere.select_option("#client", "harmony")
    await anywhere.fill("#message", "/stop")
    await anywhere.press("#message", "Enter")
    assert (await sent(robot))["content"] == {"richText": [{"text": "@小助手"}, {"text": "/stop"}]}


async def test_what_was_not_sent_stays(emu: Emulator, page: Page, robot: FakeRobot, tmp_path: Path) -> None:
    """When the emulator is away, words come back into the box in order, and files wait behind a button."""
    picture = tmp_path / "a.png"
    picture.write_bytes(make_png())
    await emu.stop()
    await expect(page.locator("#live")).to_contain_text("断开")
    await page.fill("#message", "很长的一段话")
    await page.click("#send")
    await expect(page.locator("#unsent")).to_contain_text("没有应答")
    await expect(page.locator("#message")).to_have_value("很长的一段话")
    # Faster than a person, so that the second one is on its way before the first one has failed.
    await page.evaluate("send('很长的一段话'); send('又一段')")
    await expect(page.locator("#message")).to_have_value("很长的一段话\n又一段")
    await page.set_input_files("#pictures", str(picture))
    await expect(page.locator("#unsent div")).to_have_count(1)
    await emu.start()
    await expect(page.locator("#live")).not_to_contain_text("断开")
    await page.click("#unsent button")
    await expect(page.locator("#unsent")).to_be_hidden()
    await expect(page.locator(".row.mine img")).to_have_count(1)


async def test_a_draft_is_kept(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """What is being written outlives a suggestion that is pressed, a reload, and what was lost is put back."""
    await page.fill("#message", "写到一半")
    await page.click(".tip")
    assert (await robot.message())["text"]["content"] == "你好，你能做什么？"
    await expect(page.locator("#message")).to_have_value("写到一半")
    await page.reload()
    await expect(page.locator("#message")).to_have_value("写到一半")
    await expect(page.locator("#message")).to_be_focused()
    await robot.close()
    await until(lambda: not emu.connections)
    await page.click("#send")
    await expect(page.locator("#message")).to_have_value("")
    await expect(page.locator("#message")).to_be_focused()
    await page.click(".hint.bad button")
    await expect(page.locator("#message")).to_have_value("写到一半")


async def test_pictures_and_files_of_the_robot(emu: Emulator, anywhere: Page, robot: FakeRobot) -> None:
    """Pictures by media id, by the storage's URL or as such are shown, files are links; foreign ones are not loaded."""
    media = await upload(emu, robot, make_png(), "a.png", "image")
    document = await upload(emu, robot, b"%PDF", "a.pdf", "file")
    await emu.say("draw")
    urls = (media, f"{emu.url}/files/{media}", f"https://down.dingtalk.com/media/{media}")
    pictures = " ".join(f"![p]({url})" for url in urls)
    await robot.reply(await robot.message(), f"{pictures} ![far](https://example.com/x.png)")
    send = {"robotCode": emu.robot_code, "userIds": ["u-1001"]}
    for key, param in (
        ("sampleImageMsg", {"photoURL": media}),
        ("sampleFile", {"mediaId": document, "fileName": "报告.pdf", "fileType": "pdf"}),
    ):
        body = send | {"msgKey": key, "msgParam": json.dumps(param)}
        assert (await robot.api("POST", "/v1.0/robot/oToMessages/batchSend", body))[0] == 200
    shown = anywhere.locator(".bubble.robot img")
    await expect(shown).to_have_count(4)
    # Not by wait_for_function, whose second look the page's CSP forbids.
    for n in range(4):
        await expect(shown.nth(n)).to_have_js_property("naturalWidth", 48)
    await expect(anywhere.locator(".bubble.robot a", has_text="far")).to_have_attribute(
        "href", "https://example.com/x.png"
    )
    link = anywhere.locator(".bubble.robot a.attached")
    await expect(link).to_have_text("报告.pdf")
    async with robot.session.get(f"{emu.url}{await link.get_attribute('href')}") as answer:
        assert await answer.read() == b"%PDF"


async def test_files_in_a_group(emu: Emulator, anywhere: Page, robot: FakeRobot, tmp_path: Path) -> None:
    """A colleague's file reaches no robot, until somebody quotes it."""
    file = tmp_path / "合同.txt"
    file.write_text("the fact", encoding="utf-8")
    await anywhere.select_option("#person", "u-1002")
    await anywhere.select_option("#chat", "g-team")
    await anywhere.set_input_files("#file", str(file))
    await expect(anywhere.locator(".row.mine .hint")).to_contain_text("引用它")
    for kind in ("audio", "video", "document"):
        await anywhere.click("#attach summary")
        await anywhere.click(f"[data-kind={kind}]")
    await expect(anywhere.locator(".row.mine")).to_have_count(4)
    await anywhere.select_option("#person", "x-2001")
    await expect(anywhere.locator("#chat-note")).to_contain_text("外部人员")
    await anywhere.hover(".row >> nth=0")
    await anywhere.click("[data-quote] >> nth=0")
    await anywhere.fill("#message", "总结一下")
    await anywhere.click("#send")
    message = await sent(robot)
    assert "senderStaffId" not in message
    replied = message["text"]["repliedMsg"]
    assert (replied["msgType"], replied["content"]["fileName"]) == ("file", "合同.txt")
    await expect(anywhere.locator(".quoted")).to_contain_text("王大伟：合同.txt")
    assert robot.frames.empty()


async def test_a_name_that_was_deleted_is_meant_no_more(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """Who is mentioned is who stands in the words; a quote does not go along into another chat."""
    await page.select_option("#chat", "g-team")
    await page.click("[data-person='u-1002']")
    await page.click("[data-person='u-1003']")
    await page.fill("#message", "@Ann 看看")
    await page.press("#message", "Enter")
    assert [each.get("staffId") for each in (await sent(robot))["atUsers"]] == [None, "u-1003"]
    await page.hover(".row")
    await page.click("[data-quote]")
    await page.select_option("#chat", "g-ops")
    await expect(page.locator("#quote")).to_be_hidden()


async def test_what_cannot_be_shown_is_named(emu: Emulator, page: Page) -> None:
    """A picture that no browser shows (HEIC) is there by its sign."""
    code = emu.files.add(b"ftypheic", "a.heic", "image/heic")
    await emu.say(msgtype="picture", content={"downloadCode": code, "pictureDownloadCode": code})
    await expect(page.locator(".unshown")).to_contain_text("图片")


async def test_why_nobody_is_there(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """A robot that never came, one that is refused and one that left need different advice; violations are told."""
    assert robot.ws is not None
    await robot.ws.send_str("{not json")
    await expect(page.locator("#violations-count")).to_have_text("违规 1")
    await page.click("#violations-count")
    await expect(page.locator("#violations-last")).to_have_text("c1：发来的帧不是 JSON")
    await robot.close()
    await expect(page.locator("#connections")).to_contain_text("没有连接")
    with pytest.raises(aiohttp.ClientResponseError):
        await robot.register(clientSecret="wrong")
    await expect(page.locator("#connections")).to_contain_text("HTTP 401")
    await expect(page.locator("#connections")).to_contain_text("clientSecret")
    emu.faults.gateway_status = 401
    await expect(page.locator("#connections")).to_contain_text("开关")
    emu.reset()
    await expect(page.locator("#connections")).to_contain_text("DINGTALK_OPENAPI_ENDPOINT")


async def test_ready_is_shown_live(emu: Emulator, page: Page) -> None:
    """What the service says of itself, with its reason, follows within seconds."""
    statuses = [503, 200]

    async def reply(_request: web.Request) -> web.Response:
        return web.json_response({"reason": "no connection" if statuses[0] == 503 else ""}, status=statuses[0])

    app = web.Application()
    app.router.add_get("/ready", reply)
    async with TestServer(app) as service:
        emu.service_url = str(service.make_url(""))
        await expect(page.locator("#service")).to_contain_text("/ready 503")
        await expect(page.locator("#service")).to_contain_text("no connection")
        statuses.pop(0)
        await expect(page.locator("#service a.on")).to_contain_text("/ready 200")
    await expect(page.locator("#service")).to_contain_text("ClientConnectorError")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("width", "height"), [(320, 640), (390, 800), (640, 400), (768, 800), (1000, 800), (1280, 800)]
)
async def test_it_fits(emu: Emulator, page: Page, width: int, height: int, scheme: str) -> None:
    """From a phone to a desk and at 200 %, light and dark: nothing is wider than the window, the box is in view."""
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.select_option("#chat", "g-team")
    await emu.say("一个很长很长的词" * 40, chat="g-team", at_robot=False)
    await expect(page.locator(".row")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for control in ("#send", "#message", "#person", "#chat", "#lang", "#client", "#attach summary"):
        await expect(page.locator(control)).to_be_in_viewport(ratio=1)
    ground = await page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (scheme == "light")
    await page.locator("#faults").scroll_into_view_if_needed()
    await page.check("[data-fault=zombie]")
    await until(lambda: emu.faults.zombie)

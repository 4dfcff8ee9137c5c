"""The emulator's page in a real Chromium: a person writes, the robot answers, a fault is switched on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import ConsoleMessage, Page, expect

from claw.emulator import Emulator
from tests.browser import MARKS, opened

from .client import FakeRobot, until

pytestmark = MARKS


def _is_complaint(message: ConsoleMessage) -> bool:
    """Tell an error of the page itself from that nobody listened during an outage."""
    return message.type == "error" and "net::ERR_" not in message.text


@pytest.fixture
async def page(emu: Emulator) -> AsyncIterator[Page]:
    """Open the page, in Chinese; anything that the browser complains about fails the test."""
    complaints: list[str] = []
    async with opened("about:blank") as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
        await page.goto(emu.url)
        await expect(page.locator("#person option").first).to_be_attached()
        yield page
    assert complaints == []


async def test_conversation(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """What a person types reaches the robot, and its answer appears rendered."""
    await expect(page.locator("#connections")).to_contain_text("c1")
    await page.fill("#message", "你好")
    await page.press("#message", "Enter")
    message = await robot.message()
    assert message["text"]["content"] == "你好"
    await robot.reply(message, "## 标题\n\n- **粗体**\n\n```\n<b>code</b>\n```\n\n[link](https://example.com/?a=1&b=2)")
    answer = page.locator(".bubble.robot")
    await expect(answer.locator("strong")).to_have_text("粗体")
    await expect(answer.locator("pre")).to_have_text("<b>code</b>")
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
    await expect(page.locator(".bubble.card.finished strong")).to_have_text("end")


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


async def test_follows_again_after_an_outage(emu: Emulator, page: Page) -> None:
    """When the emulator comes back, the page follows again by itself."""
    await emu.stop()
    await emu.start()
    await emu.say("while away")
    await expect(page.locator(".bubble.person")).to_have_text("while away")
    await emu.say("and now")
    await expect(page.locator(".bubble.person").last).to_have_text("and now")

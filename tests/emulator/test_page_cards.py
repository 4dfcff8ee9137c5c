"""Cards on the emulator's page: typed, stopped and rated by whoever is chosen there; the month beside them."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import Page, expect

from claw.emulator import Emulator
from claw.emulator.files import make_png
from tests.browser import MARKS

from .calls import CREATE, STREAMING, TEMPLATE, UPDATE, card, stream, update
from .client import FakeRobot, until, upload

pytestmark = MARKS

TRACK = "trk-0001"
BODY = ".card-body"


async def make_card(emu: Emulator, robot: FakeRobot, **changes: object) -> None:
    group = card(f"IM_GROUP.{emu.chats.chat('g-team').conversation_id}", **changes)
    assert (await robot.api("POST", CREATE, group))[0] == 200


async def test_text_is_typed(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """What an update brings is typed at the template's speed, and a part of it is seen before all of it."""
    emu.cards.templates.set(TEMPLATE, chars_per_s=40)
    await robot.api("POST", CREATE, card())
    text = "一" * 20 + "二" * 20
    await robot.api("PUT", STREAMING, stream(text))
    shown = page.locator(BODY)
    await expect(shown).not_to_have_text("")
    first = await shown.text_content() or ""
    assert text.startswith(first)
    assert len(first) < len(text)
    await expect(shown).to_have_text(text)
    await expect(shown).to_have_attribute("aria-busy", "true")
    # What is changed within the text takes back what was typed after it.
    await robot.api("PUT", STREAMING, stream("一" * 20 + "**三**", isFinalize=True))
    await expect(shown.locator("strong")).to_have_text("三")
    await expect(shown).to_have_attribute("aria-busy", "false")
    await expect(page.locator(".card-state")).to_contain_text("已完成 · flowStatus 3")


async def test_card_is_stopped_by_whoever_is_chosen(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """The stop button is there while the card grows, stays where the focus is, and presses as the chosen person."""
    await page.select_option("#person", "u-1002")
    await page.select_option("#chat", "g-team")
    await make_card(emu, robot)
    await robot.api("PUT", STREAMING, stream("halfway"))
    stop = page.locator("[data-press=stop]")
    await stop.focus()
    await robot.api("PUT", STREAMING, stream("halfway there"))
    await expect(page.locator(BODY)).to_have_text("halfway there")
    await expect(stop).to_be_focused()
    robot.answers = {"response": {"cardData": {"cardParamMap": {"content": "stopped", "flowStatus": "3"}}}}
    await page.press("[data-press=stop]", "Enter")
    data = json.loads((await robot.frame())["data"])
    assert (data["userId"], json.loads(data["content"])["cardPrivateData"]["actionIds"]) == ("u-1002", ["stop"])
    await expect(page.locator(BODY)).to_have_text("stopped")
    await expect(stop).to_have_count(0)


async def test_thumbs(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """A finished card has thumbs; what each person pressed is theirs, also after a reload."""
    await page.select_option("#chat", "g-team")
    await make_card(emu, robot)
    await robot.api("PUT", STREAMING, stream("done", isFinalize=True))
    robot.answers = {"response": {}}
    await page.click("[data-press=like]")
    assert json.loads((await robot.frame())["data"])["userId"] == "u-1001"
    await expect(page.locator("[data-press=like]")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("[data-press=dislike]")).to_have_attribute("aria-pressed", "false")
    await page.select_option("#person", "u-1003")
    await expect(page.locator("[data-press=like]")).to_have_attribute("aria-pressed", "false")
    await page.reload()
    await page.select_option("#chat", "g-team")
    await expect(page.locator("[data-press=like]")).to_have_attribute("aria-pressed", "true")


async def test_what_became_of_a_press_is_told(
    emu: Emulator, page: Page, robot: FakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A robot that does not answer in time, or is not there, is told beside the button."""
    monkeypatch.setattr("claw.emulator.presses.CARD_ANSWER_DEADLINE_S", 0.05)
    await robot.api("POST", CREATE, card())
    robot.acks = False
    await page.click("[data-press=stop]")
    await expect(page.locator(".card [role=status]")).to_contain_text("没有在 2 秒内应答")
    await robot.close()
    await until(lambda: not emu.connections)
    await page.click("[data-press=stop]")
    await expect(page.locator(".card [role=status]")).to_contain_text("没有连接")


async def test_offline_and_blank_cards(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """The page is a client: offline it misses what is streamed, and what its template cannot hold is blank."""
    emu.faults.update({"client_offline": True, "card_typing_speed": 0})
    await robot.api("POST", CREATE, card(cardData={"cardParamMap": {"content": "so far"}}))
    await robot.api("PUT", STREAMING, stream("so far and on", isFinalize=True))
    await expect(page.locator(".card-state")).to_contain_text("处理中")
    await expect(page.locator(BODY)).to_have_text("so far")
    await robot.api("PUT", UPDATE, update("so far and on", flowStatus="3"))
    await expect(page.locator(BODY)).to_have_text("so far and on")
    emu.faults.update({"card_content_limit": 3, "card_over_limit": "blank"})
    await robot.api("PUT", UPDATE, update("too long"))
    await expect(page.locator(BODY)).to_contain_text("空白")


async def test_pictures_in_cards(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """A picture that the robot uploaded is shown within a card, and loaded once while the text goes on."""
    media = await upload(emu, robot, make_png(), "a.png", "image")
    await robot.api("POST", CREATE, card())
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/_/files/" in request.url else None)
    await robot.api("PUT", STREAMING, stream(f"![p]({media})\n\nand on, and on, and on", isFinalize=True))
    await expect(page.locator(BODY)).to_contain_text("and on, and on, and on")
    await expect(page.locator(f"{BODY} img")).to_have_js_property("naturalWidth", 48)
    assert len(asked) == 1


async def test_month_is_shown(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """The month's counts stand beside their limits, and what is used up is marked."""
    emu.faults.update({"openapi_month_limit": 5000, "webhook_month_cap": 100})
    emu.month.set({"openapi": 4321, "webhook": 100, "pushed": 7})
    rows = page.locator("#month .quota")
    await expect(rows.nth(0)).to_contain_text("4321 / 5000")
    await expect(rows.nth(1)).to_have_text("Webhook + Stream107")
    await expect(page.locator("#month .over")).to_contain_text("100 / 100")
    await robot.api("POST", CREATE, card())
    await page.click("#peaks summary")
    await expect(page.locator("#peaks-list")).to_contain_text("1 · 1/s")


async def test_a_card_fits(emu: Emulator, page: Page, robot: FakeRobot) -> None:
    """From a phone to a desk neither a card nor what it holds is wider than the window, and its button is in view."""
    table = "\n".join(["| a | b |", "| - | - |", *(f"| {'x' * 60} | {'字' * 40} |" for _ in range(2))])
    text = f"# title\n\n{'word' * 60}\n\n```\n{'code ' * 60}\n```\n\n{table}"
    emu.faults.card_typing_speed = 0
    await robot.api("POST", CREATE, card())
    await robot.api("PUT", STREAMING, stream(text))
    await expect(page.locator(f"{BODY} table")).to_have_count(1)
    for width, scheme in ((320, "light"), (390, "dark"), (640, "light"), (1000, "dark"), (1280, "light")):
        await page.set_viewport_size({"width": width, "height": 800})
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for box in ("document.documentElement", "document.querySelector('#messages')"):
            assert await page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth"), (width, box)
        await expect(page.locator("[data-press=stop]")).to_be_in_viewport(ratio=1)
        ground = await page.evaluate("getComputedStyle(document.querySelector('.bubble.card')).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") is (scheme == "light")

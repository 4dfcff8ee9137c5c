"""The operator's page in a real browser, over a real process: what it shows, changes and survives.

The pictures of docs/operating.md are taken here:

    SCREENSHOTS=docs .venv/bin/python -m pytest tests/roundtrip/test_operator_page.py
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from claw.emulator import Emulator, Person
from tests.browser import MARKS, opened
from tests.roundtrip.conftest import Claw
from tests.service import ADMIN_TOKEN, Service

pytestmark = [*MARKS, pytest.mark.timeout(110)]

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>**x** \u202egnp"
TABS = ("overview", "trips", "dead", "chats", "policy", "usage", "audit", "restart")
OWNED = {"CLAW_OWNER": "u-1001", "CLAW_MODELS": "qwen-plus,openclaw/research"}


@contextlib.asynccontextmanager
async def visited(service: Service, *, enter: bool = True) -> AsyncIterator[Page]:
    """The page of a claw, in Chinese; whatever leaves the origin, fails or complains fails the test."""
    elsewhere: list[str] = []
    complaints: list[str] = []
    async with opened(f"{service.url}/") as page:
        page.on(
            "request",
            lambda request: (
                elsewhere.append(request.url) if not request.url.startswith((service.url, "data:", "blob:")) else None
            ),
        )
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if enter:
            await login(page)
        yield page
        assert await page.title() == "claw"
        assert not elsewhere
        # A fetch that is refused or cut is told in the console by the browser itself.
        assert not [each for each in complaints if "Failed to load resource" not in each and "ERR_" not in each]


async def login(page: Page, token: str = ADMIN_TOKEN) -> None:
    await page.fill("#token", token)
    await page.press("#token", "Enter")


async def show(page: Page, tab: str) -> None:
    await page.click(f'#nav a[href="#{tab}"]')
    await expect(page.locator("main")).to_have_class(tab)


async def fits(page: Page) -> None:
    """Nothing of the page lies beyond its right edge."""
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


async def test_a_token_is_asked_for_once(emulator: Emulator, claw: Claw) -> None:
    """Without a token there is nothing to see; a wrong one is told, the right one is kept for the tab alone."""
    async with claw() as service, visited(service, enter=False) as page:
        await expect(page.locator("#app")).to_be_hidden()
        await login(page, "wrong-token-of-a-guest")
        await expect(page.locator("#refused")).to_have_text("令牌不对。")
        await login(page)
        await expect(page.locator("#state")).to_have_text("已连接")
        assert await page.evaluate("JSON.stringify(localStorage)") == "{}"
        await page.reload()
        await expect(page.locator("#state")).to_have_text("已连接")
        await page.click("#lang")
        await expect(page.locator("#state")).to_have_text("open")
        await expect(page.locator("html")).to_have_attribute("lang", "en")
        await page.click("#leave")
        await expect(page.locator("#login")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0


async def test_guesses_are_slowed(emulator: Emulator, claw: Claw) -> None:
    """Whoever guesses is told to wait."""
    async with claw() as service, visited(service, enter=False) as page:
        for number in range(12):
            await login(page, f"guess-number-{number}")
            await expect(page.locator("#refused")).to_be_visible()
            if "秒后" in await page.locator("#refused").inner_text():
                return
        pytest.fail("nobody was slowed down")


async def test_a_cut_connection_is_seen(emulator: Emulator, claw: Claw) -> None:
    """A connection that DingTalk cuts shows within seconds, with its history; so does a claw that goes and comes."""
    async with claw() as service, visited(service) as page:
        await expect(page.locator("#state")).to_have_text("已连接")
        emulator.faults.update({"gateway_status": 503})
        emulator.act("reset")
        await expect(page.locator("#state")).not_to_have_text("已连接")
        emulator.faults.update({"gateway_status": 0})
        await expect(page.locator("#state")).to_have_text("已连接")
        await page.click("main details summary")
        await expect(page.locator(".history li")).not_to_have_count(0)
        await service.kill()
        await expect(page.locator("#live")).to_be_visible()
        again = Service({**service.environ, "PORT": str(service.port)}, service.cwd)
        try:
            await again.start()
            await expect(page.locator("#live")).to_be_hidden()
            await expect(page.locator("#state")).to_have_text("已连接")
        finally:
            await again.kill()


async def test_a_dead_letter_is_retried_to_success(emulator: Emulator, claw: Claw) -> None:
    """What failed is seen with its cause, tried again by a click, and answered; another one is dropped."""
    emulator.faults.update({"model_status": 400, "model_chunk_delay": 0.0})
    async with claw(**OWNED) as service, visited(service) as page:
        await emulator.wait_reply_to(await emulator.say("合同第三条是什么？", person="u-1002", chat="g-team"))
        await expect(page.locator("#nav .count")).to_have_text("1")
        await show(page, "dead")
        await expect(page.locator(".letter blockquote")).to_have_text("合同第三条是什么？")
        emulator.faults.update({"model_status": 0, "model_fixed_reply": "第三条是付款方式。"})
        await page.click(".letter .primary")
        await expect(page.locator(".letter")).to_have_count(0)
        async with asyncio.timeout(20):
            while not any("第三条是付款方式" in reply.text for reply in emulator.replies):
                await asyncio.sleep(0.02)
        await show(page, "trips")
        await expect(page.locator(".trip .badge.answered")).to_have_count(1)
        emulator.faults.update({"model_status": 400})
        await emulator.wait_reply_to(await emulator.say("noch einer"))
        await show(page, "dead")
        await expect(page.locator(".letter")).to_have_count(1)
        await page.click(".letter .quiet")
        await page.click("#ask button[value=no]")
        await expect(page.locator(".letter")).to_have_count(1)
        await page.click(".letter .quiet")
        await page.click("#ask button[value=yes]")
        await expect(page.locator(".letter")).to_have_count(0)
        await show(page, "audit")
        await expect(page.locator("tbody tr")).to_have_count(2)


async def test_policies_and_chats_are_changed(emulator: Emulator, claw: Claw) -> None:
    """A policy, a list and a chat's own model are changed on the page, and hold; what cannot be is told."""
    async with claw(**OWNED) as service, visited(service) as page:
        await emulator.wait_reply_to(await emulator.say("hallo", person="u-1002", chat="g-team"))
        await show(page, "chats")
        await page.click(".chat summary")
        await page.select_option(".chat select[name=model]", "openclaw/research")
        await page.fill(".chat textarea", "你是研究员")
        await page.click(".chat .primary")
        await expect(page.locator(".chat .badge")).to_contain_text(["群", "openclaw/research", "附加提示词"])
        await emulator.wait_reply_to(await emulator.say("und jetzt?", person="u-1002", chat="g-team"))
        assert emulator.model.requests[-1].body["model"] == "openclaw/research"
        await show(page, "policy")
        await page.select_option("select[name=direct_policy]", "allowlist")
        await page.fill("textarea[name=allowed]", "u-1003\nu-1004")
        await page.click(".settings .primary")
        await expect(page.locator(".settings label").nth(1)).to_contain_text("已在运行时修改")
        denied = await emulator.wait_reply_to(await emulator.say("ich?", person="u-1002"))
        assert "u-1002" in denied.text
        await page.fill("textarea[name=denied]", "u-1003")
        await page.click(".settings .primary")
        await expect(page.locator("#told")).to_contain_text("denied")


async def test_a_restart_by_the_page(emulator: Emulator, claw: Claw) -> None:
    """The connections are replaced by a click, the process after a question."""
    async with claw(**OWNED) as service, visited(service) as page:
        await expect(page.locator("#state")).to_have_text("已连接")
        before = len(emulator.registrations)
        await show(page, "restart")
        await page.click(".card .primary:not(.danger)")
        async with asyncio.timeout(20):
            while len(emulator.registrations) == before:
                await asyncio.sleep(0.02)
        await page.click(".card .danger")
        await page.click("#ask button[value=yes]")
        assert await service.ended() == 75


async def test_hostile_texts_stay_texts(emulator: Emulator, claw: Claw) -> None:
    """Titles, names, questions, answers and causes that are markup are shown as they are written."""
    emulator.chats.add_person(Person("u-evil", HOSTILE, "u-evil"))
    emulator.chats.add_group("g-evil", HOSTILE)
    emulator.faults.update({"model_status": 400, "model_error": HOSTILE[:60], "model_chunk_delay": 0.0})
    async with claw(**OWNED) as service, visited(service) as page:
        await emulator.wait_reply_to(await emulator.say(HOSTILE, person="u-evil", chat="g-evil"))
        emulator.faults.update({"model_status": 0, "model_fixed_reply": HOSTILE})
        await emulator.wait_reply_to(await emulator.say(f"{HOSTILE}?", person="u-evil", chat="g-evil"))
        for tab in TABS:
            await show(page, tab)
            await page.wait_for_timeout(150)
            assert await page.locator("main img, main script").count() == 0, tab
            await fits(page)
        await show(page, "dead")
        await expect(page.locator(".letter blockquote")).to_contain_text("<img src=x onerror=")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_it_fits_phones_and_desks(
    emulator: Emulator, claw: Claw, tmp_path: Path, width: int, scheme: str
) -> None:
    """Every part fits 390 and 1280 px, light and dark; the pictures of docs are taken of it."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    emulator.faults.update({"model_chunk_delay": 0.02, "model_delay": 0.3})
    async with claw(**OWNED) as service, visited(service, enter=False) as page:
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await page.set_viewport_size({"width": width, "height": 800})
        await fits(page)
        await page.screenshot(path=tmp_path / f"login-{scheme}-{width}.png")
        for number, (person, chat, text) in enumerate(
            [
                ("u-1002", "g-team", "本周发布了什么？"),
                ("u-1003", "direct", "请总结这份报告"),
                ("u-1001", "g-team", "/status"),
            ]
        ):
            emulator.faults.update({"model_status": 400 if number == 1 else 0})
            await emulator.wait_reply_to(await emulator.say(text, person=person, chat=chat))
        await login(page)
        await expect(page.locator("#state")).to_have_text("已连接")
        for tab in TABS:
            await show(page, tab)
            await page.wait_for_timeout(250)
            await fits(page)
            name = f"operator-{tab}-{scheme}-{width}.png"
            wanted = (scheme, width) == ("light", 1280) and tab in {"overview", "trips", "dead"}
            await page.screenshot(
                path=(folder if wanted else tmp_path) / (name if not wanted else f"operator-{tab}.png")
            )


async def test_a_source_that_failed_says_so(emulator: Emulator, claw: Claw) -> None:
    """A part of the status that could not be read shows its error, and never a figure such as "0 waiting"."""
    parts = ("inbox", "model", "budget", "replicas", "stream")
    async with claw() as service, visited(service, enter=False) as page:
        _, status = await service.call("GET", "/status")
        status |= {name: {"error": f"StoreError: {name} is gone"} for name in parts}

        async def answer(route: Route) -> None:
            event = f"event: status\ndata: {json.dumps(status)}\n\n"
            await route.fulfill(content_type="text/event-stream", body=event)

        await page.route("**/api/events", answer)
        await page.route("**/status", lambda route: route.fulfill(json=status))
        await login(page)
        for name in parts:
            await expect(page.locator("main")).to_contain_text(f"StoreError: {name} is gone")
        await expect(page.locator("main .figure.bad")).to_have_count(len(parts))


async def test_events_leave_the_focus_where_it_is(emulator: Emulator, claw: Claw) -> None:
    """Who goes by keyboard keeps the place while figures change: a link of the list, a button of a round trip."""
    async with claw() as service, visited(service) as page:
        await show(page, "trips")
        await page.focus('#nav a[href="#usage"]')
        await emulator.replies.wait_to(await emulator.say("one"))
        await expect(page.locator(".trip")).to_have_count(1)
        assert await page.evaluate("document.activeElement.getAttribute('href')") == "#usage"
        await page.focus(".trip button")
        await emulator.replies.wait_to(await emulator.say("two"))
        await expect(page.locator(".trip")).to_have_count(2)
        assert await page.evaluate("document.activeElement.tagName") == "BUTTON"

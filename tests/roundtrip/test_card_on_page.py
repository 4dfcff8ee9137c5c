"""A card as a person sees it: typed on the emulator's page, in a real browser, by a real process.

The pictures of deploy/card/README.md are taken here:

    SCREENSHOTS=docs .venv/bin/python -m pytest tests/roundtrip/test_card_on_page.py
"""

from __future__ import annotations

import os
from pathlib import Path

from playwright.async_api import expect

from claw.emulator import Emulator
from tests.browser import MARKS, opened
from tests.roundtrip.conftest import Claw

pytestmark = MARKS

ANSWER = """**发布前的检查**，按顺序做：

1. 在预发环境跑一遍 `make test`
2. 确认数据库迁移可以回滚
3. 通知值班同事，并写好公告

> 灰度期间请盯住错误率，超过千分之一就回滚。

| 步骤 | 负责人 | 用时 |
| --- | --- | --- |
| 构建 | 小李 | 10 分钟 |
| 灰度 | 小王 | 1 小时 |

完成以后告诉我，我来整理发布说明。"""
TYPING: dict[str, str | float] = {
    "model_fixed_reply": ANSWER,
    "model_delay": 0.5,
    "model_chunk_delay": 0.6,
    "card_typing_speed": 60.0,
}
"""A model that speaks for twelve seconds: the card has a step after eight, which takes a second to be typed."""


async def test_a_person_sees_the_answer_typed(emulator: Emulator, claw: Claw, tmp_path: Path) -> None:
    """The text comes letter by letter beside a stop button; in its place are thumbs when it is whole."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    emulator.faults.update(TYPING)
    variables = {"CLAW_REPLY_MODE": "card", "CLAW_MONTHLY_API_CALLS": "0"}
    async with claw(**variables), opened(emulator.url) as page:
        await page.set_viewport_size({"width": 1280, "height": 620})
        await page.fill("#message", "发布前要检查什么？")
        await page.press("#message", "Enter")
        card = page.locator(".card-body")
        await expect(card.locator("li")).to_have_count(3)
        # Still growing, so that it can be stopped, and typing what it has already.
        await expect(page.locator("[data-press=stop]")).to_have_count(1)
        await expect(card).to_have_attribute("aria-busy", "true")
        await expect(card).not_to_contain_text("发布说明")
        main = page.locator("main")
        await main.screenshot(path=folder / "card-typing.png")
        await expect(card).to_contain_text("发布说明")
        await expect(card).to_have_attribute("aria-busy", "false")
        await page.click("[data-press=like]")
        await expect(page.locator("[data-press=like]")).to_have_attribute("aria-pressed", "true")
        await main.screenshot(path=folder / "card-finished.png")

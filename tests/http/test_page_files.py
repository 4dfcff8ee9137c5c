"""The files of the operator's page: a strict policy, nothing inline, one stylesheet shared with the emulator's page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from claw.http import page_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def app() -> web.Application:
    made = web.Application()
    made.add_routes(page_files.routes())
    return made


async def test_files_come_with_the_policy(app: web.Application) -> None:
    """Each file has its type and the policy, a second asking is answered with 304, and there is nothing else."""
    async with TestClient(TestServer(app)) as client:
        for path, kind in (("/", "text/html"), ("/page/app.js", "text/javascript"), ("/page/base.css", "text/css")):
            async with client.get(path) as response:
                assert (response.status, response.content_type) == (200, kind)
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                etag = response.headers["ETag"]
            async with client.get(path, headers={"If-None-Match": etag}) as response:
                assert response.status == 304
        for path in ("/page/none.js", "/page/..%2fserver.py", "/page/"):
            async with client.get(path) as response:
                assert response.status == 404


def test_nothing_is_inline() -> None:
    """What the policy forbids is not in the files: inline scripts, styles and handlers, addresses of elsewhere."""
    for name, file in page_files.read_files().items():
        text = file.body.decode()
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), name
        assert not re.search(
            r"\bstyle=|\.style\b|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text
        ), name
        if name.endswith(".html"):
            assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=", text), name


def test_both_pages_share_a_stylesheet() -> None:
    """The emulator imports nothing of the rest, so it has a copy of base.css, which is the same."""
    one, other = (ROOT / "claw" / room / "page" / "base.css" for room in ("http", "emulator"))
    assert one.read_bytes() == other.read_bytes()


def test_every_word_is_in_both_languages() -> None:
    """The words of the page have the same names in Chinese and in English."""
    text = (ROOT / "claw" / "http" / "page" / "words.js").read_text(encoding="utf-8")
    zh, en = text.split("\n  en: {")
    names = [set(re.findall(r"(?:^|[\s{,])(\w+): (?=[\"`({])", part)) - {"zh", "en"} for part in (zh, en)]
    assert names[0] == names[1]

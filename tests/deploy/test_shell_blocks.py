"""Every shell block of every document runs as it is written, or says in a comment above it why it cannot run here.

Blocks run one after another in a folder that looks like a clone after `make install`, with the environment that the
page's reader has by then: credentials that a local DingTalk takes, and a model that answers.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from claw.emulator import Emulator
from tests.service import environment, running

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "helm", "deploy")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SHELLS = frozenset({"sh", "bash", "shell", "console"})
DEV_PORT: Final = 8765
"""Of the local DingTalk, as the pages name it."""
SECONDS: Final = 60


class Block(NamedTuple):
    page: str
    line: int
    reason: str
    text: str


def find_blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match["language"] in SHELLS:
                line = text.count("\n", 0, match.start("text"))
                found.append(Block(str(page.relative_to(ROOT)), line, match["reason"] or "", match["text"]))
    return found


BLOCKS: Final = find_blocks()
RUN: Final = [block for block in BLOCKS if not block.reason]
MARKED: Final = [block for block in BLOCKS if block.reason]


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The environment of somebody who reads along, with a local DingTalk, in a folder where claw has answered once."""
    # The pages name this port, and so the blocks need it. A test beside this one may hold it for a moment.
    async with asyncio.timeout(SECONDS):
        while await asyncio.to_thread(is_taken, DEV_PORT):
            await asyncio.sleep(0.5)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    for name in ("deploy", "helm", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    async with Emulator(port=DEV_PORT) as emulator:
        environ = environment(emulator.url, tmp_path / "data" / "claw.db", CLAW_OWNER="u-1001", CLAW_LANG="en")
        (tmp_path / "data").mkdir()
        async with running(environ, tmp_path) as service:
            await emulator.replies.wait_to(await emulator.say("hello"))
            await service.terminate()
        yield environ


def test_blocks_are_found(record_property: Callable[[str, object], None]) -> None:
    """The pages have shell blocks, some run here, and each that does not says why."""
    told = f"{len(BLOCKS)} shell blocks found, {len(RUN)} run, {len(MARKED)} marked"
    record_property("blocks", told)
    assert len(RUN) >= 8, told
    assert len(BLOCKS) >= 25, told
    assert all(len(block.reason) > 10 for block in MARKED)


def test_nothing_is_marked_that_could_run() -> None:
    """A mark is for what wants a person, a cluster, an account, a container engine, or has no end of its own."""
    known = re.compile(
        "kubectl|helm|docker|podman|buildah|gcloud|aliyun|make |claw (?:run|auth|dead)|curl|OTEL_TRACES|DINGTALK_CLIENT"
    )
    assert [block for block in MARKED if not known.search(block.text)] == []


@pytest.mark.timeout(170)
async def test_blocks_run(reader: dict[str, str], tmp_path: Path) -> None:
    """Each ends with 0, or with 1 where the doctor warns; what it leaves behind is there for the next one."""
    for block in RUN:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", block.text), cwd=tmp_path, env=reader, stdout=PIPE, stderr=STDOUT
        )
        async with asyncio.timeout(SECONDS):
            out, _ = await process.communicate()
        told = (
            f"{block.page}:{block.line} ended with {process.returncode}\n{block.text}\n{out.decode(errors='replace')}"
        )
        assert process.returncode in ({0, 1} if "doctor" in block.text else {0}), told
    backup = sqlite3.connect(tmp_path / "backup.db")
    try:
        assert backup.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        backup.close()
    # What was put back is a store that a claw takes.
    async with running(reader, tmp_path) as service:
        assert (await service.get("/ready"))[0] == 200

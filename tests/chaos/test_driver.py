"""What the driver tells the invariants: what a reply is, what the store has given up, what a full disk does."""

from __future__ import annotations

import os
from pathlib import Path

import aiohttp
import psutil
import pytest

from claw.emulator import Emulator, Reply
from claw.language import Language
from claw.messages import Route
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Row
from claw.turn.texts import FAILURES, INTERNAL, UNDELIVERED, UNDELIVERED_ALERT
from tests.chaos.disk import disk, forbid_writing, permit_writing
from tests.chaos.driver import APOLOGIES, PORTS, heard_of, letters_of, listening
from tests.chaos.invariants import Told
from tests.store.contract import TTL, inbound


async def reply(text: str) -> Reply:
    """The reply of a robot that says `text` in the webhook of a message."""
    async with Emulator() as emulator:
        said = await emulator.say("q1")
        body = {"msgtype": "markdown", "markdown": {"title": "t", "text": text}}
        session, _ = emulator.chats.issue_session(emulator.chats.chat(said.message.chat), 1)
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{emulator.url}/robot/sendBySession?session={session}", json=body) as response,
        ):
            assert (await response.json())["errcode"] == 0
        return emulator.replies[0]


@pytest.mark.parametrize(
    ("text", "told", "mark"),
    [
        ("I heard you say:\n\n> q17\n\nNice to meet you!", Told.ANSWER, "q17"),
        ("@p-1\n\n收到，你说的是：\n\n> q17 你好", Told.ANSWER, "q17"),
        (INTERNAL[Language.EN], Told.APOLOGY, ""),
        ("@p-1\n\n" + next(iter(FAILURES.values()))[Language.ZH] + "（编号 abc）", Told.APOLOGY, ""),
        (UNDELIVERED[Language.ZH].format(chat="", question="q17"), Told.NOTICE, ""),
        (UNDELIVERED_ALERT[Language.EN].format(person="p-1", chat="", cause="?"), Told.NOTICE, ""),
        ("something else", Told.OTHER, ""),
    ],
)
async def test_heard_of(text: str, told: Told, mark: str) -> None:
    """An answer is known by the mark that it quotes, an apology by its text; anything else is neither."""
    heard = heard_of(await reply(text))
    assert (heard.told, heard.mark, heard.via) == (told, mark, "webhook")
    assert heard.msg_id


def test_apologies_are_told_apart() -> None:
    """Every text that tells of a failure is known, in both languages."""
    assert len(APOLOGIES) == 2 * (len(FAILURES) + 1)


async def test_letters_of(tmp_path: Path) -> None:
    """Dead letters are read from the file that claw has left, by the message's own id."""
    path = tmp_path / "claw.db"
    assert list(letters_of(path)) == []
    store = SqliteStore(path)
    await store.open()
    for number in (1, 2):
        await store.put(Row(inbound(number), Route("a", "a")))
    for error in ("not delivered: the message is too long", "ModelError: HTTP 500"):
        lease = await store.claim("test", TTL)
        assert lease is not None
        await store.bury(lease, error)
    await store.close()
    assert [(each.msg_id, each.refused) for each in letters_of(path)] == [("msg1", True), ("msg2", False)]


async def test_listening_where_nobody_goes_out_from() -> None:
    """The emulator's port is its own also while it is away: no outgoing connection is given one of that range."""
    async with listening(1) as emulator:
        assert emulator.port in PORTS
        port = emulator.port
        await emulator.stop()
        await emulator.start()
        assert emulator.port == port
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])  # noqa: ASYNC240 - once
    assert max(PORTS) < lowest


async def test_full_disk(tmp_path: Path) -> None:
    """A full disk takes nothing; a freed one does. Where no disk of our own can be had, that is known."""
    async with disk(tmp_path / "disk") as each:
        if each.own:
            each.fill()
            with pytest.raises(OSError, match="No space left"):
                (each.folder / "more").write_bytes(b"x" * 4096)
            each.free()
        (each.folder / "more").write_bytes(b"x" * 4096)
    assert not os.path.ismount(tmp_path / "disk")  # noqa: ASYNC240 - once


def test_forbidden_writing(tmp_path: Path) -> None:
    """A process that may not write fails at files that it has open already, and recovers."""
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"before")
        me = psutil.Process()
        forbid_writing(me)
        try:
            with pytest.raises(OSError, match="File too large"):
                file.write(b"x")
        finally:
            permit_writing(me)
        file.write(b"after")
    assert (tmp_path / "file").read_bytes() == b"beforeafter"

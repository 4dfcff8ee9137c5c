"""Pictures and files of answers by a real process: what people see, and what is uploaded."""

from __future__ import annotations

import asyncio
import io
import re
import zipfile
from base64 import b64encode

import pytest

from claw.emulator import Emulator
from claw.emulator.replies import Reply
from claw.language import Language
from claw.turn import texts
from tests.files import made
from tests.roundtrip.conftest import Claw

pytestmark = pytest.mark.timeout(90)

SHOWN = re.compile(r"!\[[^\]]*\]\((@[^)]+)\)")


def uploads(emulator: Emulator) -> list[bytes]:
    """What was uploaded, in order."""
    return [file.content for key, file in emulator.files._files.items() if key.startswith("@")]


def data_url(content: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{b64encode(content).decode()}"


async def wait_replies(emulator: Emulator, count: int) -> list[Reply]:
    async with asyncio.timeout(20):
        while len(emulator.replies.log) < count:
            await asyncio.sleep(0.02)
    # A moment more: nothing else may come.
    await asyncio.sleep(0.2)
    assert len(emulator.replies.log) == count
    return list(emulator.replies.log)


async def test_a_picture_of_400_000_characters_is_one_message(emulator: Emulator, claw: Claw) -> None:
    """It was 29 messages of base64: it is uploaded, and shown in the one."""
    picture = made.make_picture("PNG", (4, 3)) + bytes(300_000)
    assert len(b64encode(picture)) > 400_000
    emulator.faults.update({"model_fixed_reply": f"给你：\n\n![猫]({data_url(picture)})", "model_chunk_delay": 0.0})
    async with claw():
        await emulator.say("画一只猫")
        (reply,) = await wait_replies(emulator, 1)
    assert reply.text == f"给你：\n\n![猫]({SHOWN.findall(reply.text)[0]})"
    assert uploads(emulator) == [picture]
    shown = emulator.files._files[SHOWN.findall(reply.text)[0]]
    assert (shown.name, shown.content_type) == ("picture.png", "image/png")


async def test_twelve_pictures(emulator: Emulator, claw: Claw) -> None:
    """Nine are shown, whose uploads the month can bear; the links of the others stay."""
    links = [f"{emulator.url}/files/{emulator.files.add(made.make_picture('PNG', (4, 3 + n)))}" for n in range(12)]
    text = "\n".join(f"![{n}]({link})" for n, link in enumerate(links))
    emulator.faults.update({"model_fixed_reply": text})
    async with claw():
        await emulator.say("show me")
        (reply,) = await wait_replies(emulator, 1)
    assert len(set(SHOWN.findall(reply.text))) == 9
    assert all(link in reply.text for link in links[9:])
    assert not any(link in reply.text for link in links[:9])
    assert len(uploads(emulator)) == 9


async def test_files_are_sent_to_people_and_groups(emulator: Emulator, claw: Claw) -> None:
    """One that DingTalk takes as it is, one in an archive; in a group, and to a person."""
    pdf = data_url(made.make_pdf(), "application/pdf")
    csv = data_url(b"a,b\n1,2\n", "text/csv")
    emulator.faults.update({"model_fixed_reply": f"Done: [report.pdf]({pdf}) [table.csv]({csv})"})
    async with claw():
        for number, chat in enumerate(("direct:u-1001", "g-team"), 1):
            await emulator.say("make a report", chat=chat)
            replies = (await wait_replies(emulator, 3 * number))[-3:]
            assert [each.msgtype for each in replies] == ["markdown", "file", "file"]
            assert "Done: 📎 report.pdf 📎 table.csv" in replies[0].text
            assert [each.text for each in replies[1:]] == ["report.pdf", "table.csv.zip"]
            assert all(each.chat == replies[0].chat for each in replies)
    with zipfile.ZipFile(io.BytesIO(uploads(emulator)[1])) as archive:
        assert archive.read("table.csv") == b"a,b\n1,2\n"


async def test_a_long_answer_goes_on_in_a_file(emulator: Emulator, claw: Claw) -> None:
    """CLAW_ANSWER_MAX_PARTS messages, of which the last is a file with all of it."""
    text = "\n\n".join(f"{n}. " + "字" * 200 for n in range(100))
    emulator.faults.update({"model_fixed_reply": text})
    async with claw(CLAW_ANSWER_MAX_PARTS="3"):
        await emulator.say("写长一点")
        first, second, file = await wait_replies(emulator, 3)
    assert first.text.startswith("0. 字")
    assert "文件中有完整回答" in second.text
    assert (file.msgtype, file.text) == ("file", "回答.zip")
    with zipfile.ZipFile(io.BytesIO(uploads(emulator)[0])) as archive:
        assert archive.read("回答.md").decode() == text


async def test_hostile_targets(emulator: Emulator, claw: Claw) -> None:
    """Nothing inside is asked, nothing of the machine is shown, no scheme acts."""
    text = "\n".join(
        [
            "![a](/etc/passwd) ![b](file:///etc/shadow) [c.pdf](C:\\secret\\c.pdf)",
            "MEDIA:/root/.ssh/id_rsa.txt",
            "![d](http://169.254.169.254/latest/meta-data/) ![e](https://10.0.0.5/e.png)",
            "![f](http://127.0.0.1:1/f.png) ![g](http://[::1]:9/state)",
            "[h](dingtalk://x) [i](javascript:alert(1)) ![j](vbscript:x)",
        ]
    )
    emulator.faults.update({"model_fixed_reply": text})
    async with claw():
        await emulator.say("show me")
        (reply,) = await wait_replies(emulator, 1)
    assert uploads(emulator) == []
    for hidden in ("/etc", "/root", "secret", "127.0.0.1", "::1", "file:"):
        assert hidden not in reply.text
    assert reply.text.count("it is on the agent's machine") == 6
    assert "[d](http://169.254.169.254/latest/meta-data/)" in reply.text
    assert "![e]" not in reply.text


async def test_killed_between_upload_and_send(emulator: Emulator, claw: Claw) -> None:
    """The settled answer is taken up by the next process, which uploads nothing and sends it once."""
    picture = made.make_picture("PNG", (4, 3))
    emulator.faults.update({"model_fixed_reply": f"![cat]({data_url(picture)})", "webhook_delay": 3600.0})
    async with claw() as service:
        await emulator.say("a cat")
        async with asyncio.timeout(20):
            while not emulator.webhook.calls and not uploads(emulator):
                await asyncio.sleep(0.01)
        # The upload is answered, the send never is.
        await asyncio.sleep(0.5)
        await service.kill()
    assert len(uploads(emulator)) == 1
    emulator.faults.update({"webhook_delay": 0.0})
    async with claw():
        replies = await wait_replies(emulator, 1)
    assert len(uploads(emulator)) == 1
    assert SHOWN.fullmatch(replies[0].text)


async def test_stop_ends_the_sending(emulator: Emulator, claw: Claw) -> None:
    """`/stop` while parts go out: the one on its way is the last, and who asked is told that it was stopped."""
    emulator.faults.update({"model_fixed_reply": "字" * 22_000, "webhook_delay": 0.7})
    async with claw():
        await emulator.say("写长一点", chat="g-team")
        await emulator.replies.wait(timeout=20)
        stop = await emulator.say("/stop", chat="g-team")
        told = await emulator.wait_reply_to(stop)
        assert texts.STOPPED[Language.ZH] in told.text
        await asyncio.sleep(1.0)
    parts = [each for each in emulator.replies.log if "字字字" in each.text]
    assert 1 <= len(parts) <= 2

"""Pictures and files of answers: brought, shown, sent, and what stands in their place where they cannot be."""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp import web

from claw.budget import ByteBudget
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.upload import UploadClient
from claw.dingtalk.webhook import WebhookClient
from claw.errors import DingTalkError
from claw.files.reader import FileReader
from claw.language import Language
from claw.messages import (
    Answer,
    ChatKind,
    Exchange,
    FileRole,
    Inbound,
    Markdown,
    MediaState,
    Outcome,
    SentFile,
    UnknownContent,
)
from claw.reply.delivering import settle
from claw.reply.fetching import LinkFetcher
from claw.reply.formats import pack
from claw.reply.media import CARRIED_MAX, HELD_MAX_BYTES, MediaSettler
from claw.reply.sender import AnswerSender
from tests.dingtalk.conftest import DIRECT_PATH, GROUP_PATH, UPLOAD_PATH, WEBHOOK_PATH, FakeDingTalk, hang, inbound
from tests.files import made

PNG = made.make_picture("PNG", (4, 3))
NO_SCOPE = (200, {"errcode": 60011, "errmsg": "no permission"})
BUSY = (200, {"errcode": -1, "errmsg": "busy"})

Settle = Callable[..., Awaitable[Answer]]


def data_url(content: bytes = PNG, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{b64encode(content).decode()}"


def serve(content: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content)

    return answer


class Kit:
    """A settler and a sender that talk to the small DingTalk."""

    def __init__(self, dingtalk: FakeDingTalk, openapi: OpenApiClient, webhook: WebhookClient, max_parts: int) -> None:
        self.dingtalk = dingtalk
        self.sender = AnswerSender(webhook, openapi, Language.ZH, max_parts)
        self.openapi = openapi
        self.settler = self.make_settler()

    def make_settler(self, *, timeout_s: float = 20.0, may_upload: bool = True) -> MediaSettler:
        async def ask() -> bool:
            return may_upload

        budget = ByteBudget(HELD_MAX_BYTES)
        uploads = UploadClient(self.openapi, self.dingtalk.url)
        fetcher = LinkFetcher((self.dingtalk.url,), budget)
        return MediaSettler(
            uploads, fetcher, FileReader(), self.sender.planner, budget, may_upload=ask, timeout_s=timeout_s
        )

    async def settle(self, text: str, message: Inbound | None = None) -> Answer:
        return await self.settler.settle(message or inbound(), Answer.of(text, Outcome.ANSWERED))

    async def text_of(self, text: str, message: Inbound | None = None) -> str:
        return (await self.settle(text, message)).text


@pytest.fixture
def kit(dingtalk: FakeDingTalk, openapi: OpenApiClient, webhook: WebhookClient) -> Kit:
    return Kit(dingtalk, openapi, webhook, 5)


async def test_an_embedded_picture_is_uploaded_and_shown(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """As a picture by its mediaId, in its place; each way to embed one."""
    text = f"Here:\n\n![cat]({data_url()})\n\nNice?"
    assert await kit.text_of(text) == "Here:\n\n![cat](@lADfake1)\n\nNice?"
    (upload,) = dingtalk.to(UPLOAD_PATH)
    assert PNG in upload.raw
    assert b'filename="picture.png"' in upload.raw
    gif = data_url(made.make_picture("GIF", (4, 3)), "image/gif")
    assert await kit.text_of(f'<img src="{gif}" alt="A [cat]">') == "![A  cat](@lADfake2)"
    assert await kit.text_of(f"a {data_url()} b") == "a ![](@lADfake3) b"


async def test_nothing_to_bring_is_nothing_to_do(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """The same answer, without a call; nor for commands, nor for one that is on its way or settled."""
    for text in ("hello", "see https://h.example/a.pdf and [b](https://h.example/b)", "`![a](/tmp/a.png)`"):
        answer = Answer.of(text, Outcome.ANSWERED)
        assert await kit.settler.settle(inbound(), answer) is answer
    picture = f"![cat]({data_url()})"
    for answer in (
        Answer.of(picture, Outcome.COMMAND),
        Answer.of(picture, Outcome.ANSWERED, sent=1),
        replace(Answer.of(picture, Outcome.ANSWERED), media=MediaState.SETTLED),
        Answer((UnknownContent({"kind": "x"}),), Outcome.ANSWERED),
    ):
        assert await kit.settler.settle(inbound(), answer) is answer
    assert dingtalk.requests == []


async def test_links_to_pictures_are_fetched(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """What is named twice is fetched and uploaded once; a link to a page stays a link."""
    dingtalk.will("/a.png", serve(PNG))
    link = f"{dingtalk.url}/a.png"
    text = await kit.text_of(f"![a]({link}) [page](https://h.example/) MEDIA:{link}")
    assert text == "![a](@lADfake1) [page](https://h.example/) ![](@lADfake1)"
    assert len(dingtalk.to("/a.png")) == len(dingtalk.to(UPLOAD_PATH)) == 1


@pytest.mark.parametrize(("kind", "shown"), [("WEBP", "jpg"), ("TIFF", "jpg"), ("BMP", "bmp"), ("JPEG", "jpg")])
async def test_pictures_that_dingtalk_does_not_show_are_converted(
    kind: str, shown: str, kit: Kit, dingtalk: FakeDingTalk
) -> None:
    """By the process that reads pictures; the others go as they are."""
    picture = made.make_picture(kind, (40, 30))
    assert await kit.text_of(f"![x]({data_url(picture, 'image/webp')})") == "![x](@lADfake1)"
    (upload,) = dingtalk.to(UPLOAD_PATH)
    assert f'filename="picture.{shown}"'.encode() in upload.raw
    assert (picture in upload.raw) is (kind in {"BMP", "JPEG"})


@pytest.mark.parametrize(
    ("name", "content", "mime", "sent"),
    [
        ("a.pdf", b"%PDF-1.7", "application/pdf", ("a.pdf", "pdf")),
        ("a", b"%PDF-1.7", "application/pdf", ("a.pdf", "pdf")),
        ("a.xlsx", pack("x", b"x"), "application/octet-stream", ("a.xlsx", "xlsx")),
        ("a.docx", pack("x", b"x"), "application/octet-stream", ("a.docx", "docx")),
        ("a.zip", pack("x", b"x"), "application/zip", ("a.zip", "zip")),
        ("a.csv", b"a,b\n1,2\n", "text/csv", ("a.csv.zip", "zip")),
        ("a.md", b"# a", "text/markdown", ("a.md.zip", "zip")),
    ],
)
async def test_files_become_messages(
    name: str, content: bytes, mime: str, sent: tuple[str, str], kit: Kit, dingtalk: FakeDingTalk
) -> None:
    """Behind the words, by the OpenAPI, to a person and to a group; the words name it."""
    answer = await kit.settle(f"Done: [{name}]({data_url(content, mime)})")
    text, file = answer.content
    assert text == Markdown(f"Done: 📎 {sent[0].removesuffix('.zip') if name != 'a.zip' else name}")
    assert file == SentFile("@lADfake1", *sent)
    for message, path in ((inbound(webhook=dingtalk.webhook), DIRECT_PATH), (inbound(kind=ChatKind.GROUP), GROUP_PATH)):
        await kit.sender.send(message, answer, _ignore)
        body = dingtalk.to(path)[-1].json
        assert body["msgKey"] == "sampleFile"
        assert json.loads(body["msgParam"]) == {"mediaId": "@lADfake1", "fileName": sent[0], "fileType": sent[1]}


async def _ignore(_: Answer) -> None:
    """Keep nothing."""


async def test_a_linked_file_comes_and_its_link_stays(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """Where its words are its name. A page for logging in is no document."""
    dingtalk.will("/d", serve(b"%PDF-1.7"), serve(b"<html>log in"))
    text = f"[report.pdf]({dingtalk.url}/d)"
    answer = await kit.settle(text)
    assert answer.content == (Markdown(text), SentFile("@lADfake1", "report.pdf", "pdf"))
    answer = await kit.settle(text)
    assert answer.content == (Markdown(text),)
    assert answer.media is MediaState.SETTLED, "it is not fetched again"


LOCAL = {
    "![x](/tmp/x.png)": "x.png (picture not sent: {})",
    "[y](file:///srv/secret/y.pdf)": "y.pdf (file not sent: {})",
    "![](C:\\Users\\ann\\z.png)": "z.png (picture not sent: {})",
    "MEDIA:/home/ann/My File.png": "My File.png (file not sent: {})",
    "[a](sandbox:/mnt/data/a.csv)": "a.csv (file not sent: {})",
    "![b](attachment://b.png)": "b.png (picture not sent: {})",
    "![c](http://localhost:8000/c.png)": "c.png (picture not sent: {})",
}


@pytest.mark.parametrize("text", LOCAL)
async def test_paths_of_the_machine_are_never_shown(text: str, kit: Kit, dingtalk: FakeDingTalk) -> None:
    """The name, and that it could not be brought; no path, no link, no call."""
    said = await kit.text_of(text)
    assert said == LOCAL[text].format("it is on the agent's machine and could not be brought here")
    assert dingtalk.requests == []


async def test_so_many_at_most(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """Of twelve pictures nine are shown; links of the others stay, embedded ones are told of."""
    pictures = [data_url(made.make_picture("PNG", (4, 3 + n))) for n in range(12)]
    text = await kit.text_of("\n".join(f"![p{n}]({url})" for n, url in enumerate(pictures)))
    assert len(dingtalk.to(UPLOAD_PATH)) == CARRIED_MAX
    assert text.count("](@lADfake") == 9
    assert text.count("(picture not sent: there are too many)") == 3
    assert "base64" not in text


async def test_files_leave_a_message_for_words(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """Of six files four are sent, with one message of words."""
    text = "\n".join(f"[{n}.txt]({data_url(str(n).encode(), 'text/plain')})" for n in range(6))
    answer = await kit.settle(text)
    assert sum(isinstance(each, SentFile) for each in answer.content) == 4
    assert answer.text.count("there are too many") == 2
    assert len(await kit.sender.planner.plan(inbound(), answer)) == 5


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("data:image/png;base64,AAAA****", "damaged"),
        (data_url(b"no picture", "image/svg+xml"), "its kind cannot be sent"),
        (data_url(b"RIFF0000WEBPnonsense", "image/webp"), "its kind cannot be sent"),
    ],
    ids=["damaged", "svg", "webp"],
)
async def test_embedded_ones_that_fail_say_why(target: str, cause: str, kit: Kit) -> None:
    """A short mark with the true cause, in the person's language; a picture that breaks off is damaged."""
    assert re.fullmatch(rf"cat \(picture not sent: .*{cause}.*\) !", await kit.text_of(f"![cat]({target}) !"))
    assert "base64" not in await kit.text_of(f"![cat]({target}")
    assert "（图片未能发送：" in await kit.text_of(f"![cat]({target})", replace(inbound(), text="画一只猫"))


async def test_a_picture_above_20_mb_is_not_uploaded(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """DingTalk takes none."""
    large = data_url(b"\x89PNG\r\n\x1a\n" + bytes(21 * 1024 * 1024))
    assert await kit.text_of(f"![cat]({large}) !") == "cat (picture not sent: it is larger than 20 MB) !"
    assert dingtalk.requests == []


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("https://h.invalid/a.png", "![a](https://h.invalid/a.png)"),
        ("https://10.0.0.5/a.png", "[a](https://10.0.0.5/a.png)"),
        ("http://93.184.215.14:8080/a.png", "[a](http://93.184.215.14:8080/a.png)"),
        (
            "https://[::1]:9/a.png",
            "a.png (picture not sent: it is on the agent's machine and could not be brought here)",
        ),
    ],
)
async def test_links_that_may_not_be_asked(link: str, shown: str, kit: Kit) -> None:
    """Who reads it may open what we may not; a picture that lies inside a network becomes a link."""
    assert await kit.text_of(f"![a]({link})") == shown


async def test_links_that_give_nothing_stay(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """DingTalk may be able to show what we could not get."""
    dingtalk.will("/a.png", (404, {}), serve(b"<html>"), serve(PNG[:4]))
    link = f"![a]({dingtalk.url}/a.png)"
    for _ in range(3):
        assert await kit.text_of(link) == link
    assert dingtalk.to(UPLOAD_PATH) == []


async def test_uploads_that_are_refused(kit: Kit, dingtalk: FakeDingTalk, caplog: pytest.LogCaptureFixture) -> None:
    """A missing permission is told the operator once, ends the uploads of this answer, and costs no turn."""
    dingtalk.will(UPLOAD_PATH, NO_SCOPE, NO_SCOPE)
    text = f"![a]({data_url()})"
    for _ in range(2):
        said = await kit.text_of(text, replace(inbound(), text="hello"))
        assert said == "a (picture not sent: the robot may not upload; please tell the administrator)"
    told = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(told) == 1
    assert "permission" in str(vars(told[0])["cause"])
    assert await kit.text_of(text) == "![a](@lADfake3)"


async def test_an_upload_is_tried_once_more(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """Nobody sees an upload, so that a second one shows nothing twice."""
    dingtalk.will(UPLOAD_PATH, BUSY)
    assert await kit.text_of(f"![a]({data_url()})") == "![a](@lADfake2)"


async def test_no_calls_left_for_pictures(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """Where the month has none to spare nothing is uploaded, and that is said."""
    kit.settler = kit.make_settler(may_upload=False)
    assert "this month's calls are used up" in await kit.text_of(f"![a]({data_url()})")
    assert dingtalk.requests == []


async def test_time_runs_out(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """What was brought by then is shown, the others are left: words that are ready are waited for."""
    kit.settler = kit.make_settler(timeout_s=0.3)
    dingtalk.will("/a.png", hang)
    link = f"![a]({dingtalk.url}/a.png)"
    assert await kit.text_of(f"{link} ![b]({data_url()})") == f"{link} ![b](@lADfake1)"


@pytest.mark.parametrize(("kind", "staff", "sent"), [(ChatKind.DIRECT, "", 0), (ChatKind.GROUP, "", 1)])
async def test_who_has_only_a_webhook_gets_no_files(
    kind: ChatKind, staff: str, sent: int, kit: Kit, dingtalk: FakeDingTalk
) -> None:
    """A person without staff id cannot be written to by the OpenAPI: pictures come, files do not, and that is said."""
    message = inbound(kind=kind, staff_id=staff, webhook=dingtalk.webhook)
    answer = await kit.settle(f"![a]({data_url()}) [a.pdf]({data_url(b'%PDF-', 'application/pdf')})", message)
    assert "![a](@lADfake" in answer.text
    assert ("files cannot be sent in this chat" in answer.text) is (sent == 0)
    assert sum(isinstance(each, SentFile) for each in answer.content) == sent
    long = await kit.settle("字" * 40_000, message)
    assert sum(isinstance(each, SentFile) for each in long.content) == sent


async def test_a_long_answer_is_a_file_as_a_whole(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """Four messages of words, of which the last says so, and all of it in an archive."""
    text = "字" * 40_000
    answer = await kit.settle(text)
    assert answer.content[1] == SentFile("@lADfake1", "answer.zip", "zip", FileRole.WHOLE)
    raw = dingtalk.to(UPLOAD_PATH)[0].raw
    with zipfile.ZipFile(io.BytesIO(raw[raw.index(b"PK\x03\x04") : raw.rindex(b"\r\n--")])) as archive:
        assert archive.read("answer.md").decode() == text
    await kit.sender.send(inbound(webhook=dingtalk.webhook), answer, _ignore)
    assert len(dingtalk.to(WEBHOOK_PATH)) == 4
    assert "the file below has all of it" in dingtalk.to(WEBHOOK_PATH)[-1].json["markdown"]["text"]
    assert len(dingtalk.to(DIRECT_PATH)) == 1
    chinese = await kit.settle(text, replace(inbound(), text="写长一点"))
    assert isinstance(chinese.content[1], SentFile)
    assert chinese.content[1].name == "回答.zip"


async def test_a_long_answer_without_uploads_is_told_of(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """As before: the last message says how much is left out."""
    dingtalk.will(UPLOAD_PATH, NO_SCOPE)
    answer = await kit.settle("字" * 40_000)
    assert len(answer.content) == 1
    plan = await kit.sender.planner.plan(inbound(), answer)
    assert len(plan) == 5
    assert "left out" in str(plan[-1])


@pytest.mark.parametrize("role", FileRole)
async def test_a_file_that_is_refused_leaves_a_word(role: FileRole, kit: Kit, dingtalk: FakeDingTalk) -> None:
    """Its delivery is that word: all that was written is out already, and no turn fails for it."""
    dingtalk.will(DIRECT_PATH, (403, {"code": "Forbidden.AccessDenied.AccessTokenPermissionDenied"}))
    answer = Answer((Markdown("words"), SentFile("@1", "a.pdf", "pdf", role)), Outcome.ANSWERED)
    await kit.sender.send(inbound(webhook=dingtalk.webhook), answer, _ignore)
    first, second = (each.json["markdown"]["text"] for each in dingtalk.to(WEBHOOK_PATH))
    assert first == "words"
    assert second == (
        'The file "a.pdf" was not sent: DingTalk did not take it.'.join("()")
        if role is FileRole.ATTACHMENT
        else "(The file with the whole answer could not be sent.)"
    )
    dingtalk.will(DIRECT_PATH, (500, {"code": "system.error"}))
    with pytest.raises(DingTalkError):
        await kit.sender.send(inbound(webhook=dingtalk.webhook), answer, _ignore)


async def test_settled_once_whatever_dies(kit: Kit, dingtalk: FakeDingTalk) -> None:
    """The settled answer is kept before anything is sent: whoever takes it up uploads nothing, and sends the same."""
    kept: list[Answer] = []

    async def persist(answer: Answer) -> None:
        kept.append(answer)
        assert dingtalk.to(WEBHOOK_PATH) == []
        raise ConnectionError("the process dies here")

    message = inbound(webhook=dingtalk.webhook)
    file = f"[a.pdf]({data_url(b'%PDF-', 'application/pdf')})"
    with pytest.raises(ConnectionError):
        await settle(kit.settler, message, Answer.of(f"![a]({data_url()}) {file}", Outcome.ANSWERED), persist)
    (settled,) = kept
    again = Answer.from_json(settled.to_json())
    assert again == settled
    uploads = len(dingtalk.to(UPLOAD_PATH))
    assert await settle(kit.settler, message, again, persist) is again
    await kit.sender.send(message, again, _ignore)
    assert len(dingtalk.to(UPLOAD_PATH)) == uploads == 2
    assert [each.json["markdown"]["text"] for each in dingtalk.to(WEBHOOK_PATH)] == [again.text]
    assert len(dingtalk.to(DIRECT_PATH)) == 1


async def test_history_has_no_data(kit: Kit) -> None:
    """A model has no use for megabytes of base64: what it is told later names the picture; links stay."""
    said = f"Here: ![cat]({data_url()}) ![dog](https://h.invalid/dog.png)"
    answer = Answer.of(said, Outcome.ANSWERED, exchange=Exchange("key", "draw", said))
    settled = await kit.settler.settle(inbound(), answer)
    assert settled.exchange is not None
    assert settled.exchange.assistant == "Here: [picture: cat] ![dog](https://h.invalid/dog.png)"


def test_another_version_reads_the_answer() -> None:
    """A file of an unknown role is content of another version; an unknown state counts as settled."""
    answer = Answer((SentFile("@1", "a.pdf", "pdf"),), Outcome.ANSWERED, media=MediaState.SETTLED)
    fields = json.loads(answer.to_json())
    assert Answer.from_json(json.dumps(fields)) == answer
    fields["media"] = "later"
    fields["content"][0]["role"] = "later"
    read = Answer.from_json(json.dumps(fields))
    assert read.media is MediaState.SETTLED
    assert isinstance(read.content[0], UnknownContent)
    assert json.loads(read.to_json())["content"] == fields["content"]
    del fields["media"]
    assert Answer.from_json(json.dumps(fields)).media is MediaState.NAMED

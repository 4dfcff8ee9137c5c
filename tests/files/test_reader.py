"""Files are read, each in a process of its own, and none of them harms anybody."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claw.errors import MediaError, MediaProblem
from claw.files import reader as reader_module
from claw.files.output import TEXT_MAX_CHARS
from claw.files.reader import FileReader
from claw.files.values import FileText
from tests.files import made
from tests.files.children import list_readers
from tests.files.made import FACT, ZH_FACT, chunks_of

HTML = (
    "<html><head><title>T</title><script>alert('no')</script><style>p{}</style></head><body>"
    f"<p>{FACT}</p><table><tr><td>a</td><td>b</td></tr></table>"
    "<a href='https://x.example/y'>link</a><script>no</script></body></html>"
)


async def read(content: bytes, name: str = "a", reader: FileReader | None = None) -> FileText:
    return await (reader or FileReader()).read(name, max(1, len(content)), chunks_of(content))


async def refused(content: bytes, name: str = "a") -> MediaProblem:
    with pytest.raises(MediaError) as raised:
        await read(content, name)
    return raised.value.problem


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    assert not list_readers()


# --- every kind -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", FACT.encode(), "text"),
        ("a.md", f"# T\n\n{FACT}".encode(), "text"),
        ("a.csv", f"name,amount\n{FACT},17\n".encode(), "text"),
        ("a.tsv", f"name\tamount\n{FACT}\t17\n".encode(), "text"),
        ("a.json", json.dumps({"fact": FACT}).encode(), "text"),
        ("a.yaml", f"fact: {FACT}\n".encode(), "text"),
        ("a.log", f"2026-11-26 ERROR {FACT}\r\n".encode(), "text"),
        ("a.py", f"print({FACT!r})".encode(), "text"),
        ("a.html", HTML.encode(), "html"),
        ("a.pdf", made.make_pdf(), "pdf"),
        ("a.docx", made.make_docx(), "docx"),
        ("a.xlsx", made.make_xlsx(), "xlsx"),
        ("a.pptx", made.make_pptx(), "pptx"),
        # By its content, whatever it is called.
        ("a.txt", made.make_docx(), "docx"),
        ("a", made.make_pdf(), "pdf"),
    ],
)
async def test_a_fact_in_a_file(name: str, content: bytes, kind: str) -> None:
    """What stands in a file of each kind is read."""
    found = await read(content, name)
    assert FACT in found.text
    assert (found.kind, found.is_whole, found.size) == (kind, True, len(content))


async def test_what_an_office_file_holds() -> None:
    """Headings, lists, tables by rows, headers; sheets by name, hidden ones told; slides with tables and notes."""
    document = (await read(made.make_docx())).text
    for piece in ("# Report", ZH_FACT, "- first", "name | amount\nAnn | 17", "confidential"):
        assert piece in document
    book = await read(made.make_xlsx())
    assert book.text.startswith(
        f"## 销售\nname | amount | when\nAnn | 17\n{FACT} | 2.5 | {ZH_FACT}\n## secret (hidden)"
    )
    assert (book.pages, book.pages_read) == (2, 2)
    show = await read(made.make_pptx())
    for piece in ("[slide 1]", "Plan", f"[notes] {ZH_FACT}", "[slide 2]", "a | b"):
        assert piece in show.text


async def test_a_page_is_read_without_its_scripts() -> None:
    """Text, rows and links of a page, and nothing that a browser would run."""
    text = (await read(HTML.encode(), "a.html")).text
    assert "a | b" in text
    assert "link (https://x.example/y)" in text
    assert "alert" not in text
    assert "no" not in text.replace("now", "")


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
async def test_chinese_in_any_charset(encoding: str) -> None:
    """GB18030 and UTF-16, with and without a mark, are as common as UTF-8."""
    text = f"{ZH_FACT}。\n请在十一月二十六日之前回复 ann@example.com，谢谢！(code 48213)\n" * 3
    assert (await read(text.encode(encoding), "a.txt")).text == text.rstrip("\n")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("臺灣的資料庫系統與網路設備，請於明日下午三點以前完成檢查並且回覆。", "big5"),
        ("これは日本語の文章です。会議は明日の午後三時から始まります。よろしくお願いします。", "shift_jis"),
        ("Größe und Maße der Straße, façade à côté, naïve élève. " * 4, "cp1252"),
    ],
)
async def test_other_charsets(text: str, encoding: str) -> None:
    """What is neither UTF nor mainland Chinese is told by its bytes."""
    assert (await read(text.encode(encoding), "a.txt")).text == text.strip("\n")


async def test_a_pdf_whose_font_is_not_embedded() -> None:
    """Old Chinese PDFs name their characters by a predefined map."""
    assert ZH_FACT in (await read(made.make_chinese_pdf(), "a.pdf")).text


async def test_three_hundred_pages() -> None:
    """The last pages of a long PDF are read as well, each with its number."""
    content = await asyncio.to_thread(made.make_pdf, 300, at=297)
    found = await read(content, "a.pdf")
    assert f"[page 297]\nPage 297 of the minutes.\n{FACT}" in found.text
    assert (found.pages, found.pages_read) == (300, 300)


async def test_twenty_megabytes() -> None:
    """A PDF of 20 MB is read, and never held in this process."""
    content = await asyncio.to_thread(made.make_pdf, 3, at=2, padding=19_900_000)
    assert len(content) > 19_000_000
    assert FACT in (await read(content, "a.pdf")).text


async def test_a_text_that_is_too_long_is_cut() -> None:
    """What is beyond the bound is left out, and told."""
    found = await read(b"0123456789\n" * 100_000, "a.txt")
    assert (len(found.text), found.is_whole) == (TEXT_MAX_CHARS, False)
    pages = await read(await asyncio.to_thread(made.make_docx, *["word " * 1000] * 60), "a.docx")
    assert not pages.is_whole


# --- what cannot be read --------------------------------------------------------------------------------------------


def many_cells() -> bytes:
    """A sheet that names a cell at its far end, and says that it is that large."""
    part = (
        b'<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        b'<dimension ref="A1:XFD1048576"/><sheetData><row r="1048576"><c r="XFD1048576" t="inlineStr">'
        b"<is><t>end</t></is></c></row></sheetData></worksheet>"
    )
    return made.replace_part(made.make_xlsx(), "xl/worksheets/sheet1.xml", part)


def laughs() -> bytes:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    xml = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY l0 "ha">{entities}]><d>&l9;</d>'
    return xml.encode()


def looping_pdf() -> bytes:
    return made.assemble_pdf(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 1000000000 >>",
            b"<< /Type /Pages /Parent 3 0 R /Kids [2 0 R] /Count 5 >>",
        ]
    )


def scanned() -> bytes:
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>",
    ]
    return made.assemble_pdf(objects)


HOSTILE: list[tuple[str, Callable[[], bytes], set[MediaProblem]]] = [
    ("empty.txt", lambda: b"", {MediaProblem.NO_TEXT}),
    ("blank.txt", lambda: b" \n\t\n", {MediaProblem.NO_TEXT}),
    ("scan.pdf", scanned, {MediaProblem.NO_TEXT}),
    ("locked.pdf", lambda: made.encrypt_pdf(made.make_pdf(), "secret"), {MediaProblem.ENCRYPTED}),
    (
        "locked.docx",
        lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
        {MediaProblem.ENCRYPTED},
    ),
    ("old.doc", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), {MediaProblem.UNSUPPORTED}),
    ("picture.pdf", made.make_picture, {MediaProblem.UNSUPPORTED}),
    ("program.txt", lambda: b"MZ" + bytes(range(256)) * 20, {MediaProblem.UNSUPPORTED}),
    ("noise.txt", lambda: random.Random(1).randbytes(5000), {MediaProblem.UNSUPPORTED}),
    ("archive.docx", lambda: made.zip_of(a_dot_txt=b"hi"), {MediaProblem.UNSUPPORTED}),
    ("cut.docx", lambda: made.make_docx()[:4000], {MediaProblem.DAMAGED}),
    ("cut.xlsx", lambda: made.make_xlsx()[:3000], {MediaProblem.DAMAGED}),
    ("cut.pdf", lambda: made.make_pdf()[:300], {MediaProblem.DAMAGED}),
    (
        "bomb.docx",
        lambda: made.zip_of(word__document_dot_xml=b"<a>" + b" " * 80_000_000 + b"</a>"),
        {MediaProblem.TOO_COSTLY},
    ),
    (
        "bombs.docx",
        lambda: made.zip_of(word__document_dot_xml=b"<a/>", **{f"x{n}": bytes(30_000_000) for n in range(8)}),
        {MediaProblem.TOO_COSTLY},
    ),
    (
        "deep.docx",
        lambda: made.replace_part(made.make_docx(), "word/document.xml", b"<a>" * 400_000),
        {MediaProblem.DAMAGED, MediaProblem.TOO_COSTLY},
    ),
    (
        "laughs.docx",
        lambda: made.replace_part(made.make_docx(), "word/document.xml", laughs()),
        {MediaProblem.TOO_COSTLY},
    ),
    (
        "laughs.xlsx",
        lambda: made.replace_part(made.make_xlsx(), "xl/worksheets/sheet1.xml", laughs()),
        {MediaProblem.TOO_COSTLY},
    ),
    (
        "loop.pdf",
        looping_pdf,
        {MediaProblem.DAMAGED, MediaProblem.NO_TEXT, MediaProblem.TOO_SLOW, MediaProblem.TOO_COSTLY},
    ),
    (
        "nothing.xlsx",
        lambda: made.replace_part(made.make_xlsx(), "xl/workbook.xml", b"not xml"),
        {MediaProblem.DAMAGED},
    ),
]


@pytest.mark.parametrize(("name", "make", "problems"), HOSTILE, ids=[each[0] for each in HOSTILE])
async def test_what_cannot_be_read_says_why(name: str, make: Callable[[], bytes], problems: set[MediaProblem]) -> None:
    """Each ends with its cause, soon."""
    content = await asyncio.to_thread(make)
    began = time.monotonic()
    assert await refused(content, name) in problems
    assert time.monotonic() - began < 16


async def test_a_billion_cells_by_reference() -> None:
    """A sheet that claims to be huge is read as far as it goes, or told as left out."""
    found = await read(await asyncio.to_thread(many_cells), "a.xlsx")
    assert "below" in found.text or not found.is_whole


async def test_markup_bombs_of_html() -> None:
    """A page of a million open elements, and one of entities, cost a moment."""
    for page in (b"<div>" * 300_000 + FACT.encode(), laughs() + FACT.encode()):
        try:
            await read(page, "a.html")
        except MediaError as error:
            assert error.problem in {MediaProblem.DAMAGED, MediaProblem.TOO_COSTLY, MediaProblem.NO_TEXT}  # noqa: PT017


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=2000),
    st.sampled_from([b"", b"%PDF-1.7\n", b"PK\x03\x04", b"<html>"]),
    st.sampled_from(["a.txt", "a.pdf", "a.html"]),
)
async def test_any_bytes_end_in_text_or_a_cause(content: bytes, start: bytes, name: str) -> None:
    """Whatever a file holds, there is a text or a MediaError."""
    try:
        found = await read(start + content, name)
    except MediaError:
        return
    found.text.encode()


# --- the process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put another program in the child's place."""

    def put(code: str) -> None:
        child = tmp_path / "child.py"
        child.write_text(f"import os, sys, time\nsys.stdin.buffer.readline()\n{code}\n")
        monkeypatch.setattr(reader_module, "CHILD", child)

    return put


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("time.sleep(60)", MediaProblem.TOO_SLOW),
        ("sys.stdin.buffer.read(); time.sleep(60)", MediaProblem.TOO_SLOW),
        ("sys.exit(1)", MediaProblem.DAMAGED),
        ("os.abort()", MediaProblem.TOO_COSTLY),
        ("os.kill(os.getpid(), 9)", MediaProblem.TOO_COSTLY),
        ("os.kill(os.getpid(), 24)", MediaProblem.TOO_SLOW),
        ("sys.stdin.buffer.read(); print('no json')", MediaProblem.DAMAGED),
        ("sys.stdin.buffer.read(); print('[1]')", MediaProblem.DAMAGED),
        ("sys.stdin.buffer.read(); print('{\"ok\": true}')", MediaProblem.DAMAGED),
        ('sys.stdin.buffer.read(); print(\'{"ok": false, "problem": "no such"}\')', MediaProblem.DAMAGED),
        ("sys.stdin.buffer.read()\nwhile True: print('x' * 65536)", MediaProblem.DAMAGED),
    ],
)
async def test_whatever_the_child_does(play: Callable[[str], None], code: str, problem: MediaProblem) -> None:
    """A child that hangs, dies, lies or floods costs its own file only."""
    play(code)
    with pytest.raises(MediaError) as raised:
        await read(b"x" * 200_000, "a.txt", FileReader(timeout_s=1.0))
    assert raised.value.problem is problem


async def test_a_cancellation_ends_the_child(play: Callable[[str], None]) -> None:
    """Nothing is left of a file that nobody waits for any more."""
    play("sys.stdin.buffer.read(); time.sleep(60)")
    task = asyncio.create_task(read(b"x"))
    while not list_readers():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_child_knows_nothing(play: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment, with its secrets, nor an open file of ours reaches it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    play(
        "sys.stdin.buffer.read()\nimport json\nfds = sorted(int(e) for e in os.listdir('/proc/self/fd'))\n"
        "text = ' '.join(os.environ) + ' ' + str(fds)\n"
        "print(json.dumps({'ok': True, 'kind': 'text', 'text': text, 'pages': 0, 'pages_read': 0, 'is_whole': True}))"
    )
    text = (await read(b"x")).text
    assert text.startswith("PATH LC_ALL OMP_NUM_THREADS")
    assert "[0, 1, 2, 3]" in text


async def test_a_file_that_is_larger_than_it_said() -> None:
    """No more is taken than was announced."""
    with pytest.raises(MediaError) as raised:
        await FileReader().read("a.txt", 10, chunks_of(b"x" * 100))
    assert raised.value.problem is MediaProblem.TOO_LARGE


async def test_who_waits_too_long_is_told(play: Callable[[str], None]) -> None:
    """While others are read a file waits, for a bounded time."""
    play("sys.stdin.buffer.read(); time.sleep(60)")
    reader = FileReader(timeout_s=2.0, queue_timeout_s=0.3)
    tasks = [asyncio.create_task(read(b"x", "a.txt", reader)) for _ in range(4)]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    problems = sorted(each.problem.value for each in done if isinstance(each, MediaError))
    assert problems == ["busy", "busy", "too_slow", "too_slow"]


async def test_twenty_hostile_files_at_once() -> None:
    """All end within 20 s, and this process grows by little."""
    bombs = [
        await asyncio.to_thread(make)
        for name, make, _ in HOSTILE
        if name.partition(".")[0] in {"bomb", "laughs", "loop", "deep", "noise"}
    ]
    reader = FileReader()
    before = psutil.Process().memory_info().rss
    began = time.monotonic()
    done = await asyncio.gather(
        *(read(bombs[n % len(bombs)], "a.docx", reader) for n in range(20)), return_exceptions=True
    )
    took = time.monotonic() - began
    grew = (psutil.Process().memory_info().rss - before) / 1e6
    assert all(isinstance(each, MediaError) for each in done)
    assert took < 20
    assert grew < 30

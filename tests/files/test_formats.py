"""What files of one kind have in common, however their program wrote them."""

from __future__ import annotations

import io
import time
import zipfile

import openpyxl
import pytest
from fpdf import FPDF

from claw.errors import MediaError, MediaProblem
from claw.files.output import TEXT_MAX_CHARS, FullError, Output
from claw.files.reader import FileReader
from claw.files.values import FileText
from tests.files import made
from tests.files.made import FACT, ZH_FACT, chunks_of

WORD = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    ' xmlns:v="urn:schemas-microsoft-com:vml"'
    ' xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)
PARAGRAPH = f"<w:p><w:r><w:t>{FACT}</w:t></w:r></w:p>"
BOX = f"<w:txbxContent>{PARAGRAPH}</w:txbxContent>"
CELL = f"<w:tc>{PARAGRAPH}</w:tc>"


async def read(content: bytes, name: str) -> FileText:
    return await FileReader().read(name, max(1, len(content)), chunks_of(content))


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", ["BMW", "MZ-12", "ID3", "GIF8", "RIFF", "BZh", "OggS", "Rar!", "see %PDF-1.7", "abcdftyp"]
)
async def test_a_text_may_begin_like_another_kind(start: str) -> None:
    """Letters alone make no program or picture of a text."""
    assert FACT in (await read(f"{start} {FACT}".encode(), "a.md")).text


@pytest.mark.parametrize(
    "head", [b"BM\x00\x01\x00\x00", b"MZ\x90\x00\x03", b"RIFF\x00\x00\x01\x00WAVE", b"\0\0\0\x18ftypmp42"]
)
async def test_what_is_binary_is_no_text(head: bytes) -> None:
    """The same letters with bytes of no text behind them."""
    with pytest.raises(MediaError) as raised:
        await read(head + FACT.encode(), "a.txt")
    assert raised.value.problem is MediaProblem.UNSUPPORTED


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("你好", "gbk"),
        ("①②③ ㎡ ┌─┐│表格│└─┘", "gbk"),
        ("姓名,金額\n張三,17", "big5"),
        ("안녕하세요 반갑습니다", "euc_kr"),
        ("Привет, как дела? Это отчёт.", "cp1251"),
        ("café crème", "latin-1"),
        (ZH_FACT, "utf-16-le"),
        (f"{ZH_FACT}\n明日上午开会", "utf-16-be"),
        ("ok\n" * 40_000 + ZH_FACT, "gbk"),
    ],
)
async def test_short_texts_and_late_ones(text: str, encoding: str) -> None:
    """A charset is told by few characters, and where they come late."""
    found = (await read(text.encode(encoding), "a.txt")).text
    assert found == text[:TEXT_MAX_CHARS].strip("\n")


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
async def test_a_stray_byte_costs_one_character(encoding: str) -> None:
    """A log that was cut within a character is of its charset all the same."""
    text = f"{ZH_FACT}\n" * 20
    assert (await read(text.encode(encoding) + b"\xff\n" + text.encode(encoding), "a.log")).text.count(ZH_FACT) == 40


async def test_a_text_that_just_fits_is_whole() -> None:
    """Only what was left out is told as left out."""
    for length, is_whole in ((TEXT_MAX_CHARS, True), (TEXT_MAX_CHARS + 1, False)):
        found = await read(b"x" * length, "a.txt")
        assert (len(found.text), found.is_whole) == (TEXT_MAX_CHARS, is_whole)


async def test_a_large_log_with_a_rare_character() -> None:
    """A character of four bytes does not make 20 MB of text into 80."""
    found = await read(("😀" + "0123456789" * 10 + "\n").encode() * 190_000, "a.log")
    assert (len(found.text), found.is_whole) == (TEXT_MAX_CHARS, False)


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("gbk", "合同金额"),
        ("big5", "臺灣資料"),
        ("shift_jis", "文章"),
        ("euc-kr", "안녕하세요"),
        ("iso-8859-1", "Größe"),
    ],
)
async def test_a_page_is_of_the_charset_that_it_declares(charset: str, text: str) -> None:
    """However few characters there are to tell it by."""
    page = f"<html><head><meta charset={charset}></head><body>{'<p>abc</p>' * 20}<p>{text}</p></body></html>"
    assert text in (await read(page.encode(charset), "a.html")).text


@pytest.mark.parametrize(
    "page",
    [
        b"<div>" * 1000 + FACT.encode(),
        b"<img src='data:image/png;base64," + b"A" * 15_000_000 + b"'><p>" + FACT.encode(),
        b"<p>" + FACT.encode() + b"</p>" + b"<p>row <b>x</b></p>" * 780_000,
    ],
    ids=["deep", "picture", "long"],
)
async def test_large_pages(page: bytes) -> None:
    """Neither depth nor pictures nor length cost a page its words."""
    assert FACT in (await read(page, "a.html")).text


# --- documents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        (
            f"<w:p><w:r><mc:AlternateContent><mc:Choice Requires='wps'>{BOX}</mc:Choice>"
            f"<mc:Fallback><w:pict><v:textbox>{BOX}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>"
        ),
        f"<mc:AlternateContent><mc:Choice Requires='wps'>{PARAGRAPH}</mc:Choice></mc:AlternateContent>",
        f"<w:tbl><w:sdt><w:sdtContent><w:tr>{CELL}</w:tr></w:sdtContent></w:sdt></w:tbl>",
        f"<w:tbl><w:tr><w:sdt><w:sdtContent>{CELL}</w:sdtContent></w:sdt></w:tr></w:tbl>",
        f"<w:tbl><w:tr><w:tc><w:tbl><w:tr>{CELL}</w:tr></w:tbl><w:p/></w:tc></w:tr></w:tbl>",
        f"<w:customXml>{PARAGRAPH}</w:customXml>",
        "<w:sdt><w:sdtContent>" * 30 + PARAGRAPH + "</w:sdtContent></w:sdt>" * 30,
        (
            f"<w:p><w:moveFrom><w:r><w:t>{FACT}</w:t></w:r></w:moveFrom></w:p>"
            f"<w:p><w:moveTo><w:r><w:t>{FACT}</w:t></w:r></w:moveTo></w:p>"
        ),
        f"<w:p><m:oMath><m:r><m:t>{FACT}</m:t></m:r></m:oMath></w:p>",
    ],
    ids=["box", "choice", "row", "cell", "table", "custom", "deep", "moved", "formula"],
)
async def test_a_fact_stands_once_whatever_wraps_it(body: str) -> None:
    """Boxes, content controls, tables within tables, and what a review moved."""
    part = f"<w:document {WORD}><w:body>{body}</w:body></w:document>".encode()
    assert (await read(made.replace_part(made.make_docx(), "word/document.xml", part), "a.docx")).text.count(FACT) == 1


@pytest.mark.parametrize(
    ("content", "main", "other"),
    [
        (made.make_docx(), "openxmlformats-officedocument.wordprocessingml.document", "ms-word.document.macroEnabled"),
        (made.make_docx(), "wordprocessingml.document", "wordprocessingml.template"),
        (made.make_xlsx(), "openxmlformats-officedocument.spreadsheetml.sheet", "ms-excel.sheet.macroEnabled"),
        (made.make_pptx(), "presentationml.presentation", "presentationml.slideshow"),
        (
            made.make_pptx(),
            "openxmlformats-officedocument.presentationml.presentation",
            "ms-powerpoint.presentation.macroEnabled",
        ),
    ],
    ids=["docm", "dotx", "xlsm", "ppsx", "pptm"],
)
async def test_with_macros_or_as_a_template(content: bytes, main: str, other: str) -> None:
    """It is the same kind of file."""
    types = zipfile.ZipFile(io.BytesIO(content)).read("[Content_Types].xml")
    changed = types.replace(f"{main}.main+xml".encode(), f"{other}.main+xml".encode())
    assert changed != types
    assert FACT in (await read(made.replace_part(content, "[Content_Types].xml", changed), "a")).text


async def test_a_main_part_with_a_number() -> None:
    """Some programs call it document2.xml."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made.make_docx())) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            part = old.read(name).replace(b"word/document.xml", b"word/document2.xml")
            new.writestr(name.replace("document.xml", "document2.xml"), part)
    assert FACT in (await read(target.getvalue(), "a.docx")).text


async def test_a_document_for_which_there_is_no_memory() -> None:
    """It is too costly, not damaged."""
    words = b"<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 1_300_000
    part = b"<w:document %s><w:body>%s</w:body></w:document>" % (WORD.encode(), words)
    with pytest.raises(MediaError) as raised:
        await read(made.replace_part(made.make_docx(), "word/document.xml", part), "a.docx")
    assert raised.value.problem is MediaProblem.TOO_COSTLY


# --- sheets ---------------------------------------------------------------------------------------------------------


def make_book(rows: int, columns: int, sheets: int = 1) -> bytes:
    book = openpyxl.Workbook(write_only=True)
    for _ in range(sheets):
        sheet = book.create_sheet()
        for row in range(rows):
            sheet.append([row] * columns)
        sheet.append([FACT])
    return made.saved(book.save)


@pytest.mark.parametrize(("rows", "sheets"), [(9000, 1), (3000, 3)])
async def test_narrow_rows_are_all_read(rows: int, sheets: int) -> None:
    """A bound by cells counts the cells that are there."""
    found = await read(make_book(rows, 2, sheets), "a.xlsx")
    assert found.text.count(FACT) == sheets
    assert (found.pages_read, found.is_whole) == (sheets, True)


async def test_what_is_beyond_the_columns_is_told() -> None:
    """A row that is cut makes its sheet one that was not read to its end."""
    found = await read(make_book(3, 300), "a.xlsx")
    assert (found.pages, found.pages_read, found.is_whole) == (1, 0, False)


async def test_a_large_sheet_is_read_as_far_as_there_is_room() -> None:
    """70 MB of rows cost no more than those that are shown; how far is told."""
    rows = b"".join(
        b'<row r="%d"><c r="A%d"><v>17</v></c><c r="B%d"><v>18</v></c></row>' % (n, n, n) for n in range(1, 900_000)
    )
    part = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData></worksheet>'
    found = await read(made.replace_part(made.make_xlsx(), "xl/worksheets/sheet1.xml", part % rows), "a.xlsx")
    assert found.text.startswith("## 销售\n17 | 18\n17 | 18")
    assert (found.pages, found.pages_read, found.is_whole) == (2, 0, False)


async def test_a_formula_without_a_value_is_shown() -> None:
    """Files that no office program saved have formulas alone; numbers have the digits that a sheet shows."""
    book = openpyxl.Workbook()
    book.active.append(["=SUM(B1:B9)", 0.1 + 0.2])
    assert "=SUM(B1:B9) | 0.3" in (await read(made.saved(book.save), "a.xlsx")).text


# --- PDF ------------------------------------------------------------------------------------------------------------


async def test_a_page_without_text_is_told() -> None:
    """A scanned page among others is not passed over in silence."""
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    pdf.add_page()
    pdf.cell(text=FACT)
    pdf.add_page()
    assert (await read(bytes(pdf.output()), "a.pdf")).text == f"[page 1]\n{FACT}\n[page 2: no text]"


def test_what_was_read_in_time_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes too long ends with what there is, before its process is ended with nothing."""
    output = Output(work_s=1)
    output.add(FACT)
    monkeypatch.setattr(time, "process_time", lambda: 1e9)
    with pytest.raises(FullError):
        output.add("more")
    assert output.text() == FACT

"""Files as people make them, each with a fact that stands nowhere else."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable

import docx
import openpyxl
import pptx
import pypdf
from fpdf import FPDF
from PIL import Image

FACT = "The vault code is 48213."
ZH_FACT = "三季度利润是四百二十七万元"


async def chunks_of(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def make_docx(*paragraphs: str) -> bytes:
    document = docx.Document()
    document.add_heading("Report", 1)
    for text in paragraphs or (FACT, ZH_FACT):
        document.add_paragraph(text)
    document.add_paragraph("first", style="List Bullet")
    table = document.add_table(2, 2)
    for row, words in enumerate((("name", "amount"), ("Ann", "17"))):
        for column, word in enumerate(words):
            table.cell(row, column).text = word
    document.sections[0].header.paragraphs[0].text = "confidential"
    return saved(document.save)


def make_xlsx() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "销售"
    sheet.append(["name", "amount", "when"])
    sheet.append(["Ann", 17.0, None])
    sheet.append([FACT, 2.5, ZH_FACT])
    hidden = book.create_sheet("secret")
    hidden.sheet_state = "hidden"
    hidden.append(["below | the line"])
    return saved(book.save)


def make_pptx() -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Plan"
    slide.placeholders[1].text = FACT
    slide.notes_slide.notes_text_frame.text = ZH_FACT
    table = show.slides.add_slide(show.slide_layouts[6]).shapes.add_table(1, 2, 0, 0, 100, 100).table
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    return saved(show.save)


def make_pdf(pages: int = 1, *, at: int = 1, padding: int = 0) -> bytes:
    """So many pages, the fact on page `at`; `padding` bytes of a picture that nothing can pack."""
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for number in range(1, pages + 1):
        pdf.add_page()
        pdf.multi_cell(0, 6, f"Page {number} of the minutes.", new_x="LMARGIN", new_y="NEXT")
        if number == at:
            pdf.multi_cell(0, 6, FACT, new_x="LMARGIN", new_y="NEXT")
    if padding:
        noise = Image.frombytes(
            "RGB", (1000, padding // 3000), random.Random(1).randbytes(1000 * (padding // 3000) * 3)
        )
        pdf.image(noise, w=50)
    return bytes(pdf.output())


def make_chinese_pdf(text: str = ZH_FACT) -> bytes:
    """As old Office programs in China make it: a font that is not embedded, its codes by a predefined map."""
    shown = text.encode("utf-16-be").hex().upper()
    stream = f"BT /F1 18 Tf 50 700 Td <{shown}> Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<</Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 5 0 R >>>>>>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H /DescendantFonts [6 0 R] >>",
        (
            b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light"
            b" /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> /FontDescriptor 7 0 R >>"
        ),
        (
            b"<< /Type /FontDescriptor /FontName /STSong-Light /Flags 6 /FontBBox [-25 -254 1000 880] /ItalicAngle 0"
            b" /Ascent 880 /Descent -120 /CapHeight 880 /StemV 93 >>"
        ),
    ]
    return assemble_pdf(objects)


def assemble_pdf(objects: list[bytes]) -> bytes:
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def encrypt_pdf(content: bytes, password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(content))
    writer.encrypt(password, algorithm="RC4-128")
    return saved(writer.write)


def make_picture(kind: str = "PNG", size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    picture = Image.new("RGB", size, "white")
    picture.putpixel((0, 0), (255, 0, 0))
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def zip_of(**parts: bytes) -> bytes:
    """An archive of these parts, `__` in a name for its slash and `_dot_` for its dot."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return target.getvalue()


def replace_part(content: bytes, name: str, part: bytes) -> bytes:
    """The same Office file with another part."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, part if entry == name else old.read(entry))
    return target.getvalue()


def deflate(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    target = io.BytesIO()
    save(target)
    return target.getvalue()

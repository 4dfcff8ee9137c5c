"""Office files: documents, tables, slides; used in the child process.

What is read is the order of the file: paragraphs and tables of a document, rows of each sheet, slides with their notes.
Rows stay rows. A formula is told by the value that the program which saved it computed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time
from typing import Any, Final

from claw.errors import MediaError, MediaProblem
from claw.files.output import Output

ROWS_MAX: Final = 2_000_000
CELLS_MAX: Final = 1_000_000
"""Rows and cells of a workbook that are looked at, empty ones too: a file may name a billion by reference."""
COLUMNS_MAX: Final = 200
SLIDES_MAX: Final = 500
SHAPES_MAX: Final = 10_000
GROUPS_MAX: Final = 20
"""Groups of shapes within one another."""
_W: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_GONE: Final = frozenset({_FALLBACK, f"{_W}del", f"{_W}moveFrom", f"{_W}sectPr"})
"""What is not read: the same again for old programs, and what a review took away or put elsewhere."""
_NOTES: Final = re.compile(r"/word/(header|footer|footnotes|endnotes|comments)\d*\.xml")
_LXML_NO_MEMORY: Final = 2
"""The code by which lxml tells that there is no memory left: it calls that a fault of the syntax."""
_DOCUMENTS: Final = (
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    "application/vnd.ms-word.document.macroEnabled.main+xml",
    "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
)
_PRESENTATIONS: Final = (
    "application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml",
    "application/vnd.openxmlformats-officedocument.presentationml.template.main+xml",
    "application/vnd.ms-powerpoint.slideshow.macroEnabled.main+xml",
    "application/vnd.ms-powerpoint.template.macroEnabled.main+xml",
)
_BREAKS: Final = {
    f"{_W}tab": "\t",
    f"{_W}br": "\n",
    f"{_W}cr": "\n",
    f"{_W}p": "\n",
    f"{_W}noBreakHyphen": "-",
}


def read_docx(content: bytes, output: Output) -> None:
    """Add a document's paragraphs and tables, and what stands around them."""
    from docx.opc.part import PartFactory
    from docx.package import Package
    from docx.parts.document import DocumentPart

    # With macros, or as a template, it is a document all the same.
    PartFactory.part_type_for.update(dict.fromkeys(_DOCUMENTS, DocumentPart))
    package = Package.open(io.BytesIO(content))
    _read_blocks(package.main_document_part.document.element.body, output)
    for text in _iter_notes(package):
        output.add(text)


def _iter_notes(package: Any) -> Iterator[str]:
    """Yield what stands in headers, footers, footnotes and comments, each once."""
    from lxml import etree

    seen: set[str] = set()
    for part in package.iter_parts():
        if not (found := _NOTES.fullmatch(str(part.partname))):
            continue
        start = "[comment] " if found[1] == "comments" else ""
        root = etree.fromstring(part.blob, etree.XMLParser(resolve_entities=False, no_network=True))
        for paragraph in _iter_outer(root, f"{_W}p"):
            text = _paragraph_text(paragraph).strip()
            if text and text not in seen:
                seen.add(text)
                yield start + text


def _iter_outer(root: Any, *tags: str) -> Iterator[Any]:
    """Yield the elements of these tags that are within none of their like, whatever wraps them."""
    from lxml import etree

    walk = etree.iterwalk(root, events=("start",))
    for _, node in walk:
        if node is root:
            continue
        if node.tag in tags:
            walk.skip_subtree()
            yield node
        elif node.tag in _GONE:
            walk.skip_subtree()


def _read_blocks(body: Any, output: Output) -> None:
    for block in _iter_outer(body, f"{_W}p", f"{_W}tbl"):
        if block.tag == f"{_W}tbl":
            _read_table(block, output)
        elif text := _paragraph_text(block).rstrip():
            output.add(_heading(block) + text)


def _read_table(table: Any, output: Output) -> None:
    # Its own rows: those of a table within a cell are that cell's words.
    for row in _iter_outer(table, f"{_W}tr"):
        cells = _iter_outer(row, f"{_W}tc")
        output.add_row([" ".join(_paragraph_text(p) for p in _iter_outer(cell, f"{_W}p")).strip() for cell in cells])


def _heading(paragraph: Any) -> str:
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    name = "" if style is None else str(style.get(f"{_W}val", ""))
    if name.startswith("Heading") and name[7:8].isdigit():
        return "#" * int(name[7]) + " "
    return "- " if paragraph.find(f"{_W}pPr/{_W}numPr") is not None or name.startswith("List") else ""


def _paragraph_text(paragraph: Any) -> str:
    """Return a paragraph's text, with formulas and the boxes in it; what was deleted under review is not there."""
    from lxml import etree

    pieces: list[str] = []
    walk = etree.iterwalk(paragraph, events=("start",))
    for _, node in walk:
        if node.tag in _GONE or node.tag == f"{_W}pPr":
            walk.skip_subtree()
        elif node.tag in {f"{_W}t", f"{_MATH}t"}:
            pieces.append(node.text or "")
        elif node.tag in _BREAKS and node is not paragraph:
            pieces.append(_BREAKS[node.tag])
    return "".join(pieces)


def read_xlsx(content: bytes, output: Output, note: list[int]) -> None:
    """Add the rows of each sheet; `note` gets how many there are, and how many were read to their end."""
    _prepare_openpyxl()
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
    sheets = [sheet for sheet in book.worksheets if hasattr(sheet, "iter_rows")]
    note[0] = len(sheets)
    for sheet in sheets:
        hidden = "" if sheet.sheet_state == "visible" else " (hidden)"
        output.mark(f"## {sheet.title}{hidden}")
        # Each has its share: one that names its far end leaves something of the others.
        note[1] += _read_rows(sheet, output, ROWS_MAX // len(sheets), CELLS_MAX // len(sheets))


def _prepare_openpyxl() -> None:
    """Make the library show a formula that has no value, as in files that no office program saved."""
    from openpyxl.worksheet import _read_only
    from openpyxl.worksheet._reader import FORMULA_TAG, WorkSheetParser

    class Parser(WorkSheetParser):  # type: ignore[misc]
        def parse_cell(self, element: Any) -> Any:
            cell = super().parse_cell(element)
            if cell["value"] is None and (formula := element.find(FORMULA_TAG)) is not None:
                cell["value"] = f"={formula.text or ''}"
            return cell

    _read_only.WorkSheetParser = Parser
    # What a sheet says of its size may be anything; where it says nothing, all of it would be read for that alone.
    _read_only.ReadOnlyWorksheet._get_size = lambda _: None  # noqa: SLF001 - there is no other way


def _read_rows(sheet: Any, output: Output, rows: int, cells: int) -> bool:
    """Add the rows of a sheet; False where there is more of them than is looked at."""
    is_whole = True
    # Without a number of columns, or each row would be filled up to it, and cost so many cells.
    for row in sheet.iter_rows(values_only=True):
        output.check_time()
        rows, cells = rows - 1, cells - len(row)
        if rows < 0 or cells < 0:
            return False
        is_whole = is_whole and len(row) <= COLUMNS_MAX
        output.add_row(_trim([_format_cell(value) for value in row[:COLUMNS_MAX]]))
    return is_whole


def _trim(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _format_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):
        # As many digits as a sheet shows: 0.3, not 0.30000000000000004.
        return f"{value:.15g}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes") if value.time() != time() else value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def read_pptx(content: bytes, output: Output, note: list[int]) -> None:
    """Add the slides, with tables and notes; `note` gets how many there are, and how many were read."""
    from pptx.opc.package import PartFactory
    from pptx.package import Package
    from pptx.parts.presentation import PresentationPart

    # As a show or a template, with macros or without, it is a presentation all the same.
    PartFactory.part_type_for.update(dict.fromkeys(_PRESENTATIONS, PresentationPart))
    slides = list(Package.open(io.BytesIO(content)).presentation_part.presentation.slides)
    note[0] = len(slides)
    for number, slide in enumerate(slides[:SLIDES_MAX], start=1):
        output.mark(f"[slide {number}]")
        for shape in _iter_shapes(slide.shapes, [SHAPES_MAX]):
            if shape.has_text_frame:
                if text := shape.text_frame.text.strip():
                    output.add(text)
            elif getattr(shape, "has_table", False) and shape.has_table:
                for row in shape.table.rows:
                    output.add_row([cell.text for cell in row.cells])
        if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None and frame.text.strip():
            output.add(f"[notes] {frame.text.strip()}")
        note[1] = number


def _iter_shapes(shapes: Iterable[Any], left: list[int], depth: int = 0) -> Iterator[Any]:
    for shape in shapes:
        left[0] -= 1
        if left[0] < 0:
            return
        if hasattr(shape, "shapes") and depth < GROUPS_MAX:
            yield from _iter_shapes(shape.shapes, left, depth + 1)
        else:
            yield shape


def refuse(error: Exception) -> MediaError:
    """Return the error of a file that a library could not read: what it says may hold the file's content."""
    if getattr(error, "code", None) == _LXML_NO_MEMORY:
        return MediaError("reading it takes too much memory", MediaProblem.TOO_COSTLY)
    return MediaError(f"the file is damaged ({type(error).__name__})", MediaProblem.DAMAGED)

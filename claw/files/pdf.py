"""PDF: the text of each page; used in the child process."""

from __future__ import annotations

import re
from typing import Final

from claw.errors import MediaError, MediaProblem
from claw.files.output import Output

PAGES_MAX: Final = 1_000
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")


def read_pdf(content: bytes, output: Output, note: list[int]) -> None:
    """Add the text of each page; `note` gets how many pages there are and how many were read, also where it is full.

    Raises MediaError.
    """
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        locked = error.err_code in {pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY}
        problem = MediaProblem.ENCRYPTED if locked else MediaProblem.DAMAGED
        raise MediaError("the PDF cannot be opened", problem) from None
    note[0] = len(document)
    for number in range(min(len(document), PAGES_MAX)):
        output.check_time()
        try:
            page = document[number]
            words = page.get_textpage()
            text = words.get_text_bounded().replace("\r\n", "\n").replace("\r", "\n").strip()
            words.close()
            page.close()
        except pypdfium2.PdfiumError:
            # One page that is damaged costs no other, and is told.
            output.mark(f"[page {number + 1}: damaged]")
            text = ""
        else:
            output.mark(f"[page {number + 1}]" if text else f"[page {number + 1}: no text]")
        if text:
            output.add(_CONTROL.sub("", text.replace("\ufffe", "-")))
        note[1] = number + 1

"""What a file is: by its first bytes, whatever its name says; used in the child process."""

from __future__ import annotations

import io
import re
import zipfile
from enum import StrEnum
from typing import Final

from claw.errors import MediaError, MediaProblem

HEAD_BYTES: Final = 1024
"""Bytes in which a PDF's signature may stand."""
ENTRIES_MAX: Final = 10_000
UNPACKED_MAX_BYTES: Final = 160 * 1024 * 1024
PART_MAX_BYTES: Final = 48 * 1024 * 1024
"""Entries of an Office file, the bytes that they unpack to, and those of one that is read in one piece."""
_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_BINARY: Final = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\x7fELF": "elf",
    b"Rar!\x1a\x07": "rar",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"SQLite format 3\0": "sqlite",
    b"\xca\xfe\xba\xbe": "class",
    b"\0asm": "wasm",
}
_BINARY_WORDS: Final = {b"BM": "bmp", b"MZ": "exe", b"BZh": "bzip2", b"ID3": "mp3", b"OggS": "ogg", b"RIFF": "riff"}
"""Signatures that a text may begin with as well, as one about BMW does: they hold where bytes of no text follow."""
_NO_TEXT: Final = re.compile(b"[\0-\x08\x0e-\x1a]")
_PARTS: Final = {
    "docx": re.compile(r"word/document\d*\.xml"),
    "xlsx": re.compile(r"xl/workbook\d*\.xml"),
    "pptx": re.compile(r"ppt/presentation\d*\.xml"),
}
"""The part by which an Office file is known; some programs number it."""
_STREAMED: Final = "xl/worksheets/"
"""Parts of which no more is read than there is room for."""


class Kind(StrEnum):
    """A kind of file that is read."""

    PDF = "pdf"
    DOCX = "docx"
    XLSX = "xlsx"
    PPTX = "pptx"
    HTML = "html"
    TEXT = "text"


def detect_kind(name: str, content: bytes) -> Kind:
    """Return what a file is. Raises MediaError where it is nothing that is read."""
    head = content[:HEAD_BYTES]
    extension = name.rpartition(".")[2].lower()
    # Something may stand before it; a text about PDFs may name it, too.
    if head.lstrip().startswith(b"%PDF-") or (b"%PDF-" in head and (extension == "pdf" or _NO_TEXT.search(head))):
        return Kind.PDF
    if content.startswith(b"PK\x03\x04"):
        return _detect_office(content)
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        # The old Office formats; the new ones are wrapped so when they have a password.
        problem = MediaProblem.ENCRYPTED if _ENCRYPTED in content else MediaProblem.UNSUPPORTED
        raise MediaError("an old Office file, or one with a password", problem)
    if content.startswith(b"{\\rtf"):
        raise MediaError("the file is rtf", MediaProblem.UNSUPPORTED)
    for magic, kind in _BINARY.items():
        if content.startswith(magic):
            raise MediaError(f"the file is {kind}", MediaProblem.UNSUPPORTED)
    if _NO_TEXT.search(head):
        for magic, kind in _BINARY_WORDS.items():
            if content.startswith(magic):
                raise MediaError(f"the file is {kind}", MediaProblem.UNSUPPORTED)
        if content[4:8] == b"ftyp":
            raise MediaError("the file is a video or a picture", MediaProblem.UNSUPPORTED)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if extension in {"html", "htm", "xhtml"} or start.startswith((b"<!doctype html", b"<html")):
        return Kind.HTML
    return Kind.TEXT


def _detect_office(content: bytes) -> Kind:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise MediaError("the archive is damaged", MediaProblem.DAMAGED) from None
    kind = next((kind for kind, part in _PARTS.items() if any(part.fullmatch(each.filename) for each in entries)), None)
    if kind is None:
        raise MediaError("the file is an archive", MediaProblem.UNSUPPORTED)
    if any(entry.flag_bits & 1 for entry in entries):
        raise MediaError("the archive has a password", MediaProblem.ENCRYPTED)
    # What an entry says of its size holds: zipfile reads no more of it.
    texts = [
        entry.file_size
        for entry in entries
        if entry.filename.endswith((".xml", ".rels")) and not entry.filename.startswith(_STREAMED)
    ]
    total = sum(entry.file_size for entry in entries)
    if len(entries) > ENTRIES_MAX or total > UNPACKED_MAX_BYTES or max(texts, default=0) > PART_MAX_BYTES:
        raise MediaError("the archive unpacks to too much", MediaProblem.TOO_COSTLY)
    _refuse_entities(content, entries)
    return Kind(kind)


def _refuse_entities(content: bytes, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse an Office file with a document type: none has one, and entities of entities unpack to gigabytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in entries:
            if entry.filename.endswith((".xml", ".rels")):
                try:
                    with archive.open(entry) as part:
                        head = part.read(4096)
                except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError):
                    raise MediaError("the archive is damaged", MediaProblem.DAMAGED) from None
                if b"<!DOCTYPE" in head.replace(b"\0", b""):
                    raise MediaError("the file declares entities", MediaProblem.TOO_COSTLY)

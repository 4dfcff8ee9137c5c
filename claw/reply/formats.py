"""What a picture or file of an answer is, by its first bytes, and in which form DingTalk takes it.

DingTalk shows JPEG, PNG, GIF and BMP, and takes documents of a few kinds as messages (docs/protocol.md sections 6.3 and
6.4). Whatever else is a document travels in a ZIP archive, whose bytes are the same for the same content.
"""

from __future__ import annotations

import io
import zipfile
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_to_bytes

from claw.errors import MediaError, MediaProblem
from claw.reply.references import FILE_ENDS, end_of

ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The time of each file in an archive: the earliest that ZIP knows. Ours would make other bytes of the same content."""
_HEAD_BYTES: Final = 1024
_MIMES: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "application/pdf": "pdf",
    "application/zip": "zip",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "text/plain": "txt",
    "text/markdown": "md",
    "text/csv": "csv",
    "text/html": "html",
    "application/json": "json",
    "application/xml": "xml",
    "text/xml": "xml",
}
"""Ends of names by the kind that a data URL tells, for those that have no name."""
_OFFICE: Final = frozenset({"docx", "xlsx", "pptx"})
_OLD_OFFICE: Final = frozenset({"doc", "xls", "ppt"})
_TAKEN: Final = frozenset({"xlsx", "pdf", "zip", "rar", "doc", "docx"})
"""`fileType` of a file's message (docs/protocol.md section 6.3)."""


class PictureFormat(StrEnum):
    """A kind of picture."""

    JPEG = "jpg"
    PNG = "png"
    GIF = "gif"
    BMP = "bmp"
    OTHER = "other"
    """One that DingTalk does not show, and that can be made one that it does."""


_MIME_OF: Final = {
    PictureFormat.JPEG: "image/jpeg",
    PictureFormat.PNG: "image/png",
    PictureFormat.GIF: "image/gif",
    PictureFormat.BMP: "image/bmp",
}


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file as it is uploaded and sent. `kind` is DingTalk's `fileType`."""

    name: str
    kind: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a data URL holds. `end` is the end that a name of it has, by what it says; empty where that is unknown."""

    content: bytes = field(repr=False)
    end: str


def decode_data(url: str) -> Embedded:
    """Decode a data URL. Raises MediaError where it is damaged."""
    head, comma, body = url[5:].partition(",")
    if not comma or not body:
        raise MediaError("the embedded data has no content", MediaProblem.DAMAGED)
    mime, *options = (each.strip().lower() for each in head.split(";"))
    try:
        if "base64" in options:
            # Base64 of URLs has two other signs; the padding is left out by some, and lines may be broken.
            body = "".join(body.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
            content = b64decode(body + "=" * (-len(body) % 4), validate=True)
        else:
            content = unquote_to_bytes(body)
    except (Base64Error, ValueError):
        raise MediaError("the embedded data is damaged", MediaProblem.DAMAGED) from None
    return Embedded(content, _MIMES.get(mime, ""))


def detect_picture(content: bytes) -> PictureFormat | None:
    """Return the kind of a picture; None where it is none that can be shown."""
    if content.startswith(b"\xff\xd8\xff"):
        return PictureFormat.JPEG
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PictureFormat.PNG
    if content.startswith((b"GIF87a", b"GIF89a")):
        return PictureFormat.GIF
    # Two letters that a text may begin with: the size in its head, and the offset of its pixels, tell.
    if content.startswith(b"BM") and len(content) > 26 and content[6:10] == b"\0\0\0\0":
        return PictureFormat.BMP
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return PictureFormat.OTHER
    if content.startswith((b"II*\0", b"MM\0*")):
        return PictureFormat.OTHER
    if content[4:8] == b"ftyp" and content[8:12] in {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif"}:
        return PictureFormat.OTHER
    return None


def mime_of(kind: PictureFormat) -> str:
    """Return the MIME type of a kind that DingTalk shows."""
    return _MIME_OF[kind]


def make_parcel(name: str, content: bytes) -> Parcel:
    """Make a file one that DingTalk takes. Raises MediaError where it is not what its name says, or no document."""
    end = end_of(name)
    if end not in FILE_ENDS:
        raise MediaError("no kind of file that is brought", MediaProblem.UNSUPPORTED)
    if not _is_what_it_says(end, content):
        # As where a server wants a login, and shows its page for that.
        raise MediaError(f"it is no {end}", MediaProblem.DAMAGED)
    if end in _TAKEN:
        return Parcel(name, end, content)
    return Parcel(f"{name}.zip", "zip", pack(name, content))


def pack(name: str, content: bytes) -> bytes:
    """Return a ZIP archive with one file: the same bytes for the same content."""
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    # Unix, a file that its owner may write: what is made on another system must not differ.
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(entry, content, compresslevel=6)
    return target.getvalue()


def _is_what_it_says(end: str, content: bytes) -> bool:
    head = content[:_HEAD_BYTES]
    if not content:
        return False
    # Some programs write a line before it.
    if end == "pdf":
        return b"%PDF-" in head
    if end in _OFFICE | {"zip", "epub"}:
        return content.startswith(b"PK\x03\x04") or (end == "zip" and content.startswith(b"PK\x05\x06"))
    if end in _OLD_OFFICE:
        return content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    if end == "rar":
        return content.startswith(b"Rar!\x1a\x07")
    if end in {"html", "htm", "xml"}:
        return b"\0" not in head
    # A text by its name: no binary file, and no page of a server that wants a login.
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return b"\0" not in head and not start.startswith((b"<!doctype html", b"<html"))

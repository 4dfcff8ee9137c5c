"""What pictures and files are by their bytes, and in which form DingTalk takes them."""

from __future__ import annotations

import io
import zipfile
from base64 import b64encode

import pytest

from claw.errors import MediaError, MediaProblem
from claw.reply.formats import PictureFormat, decode_data, detect_picture, make_parcel, pack
from tests.files import made

ZIP = pack("a.txt", b"a")
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (made.make_picture("PNG", (4, 3)), PictureFormat.PNG),
        (made.make_picture("JPEG", (4, 3)), PictureFormat.JPEG),
        (made.make_picture("GIF", (4, 3)), PictureFormat.GIF),
        (made.make_picture("BMP", (4, 3)), PictureFormat.BMP),
        (made.make_picture("WEBP", (4, 3)), PictureFormat.OTHER),
        (made.make_picture("TIFF", (4, 3)), PictureFormat.OTHER),
        (b"\0\0\0\x18ftypheic", PictureFormat.OTHER),
        (b"BMW is a maker of cars, and of engines", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"<html>a page", None),
        (b"", None),
    ],
)
def test_pictures_are_known_by_their_bytes(content: bytes, kind: PictureFormat | None) -> None:
    """Whatever their address says."""
    assert detect_picture(content) is kind


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.pdf", b"%PDF-1.7", "pdf"),
        ("a.docx", ZIP, "docx"),
        ("a.xlsx", ZIP, "xlsx"),
        ("a.zip", ZIP, "zip"),
        ("a.rar", b"Rar!\x1a\x07\x00", "rar"),
        ("a.doc", OLE, "doc"),
    ],
)
def test_what_dingtalk_takes_goes_as_it_is(name: str, content: bytes, kind: str) -> None:
    """Name and bytes stay."""
    parcel = make_parcel(name, content)
    assert (parcel.name, parcel.kind, parcel.content) == (name, kind, content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((f"a.{end}", b"# hello") for end in ("md", "txt", "csv", "tsv", "json", "yaml", "log", "html", "xml")),
        ("a.xls", OLE),
        ("a.ppt", OLE),
        ("a.pptx", ZIP),
    ],
)
def test_other_documents_are_packed(name: str, content: bytes) -> None:
    """Into an archive of the same bytes each time, with the file by its name."""
    parcel = make_parcel(name, content)
    assert (parcel.name, parcel.kind) == (f"{name}.zip", "zip")
    assert parcel.content == make_parcel(name, content).content
    with zipfile.ZipFile(io.BytesIO(parcel.content)) as archive:
        assert archive.namelist() == [name]
        assert archive.read(name) == content


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.pdf", b"<html>log in", MediaProblem.DAMAGED),
        ("a.csv", b"<!DOCTYPE html><p>log in", MediaProblem.DAMAGED),
        ("a.txt", b"\0\1\2", MediaProblem.DAMAGED),
        ("a.xlsx", b"", MediaProblem.DAMAGED),
        ("setup.exe", b"MZ", MediaProblem.UNSUPPORTED),
        ("a", b"words", MediaProblem.UNSUPPORTED),
    ],
)
def test_what_is_not_what_it_says_is_refused(name: str, content: bytes, problem: MediaProblem) -> None:
    """A page in the place of a document, and programs."""
    with pytest.raises(MediaError) as caught:
        make_parcel(name, content)
    assert caught.value.problem is problem


@pytest.mark.parametrize(
    ("url", "content", "end"),
    [
        ("data:image/png;base64,aGk=", b"hi", "png"),
        ("data:image/png;name=a.png;base64,aGk", b"hi", "png"),
        ("data:application/pdf;base64,aG\nk=", b"hi", "pdf"),
        ("data:;base64,_-8=", b"\xff\xef", ""),
        ("data:text/csv,a%2Cb", b"a,b", "csv"),
    ],
)
def test_embedded_data(url: str, content: bytes, end: str) -> None:
    """Base64 of both alphabets, with and without its end, and escapes."""
    found = decode_data(url)
    assert (found.content, found.end) == (content, end)


@pytest.mark.parametrize("url", ["data:image/png;base64,a", "data:image/png;base64,***", "data:image/png", "data:,"])
def test_damaged_data(url: str) -> None:
    """It is said to be damaged."""
    with pytest.raises(MediaError) as caught:
        decode_data(url)
    assert caught.value.problem is MediaProblem.DAMAGED


def test_a_megabyte_is_decoded() -> None:
    """Without a limit of its own: what may be uploaded is the uploader's matter."""
    assert decode_data("data:image/png;base64," + b64encode(bytes(1_000_000)).decode()).content == bytes(1_000_000)

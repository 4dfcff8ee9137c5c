"""Pictures become what models read, and lose what nobody is to know."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable
from typing import cast

import pillow_heif
import pytest
from PIL import Image, ImageOps

from claw.errors import MediaError, MediaProblem
from claw.files.pictures import RESULT_MAX_BYTES, SIDE_MAX_PX
from claw.files.reader import FileReader
from claw.files.values import PictureBytes
from tests.files import made
from tests.files.made import chunks_of


async def shrink(content: bytes) -> PictureBytes:
    return await FileReader().shrink(max(1, len(content)), chunks_of(content))


def opened(picture: PictureBytes) -> Image.Image:
    return Image.open(io.BytesIO(picture.content))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "HEIF"])
async def test_any_picture_becomes_one_that_models_read(kind: str) -> None:
    """Each kind becomes JPEG or PNG, no larger than models look at."""
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    found = await shrink(await asyncio.to_thread(made.make_picture, kind, (3000, 1500)))
    assert found.mime in {"image/png", "image/jpeg"}
    assert max(opened(found).size) == SIDE_MAX_PX


async def test_where_it_was_taken_is_not_passed_on() -> None:
    """The picture is turned as its metadata says, and then has none."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees.
    exif[0x010F] = "a maker"
    exif.get_ifd(0x8825)[2] = (31.0, 14.0, 3.0)
    content = made.make_picture("JPEG", (200, 100), exif=exif, comment=b"a comment")
    assert Image.open(io.BytesIO(content)).getexif()
    found = await shrink(content)
    picture = opened(found)
    assert picture.size == (100, 200)
    assert not picture.getexif()
    assert b"maker" not in found.content
    assert b"comment" not in found.content


async def test_a_transparent_picture_stands_on_white() -> None:
    """What is see-through is not black."""
    target = io.BytesIO()
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(target, "PNG")
    assert opened(await shrink(target.getvalue())).convert("RGB").getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: b"nonsense", MediaProblem.NO_PICTURE),
        (lambda: b"", MediaProblem.NO_PICTURE),
        (lambda: made.make_picture()[:50], MediaProblem.NO_PICTURE),
        (made.make_pdf, MediaProblem.NO_PICTURE),
        (lambda: made.make_picture("PNG", (20_000, 20_000)), MediaProblem.TOO_COSTLY),
        (lambda: b"\0\0\0\x18ftypheic" + bytes(500), MediaProblem.NO_PICTURE),
    ],
)
async def test_what_is_no_picture_says_so(make: Callable[[], bytes], problem: MediaProblem) -> None:
    """Damage and bombs end with their cause."""
    content = await asyncio.to_thread(make)
    with pytest.raises(MediaError) as raised:
        await shrink(content)
    assert raised.value.problem is problem


async def test_a_large_photograph_fits() -> None:
    """A photograph of 12 megapixels that nothing packs becomes at most what is sent."""
    noise = Image.frombytes("RGB", (4000, 3000), random.Random(1).randbytes(36_000_000))
    target = io.BytesIO()
    noise.save(target, "JPEG", quality=90)
    found = await shrink(target.getvalue())
    assert len(found.content) <= RESULT_MAX_BYTES


@pytest.mark.parametrize("kind", ["WEBP", "HEIF", "JPEG"])
async def test_a_photograph_of_a_telephone(kind: str) -> None:
    """Twelve megapixels in little more than a megabyte are what telephones send."""
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    noise = Image.frombytes("RGB", (252, 189), random.Random(1).randbytes(252 * 189 * 3))
    target = io.BytesIO()
    # What makes the picture here is no telephone, and need not pack it as well: reading it is what counts.
    quick = {"enc_params": {"preset": "ultrafast"}} if kind == "HEIF" else {}
    noise.resize((4032, 3024), Image.Resampling.BICUBIC).save(target, kind, quality=70, **quick)
    assert opened(await shrink(target.getvalue())).size == (1568, 1176)


async def test_a_jpeg_of_a_hundred_megapixels() -> None:
    """It is scaled down while it is decoded, and never held at its size."""
    content = await asyncio.to_thread(made.make_picture, "JPEG", (12_000, 9_000))
    assert opened(await shrink(content)).size == (1568, 1176)


async def test_shades_of_sixteen_bits_are_kept() -> None:
    """A scanner's half grey is half grey, not white."""
    target = io.BytesIO()
    Image.new("I;16", (20, 20), 32_768).save(target, "PNG")
    shade = cast("int", opened(await shrink(target.getvalue())).convert("L").getpixel((5, 5)))
    assert 120 < shade < 135


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
async def test_a_picture_is_turned_once(kind: str, orientation: int) -> None:
    """Each of the eight ways, as the library itself would turn it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (80, 40), "white")
    picture.paste("red", (0, 0, 20, 10))
    target = io.BytesIO()
    picture.save(target, kind, exif=exif)
    found = opened(await shrink(target.getvalue())).convert("RGB")
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(target.getvalue()))).convert("RGB")
    assert found.size == expected.size
    corners = [(3, 3), (found.width - 4, 3), (3, found.height - 4), (found.width - 4, found.height - 4)]
    is_red = [[cast("int", each.getchannel("G").getpixel(at)) < 128 for at in corners] for each in (found, expected)]
    assert is_red[0] == is_red[1]
    assert any(is_red[0])

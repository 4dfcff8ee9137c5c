"""Pictures: made as small as models need them, with nothing but their pixels; used in the child process.

Where a picture was taken, and by whom, stands in its metadata: all of it is dropped, after the picture was turned as it
says.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Final, cast

from claw.errors import MediaError, MediaProblem
from claw.files.values import PictureBytes

if TYPE_CHECKING:
    from PIL import Image

SIDE_MAX_PX: Final = 1568
"""Pixels of the longer side: what models look at; more is scaled down by their servers, and billed."""
PIXELS_MAX: Final = 50_000_000
"""Pixels that are decoded: those of a telephone's best picture; of a JPEG, after it was scaled down in decoding."""
RESULT_MAX_BYTES: Final = 1_500_000
PNG_MAX_BYTES: Final = 400_000
"""Bytes up to which what was a PNG stays one: screenshots, whose letters JPEG blurs."""


def shrink(content: bytes) -> PictureBytes:
    """Return a picture as models take it. Raises MediaError."""
    from PIL import Image, UnidentifiedImageError

    # We look at the size ourselves, and refuse sooner than the library does.
    Image.MAX_IMAGE_PIXELS = None
    warnings.simplefilter("ignore")
    if content[4:8] == b"ftyp":
        import pi_heif

        pi_heif.register_heif_opener()
    try:
        picture = Image.open(io.BytesIO(content))
        kind = picture.format
        if kind in {"JPEG", "MPO"}:
            # Decoded at an eighth, a quarter or a half of its size, where that is enough.
            picture.draft("RGB", (SIDE_MAX_PX, SIDE_MAX_PX))
        if picture.width * picture.height > PIXELS_MAX:
            raise MediaError("the picture has too many pixels", MediaProblem.TOO_COSTLY)
        # The first frame of a moving picture: models look at one.
        picture.seek(0)
        turned = _reduce(picture)
    except (UnidentifiedImageError, SyntaxError, EOFError, OSError, ValueError, OverflowError, ZeroDivisionError):
        raise MediaError("the file is no picture that can be read", MediaProblem.NO_PICTURE) from None
    has_alpha = turned.mode in {"RGBA", "LA", "PA"} or "transparency" in turned.info
    # Anew, from the pixels alone: no library's habit of carrying metadata over can leave any.
    clean = Image.new("RGB", turned.size, "white")
    if has_alpha:
        shown = turned.convert("RGBA")
        clean.paste(shown, mask=shown.getchannel("A"))
    else:
        clean.paste(turned.convert("RGB"))
    # Photographs are much smaller as JPEG, letters much clearer as PNG: the source's format tells which it is.
    if kind in {"PNG", "GIF", "BMP"}:
        png = _encode(clean, "PNG")
        if len(png) <= PNG_MAX_BYTES:
            return PictureBytes("image/png", png)
    jpeg = b""
    # The first that fits; at 1568 pixels the last one always does.
    for quality in (88, 75, 60, 40):
        jpeg = _encode(clean, "JPEG", quality=quality)
        if len(jpeg) <= RESULT_MAX_BYTES:
            break
    return PictureBytes("image/jpeg", jpeg)


def _reduce(picture: Image.Image) -> Image.Image:
    """Return a picture made small and turned as its metadata says; it is not held twice at its full size."""
    from PIL import ExifTags, Image

    picture.load()
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if picture.mode[:1] in {"I", "F"}:
        picture = _flatten(picture)
    elif picture.mode in {"P", "1", "PA"}:
        # Of a palette only the nearest colour can be taken, which makes letters unreadable.
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
    picture.thumbnail((SIDE_MAX_PX, SIDE_MAX_PX), Image.Resampling.LANCZOS)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def _flatten(picture: Image.Image) -> Image.Image:
    """Return a picture of 256 shades of one of more, as scanners and instruments make them."""
    # Of one band: two numbers.
    low, high = cast("tuple[float, float]", picture.getextrema())
    if picture.mode.startswith("I;16"):
        low, high = 0, 65_535
    elif low >= 0 and 1 < high <= 255:
        low, high = 0, 255
    scale = 255 / ((high - low) or 1)
    return picture.point(lambda value: value * scale - low * scale).convert("L")


def _encode(picture: Image.Image, kind: str, **options: int) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()

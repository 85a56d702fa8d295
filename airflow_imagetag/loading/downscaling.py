"""Makes a JPEG of an image that is small enough to be sent; needs Pillow (extra ``downscale``).

The picture is made upright and RGB, with white where it is transparent. It keeps its aspect and is
never made larger. Of an animation the first frame is taken. An RGB profile is kept; others are
dropped, so colours of CMYK are converted without theirs.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final

from airflow_imagetag.errors import ImageDecodeError, ImageError, ImageTooLargeError
from airflow_imagetag.loading.headers import format_of, size_of
from airflow_imagetag.loading.jpeg_guard import check_jpeg
from airflow_imagetag.loading.memory_budget import MemoryBudget

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG_QUALITY: Final = 85
"""Of the JPEG that is sent, on libjpeg's scale."""

MAX_MEMORY_BYTES: Final = 800_000_000
"""What images that are being decoded may take together. One that alone needs more is refused, so
nobody's file is a decompression bomb; at some 89 megapixels Pillow itself begins to warn."""

BYTES_PER_PIXEL: Final = 9
"""What decoding takes at worst: a picture with transparency twice, and its palette's indices."""

WEBP_BYTES_PER_PIXEL: Final = 16
"""Its decoder keeps two frames beside those that it hands out."""

MAX_DECODING: Final = 4
"""Images that a run decodes at the same time; fewer where they are large."""

EXPECTED_BYTES_PER_PIXEL: Final = 0.5
"""Photographs take less at this quality, so that the first try mostly fits."""

MAX_SIDE_PIXELS: Final = 65_500
"""Of a JPEG, as libjpeg makes them."""

MAX_TRIES: Final = 8
"""Pure noise needs three."""

MAX_PROFILE_BYTES: Final = 64 * 1024
"""A profile that is kept must leave room for the picture."""

_FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
"""What Pillow decodes by itself; of some other formats it starts programs that are installed. TIFF
is left out: its tiles may take any amount of memory, however few pixels the picture has."""

_ORIENTATION_TAG: Final = 0x0112

_ROOM: Final = MemoryBudget(MAX_MEMORY_BYTES)


def downscale(content: bytes, *, max_bytes: int) -> bytes:
    """Return a JPEG of the picture, the largest of some that has ``max_bytes`` at most.

    Blocks until few enough other images are being decoded.

    :raises ImageTooLargeError: it has too many pixels to be decoded, or no size of it fits.
    :raises ImageDecodeError: it cannot be decoded.
    """
    from PIL import Image

    image_format = format_of(content)
    try:
        _check(content, image_format)
        with (
            Image.open(io.BytesIO(content), formats=_FORMATS) as image,
            _ROOM.taken(_memory_bytes(image.size, image_format)),
        ):
            return _jpeg_within(image, max_bytes)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"The image is not decoded to be made smaller: {error}") from None
    # Pillow's decoders raise many kinds of error for bytes that they cannot read.
    except Exception as error:
        raise ImageDecodeError(
            "The image is too large, and cannot be decoded to be made smaller: "
            f"{type(error).__name__}: {error}"
        ) from None


def _check(content: bytes, image_format: str | None) -> None:
    """Refuse what costs too much to be decoded, or only to be opened, by its bytes alone."""
    if image_format == "TIFF":
        raise ImageDecodeError("The image is too large, and a TIFF is not made smaller.")
    if (size := size_of(content, image_format)) is not None:
        _memory_bytes(size, image_format)
    elif image_format == "JPEG":
        raise ImageDecodeError(
            "The image is too large, and cannot be decoded to be made smaller: it begins as a "
            "JPEG, and does not tell its size."
        )
    if image_format == "JPEG":
        check_jpeg(content)


def _memory_bytes(size: tuple[int, int], image_format: str | None) -> int:
    """Return what decoding may take.

    :raises ImageTooLargeError: it is more than there is.
    """
    width, height = size
    each = WEBP_BYTES_PER_PIXEL if image_format == "WEBP" else BYTES_PER_PIXEL
    if width * height * each > MAX_MEMORY_BYTES:
        raise ImageTooLargeError(
            f"The image has {width:,} x {height:,} pixels; with more than "
            f"{MAX_MEMORY_BYTES // each / 1_000_000:.0f} million it is not decoded to be made "
            "smaller."
        )
    return width * height * each


def _jpeg_within(image: Image, max_bytes: int) -> bytes:
    orientation, profile = _orientation(image), _rgb_profile(image)
    picture = _scalable(image)
    if picture is not image:
        # Its pixels would take their memory until the end.
        image.close()
    _shrink(picture, max_bytes / EXPECTED_BYTES_PER_PIXEL / (picture.width * picture.height))
    picture = _upright(_rgb(picture), orientation)
    for _ in range(MAX_TRIES):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=JPEG_QUALITY, icc_profile=profile)
        if file.tell() <= max_bytes:
            return file.getvalue()
        # A little less than in proportion: a smaller picture has more detail in each pixel.
        _shrink(picture, 0.8 * max_bytes / file.tell())
    raise ImageTooLargeError(f"No size of the image was found that has {max_bytes:,} bytes.")


def _shrink(picture: Image, share: float) -> None:
    """Leave a share of the pixels, in place; a JPEG that is not decoded yet is decoded smaller."""
    from PIL import Image

    scale = min(math.sqrt(share), MAX_SIDE_PIXELS / max(picture.size), 1.0)
    if scale < 1:
        width, height = (max(int(side * scale), 1) for side in picture.size)
        picture.thumbnail((width, height), Image.Resampling.HAMMING, reducing_gap=1.0)


def _scalable(image: Image) -> Image:
    """Return the first frame in a mode that can be scaled; a JPEG is not decoded for it."""
    if image.mode in ("LA", "RGBA"):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("1", "P"):
        return image.convert("RGB")
    return _sixteen_bits(image) if image.mode.startswith("I;16") else image


def _sixteen_bits(image: Image) -> Image:
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _upright(picture: Image, orientation: Any) -> Image:
    from PIL import ImageOps

    if not orientation:
        return picture
    picture.getexif()[_ORIENTATION_TAG] = orientation
    return ImageOps.exif_transpose(picture)


def _orientation(image: Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    # What a camera wrote beside the picture may be broken in any way, and the picture be fine.
    except Exception:
        return None


def _rgb_profile(image: Image) -> bytes | None:
    """Return the image's colour profile, if it fits an RGB picture."""
    profile = image.info.get("icc_profile") or b""
    is_rgb = profile[16:20] == b"RGB "
    return profile if is_rgb and len(profile) <= MAX_PROFILE_BYTES else None

"""Downscale an image to a JPEG that is small enough to be sent; needs Pillow (extra ``downscale``).

The picture becomes upright and RGB, with white where it was transparent. It keeps its aspect and
never grows. An animation is represented by its first frame. An RGB profile is kept; others are
dropped, so CMYK colours are converted without their profile.
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
"""Quality of the JPEG that is sent, on libjpeg's scale."""

MAX_MEMORY_BYTES: Final = 800_000_000
"""Maximum memory of all images that are being decoded. An image that alone needs more is refused,
so no file is a decompression bomb; at some 89 megapixels Pillow itself begins to warn."""

BYTES_PER_PIXEL: Final = 9
"""Maximum memory to decode a pixel: a picture with transparency twice, and its palette indices."""

WEBP_BYTES_PER_PIXEL: Final = 16
"""The same for WebP, whose decoder keeps two frames beside those that it returns."""

MAX_DECODING: Final = 4
"""Maximum number of images that a run decodes at the same time; fewer if they are large."""

EXPECTED_BYTES_PER_PIXEL: Final = 0.5
"""Estimated size of a pixel in the JPEG. Photographs take less at this quality, so the first
attempt mostly fits."""

MAX_SIDE_PIXELS: Final = 65_500
"""Maximum width and height of a JPEG that libjpeg writes."""

MAX_ATTEMPTS: Final = 8
"""Maximum number of sizes that are tried. Pure noise needs three."""

MAX_PROFILE_BYTES: Final = 64 * 1024
"""Maximum size of a colour profile that is kept: it must leave room for the picture."""

_FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
"""Formats that Pillow decodes by itself; for some others it starts installed programs. TIFF is left
out: its tiles may take any amount of memory, however few pixels the picture has."""

_ORIENTATION_TAG: Final = 0x0112

_MEMORY: Final = MemoryBudget(MAX_MEMORY_BYTES)


def downscale(content: bytes, *, max_bytes: int) -> bytes:
    """Return a JPEG of the picture, the largest of a few attempts that fits.

    Blocks until the images that are being decoded leave enough memory.

    :param max_bytes: maximum size of the JPEG.
    :raises ImageTooLargeError: the image has too many pixels to be decoded, or no attempt fits.
    :raises ImageDecodeError: the image cannot be decoded.
    """
    from PIL import Image

    image_format = format_of(content)
    try:
        _check(content, image_format)
        with (
            Image.open(io.BytesIO(content), formats=_FORMATS) as image,
            _MEMORY.reserve(_memory_bytes(image.size, image_format)),
        ):
            return _jpeg_within(image, max_bytes)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"The image is not decoded to be made smaller: {error}") from None
    # Pillow's decoders raise errors of many classes for bytes that they cannot read.
    except Exception as error:
        raise ImageDecodeError(
            "The image is too large, and cannot be decoded to be made smaller: "
            f"{type(error).__name__}: {error}"
        ) from None


def _check(content: bytes, image_format: str | None) -> None:
    """Refuse an image that is too costly to decode, or only to open, by its bytes alone."""
    if image_format == "TIFF":
        raise ImageDecodeError(
            "The image is too large, and a TIFF is not made smaller. Convert it to JPEG or PNG."
        )
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
    """Return the maximum memory that decoding takes.

    :raises ImageTooLargeError: the image needs more than the whole budget.
    """
    width, height = size
    pixel_bytes = WEBP_BYTES_PER_PIXEL if image_format == "WEBP" else BYTES_PER_PIXEL
    if width * height * pixel_bytes > MAX_MEMORY_BYTES:
        raise ImageTooLargeError(
            f"The image has {width:,} x {height:,} pixels; with more than "
            f"{MAX_MEMORY_BYTES // pixel_bytes / 1_000_000:.0f} million it is not decoded to be "
            "made smaller."
        )
    return width * height * pixel_bytes


def _jpeg_within(image: Image, max_bytes: int) -> bytes:
    orientation, profile = _orientation(image), _rgb_profile(image)
    picture = _scalable(image)
    if picture is not image:
        # The original pixels would stay in memory until the end.
        image.close()
    _shrink(picture, max_bytes / EXPECTED_BYTES_PER_PIXEL / (picture.width * picture.height))
    picture = _upright(_rgb(picture), orientation)
    for _ in range(MAX_ATTEMPTS):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=JPEG_QUALITY, icc_profile=profile)
        if file.tell() <= max_bytes:
            return file.getvalue()
        # Less than in proportion: a smaller picture has more detail in each pixel.
        _shrink(picture, 0.8 * max_bytes / file.tell())
    raise ImageTooLargeError(
        f"The image cannot be made small enough: no attempt fits into {max_bytes:,} bytes."
    )


def _shrink(picture: Image, share: float) -> None:
    """Keep a share of the pixels, in place; a JPEG that is not decoded yet is decoded smaller."""
    from PIL import Image

    scale = min(math.sqrt(share), MAX_SIDE_PIXELS / max(picture.size), 1.0)
    if scale < 1:
        width, height = (max(int(side * scale), 1) for side in picture.size)
        picture.thumbnail((width, height), Image.Resampling.HAMMING, reducing_gap=1.0)


def _scalable(image: Image) -> Image:
    """Return the first frame in a mode that can be scaled, without decoding a JPEG."""
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
    # A camera's metadata may be broken in any way although the picture is fine.
    except Exception:
        return None


def _rgb_profile(image: Image) -> bytes | None:
    """Return the image's colour profile if it belongs to an RGB picture."""
    profile = image.info.get("icc_profile") or b""
    is_rgb = profile[16:20] == b"RGB "
    return profile if is_rgb and len(profile) <= MAX_PROFILE_BYTES else None

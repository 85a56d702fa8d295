"""Turning an image file into a small, upright RGB picture to measure."""

from __future__ import annotations

import io
import math
from typing import Final

from PIL import Image, ImageOps

THUMBNAIL_PIXELS: Final = 128
"""Longest side of the picture that is measured: small is fast, and enough for colour and light."""

_FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""Formats that Pillow decodes by itself; some others start programs that it finds installed."""

_DEEP_MODES: Final = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


class UndecodableError(Exception):
    """The bytes are no image, or only part of one, or a decompression bomb."""


def decode(data: bytes) -> Image.Image:
    """Return a small upright RGB picture of the image.

    The first frame stands for an animation, and white shows through where it is transparent.

    :param data: the whole file.
    :raises UndecodableError: when the bytes do not decode to a picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _small_upright_rgb(image)
    except UndecodableError:
        raise
    # Pillow's decoders raise many kinds of error for bytes that they cannot read, and its warning
    # of a decompression bomb is an error where the user's filters say so. All mean the same here.
    except Exception as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from error


def _small_upright_rgb(image: Image.Image) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise UndecodableError(f"more than {limit} pixels")
    size = (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)
    image.draft(None, size)
    image.load()
    small: Image.Image = _eight_bits(image)
    small.thumbnail(size, Image.Resampling.BOX)
    # A deep image becomes a new one, which has lost the orientation that the file states.
    orientation = image.getexif().get(_ORIENTATION_TAG)
    if orientation:
        small.getexif()[_ORIENTATION_TAG] = orientation
    return _on_white(ImageOps.exif_transpose(small))


_ORIENTATION_TAG: Final = 0x0112


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image in a mode that scales and blends well."""
    if image.mode in _DEEP_MODES:
        return _scaled_to_bytes(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _scaled_to_bytes(image: Image.Image) -> Image.Image:
    wide = image.convert("F")
    _, highest = wide.getextrema()
    if not isinstance(highest, float) or not math.isfinite(highest):
        raise UndecodableError("pixel values are not finite")
    full_scale = next((top for top in (1.0, 255.0, 65535.0) if highest <= top), highest)
    if image.mode.startswith("I;16"):
        full_scale = 65535.0
    return wide.point(lambda value: value * (255.0 / full_scale) + 0.0).convert("L")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(background, image).convert("RGB")

"""Downscale an image to a JPEG that is small enough to be sent; needs Pillow (extra ``downscale``).

The picture becomes upright and RGB, with white where it was transparent. It keeps its aspect and
never grows. An animation is represented by its first frame. An RGB profile is kept; all other
metadata is dropped, so CMYK colours are converted without their profile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading import encoding
from airflow_imagetag.loading.decoding import (
    BYTES_PER_PIXEL,
    MAX_DECODING_SECONDS,
    MAX_MEMORY_BYTES,
    with_picture,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from airflow_imagetag.loading.prepared import PreparedFile

__all__ = [
    "BYTES_PER_PIXEL",
    "MAX_MEMORY_BYTES",
    "MAX_SIDE_PIXELS",
    "downscale",
]

MAX_SIDE_PIXELS: Final = encoding.MAX_SIDE_PIXELS
"""Maximum width and height of the JPEG."""


def downscale(
    content: bytes, *, max_bytes: int, timeout_seconds: float = MAX_DECODING_SECONDS
) -> bytes:
    """Return a JPEG of the picture: in its own size if that fits, else in one near the limit.

    Blocks until the images that are being decoded leave enough memory.

    :param max_bytes: maximum size of the JPEG.
    :param timeout_seconds: maximum time to decode and encode the image.
    :raises ImageTooLargeError: the image has too many pixels to be decoded, or no attempt fits.
    :raises ImageDecodeError: the image cannot be decoded.
    """

    def encoded(image: Image, prepared: PreparedFile) -> bytes:
        picture = _upright(image, prepared)
        return encoding.jpeg_within(picture, max_bytes, prepared.profile)

    try:
        return with_picture(content, encoded, timeout_seconds=timeout_seconds)
    except ImageDecodeError as error:
        failure = ImageDecodeError(f"The image is too large to be sent. {error.message}")
    # Outside the block, so that the decoder's error, which holds the bytes, is not kept.
    try:
        raise failure
    finally:
        # The error's traceback holds this frame: the reference would close a cycle.
        del failure


def _upright(image: Image, prepared: PreparedFile) -> Image:
    from airflow_imagetag.loading.pixels import as_rgb, upright

    picture = as_rgb(image, prepared.transparent)
    # The original pixels would stay in memory until the end.
    image.close()
    # The encoder would write comments, camera data and all else that a decoder has found.
    picture.info.clear()
    return upright(picture, prepared.orientation)

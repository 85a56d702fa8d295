"""Downscale an image to a JPEG that is small enough to be sent; needs Pillow (extra ``downscale``).

The picture becomes upright and RGB, with white where it was transparent. It keeps its aspect and
never grows. An animation is represented by its first frame. An RGB profile is kept; all other
metadata is dropped, so CMYK colours are converted without their profile.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from airflow_imagetag.errors import ImageError, ImageTooLargeError
from airflow_imagetag.loading import encoding
from airflow_imagetag.loading.deadline import within
from airflow_imagetag.loading.guards import prepare_file
from airflow_imagetag.loading.headers import format_of, size_of
from airflow_imagetag.loading.memory_budget import MemoryBudget
from airflow_imagetag.loading.prepared import PreparedFile, damaged
from airflow_imagetag.loading.strict_decoding import strict_decoding

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_MEMORY_BYTES: Final = 800_000_000
"""Maximum memory of all images that are being decoded. An image that alone needs more is refused,
so no file is a decompression bomb; at some 89 megapixels Pillow itself begins to warn."""

BYTES_PER_PIXEL: Final = 9
"""Maximum memory to decode a pixel: with transparency, as RGB, and its palette index."""

MAX_DECODING: Final = 4
"""Maximum number of images that a run decodes at the same time; fewer if they are large."""

MAX_DECODING_SECONDS: Final = 60.0
"""Maximum time to decode and encode an image. The largest that are decoded take some ten."""

MAX_SIDE_PIXELS: Final = encoding.MAX_SIDE_PIXELS
"""Maximum width and height of the JPEG."""

_MEMORY: Final = MemoryBudget(MAX_MEMORY_BYTES)


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
    from PIL import Image

    try:
        return _downscaled(content, max_bytes, timeout_seconds)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        failure: ImageError = ImageTooLargeError(
            f"The image is not decoded to be made smaller: {error}"
        )
    # Pillow's decoders raise errors of many classes for bytes that they cannot read.
    except Exception as error:
        failure = damaged(f"{type(error).__name__}: {error}")
    # Outside the block, so that the decoder's error, which holds the bytes, is not kept.
    raise failure


def _downscaled(content: bytes, max_bytes: int, timeout_seconds: float) -> bytes:
    from PIL import Image

    image_format = format_of(content)
    size = size_of(content, image_format)
    if size is not None:
        _memory_bytes(size, BYTES_PER_PIXEL)
    prepared = prepare_file(content, image_format, size)
    image = Image.open(io.BytesIO(prepared.content), formats=[prepared.image_format])

    def encoded() -> bytes:
        with image:
            picture = _decoded(image, prepared)
        return encoding.jpeg_within(picture, max_bytes, prepared.profile)

    needed_bytes = _memory_bytes(image.size, prepared.pixel_bytes)
    return within(timeout_seconds, encoded, holding=_MEMORY.reserve(needed_bytes))


def _memory_bytes(size: tuple[int, int], pixel_bytes: int) -> int:
    """Return the maximum memory that decoding takes.

    :raises ImageTooLargeError: the image needs more than the whole budget.
    """
    width, height = size
    if width * height * pixel_bytes > MAX_MEMORY_BYTES:
        raise ImageTooLargeError(
            f"The image has {width:,} x {height:,} pixels; with more than "
            f"{MAX_MEMORY_BYTES // pixel_bytes / 1_000_000:.0f} million it is not decoded to be "
            "made smaller."
        )
    return width * height * pixel_bytes


def _decoded(image: Image, prepared: PreparedFile) -> Image:
    from airflow_imagetag.loading.pixels import as_rgb, upright

    with strict_decoding():
        image.load()
    picture = as_rgb(image, prepared.transparent)
    # The original pixels would stay in memory until the end.
    image.close()
    # The encoder would write comments, camera data and all else that a decoder has found.
    picture.info.clear()
    return upright(picture, prepared.orientation)

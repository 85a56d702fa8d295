"""Decode an image that may be hostile, within bounds of memory and time; needs Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from airflow_imagetag.errors import ImageError, ImageTooLargeError
from airflow_imagetag.loading.deadline import within
from airflow_imagetag.loading.guards import prepare_file
from airflow_imagetag.loading.headers import format_of, size_of
from airflow_imagetag.loading.memory_budget import MemoryBudget
from airflow_imagetag.loading.prepared import PreparedFile, damaged
from airflow_imagetag.loading.strict_decoding import strict_decoding

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

DECODED_FORMATS: Final = frozenset({"BMP", "GIF", "JPEG", "PNG", "WEBP"})
"""Formats that are decoded, as Pillow names them."""

MAX_MEMORY_BYTES: Final = 800_000_000
"""Maximum memory of all images that are being decoded. An image that alone needs more is refused,
so no file is a decompression bomb; at some 89 megapixels Pillow itself begins to warn."""

BYTES_PER_PIXEL: Final = 9
"""Maximum memory to decode a pixel: with transparency, as RGB, and its palette index."""

MAX_DECODING_SECONDS: Final = 60.0
"""Maximum time to decode an image and to work on it. The largest that are decoded take some ten."""

_MEMORY: Final = MemoryBudget(MAX_MEMORY_BYTES)


def with_picture(
    content: bytes,
    work: Callable[[Image, PreparedFile], T],
    *,
    timeout_seconds: float = MAX_DECODING_SECONDS,
    draft_pixels: int | None = None,
) -> T:
    """Return the result of some work on the decoded picture.

    Blocks until the images that are being decoded leave enough memory.

    :param work: is given the picture as it is stored, and the facts of its file. It may close
        the picture.
    :param timeout_seconds: maximum time to decode the image and for the work.
    :param draft_pixels: width and height that are enough: a larger JPEG is decoded at a half, a
        quarter or an eighth of its size, which is faster. None decodes all of its pixels.
    :raises ImageTooLargeError: the image has too many pixels.
    :raises ImageDecodeError: the image cannot be decoded.
    """
    from PIL import Image

    try:
        return _with_picture(content, work, timeout_seconds, draft_pixels)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        failure: ImageError = ImageTooLargeError(f"The image is not decoded: {error}")
    # Pillow's decoders raise errors of many classes for bytes that they cannot read.
    except Exception as error:
        failure = damaged(f"{type(error).__name__}: {error}")
    # Outside the block, so that the decoder's error, which holds the bytes, is not kept.
    try:
        raise failure
    finally:
        # The error's traceback holds this frame: the reference would close a cycle.
        del failure


def _with_picture(
    content: bytes,
    work: Callable[[Image, PreparedFile], T],
    timeout_seconds: float,
    draft_pixels: int | None,
) -> T:
    from PIL import Image

    image_format = format_of(content)
    size = size_of(content, image_format)
    if size is not None:
        _memory_bytes(size, BYTES_PER_PIXEL)
    prepared = prepare_file(content, image_format, size)
    image = Image.open(io.BytesIO(prepared.content), formats=[prepared.image_format])
    needed_bytes = _memory_bytes(image.size, prepared.pixel_bytes)
    if draft_pixels is not None:
        image.draft(None, (draft_pixels, draft_pixels))
        # Of a picture in several scans, libjpeg keeps all samples whatever the size it returns.
        if prepared.pixel_bytes == BYTES_PER_PIXEL:
            needed_bytes = _memory_bytes(image.size, BYTES_PER_PIXEL)

    def decoded() -> T:
        with image:
            with strict_decoding():
                image.load()
            return work(image, prepared)

    return within(timeout_seconds, decoded, holding=_MEMORY.reserve(needed_bytes))


def _memory_bytes(size: tuple[int, int], pixel_bytes: int) -> int:
    """Return the maximum memory that decoding takes.

    :raises ImageTooLargeError: the image needs more than the whole budget.
    """
    width, height = size
    if width * height * pixel_bytes > MAX_MEMORY_BYTES:
        raise ImageTooLargeError(
            f"The image has {width:,} x {height:,} pixels; with more than "
            f"{MAX_MEMORY_BYTES // pixel_bytes / 1_000_000:.0f} million it is not decoded."
        )
    return width * height * pixel_bytes

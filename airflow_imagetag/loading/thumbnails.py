"""Make small pictures for people to look at; needs Pillow (extra ``downscale``)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from airflow_imagetag.errors import ImageError, ImageTooLargeError
from airflow_imagetag.loading.deadline import within
from airflow_imagetag.loading.guards import prepare_file
from airflow_imagetag.loading.headers import format_of, size_of
from airflow_imagetag.loading.memory_budget import MemoryBudget
from airflow_imagetag.loading.prepared import PreparedFile, damaged

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE_PIXELS: Final = 256
"""Maximum width and height of a small picture."""

MAX_MEMORY_BYTES: Final = 450_000_000
"""Maximum memory of all pictures that are being decoded: one of 50 megapixels, or some smaller."""

BYTES_PER_PIXEL: Final = 9
"""Maximum memory to decode a pixel."""

MAX_SECONDS: Final = 15.0
"""Maximum time to decode a picture."""

QUALITY: Final = 80
"""Quality of the JPEG, on libjpeg's scale."""

_MEMORY: Final = MemoryBudget(MAX_MEMORY_BYTES)


def thumbnail(content: bytes, *, max_side: int = MAX_SIDE_PIXELS) -> bytes:
    """Return a small JPEG of a picture: upright, on white, without metadata.

    It is always encoded anew, so none of the bytes of the original reach a browser.

    :param content: the bytes of the picture.
    :param max_side: maximum width and height in pixels.
    :raises ImageTooLargeError: the picture has too many pixels.
    :raises ImageDecodeError: the picture cannot be decoded.
    """
    from PIL import Image

    try:
        return _made(content, max_side)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        failure: ImageError = ImageTooLargeError(f"The image is not decoded: {error}")
    # Pillow's decoders raise errors of many classes for bytes that they cannot read.
    except Exception as error:
        failure = damaged(f"{type(error).__name__}: {error}")
    # Outside the block, so that the decoder's error, which holds the bytes, is not kept.
    raise failure


def _made(content: bytes, max_side: int) -> bytes:
    from PIL import Image

    image_format = format_of(content)
    prepared = prepare_file(content, image_format, size_of(content, image_format))
    image = Image.open(io.BytesIO(prepared.content), formats=[prepared.image_format])
    width, height = image.size
    needed_bytes = width * height * max(prepared.pixel_bytes, BYTES_PER_PIXEL)
    if needed_bytes > MAX_MEMORY_BYTES:
        raise ImageTooLargeError(f"The image has {width:,} x {height:,} pixels, too many to show.")

    def encoded() -> bytes:
        with image:
            return _encoded(image, prepared, max_side)

    return within(MAX_SECONDS, encoded, holding=_MEMORY.reserve(needed_bytes))


def _encoded(image: Image, prepared: PreparedFile, max_side: int) -> bytes:
    from airflow_imagetag.loading.pixels import as_rgb, upright

    # A JPEG is decoded in an eighth, a quarter or half of its size where that is enough.
    image.draft("RGB", (2 * max_side, 2 * max_side))
    image.load()
    picture = as_rgb(image, prepared.transparent)
    image.close()
    picture.info.clear()
    picture.thumbnail((max_side, max_side))
    file = io.BytesIO()
    upright(picture, prepared.orientation).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()

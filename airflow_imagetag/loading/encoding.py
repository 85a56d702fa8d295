"""Encode a picture as the largest JPEG that fits, in few attempts."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_imagetag.errors import ImageTooLargeError
from airflow_imagetag.loading.pixels import scaled

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG_QUALITY: Final = 85
"""Quality of the JPEG that is sent, on libjpeg's scale."""

MAX_SIDE_PIXELS: Final = 65_500
"""Maximum width and height of a JPEG that libjpeg writes."""

MAX_ATTEMPTS: Final = 8
"""Maximum number of sizes that are tried. Photographs need two, pure noise three."""

ENOUGH: Final = 0.7
"""Share of the limit that a smaller picture must use; with less, a larger one is tried."""

_AIM: Final = 0.86
"""Share of the limit that an attempt aims at."""

_MIN_BYTES_PER_PIXEL: Final = 1 / 64
"""Size of a pixel of one colour in a JPEG: four bytes for each block of 16 x 16."""

_EXPONENT: Final = 1.8
"""The size of a photograph grows with its width to this power. It is less than 2, since a smaller
picture has more detail in each pixel."""


class _BoundedFile(io.BytesIO):
    """A file that keeps only the bytes up to a limit, and counts all of them."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self.size_bytes = 0

    def write(self, data: object) -> int:
        """Keep the data if it fits."""
        length = memoryview(data).nbytes  # type: ignore[arg-type]
        self.size_bytes += length
        if self.size_bytes <= self._max_bytes:
            super().write(data)  # type: ignore[arg-type]
        return length


class _Attempt(NamedTuple):
    """A scale of the picture, and the size of its JPEG."""

    scale: float
    size_bytes: int


def jpeg_within(picture: Image, max_bytes: int, profile: bytes | None = None) -> bytes:
    """Return the picture in its own size if it fits, else a smaller one that is near the limit.

    :param picture: an RGB picture without metadata.
    :param profile: colour profile to write.
    :raises ImageTooLargeError: no attempt fits.
    """
    best = b""
    low = high = None
    most = min(1.0, MAX_SIDE_PIXELS / max(picture.size))
    scale = _first_scale(picture, max_bytes, most)
    for _ in range(MAX_ATTEMPTS):
        file = _encoded(picture if scale == 1 else scaled(picture, scale), max_bytes, profile)
        attempt = _Attempt(scale, file.size_bytes)
        if file.size_bytes > max_bytes:
            high = attempt
        else:
            best, low = file.getvalue(), attempt
            if scale == most or len(best) >= ENOUGH * max_bytes:
                return best
        scale = min(_next_scale(low, high, _AIM * max_bytes), most)
    if not best:
        raise ImageTooLargeError(
            f"The image cannot be made small enough: no attempt fits into {max_bytes:,} bytes."
        )
    return best


def _encoded(picture: Image, max_bytes: int, profile: bytes | None) -> _BoundedFile:
    file = _BoundedFile(max_bytes)
    picture.save(file, "JPEG", quality=JPEG_QUALITY, icc_profile=profile)
    return file


def _first_scale(picture: Image, max_bytes: int, most: float) -> float:
    """Return the largest scale unless even a picture of one colour would not fit."""
    smallest_bytes = picture.width * picture.height * _MIN_BYTES_PER_PIXEL
    return most if smallest_bytes <= max_bytes else most * math.sqrt(max_bytes / smallest_bytes)


def _next_scale(low: _Attempt | None, high: _Attempt | None, aim_bytes: float) -> float:
    """Return the scale at which the size is expected to be near the aim.

    :param low: the largest attempt that fits.
    :param high: the smallest attempt that does not fit.
    """
    exponent = _EXPONENT
    if low and high:
        exponent = math.log(high.size_bytes / low.size_bytes) / math.log(high.scale / low.scale)
    scale, size_bytes = low or high or _Attempt(1.0, 1)
    return scale * math.pow(aim_bytes / size_bytes, 1 / exponent)

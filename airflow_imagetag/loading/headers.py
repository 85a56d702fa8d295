"""Read the format of an image, and its size in pixels, from the first bytes.

Every image that is sent as bytes passes here, so this takes a few microseconds and needs no
library: ``imagesize`` takes ten times as long, and a hostile file can keep it busy without a bound.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from airflow_imagetag.loading.jpeg_segments import segments_of

_JPEG_START: Final = b"\xff\xd8\xff"
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_OTHER_SIGNATURES: Final = (
    ("WEBP", 8, (b"WEBP",)),
    ("GIF", 0, (b"GIF87a", b"GIF89a")),
    ("TIFF", 0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("BMP", 0, (b"BM",)),
    ("AVIF", 4, (b"ftypavif", b"ftypavis")),
    ("HEIF", 4, (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")),
    ("JPEG2000", 0, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    ("PSD", 0, (b"8BPS",)),
    ("ICO", 0, (b"\0\0\1\0",)),
    ("PDF", 0, (b"%PDF-",)),
)

_PNG_SIZE: Final = struct.Struct(">II").unpack_from

_SEGMENTS_WITHOUT_SIZE: Final = frozenset({0xC4, 0xC8, 0xCC})
"""The codes from C0 to CF that begin no frame: tables, and one that is reserved."""


def format_of(content: bytes) -> str | None:
    """Return the format of an image as Pillow names it; None if it is unknown."""
    # Most images are of these two.
    if content.startswith(_JPEG_START):
        return "JPEG"
    if content.startswith(_PNG_START):
        return "PNG"
    for name, start, signatures in _OTHER_SIGNATURES:
        if content.startswith(signatures, start):
            return name
    return None


def size_of(content: bytes, image_format: str | None) -> tuple[int, int] | None:
    """Return the stored width and height; None if the header does not hold them.

    :param image_format: result of ``format_of``; only JPEG, PNG and BMP have a size here.
    """
    reader = _READERS.get(image_format or "")
    size = None if reader is None else reader(content)
    return size if size is not None and size[0] > 0 and size[1] > 0 else None


def _png(content: bytes) -> tuple[int, int] | None:
    if len(content) < 24:
        return None
    width, height = _PNG_SIZE(content, 16)
    return width, height


def _bmp(content: bytes) -> tuple[int, int] | None:
    if len(content) < 26:
        return None
    if content[14] == 12:  # the oldest header, of OS/2
        return int.from_bytes(content[18:20], "little"), int.from_bytes(content[20:22], "little")
    height = int.from_bytes(content[22:26], "little", signed=True)
    # The height is negative if the rows are stored from the top.
    return int.from_bytes(content[18:22], "little", signed=True), abs(height)


def _jpeg(content: bytes) -> tuple[int, int] | None:
    for segment in segments_of(content):
        if 0xC0 <= segment.code <= 0xCF and segment.code not in _SEGMENTS_WITHOUT_SIZE:
            head = content[segment.start : segment.start + 9]
            return (int.from_bytes(head[7:]), int.from_bytes(head[5:7])) if len(head) == 9 else None
    return None


_READERS: Final[dict[str, Callable[[bytes], tuple[int, int] | None]]] = {
    "BMP": _bmp,
    "JPEG": _jpeg,
    "PNG": _png,
}

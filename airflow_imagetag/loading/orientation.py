"""Read the orientation of a picture from its metadata, and nothing else."""

from __future__ import annotations

import re
import struct
from typing import Final

_TAG: Final = 0x0112

_MAX_ENTRIES: Final = 1_000
"""Maximum number of entries of camera data that are searched. Cameras write some twenty."""

_IN_XMP: Final = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")

_MAX_XMP_BYTES: Final = 1_000_000


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """Return a number from 1 to 8; 1 is upright, as is a picture whose metadata is broken.

    :param exif: camera data in the form of a TIFF, with or without the name that begins it.
    :param xmp: XML, searched if the camera data has no orientation.
    """
    found = _in_exif(exif.removeprefix(b"Exif\0\0"))
    if found is None and (match := _IN_XMP.search(xmp[:_MAX_XMP_BYTES])):
        found = int(match[1])
    return found if found in range(1, 9) and found is not None else 1


def _in_exif(exif: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, at)
        for number in range(min(entries, _MAX_ENTRIES)):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, at + 2 + 12 * number)
            if tag == _TAG and count == 1 and kind in (3, 4):
                code = order + ("H" if kind == 3 else "I")
                return int(struct.unpack_from(code, exif, at + 10 + 12 * number)[0])
    except struct.error:
        # Camera data may be broken in any way although the picture is fine.
        return None
    return None

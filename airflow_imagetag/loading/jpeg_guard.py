"""Refuse a JPEG that costs far more to decode than its bytes and pixels suggest.

Pillow reads the segments before the first scan in Python, and fill bytes one by one. libjpeg goes
over the whole picture once for each scan, and a scan may have only a few bytes.
"""

from __future__ import annotations

import re
from typing import Final

from airflow_imagetag.errors import ImageDecodeError

MAX_SCANS: Final = 100
"""Maximum number of scans of a picture. Encoders make some ten."""

_MAX_HEADER_SEGMENTS: Final = 400
"""Maximum number of segments and fill bytes before the first scan. A large ICC profile has some
sixty segments."""

_MAX_SCAN_SEGMENTS: Final = 10 * MAX_SCANS
"""Maximum number of segments from the first scan on. Each scan may have some tables before it."""

_FILL: Final = 0xFF

_SCAN: Final = 0xDA

_END: Final = 0xD9

_HEADER_CODES: Final = frozenset(
    {*range(0xC0, 0xD0), _SCAN, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}
) - {0xC8}
"""Tables, frames, application data and comments: the segments that Pillow and libjpeg skip by their
length."""

_MARKER: Final = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
"""The end of a scan's data. Restart markers belong to the scan."""


def check_jpeg(content: bytes) -> None:
    """Refuse a JPEG whose decoding takes minutes; the check takes milliseconds.

    :raises ImageDecodeError: the file has too many segments or scans, or no scan at all.
    """
    start = _first_scan(content)
    if start is None:
        raise ImageDecodeError(
            "The image is too large, and not decoded to be made smaller: the picture of the JPEG "
            f"does not begin within {_MAX_HEADER_SEGMENTS} valid segments."
        )
    # A plain count of the bytes comes first: it is an upper bound, and low for most images.
    if content.count(b"\xff\xda") > MAX_SCANS and _has_many_scans(content, start):
        raise ImageDecodeError(
            "The image is too large, and not decoded to be made smaller: it is a progressive JPEG "
            f"of more than {MAX_SCANS} scans."
        )


def _first_scan(content: bytes) -> int | None:
    position = 2
    for _ in range(_MAX_HEADER_SEGMENTS):
        head = content[position : position + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return None
        if head[1] == _SCAN:
            return position
        if head[1] == _FILL:
            position += 1
        elif head[1] in _HEADER_CODES:
            position += 2 + int.from_bytes(head[2:])
        else:
            return None
    return None


def _has_many_scans(content: bytes, start: int) -> bool:
    """Count the scans of the main picture: a film may follow it, and a thumbnail precede it."""
    position, scans = start, 0
    for _ in range(_MAX_SCAN_SEGMENTS):
        marker = _MARKER.search(content, position)
        if marker is None or marker[1][0] == _END:
            return False
        scans += marker[1][0] == _SCAN
        if scans > MAX_SCANS:
            return True
        position = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return True

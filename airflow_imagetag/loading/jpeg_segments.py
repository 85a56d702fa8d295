"""Walk over the segments of a JPEG before its first scan, as libjpeg does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_SEGMENTS: Final = 400
"""Maximum number of segments before the first scan. A large ICC profile has some sixty."""

MAX_JUNK_BYTES: Final = 1_000_000
"""Maximum number of bytes that are skipped between segments."""

SCAN: Final = 0xDA

_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
"""The begin of a segment. Other bytes, fill bytes and escaped ones before it are skipped."""

_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without data: restarts, and one for temporary use."""

_WITH_LENGTH: Final = frozenset(
    {*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}
) - {0xC8}
"""Tables, frames, application data and comments. libjpeg refuses a file with any other."""


class Segment(NamedTuple):
    """The place of a segment; that of a scan has no end of its own."""

    code: int
    start: int
    end: int


def segments_of(content: bytes) -> Iterator[Segment]:
    """Yield the segments from the first one to the first scan; ends early at an invalid one."""
    position, junk_bytes = 2, MAX_JUNK_BYTES
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(content, position, position + junk_bytes + 2)
        if marker is None:
            return
        junk_bytes -= marker.start() - position
        code, position = content[marker.start() + 1], marker.end()
        if code in _WITHOUT_LENGTH:
            continue
        if code == SCAN:
            yield Segment(code, marker.start(), len(content))
            return
        length = int.from_bytes(content[position : position + 2])
        if code not in _WITH_LENGTH or length < 2:
            return
        position += length
        yield Segment(code, marker.start(), position)

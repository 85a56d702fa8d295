"""Prepare a JPEG for Pillow: without metadata, and never one that is far too costly to decode.

Pillow reads the segments before the first scan in Python, and bytes between them one by one.
libjpeg goes over the whole picture once for each scan, and a scan may have only a few bytes.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading.jpeg_segments import MAX_SEGMENTS, SCAN, Segment, segments_of
from airflow_imagetag.loading.orientation import orientation_of
from airflow_imagetag.loading.prepared import PreparedFile, damaged, rgb_profile

MAX_SCANS: Final = 100
"""Maximum number of scans of a picture. Encoders make some ten."""

MAX_SCANNED_PIXELS: Final = 1_000_000_000
"""Maximum number of pixels times scans: libjpeg takes some 10 ns for each."""

BYTES_PER_PIXEL: Final = 9
"""Maximum memory to decode a pixel of one scan: as CMYK, and as RGB."""

BUFFERED_BYTES_PER_PIXEL: Final = 13
"""The same for several scans: libjpeg keeps two bytes for each sample until the last scan."""

_MAX_SCAN_SEGMENTS: Final = 10 * MAX_SCANS
"""Maximum number of segments from the first scan on. Each scan may have some tables before it."""

_END: Final = 0xD9

_MARKER: Final = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
"""The end of a scan's data. Restart markers belong to the scan."""

_END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xff]")
_END_WITH_RESTARTS: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART: Final = re.compile(rb"\xff([\xd0-\xd7])")

_MAX_RESTARTS: Final = 100_000
"""Maximum number of restart markers that are checked. Encoders write one for each row of blocks."""

_LOOKAHEAD_BYTES: Final = 16
"""Number of bytes that libjpeg wants to see behind a picture; it reads 8 ahead."""

_TABLES: Final = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD})
"""Segments that libjpeg decodes with: frames, Huffman and quantization tables, intervals."""

_COLOUR_SPACES: Final = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
"""Segments by which libjpeg tells YCbCr from RGB, and YCCK from CMYK."""

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE: Final = b"ICC_PROFILE\0"


def prepare_jpeg(content: bytes, size: tuple[int, int]) -> PreparedFile:
    """Return the JPEG without metadata; takes milliseconds.

    :param size: width and height.
    :raises ImageDecodeError: decoding would take minutes, or the file is cut off.
    """
    segments = list(segments_of(content))
    scans = check_jpeg(content, size)
    picture = content[segments[-1].start :]
    if scans == 1 and _is_sequential(segments):
        picture = _whole_scan(content, segments)
    kept = b"".join(content[s.start : s.end] for s in segments if _is_kept(content, s))
    data = [(s.code, content[s.start + 4 : s.end]) for s in segments if 0xE1 <= s.code <= 0xE2]
    return PreparedFile(
        b"\xff\xd8" + kept + picture,
        "JPEG",
        BYTES_PER_PIXEL if scans == 1 else BUFFERED_BYTES_PER_PIXEL,
        orientation=orientation_of(_joined(data, 0xE1, _EXIF), _joined(data, 0xE1, _XMP)),
        profile=_icc_profile([part for code, part in data if code == 0xE2]),
    )


def check_jpeg(content: bytes, size: tuple[int, int] = (1, 1)) -> int:
    """Return the number of scans, at most ``MAX_SCANS``, if a JPEG can be decoded in seconds.

    :param size: width and height.
    :raises ImageDecodeError: the file has too many segments or scans, no scan, or no end.
    """
    segments = list(segments_of(content))
    if not segments or segments[-1].code != SCAN:
        raise ImageDecodeError(
            "The image is not decoded: the picture of the JPEG "
            f"does not begin within {MAX_SEGMENTS} valid segments."
        )
    start = segments[-1].start
    if content.find(b"\xff\xd9", start) < 0:
        raise damaged("the JPEG is cut off")
    return _checked_scans(content, start, size)


def _checked_scans(content: bytes, start: int, size: tuple[int, int]) -> int:
    most = min(MAX_SCANS, MAX_SCANNED_PIXELS // (size[0] * size[1]))
    # A plain count of the bytes comes first: it is an upper bound, and low for most images.
    scans = content.count(b"\xff\xda", start)
    if scans > 1:
        scans = _count_scans(content, start, most)
    if scans > most:
        raise ImageDecodeError(
            "The image is not decoded: it is a progressive JPEG "
            f"of more than {most} scans, the most for its size."
        )
    return scans


def _count_scans(content: bytes, start: int, most: int) -> int:
    """Count the scans of the main picture: a film may follow it, and a thumbnail precede it."""
    position, scans = start, 0
    for _ in range(_MAX_SCAN_SEGMENTS):
        marker = _MARKER.search(content, position)
        if marker is None or marker[1][0] == _END:
            return scans
        scans += marker[1][0] == SCAN
        if scans > most:
            return scans
        position = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return most + 1


def _is_sequential(segments: list[Segment]) -> bool:
    return any(segment.code in (0xC0, 0xC1) for segment in segments)


def _whole_scan(content: bytes, segments: list[Segment]) -> bytes:
    """Return the only scan with zeros instead of the end of the file.

    libjpeg makes the rest of a picture grey if its data ends before it, and Pillow does not tell.
    With no end to see, libjpeg asks for more data, and Pillow reports that the file is cut off.
    """
    scan = segments[-1].start
    frame = next(s for s in reversed(segments) if s.code in (0xC0, 0xC1))
    if content[frame.start + 9] != content[scan + 4]:
        raise damaged("the JPEG is damaged, scans of it are missing")
    start = scan + 2 + int.from_bytes(content[scan + 2 : scan + 4])
    has_restarts = any(
        s.code == 0xDD and content[s.start + 4 : s.start + 6] != b"\0\0" for s in segments
    )
    end = (_END_WITH_RESTARTS if has_restarts else _END_OF_SCAN).search(content, start)
    stop = len(content) if end is None else end.start()
    if has_restarts:
        _check_restarts(content, start, stop)
    return content[scan:stop] + bytes(_LOOKAHEAD_BYTES)


def _check_restarts(content: bytes, start: int, end: int) -> None:
    """Check that the first restart markers, which are numbered, are all there."""
    found = islice(_RESTART.finditer(content, start, end), _MAX_RESTARTS)
    if any(marker[1][0] - 0xD0 != number % 8 for number, marker in enumerate(found)):
        raise damaged("the JPEG is damaged, a part of its picture is missing")


def _is_kept(content: bytes, segment: Segment) -> bool:
    if segment.code in _COLOUR_SPACES:
        return content.startswith(_COLOUR_SPACES[segment.code], segment.start + 4)
    return segment.code in _TABLES


def _joined(data: list[tuple[int, bytes]], code: int, name: bytes) -> bytes:
    """Return the data of all segments with this name; large camera data has several."""
    return b"".join(part[len(name) :] for at, part in data if at == code and part.startswith(name))


def _icc_profile(parts: list[bytes]) -> bytes | None:
    """Return the profile, whose parts are numbered; None if one is missing."""
    found = sorted(part[len(_PROFILE) :] for part in parts if part.startswith(_PROFILE))
    if not found or len(found[0]) < 2 or found[0][1] != len(found):
        return None
    return rgb_profile(b"".join(part[2:] for part in found))

"""Prepare a PNG for Pillow: whole, without metadata, and with one picture.

Pillow reads the chunks in Python, inflates metadata, checks no sum of the picture's data, and
takes a picture whose data ends too early for a whole one.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading.orientation import orientation_of
from airflow_imagetag.loading.prepared import MAX_PROFILE_BYTES, PreparedFile, damaged, rgb_profile

MAX_CHUNKS: Final = 100_000
"""Maximum number of chunks of a file. One of 64 MB in chunks of the common 8 KB has 8,000."""

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_MAX_METADATA_BYTES: Final = 1_000_000
"""Maximum size of camera data that is searched for the orientation."""

_BLOCK_BYTES: Final = 256 * 1024
"""Size of the pieces in which the data is inflated to be checked."""

_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Number of samples of a pixel by the type of colour."""

_PALETTE: Final = 3

_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4))
_LAST_PASSES: Final = ((1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row and steps of the passes of an interlaced picture."""

_RAW_PROFILE: Final = b"Raw profile type exif\0"


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filters: int
    interlace: int


def prepare_png(content: bytes) -> PreparedFile:
    """Return the PNG with its first picture only.

    :raises ImageDecodeError: the file is damaged or cut off, or has too many chunks.
    """
    chunks: dict[bytes, bytes] = {}
    data: list[memoryview] = []
    is_data_open = True
    for name, value in _chunks(content):
        if name == b"IDAT" and is_data_open:
            data.append(value)
        else:
            is_data_open = is_data_open and not data
            if len(value) <= _MAX_METADATA_BYTES:
                chunks.setdefault(_key(name, value), bytes(value))
    header = _header(chunks.get(b"IHDR", b""))
    joined = b"".join(data)
    _check_data(joined, header)
    return _prepared(header, chunks, joined)


def _key(name: bytes, value: memoryview) -> bytes:
    """Tell the texts with an orientation from others."""
    start = bytes(value[: len(_RAW_PROFILE)])
    if name == b"iTXt" and start.startswith(b"XML:com.adobe.xmp\0"):
        return b"xmp"
    return b"raw" if name in (b"tEXt", b"zTXt") and start == _RAW_PROFILE else name


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, position = memoryview(content), len(_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        end = position + 8 + int.from_bytes(view[position : position + 4])
        if end + 4 > len(view):
            raise damaged("the PNG is cut off")
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise damaged("the PNG is damaged, a check sum is wrong")
        name = bytes(view[position + 4 : position + 8])
        if name == b"IEND":
            return
        yield name, view[position + 8 : end]
        position = end + 4
    raise ImageDecodeError(
        f"The image is not decoded: the PNG has more than {MAX_CHUNKS:,} chunks."
    )


def _header(chunk: bytes) -> _Header:
    if len(chunk) != 13:
        raise damaged("the PNG has no valid header")
    header = _Header(*struct.unpack(">IIBBBBB", chunk))
    if header.colour not in _SAMPLES or header.depth not in (1, 2, 4, 8, 16):
        raise damaged("the PNG has an unknown type of colour")
    if header.interlace > 1 or header.compression or header.filters:
        raise damaged("the PNG has an unknown compression")
    return header


def _data_bytes(header: _Header) -> int:
    """Return the size of the rows, each with its filter's number."""
    bits = header.depth * _SAMPLES[header.colour]
    passes = (*_PASSES, *_LAST_PASSES) if header.interlace else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns = max(-(-(header.width - left) // across), 0)
        rows = max(-(-(header.height - top) // down), 0)
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total


def _check_data(data: bytes, header: _Header) -> None:
    """Inflate the data in small pieces to see that it is whole."""
    missing_bytes, inflater = _data_bytes(header), zlib.decompressobj()
    try:
        for at in range(0, len(data), _BLOCK_BYTES):
            piece = data[at : at + _BLOCK_BYTES]
            while piece and not inflater.eof and missing_bytes > 0:
                missing_bytes -= len(inflater.decompress(piece, 4 * _BLOCK_BYTES))
                piece = inflater.unconsumed_tail
        while missing_bytes > 0 and (rest := inflater.decompress(b"", 4 * _BLOCK_BYTES)):
            missing_bytes -= len(rest)
    except zlib.error as error:
        raise damaged(f"the PNG is damaged, {error}") from None
    if missing_bytes > 0:
        raise damaged("the PNG is damaged, the data of the picture ends too early")


def _prepared(header: _Header, chunks: dict[bytes, bytes], data: bytes) -> PreparedFile:
    is_palette = header.colour == _PALETTE
    if is_palette and b"PLTE" not in chunks:
        raise damaged("the PNG has no palette")
    kept = [b"IHDR", *([b"PLTE", b"tRNS"] if is_palette else [])]
    parts = [_chunk(name, chunks[name]) for name in kept if name in chunks]
    profile = _profile(chunks.get(b"iCCP", b"")) if header.colour in (2, 3, 6) else None
    exif = chunks.get(b"eXIf") or _raw_profile(chunks.get(b"raw", b""))
    return PreparedFile(
        b"".join([_SIGNATURE, *parts, _chunk(b"IDAT", data), _chunk(b"IEND", b"")]),
        "PNG",
        orientation=orientation_of(exif, chunks.get(b"xmp", b"")),
        profile=profile,
        transparent=None if is_palette else _transparent(chunks.get(b"tRNS", b""), header),
    )


def _chunk(name: bytes, value: bytes) -> bytes:
    check = zlib.crc32(value, zlib.crc32(name))
    return b"".join([len(value).to_bytes(4), name, value, check.to_bytes(4)])


def _transparent(chunk: bytes, header: _Header) -> tuple[int, ...] | None:
    """Return the transparent colour in the depth that Pillow decodes to."""
    if header.colour not in (0, 2) or len(chunk) < 2 * _SAMPLES[header.colour]:
        return None
    samples = struct.unpack_from(f">{_SAMPLES[header.colour]}H", chunk)
    if header.depth == 16:
        # Pillow decodes 16-bit RGB to its upper bytes.
        return samples if header.colour == 0 else tuple(sample >> 8 for sample in samples)
    most = (1 << header.depth) - 1
    return tuple((sample & most) * 255 // most for sample in samples)


def _profile(chunk: bytes) -> bytes | None:
    inflated = _inflated(chunk.partition(b"\0")[2][1:], MAX_PROFILE_BYTES + 1)
    return rgb_profile(inflated)


def _raw_profile(chunk: bytes) -> bytes:
    """Return camera data that ImageMagick has written as a text of hexadecimal numbers."""
    text = chunk.removeprefix(_RAW_PROFILE)
    if text.startswith(b"\0"):
        text = _inflated(text[1:], _MAX_METADATA_BYTES)
    numbers = re.sub(rb"\s", b"", text.partition(b"exif\n")[2].lstrip().partition(b"\n")[2])
    try:
        return bytes.fromhex(numbers.decode("ascii"))
    except ValueError:
        return b""


def _inflated(data: bytes, max_bytes: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, max_bytes)
    except zlib.error:
        return b""

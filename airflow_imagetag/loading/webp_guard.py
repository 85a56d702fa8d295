"""Prepare a WebP for Pillow: its first frame only, without metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from airflow_imagetag.loading.orientation import orientation_of
from airflow_imagetag.loading.prepared import PreparedFile, damaged, rgb_profile

MAX_CHUNKS: Final = 10_000
"""Maximum number of chunks that are read. Each frame of an animation has one."""

PIXEL_BYTES: Final = 16
"""Maximum memory to decode a pixel: the decoder keeps two frames beside those that it returns."""

_ALPHA_AND_ANIMATION: Final = 0x12
"""The flags of the header for parts that are kept."""

_PICTURE: Final = (b"VP8 ", b"VP8L", b"ANMF")


def prepare_webp(content: bytes) -> PreparedFile:
    """Return the WebP with its first frame only.

    :raises ImageDecodeError: the file is cut off, or has no picture.
    """
    chunks = dict(_first_chunks(content))
    picture = next((name for name in chunks if name in _PICTURE), None)
    if picture is None:
        raise damaged("the WebP has no picture")
    body = b"".join(_chunk(name, value) for name, value in _kept(chunks, picture))
    return PreparedFile(
        b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body,
        "WEBP",
        PIXEL_BYTES,
        orientation=orientation_of(chunks.get(b"EXIF", b""), chunks.get(b"XMP ", b"")),
        profile=rgb_profile(chunks.get(b"ICCP", b"")),
    )


def _first_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the first chunk of each name: the first frame of an animation is the picture."""
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        raise damaged("the WebP is cut off")
    position = 12
    seen: set[bytes] = set()
    for _ in range(MAX_CHUNKS):
        if position + 8 > end:
            return
        name = content[position : position + 4]
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        if position + 8 + length > end:
            raise damaged("the WebP is cut off")
        if name not in seen:
            seen.add(name)
            yield name, content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _kept(chunks: dict[bytes, bytes], picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    if header := chunks.get(b"VP8X"):
        yield b"VP8X", bytes([header[0] & _ALPHA_AND_ANIMATION]) + header[1:]
    parts = {b"ANMF": [b"ANIM"], b"VP8 ": [b"ALPH"]}.get(picture, [])
    for name in [*parts, picture]:
        if name in chunks:
            yield name, chunks[name]


def _chunk(name: bytes, value: bytes) -> bytes:
    return b"".join([name, len(value).to_bytes(4, "little"), value, bytes(len(value) % 2)])

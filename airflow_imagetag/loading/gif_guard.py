"""Prepare a GIF for Pillow: its first frame only, without comments and other extensions."""

from __future__ import annotations

from typing import Final

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading.prepared import PreparedFile, damaged

MAX_BLOCKS: Final = 600_000
"""Maximum number of blocks of at most 255 bytes up to the end of the first frame. One of 64 MB has
some 250,000."""

_CONTROL: Final = 0xF9


def prepare_gif(content: bytes) -> PreparedFile:
    """Return the GIF with its first frame only.

    :raises ImageDecodeError: the file is cut off, has too many blocks, or no frame.
    """
    try:
        return PreparedFile(_first_frame(content), "GIF")
    except IndexError:
        raise damaged("the GIF is cut off") from None


def _first_frame(content: bytes) -> bytes:
    head = 13 + _palette_bytes(content[10])
    position, blocks, control = head, MAX_BLOCKS, b""
    while content[position] != ord(","):
        start = position
        if content[position] == ord(";"):
            raise damaged("the GIF has no frame")
        if content[position] != ord("!"):
            # Pillow skips bytes between the blocks as well.
            position, blocks = position + 1, blocks - 1
            _check_blocks(blocks)
            continue
        position, blocks = _end_of_blocks(content, position + 2, blocks)
        if content[start + 1] == _CONTROL:
            control = content[start:position]
    start = position
    position += 11 + _palette_bytes(content[position + 9])
    position, _ = _end_of_blocks(content, position, blocks)
    return b"".join([content[:head], control, content[start:position], b";"])


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _end_of_blocks(content: bytes, position: int, blocks: int) -> tuple[int, int]:
    """Return the place behind a row of blocks, and the number of further ones."""
    while length := content[position]:
        position, blocks = position + 1 + length, blocks - 1
        if blocks < 0:
            break
    _check_blocks(blocks)
    return position + 1, blocks


def _check_blocks(blocks: int) -> None:
    if blocks < 0:
        raise ImageDecodeError(
            "The image is not decoded: the GIF has more than "
            f"{MAX_BLOCKS:,} blocks before the end of its first frame."
        )

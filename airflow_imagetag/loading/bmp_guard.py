"""Prepare a BMP for Pillow: whole, and not run-length encoded, which Pillow decodes in Python."""

from __future__ import annotations

import struct
from typing import Final

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading.headers import size_of
from airflow_imagetag.loading.prepared import PreparedFile, damaged

MAX_RUNS: Final = 4_000_000
"""Maximum number of runs of a picture; each takes some 500 ns."""

_RLE8: Final = 1
_RLE4: Final = 2

_END_OF_ROW: Final = 0
_END_OF_PICTURE: Final = 1
_DELTA: Final = 2


def prepare_bmp(content: bytes) -> PreparedFile:
    """Return the BMP, with plain rows.

    :raises ImageDecodeError: the file is cut off, or has too many runs.
    """
    size = size_of(content, "BMP")
    if size is None or len(content) < 30:
        raise damaged("the BMP has no valid header")
    if content[14] != 12 and len(content) >= 54:
        compression = int.from_bytes(content[30:34], "little")
        if compression in (_RLE8, _RLE4):
            return PreparedFile(_unpacked(content, size, compression == _RLE4), "BMP")
    _check_length(content, size)
    return PreparedFile(content, "BMP")


def _check_length(content: bytes, size: tuple[int, int]) -> None:
    """Check that the rows are there."""
    at = 24 if content[14] == 12 else 28
    bits = int.from_bytes(content[at : at + 2], "little")
    row_bytes = (size[0] * bits + 31) // 32 * 4
    if int.from_bytes(content[10:14], "little") + row_bytes * size[1] > len(content):
        raise damaged("the BMP is cut off")


def _unpacked(content: bytes, size: tuple[int, int], has_nibbles: bool) -> bytes:
    offset, header = struct.unpack_from("<II", content, 10)
    colours = int.from_bytes(content[46:50], "little") or (16 if has_nibbles else 256)
    if colours > 256 or content[28] != (4 if has_nibbles else 8):
        raise damaged("the BMP has no valid palette")
    palette = content[14 + header : 14 + header + 4 * colours]
    offset = offset or 14 + header + len(palette)
    rows = _Unpacker(content[offset:], size, has_nibbles).unpack()
    start = 54 + len(palette)
    head = struct.pack("<2sIII", b"BM", start + len(rows), 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 0, 0, 0, 0, len(palette) // 4, 0)
    return b"".join([head, info, palette, rows])


class _Unpacker:
    """Unpack the runs into one byte a pixel, with rows that are padded to four.

    :param size: width and height.
    :param has_nibbles: a byte of the runs holds two pixels.
    """

    def __init__(self, data: bytes, size: tuple[int, int], has_nibbles: bool) -> None:
        self._data = data
        self._position = 0
        self._width, self._height = size
        self._stride = (size[0] + 3) & ~3
        self._rows = bytearray(self._stride * size[1])
        self._has_nibbles = has_nibbles
        self._x = self._y = 0

    def unpack(self) -> bytearray:
        """Return the rows.

        :raises ImageDecodeError: rows are missing, or there are too many runs.
        """
        data, rows, width, stride = self._data, self._rows, self._width, self._stride
        end = len(data)
        repeated = [_repeated(byte, self._has_nibbles) for byte in range(256)]
        for _ in range(MAX_RUNS):
            position = self._position
            if position + 2 > end:
                if self._y == self._height - 1 and self._x == width:
                    return rows
                raise damaged("the BMP is cut off")
            count, value = data[position], data[position + 1]
            self._position = position + 2
            if count:
                # Without a call, since a picture has millions of runs.
                x = self._x
                start, taken = self._y * stride + x, min(count, width - x)
                rows[start : start + taken] = repeated[value][:taken]
                self._x = x + taken
            elif value == _END_OF_PICTURE:
                break
            else:
                self._escape(value)
                if self._y >= self._height:
                    return rows
        else:
            raise ImageDecodeError(
                f"The image is not decoded: the BMP has more than {MAX_RUNS:,} runs."
            )
        if self._y < self._height - 1:
            raise damaged("the BMP is damaged, rows of it are missing")
        return self._rows

    def _take(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        if len(taken) < count:
            raise damaged("the BMP is cut off")
        self._position += count
        return taken

    def _put(self, pixels: bytes) -> None:
        taken = min(len(pixels), self._width - self._x)
        start = self._y * self._stride + self._x
        self._rows[start : start + taken] = pixels[:taken]
        self._x += taken

    def _escape(self, value: int) -> None:
        if value == _END_OF_ROW:
            self._x, self._y = 0, self._y + 1
        elif value == _DELTA:
            right, up = self._take(2)
            self._x, self._y = min(self._x + right, self._width), self._y + up
        else:
            used = (value + 1) // 2 if self._has_nibbles else value
            self._put(_literal(self._take(used), self._has_nibbles)[:value])
            self._position += used % 2


def _repeated(byte: int, has_nibbles: bool) -> bytes:
    return bytes([byte >> 4, byte & 15]) * 128 if has_nibbles else bytes([byte]) * 256


def _literal(data: bytes, has_nibbles: bool) -> bytes:
    if not has_nibbles:
        return data
    return bytes(int(digit, 16) for digit in data.hex())

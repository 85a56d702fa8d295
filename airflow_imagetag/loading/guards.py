"""Check and rewrite an image of any format before Pillow opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading.bmp_guard import prepare_bmp
from airflow_imagetag.loading.gif_guard import prepare_gif
from airflow_imagetag.loading.jpeg_guard import prepare_jpeg
from airflow_imagetag.loading.png_guard import prepare_png
from airflow_imagetag.loading.prepared import PreparedFile, damaged
from airflow_imagetag.loading.webp_guard import prepare_webp

_GUARDS: Final[Mapping[str, Callable[[bytes], PreparedFile]]] = {
    "PNG": prepare_png,
    "GIF": prepare_gif,
    "BMP": prepare_bmp,
    "WEBP": prepare_webp,
}
"""Formats that Pillow decodes by itself; for some others it starts installed programs. TIFF is left
out: its tiles may take any amount of memory, however few pixels the picture has."""


def prepare_file(
    content: bytes, image_format: str | None, size: tuple[int, int] | None
) -> PreparedFile:
    """Return the file without metadata and further frames.

    :param image_format: the format by the first bytes; None if it is unknown.
    :param size: width and height by the header; None if it does not contain them.
    :raises ImageDecodeError: the image is damaged, too costly to decode, or of another format.
    """
    if image_format == "TIFF":
        raise ImageDecodeError(
            "The image is a TIFF, which is not decoded. Convert it to JPEG or PNG."
        )
    if image_format == "JPEG":
        if size is None:
            raise damaged("it begins as a JPEG, and does not tell its size")
        return prepare_jpeg(content, size)
    if image_format is None or image_format not in _GUARDS:
        raise damaged("its format is none of JPEG, PNG, GIF, BMP and WebP")
    return _GUARDS[image_format](content)

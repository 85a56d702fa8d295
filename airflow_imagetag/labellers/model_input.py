"""The input of a local model: the images that it takes, and how one is decoded for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_imagetag.loading.content import MAX_LARGE_IMAGE_BYTES
from airflow_imagetag.loading.decoding import DECODED_FORMATS, with_picture
from airflow_imagetag.services.base import Limits

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from airflow_imagetag.classifiers.view import View
    from airflow_imagetag.loading.prepared import PreparedFile

LOCAL_LIMITS: Final = Limits(MAX_LARGE_IMAGE_BYTES, DECODED_FORMATS)
"""The limits of every local model."""

_TURNED: Final = frozenset({5, 6, 7, 8})
"""Orientations in which width and height change places."""


def decode(content: bytes, view: View) -> Picture:
    """Decode an image into the size of a model's input.

    :raises ImageDecodeError: the image cannot be decoded.
    :raises ImageTooLargeError: it has too many pixels.
    """

    def seen(image: Picture, prepared: PreparedFile) -> Picture:
        from airflow_imagetag.loading.pixels import as_rgb, upright

        rgb = as_rgb(image, prepared.transparent)
        small = view.cropped(rgb, is_turned=prepared.orientation in _TURNED)
        return upright(small, prepared.orientation)

    return with_picture(content, seen, draft_pixels=view.draft_pixels)

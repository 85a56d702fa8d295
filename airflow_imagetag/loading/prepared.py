"""An image whose file has been checked, and holds nothing but the first picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from airflow_imagetag.errors import ImageDecodeError

MAX_PROFILE_BYTES: Final = 64 * 1024
"""Maximum size of a colour profile that is kept: it must leave room for the picture."""


@dataclass(frozen=True, repr=False)
class PreparedFile:
    """A file for Pillow, and the facts that are no longer in it.

    :param content: the file, without metadata and further frames.
    :param image_format: the only format that the file may have.
    :param pixel_bytes: maximum memory to decode a pixel.
    :param orientation: number from 1 to 8, as in a camera's metadata.
    :param profile: RGB colour profile.
    :param transparent: the samples of the colour that is transparent, in the picture's own depth.
    """

    content: bytes
    image_format: str
    pixel_bytes: int = 9
    orientation: int = 1
    profile: bytes | None = None
    transparent: tuple[int, ...] | None = None


def rgb_profile(profile: bytes) -> bytes | None:
    """Return a colour profile if it belongs to an RGB picture and is small enough."""
    is_rgb = profile[16:20] == b"RGB "
    return profile if is_rgb and len(profile) <= MAX_PROFILE_BYTES else None


def damaged(reason: str) -> ImageDecodeError:
    """Return the error of an image that cannot be decoded.

    :param reason: the fault, as the rest of a sentence.
    """
    return ImageDecodeError(f"The image cannot be decoded: {reason}. Replace the image.")

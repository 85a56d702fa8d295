"""Check the bytes of an image against the service's limits, and downscale it if asked."""

from __future__ import annotations

import enum
import logging
from dataclasses import replace
from importlib import import_module

from airflow_imagetag.errors import ConfigurationError, ImageFormatError, ImageTooLargeError
from airflow_imagetag.loading.advice import Advice
from airflow_imagetag.loading.headers import format_of, size_of
from airflow_imagetag.models import Image
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.services.base import Limits
from airflow_imagetag.services.messages import Payload

log = logging.getLogger(__name__)


class Oversize(enum.StrEnum):
    """The treatment of an image with more bytes than the service takes."""

    ERROR = "error"
    """The image fails."""
    DOWNSCALE = "downscale"
    """A smaller JPEG of the image is sent."""


def parse_oversize(value: str) -> Oversize:
    """Return the member with this value.

    :raises ConfigurationError: no member has this value.
    """
    try:
        return Oversize(value)
    except ValueError:
        names = " or ".join(repr(str(choice)) for choice in Oversize)
        raise ConfigurationError(f"oversize must be {names}, not {value!r}.") from None


class ImagePreflight:
    """Check images before they are sent; replace those over the limit by smaller ones if asked.

    A URL is not checked: only the service sees the image behind it.

    :param api: the interface, for messages.
    :param limits: the limits of the interface.
    :param oversize: the treatment of an image over the limit.
    :raises ConfigurationError: images are to be downscaled, and Pillow is missing.
    """

    def __init__(self, api: str, limits: Limits, oversize: Oversize = Oversize.ERROR) -> None:
        self._api = api
        self._limits = limits
        self._is_downscaling = oversize is Oversize.DOWNSCALE
        self._advice = Advice(api, limits)
        self._reads_headers = limits.formats is not None or self._advice.is_given
        if self._is_downscaling:
            _check_pillow()

    def needs_decoding(self, payload: Payload) -> bool:
        """Tell whether ``fit`` decodes the image, which takes long and belongs in a thread."""
        return self._is_downscaling and self._is_too_large(payload.content)

    def fit(self, image: Image, payload: Payload) -> Payload:
        """Return the payload to send; its digest stays that of the original bytes.

        :param image: names the image in warnings.
        :raises ImageFormatError: the service does not take the image's format.
        :raises ImageTooLargeError: the image has too many bytes, or too many pixels to downscale.
        :raises ImageDecodeError: the image has to be downscaled, and cannot be decoded.
        """
        content = payload.content
        # Building the request refuses an image without bytes.
        if not content:
            return payload
        if self._reads_headers:
            self._check_header(image, content)
        if len(content) <= self._limits.max_content_bytes:
            return payload
        smaller = self._smaller(content)
        log.info(
            "Image %r: a JPEG of %s is sent instead of %s",
            redact(image.key),
            _megabytes(len(smaller)),
            _megabytes(len(content)),
        )
        return replace(payload, content=smaller)

    def report(self) -> None:
        """Log the number of images that are outside the service's advice."""
        self._advice.report()

    def _is_too_large(self, content: bytes | None) -> bool:
        return content is not None and len(content) > self._limits.max_content_bytes

    def _check_header(self, image: Image, content: bytes) -> None:
        image_format = format_of(content)
        allowed = self._limits.formats
        if allowed is not None and image_format not in allowed:
            raise self._format_error(image_format, allowed)
        if self._advice.is_given and (size := size_of(content, image_format)) is not None:
            self._advice.check(image, size)

    def _format_error(self, found: str | None, allowed: frozenset[str]) -> ImageFormatError:
        kind = "of an unknown format" if found is None else f"a {found}"
        return ImageFormatError(
            f"The image is {kind}, and {self._api} takes only {', '.join(sorted(allowed))}. "
            "Convert the image."
        )

    def _smaller(self, content: bytes) -> bytes:
        limit = self._limits.max_content_bytes
        if self._is_downscaling:
            from airflow_imagetag.loading.downscaling import downscale

            return downscale(content, max_bytes=limit)
        # A service that takes all formats has not asked for this one.
        size = size_of(content, format_of(content))
        pixels = "" if size is None else f"{size[0]:,} x {size[1]:,} pixels in "
        raise ImageTooLargeError(
            f"The image has {pixels}{_megabytes(len(content))}, and {self._api} takes "
            f"{_megabytes(limit)} as this connection sends it. "
            "Make the image smaller, or use oversize='downscale'."
        )


def _megabytes(count: int) -> str:
    return f"{count:,} bytes ({count / 1024 / 1024:.1f} MB)"


def _check_pillow() -> None:
    try:
        import_module("PIL.Image")
    except ImportError as error:
        raise ConfigurationError(
            "oversize='downscale' needs Pillow: pip install 'airflow-provider-imagetag[downscale]' "
            f"({error})."
        ) from None

"""Checks an image's bytes against what the service takes, and makes them smaller if asked."""

from __future__ import annotations

import enum
import logging
from dataclasses import replace

from airflow_imagetag.errors import ConfigurationError, ImageFormatError, ImageTooLargeError
from airflow_imagetag.loading.advice import Advice
from airflow_imagetag.loading.headers import format_of, size_of
from airflow_imagetag.models import Image
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.services.base import Limits
from airflow_imagetag.services.messages import Payload

log = logging.getLogger(__name__)


class Oversize(enum.StrEnum):
    """What becomes of an image with more bytes than the service takes."""

    ERROR = "error"
    """It fails."""
    DOWNSCALE = "downscale"
    """A smaller JPEG of it is sent."""


def parse_oversize(value: str) -> Oversize:
    """Return the choice of this name.

    :raises ConfigurationError: there is no such choice.
    """
    try:
        return Oversize(value)
    except ValueError:
        names = " or ".join(repr(str(choice)) for choice in Oversize)
        raise ConfigurationError(f"oversize must be {names}, not {value!r}.") from None


class ImagePreflight:
    """Returns what is sent of an image: its own bytes, or fewer.

    A URL passes as it is: only the service sees what is behind it.

    :param api: the interface, for messages.
    :param limits: what it takes.
    :param oversize: what becomes of an image over the limit.
    :raises ConfigurationError: images shall be made smaller, and Pillow is missing.
    """

    def __init__(self, api: str, limits: Limits, oversize: Oversize = Oversize.ERROR) -> None:
        self._api = api
        self._limits = limits
        self._is_downscaling = oversize is Oversize.DOWNSCALE
        self._advice = Advice(api, limits)
        if self._is_downscaling:
            _check_pillow()

    def is_quick(self, payload: Payload) -> bool:
        """Tell whether ``fit`` takes next to no time, so that it needs no thread."""
        return not (self._is_downscaling and self._is_too_large(payload.content))

    def fit(self, image: Image, payload: Payload) -> Payload:
        """Return what to send; the digest stays that of the image's own bytes.

        :param image: names the image in warnings.
        :raises ImageFormatError: the service does not take its format.
        :raises ImageTooLargeError: it has too many bytes or, to be made smaller, pixels.
        :raises ImageDecodeError: it cannot be decoded to be made smaller.
        """
        content = payload.content
        # What is empty has an error of its own.
        if not content:
            return payload
        image_format = self._checked_format(content)
        if self._advice.is_wanted and (size := size_of(content, image_format)) is not None:
            self._advice.look(image, size)
        if not self._is_too_large(content):
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
        """Log how many images are not what the service advises."""
        self._advice.report()

    def _is_too_large(self, content: bytes | None) -> bool:
        return content is not None and len(content) > self._limits.max_content_bytes

    def _checked_format(self, content: bytes) -> str | None:
        taken = self._limits.formats
        if taken is None:
            return None
        found = format_of(content)
        if found not in taken:
            what = "of no format that is known" if found is None else f"a {found}"
            raise ImageFormatError(
                f"The image is {what}, and {self._api} takes {', '.join(sorted(taken))}."
            )
        return found

    def _smaller(self, content: bytes) -> bytes:
        limit = self._limits.max_content_bytes
        if self._is_downscaling:
            from airflow_imagetag.loading.downscaling import downscale

            return downscale(content, max_bytes=limit)
        raise ImageTooLargeError(
            f"The image has {_megabytes(len(content))}, and {self._api} takes {_megabytes(limit)} "
            "as this connection sends it. Make the image smaller, or use oversize='downscale'."
        )


def _megabytes(count: int) -> str:
    return f"{count:,} bytes ({count / 1024 / 1024:.1f} MB)"


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "oversize='downscale' needs Pillow: pip install 'airflow-provider-imagetag[downscale]' "
            f"({error})."
        ) from None

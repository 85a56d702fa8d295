"""Meanings that codes of several products of the vendor have."""

from __future__ import annotations

from airflow_imagetag.errors import (
    ImageDecodeError,
    ImageDownloadError,
    ImageFormatError,
    ImageTooLargeError,
    ServiceUnavailableError,
    ThrottledError,
)
from airflow_imagetag.services.response_parsing import ErrorMeaning

DECODE = ErrorMeaning(ImageDecodeError, "the service cannot decode the image")
FORMAT = ErrorMeaning(ImageFormatError, "the service does not take images of this format")
TOO_LARGE = ErrorMeaning(ImageTooLargeError, "the image is larger than the service takes")
DOWNLOAD = ErrorMeaning(ImageDownloadError, "the service cannot download the image from its URL")
FAILED = ErrorMeaning(ServiceUnavailableError, "the service failed")
THROTTLED = ErrorMeaning(ThrottledError, "more requests than the quota allows")

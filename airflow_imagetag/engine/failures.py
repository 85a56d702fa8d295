"""Turns the error of an image into its row in the failures, and logs the first of each class."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime

from airflow_imagetag.engine.flow import retry_policy
from airflow_imagetag.engine.image_pipeline import GaveUpError
from airflow_imagetag.errors import (
    Decision,
    DuplicateKeyError,
    ImageEmptyError,
    ImageTagError,
)
from airflow_imagetag.models import Failure, Image, RejectedImage
from airflow_imagetag.safety.redaction import output_uri, redact, storable_name

log = logging.getLogger(__name__)

LOGGED_FAILURES = 3
"""Number of failures of each class that the log shows; the failures output has them all."""

MAX_CODE_CHARACTERS = 128
"""Maximum length of an error code: stores keep it in a column of this length."""


class FailureRecorder:
    """Makes the failures of a run."""

    def __init__(self) -> None:
        self._logged: Counter[str] = Counter()

    def record(self, entry: Image | RejectedImage, given_up: GaveUpError) -> Failure:
        """Return the failure of an entry, and log it if it is one of the first of its class."""
        error = given_up.error
        name, message = type(error).__name__, _storable(error.message)
        self._log(entry, error, name, message)
        return Failure(
            storable_name(entry.key),
            None if entry.uri is None else storable_name(output_uri(entry.uri)),
            name,
            None if error.code is None else _storable(error.code)[:MAX_CODE_CHARACTERS],
            message,
            given_up.attempts,
            datetime.now(UTC),
            version=entry.version,
            content_sha256=given_up.sha256,
            is_final=error.is_final or retry_policy.is_unreadable_success(error),
            is_of_image=_is_of_image(entry, error),
            is_tolerated=isinstance(entry, RejectedImage) and entry.is_tolerated,
        )

    def _log(
        self, entry: Image | RejectedImage, error: ImageTagError, name: str, message: str
    ) -> None:
        self._logged[name] += 1
        # An error that ends the run is not the image's fault, and the task raises it.
        if self._logged[name] <= LOGGED_FAILURES and error.decision is not Decision.STOP:
            last = " More are only counted." if self._logged[name] == LOGGED_FAILURES else ""
            log.warning("Image %r failed: %s: %s%s", redact(entry.key), name, message, last)


def _is_of_image(entry: Image | RejectedImage, error: ImageTagError) -> bool:
    """Tell whether a store keeps the failure under the key of its entry.

    A faulty entry of a list may have the key of a good image, and nothing was paid for it; an
    object without bytes is the only one of its key. An error that ends the run is not the image's
    fault.
    """
    if isinstance(entry, Image):
        return error.decision is not Decision.STOP
    is_only_one = entry.is_tolerated or isinstance(entry.error, ImageEmptyError)
    return is_only_one and not isinstance(entry.error, DuplicateKeyError)


def _storable(text: str) -> str:
    """Return a text that every table and file can hold: a service may send half a character."""
    return text.encode("utf-8", "replace").decode()

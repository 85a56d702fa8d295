"""Ends a run in which image after image fails by a cause outside the images."""

from __future__ import annotations

import logging
from collections import Counter

from airflow_imagetag.errors import ImageTagError, ImageUnreadableError, StorageAccessError

log = logging.getLogger(__name__)

MAX_IN_A_ROW = 20
"""Number of images that fail one after the other by one cause before the run ends."""


class SharedCauses:
    """Counts the images that fail by a cause that many images may share.

    :param max_in_a_row: number of images, without a readable one between them, that ends the run.
    """

    def __init__(self, max_in_a_row: int = MAX_IN_A_ROW) -> None:
        self._max_in_a_row = max_in_a_row
        self._in_a_row: Counter[str] = Counter()
        self._all: Counter[str] = Counter()

    def record_readable(self) -> None:
        """Take note of an image that could be read."""
        if self._in_a_row:
            self._in_a_row.clear()

    def record(self, error: ImageTagError) -> StorageAccessError | None:
        """Take note of an image's error, and return the error that ends the run, if any."""
        if not isinstance(error, ImageUnreadableError) or error.cause is None:
            return None
        self._all[error.cause] += 1
        self._in_a_row[error.cause] += 1
        if self._in_a_row[error.cause] != self._max_in_a_row:
            return None
        return StorageAccessError(
            f"{self._max_in_a_row} images in a row could not be read for one cause "
            f"({error.cause}), so the run ends. They are tried again later. The last error: "
            f"{error.message}"
        )

    def report(self) -> None:
        """Log the causes, each with its number of images."""
        for cause, count in self._all.most_common():
            log.warning("%d images wait, since they could not be read: %s", count, cause)

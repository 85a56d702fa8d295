"""What a service advises against is sent all the same, and said: the first few, then a count."""

from __future__ import annotations

import logging
from collections import Counter

from airflow_imagetag.models import Image
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.services.base import Limits

log = logging.getLogger(__name__)

LOGGED_WARNINGS = 3
"""Images of each kind that the log names; the rest are counted."""


class Advice:
    """Looks for images that a service labels badly, and warns of them.

    :param api: the interface, for the log.
    :param limits: what it advises.
    """

    def __init__(self, api: str, limits: Limits) -> None:
        self._api = api
        self._min_pixels = limits.advised_min_pixels
        self._max_aspect = limits.advised_max_aspect or 0.0
        self._counts: Counter[str] = Counter()

    @property
    def is_wanted(self) -> bool:
        """Whether the service gives any."""
        return bool(self._min_pixels or self._max_aspect)

    def look(self, image: Image, size: tuple[int, int]) -> None:
        """Warn where the size is not what the service advises."""
        shorter, longer = sorted(size)
        if shorter < self._min_pixels:
            self._warn(image, size, f"with a side under {self._min_pixels} pixels")
        if self._max_aspect and longer > self._max_aspect * shorter:
            self._warn(image, size, f"longer than {self._max_aspect:g}:1")

    def report(self) -> None:
        """Log how many there were, if the log does not name them all."""
        for kind, count in self._counts.items():
            if count > LOGGED_WARNINGS:
                log.warning("%d images %s: %s labels such images badly", count, kind, self._api)
        self._counts.clear()

    def _warn(self, image: Image, size: tuple[int, int], kind: str) -> None:
        self._counts[kind] += 1
        count = self._counts[kind]
        if count <= LOGGED_WARNINGS:
            log.warning(
                "Image %r has %d x %d pixels: %s labels images %s badly.%s",
                redact(image.key),
                *size,
                self._api,
                kind,
                " More are only counted." if count == LOGGED_WARNINGS else "",
            )

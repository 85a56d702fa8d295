"""Warnings about images that a service labels badly; such images are sent all the same."""

from __future__ import annotations

import logging
from collections import Counter

from airflow_imagetag.models import Image
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.services.base import Limits

log = logging.getLogger(__name__)

LOGGED_WARNINGS = 3
"""Maximum number of images that the log names for each kind of warning; the rest are counted."""


class Advice:
    """Compare the sizes of images with the advice of the service, and log warnings.

    :param api: the interface, for the log.
    :param limits: its limits and its advice.
    """

    def __init__(self, api: str, limits: Limits) -> None:
        self._api = api
        self._min_pixels = limits.advised_min_pixels
        self._max_aspect = limits.advised_max_aspect or 0.0
        self._counts: Counter[str] = Counter()
        self.is_given = bool(self._min_pixels or self._max_aspect)
        """Whether the service gives any advice."""

    def check(self, image: Image, size: tuple[int, int]) -> None:
        """Warn if the size is outside the advice."""
        width, height = size
        shorter, longer = (width, height) if width < height else (height, width)
        if shorter < self._min_pixels:
            self._warn(image, size, f"with a side under {self._min_pixels} pixels")
        if self._max_aspect and longer > self._max_aspect * shorter:
            self._warn(image, size, f"longer than {self._max_aspect:g}:1")

    def report(self) -> None:
        """Log the number of images of each kind that the log does not name one by one."""
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

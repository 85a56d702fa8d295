"""Deciding which request meets which fault."""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import TYPE_CHECKING

from airflow_imagetag.testing.faults import GARBAGE_KINDS, Faults, Garbage
from airflow_imagetag.testing.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Mapping


class Chance:
    """Draws the faults of one :class:`Faults`, repeatably. Used from one thread only.

    :param faults: what may go wrong.
    :param seed: the same seed and the same order of requests give the same faults.
    """

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._errors = _together(faults.error_rates, faults.error_codes)
        self._first_attempts = _together(faults.first_attempts, faults.first_attempt_codes)
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - it must be repeatable
        self._garbage = itertools.cycle(GARBAGE_KINDS)
        self._attempted: set[bytes] = set()
        self._limit, self._window = _quota(faults.requests_per_second)

    def over_quota(self, now: float) -> bool:
        """Return whether a request at ``now`` is over the quota; if not, it counts against it.

        A refused request does not count, so a client that keeps on trying still gets its quota.

        :param now: seconds of a clock that does not run backwards.
        """
        if self._limit is None:
            return False
        if self._window.count(now) >= self._limit:
            return True
        self._window.add(now)
        return False

    def latency_seconds(self) -> float:
        """Return how long this request takes."""
        return self._random.uniform(*self.faults.latency_range_seconds)

    def drops(self) -> bool:
        """Return whether the connection closes before any work."""
        return self._happens(self.faults.drop_rate)

    def drops_after_work(self) -> bool:
        """Return whether the connection closes instead of answering with the labels."""
        return self._happens(self.faults.drop_after_work_rate)

    def error(self) -> int | str | None:
        """Return the HTTP status or the code of TIIA that this request fails with, or None."""
        if not self._errors:
            return None
        return _pick(self._errors, self._random.random())

    def first_attempt_error(self, image: bytes) -> int | str | None:
        """Return the HTTP status or the code of TIIA that this image fails with now, or None.

        :param image: the image's bytes, or its URL.
        """
        if not self._first_attempts:
            return None
        digest = hashlib.sha256(b"%d:" % self._seed + image).digest()
        if digest in self._attempted:
            return None
        self._attempted.add(digest)
        return _pick(self._first_attempts, int.from_bytes(digest[:8]) / 2**64)

    def garbage(self) -> Garbage | None:
        """Return the kind of useless answer that replaces the labels, or None."""
        if not self._happens(self.faults.garbage_rate):
            return None
        return self.faults.garbage or next(self._garbage)

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate


def _quota(requests_per_second: float | None) -> tuple[int | None, SlidingWindow]:
    if requests_per_second is None:
        return None, SlidingWindow(1.0)
    limit = max(1, int(requests_per_second))
    return limit, SlidingWindow(limit / requests_per_second)


def _together(statuses: Mapping[int, float], codes: Mapping[str, float]) -> dict[int | str, float]:
    shares: dict[int | str, float] = {}
    shares.update(statuses.items())
    shares.update(codes.items())
    return shares


def _pick(shares: Mapping[int | str, float], drawn: float) -> int | str | None:
    """Return the error in whose share the number ``drawn``, 0 to 1, falls."""
    for error, share in shares.items():
        if drawn < share:
            return error
        drawn -= share
    return None

"""Slots of a quota: points in time at which one request may be sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

CATCH_UP_SECONDS = 0.01
"""Lag that timers cause in normal operation, and that later slots make up for."""


class Schedule(Protocol):
    """Gives out the slots of a quota, each of them once."""

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return the seconds until the first of some consecutive slots; below 0 it is late.

        :param count: number of slots.
        :param interval_seconds: from the beginning of one slot to that of the next.
        """
        ...


class LocalSchedule:
    """The slots of one process.

    :param clock: a clock that does not run backwards.
    :param max_lag_seconds: lag of a slot that is made up for; with more, all later slots move.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_lag_seconds: float = CATCH_UP_SECONDS,
    ) -> None:
        self._clock = clock
        self._max_lag_seconds = max_lag_seconds
        self._next_at = float("-inf")

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return the seconds until the first of some consecutive slots; below 0 it is late."""
        now = self._clock()
        is_too_late = self._next_at < now - self._max_lag_seconds
        start = now - CATCH_UP_SECONDS if is_too_late else self._next_at
        if self._next_at == float("-inf"):
            # Nothing is late yet.
            start = now
        self._next_at = start + count * interval_seconds
        return start - now

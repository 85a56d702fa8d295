"""How many images a run works on at the same time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

FIRST_LATENCY_SECONDS = 1.0
"""What a call is taken to last before one has ended."""

LATENCY_WEIGHT = 0.1
"""Of the newest call in the average."""

HEADROOM = 1.5
"""A call that takes longer than most must not leave a slot unused."""

SPARE_WORKERS = 4
"""For images that are being read or handed over."""


class AdaptiveWorkerPool:
    """The workers of a run, as many as the quota keeps busy: by Little's law, rate times latency.

    An image that rests between two attempts does not count, up to as many again: else one failure
    in ten would halve the speed, as its rest is longer than a call.

    :param work: what a worker does until it ends.
    :param requests_per_second: the quota; None for no limit.
    :param max_in_flight: bound of the images that are loaded or called.
    :param first_latency_seconds: expected latency of a call before the first one has ended.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, None]],
        *,
        requests_per_second: float | None,
        max_in_flight: int,
        first_latency_seconds: float = FIRST_LATENCY_SECONDS,
    ) -> None:
        self._work = work
        self._rate = requests_per_second
        self._max_in_flight = max_in_flight
        self._latency_seconds = first_latency_seconds
        self._resting = 0
        self.workers: set[asyncio.Task[None]] = set()

    def record_latency(self, seconds: float) -> None:
        """Take note of the latency of a call."""
        self._latency_seconds += (seconds - self._latency_seconds) * LATENCY_WEIGHT

    def size(self) -> int:
        """Return how many workers there should be that do not rest."""
        if self._rate is None:
            return self._max_in_flight
        busy = self._rate * self._latency_seconds * HEADROOM
        return min(math.ceil(busy) + SPARE_WORKERS, self._max_in_flight)

    def should_exit(self) -> bool:
        """Tell the worker that asks, between two images, whether it should end."""
        if self._missing() >= 0:
            return False
        # At once: others who ask before its task has ended must not take themselves for too many.
        self.workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        return True

    def fill(self) -> None:
        """Begin the work of those who are missing."""
        for _ in range(self._missing()):
            worker = asyncio.create_task(self._work())
            self.workers.add(worker)
            worker.add_done_callback(self.workers.discard)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Let another one work meanwhile."""
        self._resting += 1
        self.fill()
        try:
            yield
        finally:
            self._resting -= 1

    def _missing(self) -> int:
        return self.size() + min(self._resting, self._max_in_flight) - len(self.workers)

"""The number of images that a run works on at the same time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

from airflow_imagetag.engine.latency import Latency

FIRST_LATENCY_SECONDS = 1.0
"""Latency that is assumed until a call has ended."""

LATENCY_WEIGHT = 0.1
"""Weight of the newest call in the average latency."""

HEADROOM = 1.5
"""Workers per slot of the quota: a call that takes longer than most must leave no slot unused."""

SPARE_WORKERS = 4
"""Additional workers, for images that are being read or handed over."""


class AdaptiveWorkerPool:
    """The workers of a run, as many as the quota keeps busy: by Little's law, rate times latency.

    An image that backs off between two attempts does not count, up to as many again. Otherwise one
    failure in ten would halve the speed, since a back-off is longer than a call.

    :param work: the work of one worker, until it ends.
    :param requests_per_second: the quota; None for no limit.
    :param max_in_flight: maximum number of images that are loaded or called.
    :param first_latency_seconds: latency that is assumed until a call has ended.
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
        self._requests_per_second = requests_per_second
        self._max_in_flight = max_in_flight
        self._latency_seconds = first_latency_seconds
        self._backing_off = 0
        self.latency = Latency()
        self.workers: set[asyncio.Task[None]] = set()

    def record_latency(self, seconds: float) -> None:
        """Add the latency of a call to the average."""
        self.latency.add(seconds)
        self._latency_seconds += (seconds - self._latency_seconds) * LATENCY_WEIGHT

    def size(self) -> int:
        """Return the target number of workers that do not back off."""
        if self._requests_per_second is None:
            return self._max_in_flight
        busy = self._requests_per_second * self._latency_seconds * HEADROOM
        return min(math.ceil(busy) + SPARE_WORKERS, self._max_in_flight)

    def should_exit(self) -> bool:
        """Tell the worker that asks, between two images, whether it should end."""
        if self._missing() >= 0:
            return False
        # At once: a worker that asks before this task has ended would count it, and end as well.
        self.workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        return True

    def fill(self) -> None:
        """Start the missing workers."""
        for _ in range(self._missing()):
            worker = asyncio.create_task(self._work())
            self.workers.add(worker)
            worker.add_done_callback(self.workers.discard)

    @contextmanager
    def backing_off(self) -> Iterator[None]:
        """Let another worker take the place of one that sleeps between two attempts."""
        self._backing_off += 1
        self.fill()
        try:
            yield
        finally:
            self._backing_off -= 1

    def _missing(self) -> int:
        return self.size() + min(self._backing_off, self._max_in_flight) - len(self.workers)

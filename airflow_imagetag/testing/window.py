"""Counting events in a sliding window of time."""

from __future__ import annotations

from collections import deque


class SlidingWindow:
    """Remembers the events of the last ``length_seconds``.

    The caller gives the time, in seconds of any clock that does not run backwards.

    :param length_seconds: an event counts until it is this old.
    """

    def __init__(self, length_seconds: float) -> None:
        self._length_seconds = length_seconds
        self._times: deque[float] = deque()

    def count(self, now: float) -> int:
        """Return how many events the window that ends ``now`` holds."""
        oldest = now - self._length_seconds
        while self._times and self._times[0] <= oldest:
            self._times.popleft()
        return len(self._times)

    def add(self, now: float) -> int:
        """Record an event at ``now`` and return the count, this event included."""
        self._times.append(now)
        return self.count(now)

"""The latency of requests, summed up between two reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Latency:
    """The latencies of some requests.

    :param requests: number of requests that were answered.
    :param total_seconds: sum of their latencies.
    :param max_seconds: longest latency.
    """

    requests: int = 0
    total_seconds: float = 0.0
    max_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Add a request."""
        self.requests += 1
        self.total_seconds += seconds
        if seconds > self.max_seconds:
            self.max_seconds = seconds

    def take(self) -> Latency:
        """Return the latencies so far, and begin anew."""
        taken = Latency(self.requests, self.total_seconds, self.max_seconds)
        self.requests, self.total_seconds, self.max_seconds = 0, 0.0, 0.0
        return taken

    @property
    def mean_seconds(self) -> float:
        """Mean latency; 0 without a request."""
        return self.total_seconds / self.requests if self.requests else 0.0

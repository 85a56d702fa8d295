"""How fast to go after the service has said that it is too fast. Pure, the time is a parameter."""

from __future__ import annotations

CUT = 0.75
"""What is left of the rate after a throttled answer."""

CALM_SECONDS = 1.0
"""Answers to requests that were on their way already say nothing new."""

RECOVERY_PER_SECOND = 0.1
"""Share of the full rate that comes back each second."""

FLOOR = 0.02

SHORTEST_SECONDS = 0.1
"""A rate seen for a shorter time is none."""

FREE_AGAIN = 4.0
"""Without a quota: so many times the rate at which the service complained, and no limit holds."""


class SlowDown:
    """Additive increase, multiplicative decrease of a rate.

    :param requests_per_second: the full rate; None for no limit, until the service complains.
    """

    def __init__(self, requests_per_second: float | None) -> None:
        self._full = requests_per_second
        self._is_free = requests_per_second is None
        self._share = 1.0
        self._cut_at = float("-inf")
        self._granted = 0
        self._counted_from: float | None = None
        self._seen = 1.0

    def rate(self, now: float) -> float | None:
        """Return how many requests a second may be sent now; None for no limit.

        :param now: seconds of a clock that does not run backwards.
        """
        if self._full is None:
            return None
        share = self._share_at(now)
        if self._is_free and share >= FREE_AGAIN:
            self._full = None
            return None
        return self._full * (share if self._is_free else min(share, 1.0))

    def granted(self, now: float) -> None:
        """Count a request, which tells the rate where there is no quota."""
        if self._counted_from is None:
            self._counted_from = now
        self._granted += 1
        if now - self._counted_from >= 1.0:
            self._seen = self._granted / (now - self._counted_from)
            self._granted, self._counted_from = 0, now

    def cut(self, now: float) -> None:
        """Take note of a throttled answer."""
        if now - self._cut_at < CALM_SECONDS:
            return
        if self._full is None:
            since = now if self._counted_from is None else self._counted_from
            elapsed = max(now - since, SHORTEST_SECONDS)
            self._full = max(self._seen, self._granted / elapsed)
            self._share = 1.0
            self._cut_at = now
        self._share = max(min(self._share_at(now), 1.0) * CUT, FLOOR)
        self._cut_at = now

    def _share_at(self, now: float) -> float:
        if self._cut_at == float("-inf"):
            return 1.0
        return self._share + RECOVERY_PER_SECOND * (now - self._cut_at)

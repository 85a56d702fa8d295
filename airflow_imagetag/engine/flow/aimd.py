"""The rate after throttled answers: additive increase, multiplicative decrease (AIMD).

Pure: the time is a parameter.
"""

from __future__ import annotations

MIN_DECREASE_FACTOR = 0.75
"""Smallest factor by which the throttled answers of one window lower the rate."""

DECREASE_PER_REFUSED_SHARE = 2.0
"""Decrease of the rate per share of requests that were refused: a single refusal among hundreds is
network jitter, many mean a smaller quota."""

LONE_REFUSED_SHARE = 0.02
"""Share of one second's requests up to which refusals only lower the rate, and one always."""

UNAVAILABLE_WEIGHT = 0.25
"""Weight of HTTP 503, relative to a refusal: it may mean the quota, or one broken machine."""

WINDOW_SECONDS = 1.0
"""Time in which throttled answers count as one decrease: most answer requests that had been sent
before the first of them."""

INCREASE_PER_SECOND = 0.1
"""Share of the full rate that is regained each second."""

RECOVERY_SECONDS = (1 - MIN_DECREASE_FACTOR) / INCREASE_PER_SECOND
"""Minimum time of a recovery. A small decrease takes as long as a full one; otherwise it would have
no effect."""

MIN_SHARE = 0.02
"""Minimum share of the full rate that is left after any number of decreases."""

MIN_OBSERVATION_SECONDS = 0.1
"""Minimum time over which a rate is measured."""

UNLIMITED_SHARE = 4.0
"""Without a quota: multiple of the throttled rate from which on there is no limit again."""


class AimdRate:
    """A rate with additive increase and multiplicative decrease.

    :param requests_per_second: the full rate; None for no limit until an answer is throttled.
    """

    def __init__(self, requests_per_second: float | None) -> None:
        self._full = requests_per_second
        self._has_quota = requests_per_second is not None
        self._share = self._share_before = 1.0
        self._refused = 0.0
        self._decreased_at = float("-inf")
        self._requests = 0
        self._counted_from: float | None = None
        self._observed_rate = 1.0

    @property
    def is_limited(self) -> bool:
        """Whether there is a rate to keep: a quota, or what answers that were throttled left."""
        return self._full is not None

    def rate(self, now: float) -> float | None:
        """Return the requests that may be sent per second; None for no limit.

        :param now: seconds of a clock that does not run backwards.
        """
        if self._full is None:
            return None
        share = self._share_at(now)
        if not self._has_quota and share >= UNLIMITED_SHARE:
            self._full = None
            return None
        return self._full * (min(share, 1.0) if self._has_quota else share)

    def record_request(self, now: float) -> None:
        """Count a request, to measure the rate where there is no quota."""
        if self._counted_from is None:
            self._counted_from = now
        self._requests += 1
        if now - self._counted_from >= 1.0:
            self._observed_rate = self._requests / (now - self._counted_from)
            self._requests, self._counted_from = 0, now

    def record_throttled(self, now: float, weight: float = 1.0) -> None:
        """Lower the rate after an answer that asks for fewer requests.

        :param weight: weight of the answer, up to 1. Without a quota only a full weight counts,
            since one such answer reveals the service's limit.
        """
        if weight < 1 and not self._has_quota:
            return
        if now - self._decreased_at >= WINDOW_SECONDS:
            self._begin_decrease(now)
        self._refused += weight
        factor = MIN_DECREASE_FACTOR
        if self._full is not None and self._has_quota:
            # Share of one second's requests.
            refused = self._refused / (self._full * self._share_before)
            factor = max(MIN_DECREASE_FACTOR, 1 - DECREASE_PER_REFUSED_SHARE * refused)
        self._share = max(self._share_before * factor, MIN_SHARE)

    def tolerates_refusal(self) -> bool:
        """Tell whether the refusals of the latest window are few for a known quota.

        Such a refusal costs its own request and a slightly lower rate. A pause of all requests
        would cost more than it saves.
        """
        if self._full is None or not self._has_quota:
            return False
        return self._refused <= max(1.0, LONE_REFUSED_SHARE * self._full)

    def _begin_decrease(self, now: float) -> None:
        if self._full is None:
            since = now if self._counted_from is None else self._counted_from
            elapsed = max(now - since, MIN_OBSERVATION_SECONDS)
            self._full = max(self._observed_rate, self._requests / elapsed)
            self._share_before = 1.0
        else:
            self._share_before = min(self._share_at(now), 1.0)
        self._refused = 0.0
        self._decreased_at = now

    def _share_at(self, now: float) -> float:
        if self._decreased_at == float("-inf"):
            return 1.0
        increase = INCREASE_PER_SECOND
        if self._has_quota:
            increase = min(increase, (1 - self._share) / RECOVERY_SECONDS)
        return self._share + increase * (now - self._decreased_at)

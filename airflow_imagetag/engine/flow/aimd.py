"""How fast to go after the service has said that it is too fast. Pure, the time is a parameter."""

from __future__ import annotations

CUT = 0.75
"""What is left of the rate, at least, after the throttled answers of one moment."""

CUT_PER_SHARE = 2.0
"""The rate is cut by so many times the share of requests that were refused: a single refusal among
hundreds is the jitter of a network, many are a smaller quota."""

UNAVAILABLE_WEIGHT = 0.25
"""Of HTTP 503 beside a refusal for the quota: it may mean the same, or one broken machine."""

CALM_SECONDS = 1.0
"""The throttled answers of so long a time are one cut: many are to requests that were on their way
already when it began."""

RECOVERY_PER_SECOND = 0.1
"""Share of the full rate that comes back each second."""

RECOVERY_SECONDS = (1 - CUT) / RECOVERY_PER_SECOND
"""A small cut comes back in so long a time, as slowly as a whole one, or it would cut nothing."""

FLOOR = 0.02

SHORTEST_SECONDS = 0.1
"""A rate seen for a shorter time is none."""

FREE_AGAIN = 4.0
"""Without a quota: so many times the rate at which the service complained, and no limit holds."""


class AimdRate:
    """Additive increase, multiplicative decrease of a rate.

    :param requests_per_second: the full rate; None for no limit, until the service complains.
    """

    def __init__(self, requests_per_second: float | None) -> None:
        self._full = requests_per_second
        self._is_free = requests_per_second is None
        self._share = self._share_before = 1.0
        self._refused = 0.0
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

    def cut(self, now: float, weight: float = 1.0) -> None:
        """Take note of an answer that asks for fewer requests.

        :param weight: how much it says, up to 1. Without a quota only a plain refusal counts: one
            answer is enough there to find the service's limit.
        """
        if weight < 1 and self._is_free:
            return
        if now - self._cut_at >= CALM_SECONDS:
            self._begin_cut(now)
        self._refused += weight
        left = CUT
        if self._full is not None and not self._is_free:
            # Of the requests of a second.
            refused = self._refused / (self._full * self._share_before)
            left = max(CUT, 1 - CUT_PER_SHARE * refused)
        self._share = max(self._share_before * left, FLOOR)

    def _begin_cut(self, now: float) -> None:
        if self._full is None:
            since = now if self._counted_from is None else self._counted_from
            elapsed = max(now - since, SHORTEST_SECONDS)
            self._full = max(self._seen, self._granted / elapsed)
            self._share_before = 1.0
        else:
            self._share_before = min(self._share_at(now), 1.0)
        self._refused = 0.0
        self._cut_at = now

    def _share_at(self, now: float) -> float:
        if self._cut_at == float("-inf"):
            return 1.0
        recovery = RECOVERY_PER_SECOND
        if not self._is_free:
            recovery = min(recovery, (1 - self._share) / RECOVERY_SECONDS)
        return self._share + recovery * (now - self._cut_at)

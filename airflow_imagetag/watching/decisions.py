"""The decision after a query: enough images, wait on, or too late. Pure; time is a parameter."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

MIN_WAIT_SECONDS = 0.1
"""Minimum pause: a trigger without one would keep the triggerer busy."""

MAX_WAIT_SECONDS = 24 * 3600.0
"""Maximum pause of a sensor without ``max_wait``."""


class PollDecision(enum.Enum):
    """The next step of a sensor or trigger."""

    READY = "ready"
    WAIT = "wait"
    TIMED_OUT = "timed out"


def decide(
    found: int, *, min_images: int, now: datetime, deadline: datetime | None
) -> PollDecision:
    """Return the next step after a query; a query that found enough images is never too late.

    :param found: number of new images, or a lower bound of it.
    :param min_images: number of images that is enough.
    :param now: the time of the query.
    :param deadline: when waiting ends; None for never.
    """
    if found >= min_images:
        return PollDecision.READY
    if deadline is not None and now >= deadline:
        return PollDecision.TIMED_OUT
    return PollDecision.WAIT


def wait_seconds(
    queries: int,
    *,
    poke_interval: float,
    is_exponential: bool,
    max_wait: float | None,
    now: datetime,
    deadline: datetime | None,
) -> float:
    """Return the pause before the next query, which is not later than the deadline.

    :param queries: number of queries so far, from 1.
    :param poke_interval: seconds between two queries.
    :param is_exponential: each pause is twice as long as the one before.
    :param max_wait: maximum seconds of a pause; None for a day.
    :param now: time of the last query.
    :param deadline: when waiting ends; None for never.
    """
    seconds = max(poke_interval, MIN_WAIT_SECONDS)
    if is_exponential:
        # After 40 doublings every pause is the longest one.
        seconds = max(poke_interval, 1.0) * 2.0 ** min(queries - 1, 40)
    seconds = min(seconds, MAX_WAIT_SECONDS if max_wait is None else max_wait)
    if deadline is not None:
        seconds = min(seconds, max((deadline - now) / timedelta(seconds=1), 0.0))
    return seconds

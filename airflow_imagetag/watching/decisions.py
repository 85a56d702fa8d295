"""What a look means: enough images, wait on, or too late. Pure, the time is a parameter."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

MIN_WAIT_SECONDS = 0.1
"""A trigger that never waits would keep the triggerer busy with nothing else."""

MAX_WAIT_SECONDS = 24 * 3600.0


class PollDecision(enum.Enum):
    """What follows from a look."""

    READY = "ready"
    WAIT = "wait"
    TIMED_OUT = "timed out"


def decide(
    found: int, *, min_images: int, now: datetime, deadline: datetime | None
) -> PollDecision:
    """Tell what follows from a look; one that found enough is never too late.

    :param found: how many new images there are, or at least so many.
    :param min_images: how many are enough.
    :param now: the time of the look.
    :param deadline: when waiting ends; None for never.
    """
    if found >= min_images:
        return PollDecision.READY
    if deadline is not None and now >= deadline:
        return PollDecision.TIMED_OUT
    return PollDecision.WAIT


def wait_seconds(
    looks: int,
    *,
    poke_interval: float,
    is_exponential: bool,
    max_wait: float | None,
    now: datetime,
    deadline: datetime | None,
) -> float:
    """Return how long to wait for the next look, which is not later than the deadline.

    :param looks: how many there have been, from 1.
    :param poke_interval: seconds between two looks.
    :param is_exponential: whether each wait is twice as long as the one before.
    :param max_wait: seconds of a wait at most.
    """
    seconds = max(poke_interval, MIN_WAIT_SECONDS)
    if is_exponential:
        # Beyond so many doublings every wait is the longest one.
        seconds = max(poke_interval, 1.0) * 2.0 ** min(looks - 1, 40)
    seconds = min(seconds, MAX_WAIT_SECONDS if max_wait is None else max_wait)
    if deadline is not None:
        seconds = min(seconds, max((deadline - now) / timedelta(seconds=1), 0.0))
    return seconds

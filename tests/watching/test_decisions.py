"""What follows from a look, and how long to wait for the next one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_imagetag.watching.decisions import MAX_WAIT_SECONDS, PollDecision, decide, wait_seconds

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("found", "min_images", "deadline", "expected"),
    [
        (0, 1, None, PollDecision.WAIT),
        (1, 1, None, PollDecision.READY),
        (5, 1, None, PollDecision.READY),
        (4, 5, None, PollDecision.WAIT),
        (5, 5, None, PollDecision.READY),
        (0, 1, NOON + SECOND, PollDecision.WAIT),
        (0, 1, NOON, PollDecision.TIMED_OUT),
        (0, 1, NOON - SECOND, PollDecision.TIMED_OUT),
        (4, 5, NOON, PollDecision.TIMED_OUT),
        (1, 1, NOON - 1000 * SECOND, PollDecision.READY),
    ],
)
def test_what_follows_from_a_look(
    found: int, min_images: int, deadline: datetime | None, expected: PollDecision
):
    """Enough is enough, even at the last look; at the deadline it is too late."""
    assert decide(found, min_images=min_images, now=NOON, deadline=deadline) is expected


def wait(
    looks: int,
    interval: float = 60,
    *,
    is_exponential: bool = False,
    max_wait: float | None = None,
    left: float | None = None,
) -> float:
    """Return how long to wait."""
    return wait_seconds(
        looks,
        poke_interval=interval,
        is_exponential=is_exponential,
        max_wait=max_wait,
        now=NOON,
        deadline=None if left is None else NOON + left * SECOND,
    )


def test_each_wait_is_the_interval():
    """It is no longer than the longest wait."""
    assert [wait(looks) for looks in (1, 2, 1000)] == [60, 60, 60]
    assert wait(1, max_wait=20) == 20


def test_waits_double():
    """From the interval up to a day, or the longest wait; any number of looks is fine."""
    assert [wait(looks, is_exponential=True) for looks in (1, 2, 3, 4)] == [60, 120, 240, 480]
    assert wait(30, is_exponential=True) == MAX_WAIT_SECONDS
    assert wait(100_000, is_exponential=True) == MAX_WAIT_SECONDS
    assert wait(6, is_exponential=True, max_wait=300) == 300


def test_an_interval_below_a_second_still_backs_off():
    """Nothing doubles to nothing."""
    assert [wait(looks, 0, is_exponential=True) for looks in (1, 2, 3)] == [1, 2, 4]


def test_the_last_wait_ends_at_the_deadline():
    """So that the last look is at it, and not an interval later."""
    assert wait(1, left=45) == 45
    assert wait(1, left=75) == 60
    assert wait(1, left=0) == 0
    assert wait(1, left=-45) == 0
    assert wait(9, is_exponential=True, left=45) == 45

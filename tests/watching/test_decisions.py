"""The decision after a query, and the pause before the next one."""

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
def test_the_decision_after_a_query(
    found: int, min_images: int, deadline: datetime | None, expected: PollDecision
):
    """A query that finds enough images is never too late; any other is at the deadline."""
    assert decide(found, min_images=min_images, now=NOON, deadline=deadline) is expected


def wait(
    queries: int,
    interval: float = 60,
    *,
    is_exponential: bool = False,
    max_wait: float | None = None,
    left: float | None = None,
) -> float:
    """Return the seconds until the next query."""
    return wait_seconds(
        queries,
        poke_interval=interval,
        is_exponential=is_exponential,
        max_wait=max_wait,
        now=NOON,
        deadline=None if left is None else NOON + left * SECOND,
    )


def test_each_wait_is_the_interval():
    """It is bounded by the longest wait."""
    assert [wait(queries) for queries in (1, 2, 1000)] == [60, 60, 60]
    assert wait(1, max_wait=20) == 20


def test_waits_double():
    """They grow from the interval to a day, or to the longest wait, for any number of queries."""
    assert [wait(queries, is_exponential=True) for queries in (1, 2, 3, 4)] == [60, 120, 240, 480]
    assert wait(30, is_exponential=True) == MAX_WAIT_SECONDS
    assert wait(100_000, is_exponential=True) == MAX_WAIT_SECONDS
    assert wait(6, is_exponential=True, max_wait=300) == 300


def test_an_interval_below_a_second_still_backs_off():
    """Zero would never grow."""
    assert [wait(queries, 0, is_exponential=True) for queries in (1, 2, 3)] == [1, 2, 4]


def test_the_last_wait_ends_at_the_deadline():
    """The last query is made at the deadline, not an interval later."""
    assert wait(1, left=45) == 45
    assert wait(1, left=75) == 60
    assert wait(1, left=0) == 0
    assert wait(1, left=-45) == 0
    assert wait(9, is_exponential=True, left=45) == 45

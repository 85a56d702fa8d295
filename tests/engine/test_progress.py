"""The line of progress in the log."""

from __future__ import annotations

import pytest

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.progress import duration, line


@pytest.mark.parametrize(
    ("counts", "elapsed", "total", "text"),
    [
        (Counts(), 0, None, "0 images, 0.0 images/s, 0 failed, 0 calls (0 retries)"),
        (Counts(), 10, 100, "0 of 100 images (0%), 0.0 images/s, 0 failed, 0 calls (0 retries)"),
        (
            Counts(tagged=2400, failed=100, calls=2600, retries=100),
            125,
            10_000,
            (
                "2,500 of 10,000 images (25%), 20.0 images/s, about 6 min left, 100 failed, "
                "2,600 calls (100 retries)"
            ),
        ),
        (
            Counts(tagged=5, skipped=5, calls=5),
            10,
            10,
            "10 of 10 images (100%), 1.0 images/s, 0 failed, 5 calls (0 retries)",
        ),
        (
            Counts(tagged=12, calls=12),
            6,
            10,
            "12 of 10 images (100%), 2.0 images/s, 0 failed, 12 calls (0 retries)",
        ),
        (
            Counts(tagged=12, calls=12),
            6,
            0,
            "12 images, 2.0 images/s, 0 failed, 12 calls (0 retries)",
        ),
        (
            Counts(tagged=4, reused=1, failed=2, tolerated=1, calls=4),
            6,
            None,
            (
                "6 images, 1.0 images/s, 4 labelled (3 by calls, 1 from earlier answers), "
                "2 failed (1 tolerated), 4 calls (0 retries)"
            ),
        ),
    ],
)
def test_the_line(counts, elapsed, total, text):
    """Count, rate, time left, failures and calls; unknown and empty values are left out."""
    assert line(counts, elapsed_seconds=elapsed, total=total) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (42.4, "42 s"),
        (99, "99 s"),
        (100, "2 min"),
        (200, "3 min"),
        (3540, "59 min"),
        (3600, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_a_duration_for_a_person(seconds, text):
    """Seconds, minutes or hours, whichever reads best."""
    assert duration(seconds) == text


def test_what_a_stop_left_is_not_done():
    """The line of a run that ended early counts the finished images, and promises nothing."""
    counts = Counts(tagged=2, skipped=8, calls=2)
    text = "2 of 10 images (20%), 1.0 images/s, 0 failed, 2 calls (0 retries)"
    assert line(counts, elapsed_seconds=2, total=10, is_cut_off=True) == text

"""The parameters of sensor and trigger, which may come from templates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from conditions import condition

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.selection.rules import Retag
from airflow_imagetag.watching.condition import parse_moment

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("None", None),
        (NOON, NOON),
        (NOON.replace(tzinfo=None), NOON),
        ("2026-07-01T12:00:00+00:00", NOON),
        ("2026-07-01T12:00:00Z", NOON),
        ("2026-07-01 12:00:00", NOON),
        ("2026-07-01T14:00:00+02:00", NOON),
        (NOON.astimezone(EAST), NOON),
        ("2026-07-01", NOON.replace(hour=0)),
    ],
)
def test_points_in_time(value: Any, expected: datetime | None):
    """A time is a text, as templates give it, or a datetime; without a zone it is UTC."""
    moment = parse_moment("modified_after", value)
    assert moment == expected
    assert moment is None or moment.tzinfo is not None


@pytest.mark.parametrize("value", ["yesterday", "12", 5, True, "{{ ds }}", [], "2026-13-01", b"x"])
def test_a_wrong_point_in_time_is_named(value: Any):
    """The message names the parameter and shows a valid value."""
    with pytest.raises(ConfigurationError, match="modified_after must be a point in time"):
        parse_moment("modified_after", value)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (2.5, 2.5), ("30", 30), (" 1e3 ", 1000), ("0", 0)]
)
def test_seconds(value: Any, expected: float):
    """A number of seconds is a number or its text."""
    assert condition(settle_seconds=value).settle_seconds == expected


@pytest.mark.parametrize("value", [-1, "-0.5", "soon", "", None, True, "nan", "inf", [], {}])
def test_a_wrong_number_of_seconds_is_named(value: Any):
    """The message names the parameter."""
    with pytest.raises(ConfigurationError, match="settle_seconds must be a number of seconds"):
        condition(settle_seconds=value)


@pytest.mark.parametrize(("value", "expected"), [(1, 1), ("7", 7), (1e4, 10_000), ("1e3", 1000)])
@pytest.mark.parametrize("name", ["min_images", "max_images"])
def test_counts(name: str, value: Any, expected: int):
    """A count is a whole number or its text."""
    count = getattr(condition(**{name: value}), name)
    assert count == expected
    assert type(count) is int


@pytest.mark.parametrize(
    "value", [0, -3, 1.5, "0", "some", "", None, True, "nan", "inf", "-inf", [], "0x10"]
)
@pytest.mark.parametrize("name", ["min_images", "max_images"])
def test_a_wrong_count_is_named(name: str, value: Any):
    """The message names the parameter."""
    with pytest.raises(ConfigurationError, match=f"{name} must be a whole number from 1"):
        condition(**{name: value})


def test_labelling_always_leaves_nothing_to_wait_for():
    """With ``always`` every image is new at any time."""
    with pytest.raises(ConfigurationError, match="retag='always'"):
        condition(retag="always")
    assert condition(retag="never").rule.retag is Retag.NEVER
    with pytest.raises(ConfigurationError, match="retag must be one of"):
        condition(retag="sometimes")


def test_a_store_or_a_moment_is_needed():
    """Without both every image is new at any time."""
    with pytest.raises(ConfigurationError, match=r"store=.*modified_after="):
        condition(store=None)
    assert condition(store=None, modified_after=NOON).modified_after == NOON


def test_the_window_of_changes():
    """It begins at the moment and ends before the images that may not be written completely."""
    assert condition().window(NOON) is None
    settling = condition(settle_seconds="30").window(NOON)
    assert settling is not None
    assert (settling.after, settling.before) == (None, NOON - timedelta(seconds=30))
    both = condition(settle_seconds=30, modified_after=NOON).window(NOON)
    assert both is not None
    assert (both.after, both.before) == (NOON, NOON - timedelta(seconds=30))

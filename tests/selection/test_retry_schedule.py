"""When an image that failed is tried again, and when it is given up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from databases import NOON, failed

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Failure
from airflow_imagetag.selection.retry_schedule import RetrySchedule, parse_duration, parse_pauses
from airflow_imagetag.selection.rules import Status, StoredState

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def stored_of(failure: Failure) -> StoredState:
    """Return the state that a store keeps of a failure."""
    return StoredState(
        failure.version or "",
        Status.GAVE_UP if failure.has_given_up else Status.WAITING,
        True,
        failure.next_try_at,
        failure.tries,
        failure.first_failed_at,
    )


def test_a_dead_link_is_tried_later_and_later_and_then_given_up():
    """The last try is made when the image would be given up."""
    schedule = RetrySchedule()
    failure = failed("a", final=False)
    stored = None
    tried = []
    while not failure.has_given_up:
        failure = schedule.after(failure, stored)
        tried.append(failure.failed_at - NOON)
        stored = stored_of(failure)
        failure = replace(failure, failed_at=failure.next_try_at or failure.failed_at)
    hours = [0, 1, 5, 29, 101, 269, 437, 605]
    assert tried == [*(hour * HOUR for hour in hours), 30 * DAY]
    assert failure.tries == len(tried)
    assert failure.first_failed_at == NOON
    assert failure.next_try_at is None or failure.has_given_up


def test_a_new_version_starts_again():
    """Its first try is not the tenth of the image."""
    stored = StoredState("1", Status.WAITING, True, NOON, 9, NOON - 29 * DAY)
    failure = RetrySchedule().after(failed("a", final=False, version="2"), stored)
    assert (failure.tries, failure.first_failed_at) == (1, NOON)
    assert failure.next_try_at == NOON + HOUR


def test_an_image_of_version_0_1_starts_when_it_fails_again():
    """Its store has no time of the first failure."""
    failure = RetrySchedule().after(failed("a", final=False), StoredState("", Status.WAITING))
    assert (failure.tries, failure.first_failed_at) == (1, NOON)


@pytest.mark.parametrize("fields", [{"final": True}, {"final": False, "is_of_image": False}])
def test_other_failures_are_left_as_they_are(fields: dict[str, Any]):
    """A fault of the bytes has no next try."""
    failure = failed("a", **fields)
    assert RetrySchedule().after(failure, None) is failure


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("1.5m", 90), ("2 h", 7200), (" 1D ", 86400)]
)
def test_durations(text: str, expected: int):
    """A number and a unit."""
    assert parse_duration("give_up_after", text) == timedelta(seconds=expected)


def test_pauses():
    """A list of durations."""
    assert parse_pauses("retry_pauses", "1h, 1d") == (HOUR, DAY)


@pytest.mark.parametrize("text", ["", "1", "h", "1w", "-1h", "0s", "99999999999999d", "1h;2h"])
def test_a_wrong_duration_is_named(text: str):
    """The message names the option and the form."""
    with pytest.raises(ConfigurationError, match="retry_pauses"):
        parse_pauses("retry_pauses", text)

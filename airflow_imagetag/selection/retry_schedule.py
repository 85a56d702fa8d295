"""When an image that failed is tried again, and when it is given up. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Failure
from airflow_imagetag.selection.rules import StoredState, has_failed_before

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

MAX_PAUSE = timedelta(days=3650)
"""Maximum length of a pause, and of the time after which an image is given up."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The tries of an image whose fault may pass.

    :param pauses: time between a failed try and the next one; the last pause is repeated.
    :param give_up_after: time since the first failed try after which the image is given up.
    """

    pauses: tuple[timedelta, ...] = (
        timedelta(hours=1),
        timedelta(hours=4),
        timedelta(days=1),
        timedelta(days=3),
        timedelta(days=7),
    )
    give_up_after: timedelta = timedelta(days=30)

    def after(self, failure: Failure, stored: StoredState | None) -> Failure:
        """Return a failure with the number of its try and the time of the next one.

        A failure that is final, or not of the image itself, is returned as it is. The last try is
        made when the image would be given up.

        :param failure: the failure of a run.
        :param stored: the earlier state of the image; None for an image that was not tried.
        """
        if failure.is_final or not failure.is_of_image:
            return failure
        at = failure.failed_at
        tries, first = 1, at
        has_uri = failure.image_uri is not None
        if stored and has_failed_before(stored, version=failure.version, has_uri=has_uri):
            tries, first = stored.tries + 1, stored.first_failed_at or at
        ends_at = first + self.give_up_after
        if at >= ends_at:
            return replace(failure, tries=tries, first_failed_at=first, has_given_up=True)
        pause = self.pauses[min(tries, len(self.pauses)) - 1]
        next_try_at = min(at + pause, ends_at)
        return replace(failure, tries=tries, first_failed_at=first, next_try_at=next_try_at)


def parse_pauses(name: str, text: str) -> tuple[timedelta, ...]:
    """Return the pauses of an option such as ``1h, 4h, 1d``.

    :param name: name of the option.
    :raises ConfigurationError: the text is not a list of durations.
    """
    return tuple(parse_duration(name, part) for part in text.split(","))


def parse_duration(name: str, text: str) -> timedelta:
    """Return a duration such as ``90m``: a number and one of s, m, h and d.

    :param name: name of the option.
    :raises ConfigurationError: the text is not a duration from a second to ten years.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise _wrong(name, text)
    number, unit = match.groups()
    try:
        duration = timedelta(**{_UNITS[unit]: float(number)})
    except OverflowError:
        raise _wrong(name, text) from None
    if not timedelta(seconds=1) <= duration <= MAX_PAUSE:
        raise _wrong(name, text)
    return duration


def _wrong(name: str, text: str) -> ConfigurationError:
    return ConfigurationError(
        f"[imagetag] {name} has {text.strip()!r}, which is not a duration from 1s to 3650d: use a "
        "number with s, m, h or d, such as 90m or 7d."
    )

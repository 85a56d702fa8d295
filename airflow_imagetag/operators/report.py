"""Private: the summary of a run, and the judgement of its failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from airflow_imagetag.adapters.final_errors import without_retry
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.errors import BudgetUsedUpError, ImageTagError, TooManyFailuresError
from airflow_imagetag.models import Failure
from airflow_imagetag.operators.outputs import Selection
from airflow_imagetag.safety.redaction import redact

MIN_JUDGED_IMAGES = 3
"""Number of images from which a run in which all failed is judged, however few they are."""

MAX_SAMPLED_FAILURES = 20
"""Maximum number of failures in the summary."""

NAMED_ERRORS = 3
"""Number of the commonest errors that a message names."""


def summary(
    counts: Counts,
    selection: Selection,
    failures: Sequence[Failure],
    *,
    elapsed_seconds: float,
    price_per_thousand: float | None,
    without_labels: int,
    store: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the counts of a run as JSON values.

    :param selection: the images by their earlier tries.
    :param failures: the failures; of a run with a store, the first of them.
    :param price_per_thousand: price of 1,000 calls; None if it is unknown.
    :param without_labels: tagged images of which no label is kept.
    :param store: the store as Airflow shows it; None for no store.
    """
    rate = counts.done / elapsed_seconds if elapsed_seconds else 0.0
    cost = estimated_cost(counts, price_per_thousand)
    at = selection.next_try_at
    return {
        **asdict(counts),
        **asdict(selection),
        "without_labels": without_labels,
        "next_try_at": None if at is None else at.isoformat(timespec="seconds"),
        "elapsed_seconds": round(elapsed_seconds, 3),
        "images_per_second": round(rate, 3),
        "estimated_cost": None if cost is None else round(cost, 6),
        "failures_sample": [_sample(failure) for failure in failures[:MAX_SAMPLED_FAILURES]],
        "store": store,
    }


def ending(
    progress: str, selection: Selection | None, *, without_labels: int, cost: float | None
) -> str:
    """Return the end of a run as a sentence of the log.

    :param progress: of the run, as the log shows it.
    :param selection: the images by their earlier tries; None without a store, since nothing waits.
    :param without_labels: tagged images of which no label is kept.
    :param cost: price of the calls; None if it is unknown, or if they are free.
    """
    parts = []
    if selection is not None:
        parts += [f"{selection.new:,} new", f"{selection.due:,} due again"]
    if without_labels:
        parts.append(f"{without_labels:,} without labels")
    if selection is not None and selection.waiting:
        at = selection.next_try_at
        until = "" if at is None else f" until {at:%Y-%m-%d %H:%M}Z"
        parts.append(f"{selection.waiting:,} waiting{until}")
    if selection is not None and selection.gave_up:
        parts.append(f"{selection.gave_up:,} given up")
    if cost is not None:
        parts.append(f"about {cost:g} of cost")
    return "; ".join(filter(None, (progress, ", ".join(parts))))


def estimated_cost(counts: Counts, price_per_thousand: float | None) -> float | None:
    """Return the price of the calls that the vendor may bill; None if the price is unknown.

    A call that the service answered with an error is not billed.
    """
    if price_per_thousand is None:
        return None
    return (counts.calls - counts.refused_calls) * price_per_thousand / 1000


def _sample(failure: Failure) -> dict[str, Any]:
    at = failure.next_try_at
    return {
        "image_key": redact(failure.image_key),
        "image_uri": failure.image_uri,
        "error": failure.error,
        "code": failure.code,
        "message": failure.message,
        "attempts": failure.attempts,
        "tries": failure.tries,
        "next_try_at": None if at is None else at.isoformat(timespec="seconds"),
    }


def check_failures(
    counts: Counts,
    failures: Sequence[Failure],
    *,
    failed_again: int,
    max_failure_ratio: float,
    min_failures: int,
    place: str,
) -> None:
    """Check that not more images failed than the task accepts.

    Only the first failure of an image in its version counts: what fails again is no news.

    :param failures: the failures; of a run with a store, the first of them.
    :param failed_again: number of failed images that had failed in an earlier run, too.
    :param max_failure_ratio: the accepted share of failed images, from 0 to 1; 0 accepts none.
    :param min_failures: fewer failures make the task fail only if all of at least three images
        failed.
    :param place: names the place of the labels.
    :raises TooManyFailuresError: more images failed.
    """
    failed = counts.failed - counts.tolerated - failed_again
    judged = counts.done - counts.tolerated - failed_again
    if failed <= max_failure_ratio * judged:
        return
    is_every = failed == judged >= MIN_JUDGED_IMAGES
    if failed < min_failures and not is_every and max_failure_ratio > 0:
        return
    counted = [one for one in failures if not (one.is_tolerated or one.is_again)]
    commonest = Counter(map(_error_name, counted)).most_common(NAMED_ERRORS)
    names = ", ".join(f"{name} {count:,}" for name, count in commonest)
    causes = f"Commonest: {names}."
    if counted:
        causes += f" The first: {counted[0].message}"
    where = "The failures are in the XCom 'failures'."
    if counts.tagged:
        where = (
            f"The labels of the other {counts.tagged:,} are in the {place}, the failures in the "
            "XCom 'failures'."
        )
    said = f"{failed:,} of {judged:,} images failed ({failed / judged:.1%})"
    raise TooManyFailuresError(
        f"{said}, more than max_failure_ratio={max_failure_ratio:g} allows. {causes} {where}",
        facts=f"{said}. {causes}",
    )


def as_raised(error: BaseException, failures: Sequence[Failure]) -> BaseException:
    """Return the error as the task raises it.

    An error that a retry of the task would only meet again, at full price, becomes one after which
    Airflow makes no retry.

    :param failures: the failures; of a run with a store, the first of them.
    """
    if not isinstance(error, ImageTagError):
        return error
    is_final = isinstance(error, BudgetUsedUpError) or (
        isinstance(error, TooManyFailuresError)
        and all(failure.is_final for failure in failures if not failure.is_again)
    )
    return without_retry(error) if is_final else error


def _error_name(failure: Failure) -> str:
    return failure.error if failure.code is None else f"{failure.error} ({failure.code})"

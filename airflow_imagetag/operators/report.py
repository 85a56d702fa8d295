"""Private: the summary of a run, and the judgement of its failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.errors import ResultTooLargeError, RunError, TooManyFailuresError
from airflow_imagetag.models import Failure
from airflow_imagetag.operators.final_errors import without_retry

NAMED_ERRORS = 3
"""Number of the commonest errors that a message names."""


def summary(
    counts: Counts,
    *,
    elapsed_seconds: float,
    price_per_thousand: float | None,
    store: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the counts of a run as JSON values.

    :param price_per_thousand: price of 1,000 calls; None if it is unknown.
    :param store: the store as Airflow shows it; None for no store.
    """
    rate = counts.done / elapsed_seconds if elapsed_seconds else 0.0
    cost = None if price_per_thousand is None else counts.calls * price_per_thousand / 1000
    return {
        **asdict(counts),
        "elapsed_seconds": round(elapsed_seconds, 3),
        "images_per_second": round(rate, 3),
        "estimated_cost": None if cost is None else round(cost, 6),
        "store": store,
    }


def check_failures(
    counts: Counts, failures: Sequence[Failure], *, max_failure_ratio: float, place: str
) -> None:
    """Check that not more images failed than the task accepts.

    :param failures: the failures; of a run with a store, the first of them.
    :param max_failure_ratio: the accepted share of failed images, from 0 to 1.
    :param place: names the place of the labels.
    :raises TooManyFailuresError: more images failed.
    """
    failed = counts.failed - counts.tolerated
    judged = counts.done - counts.tolerated
    if failed <= max_failure_ratio * judged:
        return
    counted = [failure for failure in failures if not failure.is_tolerated]
    commonest = Counter(map(_error_name, counted)).most_common(NAMED_ERRORS)
    names = ", ".join(f"{name} {count:,}" for name, count in commonest)
    raise TooManyFailuresError(
        f"{failed:,} of {judged:,} images failed ({failed / judged:.1%}), more than "
        f"max_failure_ratio={max_failure_ratio:g} allows. Commonest: {names}. "
        f"The first: {counted[0].message} "
        f"The labels of the other {counts.tagged:,} are in the {place}, the failures in the "
        "XCom 'failures'."
    )


def as_raised(error: BaseException, failures: Sequence[Failure]) -> BaseException:
    """Return the error as the task raises it.

    An error that a retry of the task would only meet again, at full price, becomes one after which
    Airflow makes no retry.

    :param failures: the failures; of a run with a store, the first of them.
    """
    is_final = isinstance(error, ResultTooLargeError) or (
        isinstance(error, TooManyFailuresError) and all(failure.is_final for failure in failures)
    )
    return without_retry(error) if is_final and isinstance(error, RunError) else error


def _error_name(failure: Failure) -> str:
    return failure.error if failure.code is None else f"{failure.error} ({failure.code})"

"""Private: errors that Airflow does not retry: a retry would fail again, at full price."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_imagetag.errors import ResultTooLargeError, RunError, TooManyFailuresError


class FinalTooManyFailuresError(TooManyFailuresError, AirflowFailException):
    """More images failed than allowed, all of them by their own fault."""


class FinalResultTooLargeError(ResultTooLargeError, AirflowFailException):
    """The images make more labels than an XCom should hold."""


def without_retry(error: RunError) -> RunError:
    """Return the error as one after which Airflow does not try the task again."""
    if isinstance(error, ResultTooLargeError):
        return FinalResultTooLargeError(error.message)
    return FinalTooManyFailuresError(error.message)

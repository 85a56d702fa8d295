"""Private: errors that Airflow does not retry: a retry would fail again, perhaps at full price."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_imagetag.adapters.airflow_sdk import AirflowFailException
from airflow_imagetag.errors import (
    ConfigurationError,
    ImageTagError,
    RequestRefusedError,
    ResultTooLargeError,
    StorageAccessError,
)


def is_certain(error: BaseException) -> bool:
    """Tell whether another try would fail in the same way, until a person changes something.

    Credentials of a storage may be renewed without one.
    """
    if isinstance(error, StorageAccessError):
        return False
    return isinstance(error, (ConfigurationError, RequestRefusedError, ResultTooLargeError))


def without_retry(error: ImageTagError) -> ImageTagError:
    """Return the error as one of the same name after which Airflow does not try the task again."""
    if isinstance(error, AirflowFailException):
        return error
    kind = type(error)
    final: type[ImageTagError] = type(
        kind.__name__, (kind, AirflowFailException), {"__doc__": kind.__doc__}
    )
    made = final.__new__(final)
    made.args = error.args
    made.__dict__.update(error.__dict__)
    return made


@contextmanager
def certain_errors_are_final() -> Iterator[None]:
    """Raise errors that a retry would meet again as those that Airflow does not retry."""
    try:
        yield
    except ImageTagError as error:
        if not is_certain(error):
            raise
        raise without_retry(error) from None

"""Private: repeats statements of a label store while its database fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import reason_of
from airflow_imagetag.backends.dialects import Dialect
from airflow_imagetag.errors import ImageTagError, StorageError, StoreError
from airflow_imagetag.runtime.retries import BlockingRetrier
from airflow_imagetag.stores.base import StoreMode

log = logging.getLogger(__name__)

T = TypeVar("T")

RACE_ATTEMPTS = 4
"""Maximum attempts to write a batch that another writer's rows refuse."""

RETRY_SECONDS = 300.0
"""How long a statement is retried while the database fails: the batch is paid for, and a look-up
that fails ends the run."""

RUN_RETRY_SECONDS = 10.0
"""How long the record of a run is retried: a run does not fail for the want of it."""


class StatementRetrier:
    """Repeats work in the store's database while the database fails.

    :param dialect: tells whether an error may pass.
    :param mode: in read mode nothing is repeated.
    :param retry_seconds: how long work is repeated in write mode.
    """

    def __init__(
        self, dialect: Dialect, mode: StoreMode, *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._is_reading = mode is StoreMode.READ
        self._dialect = dialect
        self._retrier = BlockingRetrier(0.0 if self._is_reading else retry_seconds)

    def _is_worth_retrying(self, error: Exception, attempt: int) -> bool:
        """Tell whether the statement may succeed later: a lost connection, a deadlock, a race."""
        if isinstance(error, sa_exc.IntegrityError):
            # One of two concurrent writers is refused; a row that breaks a rule is each time.
            return attempt < RACE_ATTEMPTS
        return isinstance(error, sa_exc.DBAPIError) and self._dialect.is_transient(error)

    def call(self, work: Callable[[], T], what: str) -> T:
        """Call ``work`` until the database answers, or ``retry_seconds`` have passed.

        :param what: begins the error message.
        :raises StoreError: the database failed for too long, or refuses the statement.
        :raises StorageError: in read mode, the database cannot be reached at the moment.
        """
        try:
            return self._retrier.call(
                work, is_transient=self._is_worth_retrying, on_retry=partial(_log_failure, what)
            )
        except sa_exc.DBAPIError as error:
            kind: type[ImageTagError] = StoreError
            if self._is_reading and self._dialect.is_transient(error):
                kind = StorageError
            raise kind(f"{what}: {reason_of(error)}") from None


def _log_failure(what: str, error: Exception, attempt: int) -> None:
    reason = reason_of(error) if isinstance(error, sa_exc.DBAPIError) else repr(error)
    log.warning("Attempt %d: %s: %s", attempt, what, reason)

"""Private: the runs of an open store in a folder; loaded by a running task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from airflow_imagetag.errors import StoreError
from airflow_imagetag.runtime.retries import BlockingRetrier
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.stores.base import OpenStore
from airflow_imagetag.stores.files import Files
from airflow_imagetag.stores.parquet_runs import ParquetRuns
from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""How long the record of a run is retried: a run does not fail for the want of it."""


class OpenFolderStore(OpenStore):
    """A store in a folder while a task uses it; keeps the runs in ``runs/``.

    :param files: the folder.
    :param api: the interface that labels the images.
    """

    def __init__(self, files: Files, api: str) -> None:
        self._runs = ParquetRuns(files)
        self._place = files.place
        self._run_api = api

    @property
    def keeps_runs(self) -> bool:
        """True."""
        return True

    def record_run(self, run: RunRecord) -> None:
        """Write the file of a run, or overwrite it."""
        self._retry_run(lambda: self._runs.put(run), "A run could not be written to")

    def unended_runs(self) -> Sequence[RunRecord]:
        """Return the runs without an end."""
        return self._retry_run(
            lambda: self._runs.unended(self._run_api), "The runs could not be read from"
        )

    def spending(self, scope: SpendingScope) -> Spending:
        """Return what the runs of this interface have spent."""
        return self._retry_run(
            partial(self._runs.spending, self._run_api, scope), "The runs could not be read from"
        )

    def _retry_run(self, work: Callable[[], T], what: str) -> T:
        """Call ``work`` until the storage succeeds, or a short time has passed.

        :param what: begins the error message.
        :raises StoreError: the storage failed for too long, or refuses the file.
        """
        try:
            return BlockingRetrier(RETRY_SECONDS).call(work, is_transient=_is_worth_retrying)
        # Each storage's library has an error tree of its own.
        except Exception as error:
            raise StoreError(
                f"{what} {self._place}: {type(error).__name__}: {redact_text(str(error))[:300]}"
            ) from None


def _is_worth_retrying(error: Exception, attempt: int) -> bool:
    """Tell whether the storage may answer in a moment."""
    log.warning("Attempt %d with the record of a run: %s", attempt, redact_text(str(error))[:300])
    return not isinstance(error, (FileNotFoundError, PermissionError, StoreError))

"""Private: the common part of open stores in a folder; loaded by a running task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from airflow_imagetag.errors import StoreError
from airflow_imagetag.runtime.retries import BlockingRetrier
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.selection.rules import StoredState
from airflow_imagetag.stores.files import Files
from airflow_imagetag.stores.open_store import OpenStore, UnlabelledCounts
from airflow_imagetag.stores.parquet_runs import ParquetRuns
from airflow_imagetag.stores.part_index import PartIndex
from airflow_imagetag.stores.rows import key_digest
from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""How long the record of a run is retried: a run does not fail for the want of it."""


class OpenFolderStore(OpenStore):
    """A store in a folder while a task uses it; keeps the runs in ``runs/``.

    :param files: the folder.
    :param api: the interface that labels the images.
    :param index: the latest row of each image.
    """

    def __init__(self, files: Files, api: str, index: PartIndex) -> None:
        self._runs = ParquetRuns(files)
        self._place = files.place
        self._api = api
        self._index = index

    def release_connections(self) -> None:
        """Do nothing: files are open only while they are read."""

    def known(self, keys: Collection[str]) -> Mapping[str, StoredState]:
        """Return the state of the images with these keys."""
        found = ((key, self._index.stored(self._api, key_digest(key))) for key in keys)
        return {key: stored for key, stored in found if stored is not None}

    def unlabelled(self, now: datetime) -> UnlabelledCounts:
        """Return the number of images that wait or were given up."""
        return self._index.unlabelled(self._api, now)

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
            lambda: self._runs.unended(self._api), "The runs could not be read from"
        )

    def spending(self, scope: SpendingScope) -> Spending:
        """Return the calls and the cost of the runs of this interface."""
        return self._retry_run(
            partial(self._runs.spending, self._api, scope), "The runs could not be read from"
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

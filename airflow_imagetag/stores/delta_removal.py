"""Private: lists, marks and deletes images of Delta tables; loaded by a running task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from airflow_imagetag.errors import ImageTagError, StoreError
from airflow_imagetag.runtime.retries import BlockingRetrier
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.selection.missing import HeldImage
from airflow_imagetag.stores.delta_dataset import READ_ROWS, DeltaDataset, Stored, is_conflict
from airflow_imagetag.stores.key_sets import KeySet
from airflow_imagetag.stores.parquet_dataset import Rows
from airflow_imagetag.stores.rows import MISSING_SINCE

RETRY_SECONDS = 300.0
"""How long a commit is tried again while other writers come first."""


@dataclass(frozen=True, slots=True)
class DeltaRemoval:
    """The images of the tables, those of one interface or of all.

    :param dataset: the tables.
    :param api: only images of this interface; None for all.
    """

    dataset: DeltaDataset
    api: str | None

    def held(self) -> Iterator[list[HeldImage]]:
        """Yield the images, some at a time."""
        columns = [*Stored._fields, "image_key", MISSING_SINCE]
        for rows in self.dataset.image_rows(columns):
            yield [
                HeldImage(row["api"], row["image_key"], row[MISSING_SINCE] is not None)
                for row in rows
                if self.api in (None, row["api"])
            ]

    def mark(self, keys: KeySet, missing_since: datetime | None) -> int:
        """Set or take away the mark of images; return the number of those that were changed.

        :raises StoreError: the storage failed.
        """
        return self._commit("marked", lambda: self._mark_once(keys, missing_since))

    def _mark_once(self, keys: KeySet, missing_since: datetime | None) -> int:
        changed: Rows = []
        for rows in self.dataset.image_rows():
            changed += [
                {**row, MISSING_SINCE: missing_since}
                for row in keys.rows_in(rows, self.api)
                if (row[MISSING_SINCE] is None) is not (missing_since is None)
            ]
        for start in range(0, len(changed), READ_ROWS):
            rows = changed[start : start + READ_ROWS]
            names = [(row["api"], row["key_sha256"]) for row in rows]
            self.dataset.replace(self.dataset.images, names, rows)
        return len(changed)

    def delete(self, keys: KeySet) -> int:
        """Delete images and their labels; return the number of images.

        :raises StoreError: the storage failed.
        """
        return self._commit("deleted", lambda: self._delete_once(keys))

    def _delete_once(self, keys: KeySet) -> int:
        dataset = self.dataset
        names = [
            (row["api"], row["key_sha256"])
            for rows in dataset.image_rows(Stored._fields)
            for row in keys.rows_in(rows, self.api)
        ]
        # The labels first: an image whose labels were left over would not be found again.
        for table in (dataset.labels_table, dataset.images):
            for start in range(0, len(names), READ_ROWS):
                dataset.replace(table, names[start : start + READ_ROWS], [])
        return len(names)

    def _commit(self, what: str, work: Callable[[], int]) -> int:
        def attempt() -> int:
            self.dataset.load()
            return work()

        try:
            return BlockingRetrier(RETRY_SECONDS).call(attempt, is_transient=is_conflict)
        except ImageTagError:
            raise
        # The library and each storage have an error tree of their own.
        except Exception as error:
            raise StoreError(
                f"The images could not be {what} in {self.dataset.place.shown}: "
                f"{type(error).__name__}: {redact_text(str(error))[:300]}"
            ) from None

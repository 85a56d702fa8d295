"""Private: asks and fills Delta tables of labels; loaded by a running task."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from airflow_imagetag.errors import StoreError
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.runtime.retries import BlockingRetrier
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.selection.rules import Status
from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.delta_dataset import (
    BATCH_TIME,
    DeltaDataset,
    Stored,
    Table,
    is_conflict,
    open_dataset,
)
from airflow_imagetag.stores.files import LABELS_BATCH, Files
from airflow_imagetag.stores.open_folder import OpenFolderStore
from airflow_imagetag.stores.parquet_dataset import Rows
from airflow_imagetag.stores.part_index import IndexRow
from airflow_imagetag.stores.rows import (
    ANSWERED,
    holds_answer,
    merged,
    outcome_of,
    rows_of,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = 300.0
"""How long a batch, which is paid for, is retried while the storage fails."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def open_delta_store(
    path: str,
    conn_id: str | None,
    api: str,
    mode: StoreMode,
    *,
    retry_seconds: float = RETRY_SECONDS,
    clock: Callable[[], datetime] = _utc_now,
) -> Iterator[OpenDeltaStore]:
    """Open the tables in a folder for one interface.

    :param path: the folder.
    :param conn_id: the storage's connection, if the path names none.
    :param api: the interface that labels the images.
    :param mode: write mode creates the tables if they do not exist.
    :param retry_seconds: how long a batch is retried while the storage fails.
    :param clock: wall clock with a zone.
    :raises ConfigurationError: the path, its connection or the extra ``delta`` cannot be used.
    """
    with open_dataset(path, conn_id, creates=mode is StoreMode.WRITE) as dataset:
        yield OpenDeltaStore(
            dataset, Files(path, conn_id), api, BlockingRetrier(retry_seconds), clock
        )


class OpenDeltaStore(OpenFolderStore):
    """The labels of one interface in Delta tables, while a task uses them.

    :param dataset: the tables.
    :param files: the folder of the runs.
    :param api: the interface that labels the images.
    :param retrier: repeats a commit while the storage fails.
    :param clock: wall clock with a zone.
    """

    def __init__(
        self,
        dataset: DeltaDataset,
        files: Files,
        api: str,
        retrier: BlockingRetrier,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__(files, api, dataset.index)
        self._dataset = dataset
        self._retrier = retrier
        self._clock = clock

    def refresh(self) -> None:
        """Read the rows that other writers have added."""
        self._dataset.load()

    def check_writable(self, *, originals: bool = False) -> None:
        """Write a file and remove it.

        :param originals: has no effect here: the table has a column for them.
        :raises ConfigurationError: the storage refuses the file.
        """
        del originals
        self._dataset.place.check_writable()

    def answers(self, content_sha256: Collection[str]) -> Mapping[str, TagResult | Failure]:
        """Return the answers that were paid for images with these bytes, by digest."""
        index = self._dataset.index
        places = (index.settled_by_content(self._api, digest) for digest in content_sha256)
        held = [index.row(self._api, place[0]) for place in places if place is not None]
        images, labels = self._rows_of([row for row in held if row is not None])
        return {
            row["content_sha256"]: outcome_of(row, labels.get(row["key_sha256"], []))
            for row in images.values()
        }

    def _rows_of(
        self, held: Sequence[IndexRow]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Rows]]:
        """Return the rows of images, and those of their labels by rank, by the digests of keys."""
        dataset = self._dataset
        images = {
            row["key_sha256"]: row
            for row in dataset.rows_of_images(dataset.images, [_place(row) for row in held])
        }
        labels: dict[str, Rows] = {}
        named = [Stored(row.api, row.key_sha256, row.labels_batch) for row in held]
        for row in dataset.rows_of_images(dataset.labels_table, named):
            labels.setdefault(row["key_sha256"], []).append(row)
        for rows in labels.values():
            rows.sort(key=lambda row: int(row["rank"]))
        return images, labels

    def write(self, outcomes: Sequence[TagResult | Failure]) -> None:
        """Write a batch: the labels first, then the images, whose rows make the batch count."""
        images, labels = rows_of(outcomes, self._api)
        kept = [*filter(holds_answer, images), *self._merged(images)]
        if kept:
            self._write(kept, labels)

    def _merged(self, images: Rows) -> Iterator[dict[str, Any]]:
        """Yield the rows of images without an answer, except where the held row stays."""
        found = [(row, self._held(row)) for row in images if not holds_answer(row)]
        # The labels of an earlier version stay: the held row describes them.
        labelled = [held for _, held in found if held is not None and _has_labels(held)]
        rows, _ = self._rows_of(labelled)
        for row, held in found:
            if held is None:
                yield row
            elif held.status in ANSWERED and held.version == row["version"]:
                continue
            elif held.key_sha256 not in rows:
                yield row
            elif (new := merged(row, rows[held.key_sha256])) is not None:
                yield new | {LABELS_BATCH: held.labels_batch}

    def _held(self, row: Mapping[str, Any]) -> IndexRow | None:
        return self._dataset.index.row(row["api"], row["key_sha256"])

    def _write(self, images: Rows, labels: Rows) -> None:
        dataset = self._dataset
        now = dataset.index.later_than_all(self._clock())
        batch = f"{now:{BATCH_TIME}}-{uuid.uuid4().hex[:12]}"
        own = {"written_at": now, "batch": batch}
        image_rows = [{LABELS_BATCH: None, **row, **own} for row in images]
        stale = list(self._replaced(image_rows, batch))
        if labels:
            label_rows = [{**row, "batch": batch} for row in labels]
            self._commit(
                dataset.labels_table,
                batch,
                lambda: dataset.append(dataset.labels_table, label_rows),
                len(images),
            )
        self._commit(dataset.images, batch, lambda: self._write_images(image_rows), len(images))
        self._tidy(image_rows, batch, stale)

    def _write_images(self, rows: Rows) -> None:
        dataset = self._dataset
        held = [(row["api"], row["key_sha256"]) for row in rows if self._held(row) is not None]
        if held:
            dataset.replace(dataset.images, held, rows)
        else:
            dataset.append(dataset.images, rows)

    def _replaced(self, rows: Rows, batch: str) -> Iterator[Stored]:
        """Yield the labels that this batch replaces."""
        for row in filter(holds_answer, rows):
            api, key = row["api"], row["key_sha256"]
            held = self._held(row)
            if held is not None and _has_labels(held):
                yield Stored(api, key, held.labels_batch)
            for left in self._dataset.leftovers(api, key):
                # A later one belongs to a writer whose row will win.
                if left < batch:
                    yield Stored(api, key, left)

    def _tidy(self, rows: Rows, batch: str, stale: list[Stored]) -> None:
        """Remove the labels that were replaced, and the rows that another writer has doubled.

        Failing does no harm: these rows do not count, and a compaction removes them.
        """
        try:
            self._retrier.call(
                lambda: self._tidy_once(rows, batch, stale),
                is_transient=is_conflict,
            )
        # The batch is written.
        except Exception as error:
            log.warning("Replaced rows stay until a compaction: %s", _said(error))

    def _tidy_once(self, rows: Rows, batch: str, stale: list[Stored]) -> None:
        dataset = self._dataset
        own = {(row["api"], row["key_sha256"]) for row in rows}
        doubled: list[Stored] = []
        for row in dataset.load_images():
            if (row.api, row.key_sha256) not in own or row.batch == batch:
                continue
            winner = dataset.index.row(row.api, row.key_sha256)
            if winner is not None:
                loser = row.batch if winner.batch != row.batch else batch
                doubled.append(Stored(row.api, row.key_sha256, loser))
                if winner.labels_batch != loser:
                    stale.append(doubled[-1])
        dataset.remove_rows(dataset.images, doubled)
        dataset.remove_rows(dataset.labels_table, stale)

    def _commit(self, table: Table, batch: str, work: Callable[[], None], count: int) -> None:
        """Commit until the storage takes it, or ``RETRY_SECONDS`` have passed.

        :raises StoreError: the storage failed for too long, or refuses the rows.
        """
        attempts: list[Exception] = []

        def attempt() -> None:
            if attempts:
                # The connection may have changed, and the answer to a commit may have been lost.
                if not is_conflict(attempts[-1], 0):
                    self._dataset.forget()
                if self._dataset.holds_batch(table, batch):
                    return
                self._dataset.load_images()
            try:
                work()
            except Exception as error:
                attempts.append(error)
                raise

        try:
            self._retrier.call(attempt, is_transient=_is_worth_retrying, on_retry=_log_failure)
        # The library and each storage have an error tree of their own.
        except Exception as error:
            raise StoreError(
                f"{count} images could not be written to {self._dataset.place.shown}: "
                f"{_said(error)}"
            ) from None


def _place(row: IndexRow) -> Stored:
    return Stored(row.api, row.key_sha256, row.batch)


def _has_labels(held: IndexRow) -> bool:
    return held.status == Status.TAGGED.value or held.labels_batch != held.batch


def _is_worth_retrying(error: Exception, attempt: int) -> bool:
    """Tell whether the storage may take the rows later."""
    del attempt
    from deltalake.exceptions import DeltaProtocolError, SchemaMismatchError

    return not isinstance(
        error, (DeltaProtocolError, SchemaMismatchError, FileNotFoundError, PermissionError)
    )


def _log_failure(error: Exception, attempt: int) -> None:
    log.log(
        logging.INFO if is_conflict(error, attempt) else logging.WARNING,
        "Attempt %d to write a batch failed: %s",
        attempt,
        _said(error),
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {redact_text(str(error))[:300]}"

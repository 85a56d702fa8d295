"""Private: asks and fills a Parquet dataset of labels; loaded by a running task."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from airflow_imagetag.errors import StoreError
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.runtime.retries import BlockingRetrier
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.selection.rules import Status
from airflow_imagetag.stores.files import LABELS_BATCH
from airflow_imagetag.stores.open_folder import OpenFolderStore
from airflow_imagetag.stores.parquet_dataset import (
    IMAGES,
    LABELS,
    ParquetDataset,
    Rows,
    open_dataset,
    part_name,
)
from airflow_imagetag.stores.rows import (
    ANSWERED,
    holds_answer,
    merged,
    outcome_of,
    rows_of,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 300.0
"""How long a batch, which is paid for, is retried while the storage fails."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def open_parquet_store(
    path: str,
    conn_id: str | None,
    api: str,
    *,
    retry_seconds: float = RETRY_SECONDS,
    clock: Callable[[], datetime] = _utc_now,
) -> Iterator[OpenParquetStore]:
    """Open the dataset in a folder for one interface.

    :param path: the folder, which need not exist.
    :param conn_id: the storage's connection, if the path names none.
    :param api: the interface that labels the images.
    :param retry_seconds: how long a batch is retried while the storage fails.
    :param clock: wall clock with a zone.
    :raises ConfigurationError: the path or its connection cannot be used.
    """
    with open_dataset(path, conn_id) as dataset:
        yield OpenParquetStore(dataset, api, retry_seconds=retry_seconds, clock=clock)


class OpenParquetStore(OpenFolderStore):
    """The labels of one interface in a dataset, while a task uses it.

    :param dataset: the dataset.
    :param api: the interface that labels the images.
    :param retry_seconds: how long a batch is retried while the storage fails.
    :param clock: wall clock with a zone.
    """

    def __init__(
        self,
        dataset: ParquetDataset,
        api: str,
        *,
        retry_seconds: float,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__(dataset.files, api, dataset.index)
        self._dataset = dataset
        self._retrier = BlockingRetrier(retry_seconds)
        self._clock = clock

    def refresh(self) -> None:
        """Read the parts that other writers have added."""
        self._dataset.load()

    def check_writable(self, *, originals: bool = False) -> None:
        """Write a file and remove it.

        :param originals: has no effect here: each new file has a column for them.
        :raises ConfigurationError: the storage refuses the file.
        """
        del originals
        self._dataset.files.check_writable()

    def answers(self, content_sha256: Collection[str]) -> Mapping[str, TagResult | Failure]:
        """Return the answers that were paid for images with these bytes, by digest."""
        found = (
            (digest, self._despite_compaction(partial(self._read_answer, digest)))
            for digest in content_sha256
        )
        return {digest: answer for digest, answer in found if answer is not None}

    def _despite_compaction(self, read: Callable[[], T]) -> T:
        """Call ``read`` again after the index was filled anew, if a part was compacted since."""
        try:
            return read()
        except (FileNotFoundError, StoreError):
            self._dataset.load()
            return read()

    def _read_answer(self, content_sha256: str) -> TagResult | Failure | None:
        place = self._dataset.index.settled_by_content(self._api, content_sha256)
        if place is None:
            return None
        digest, part = place
        image = self._image(part, digest)
        return None if image is None else _outcome(image, self._dataset.labels_for(image))

    def _image(self, part: str, digest: str) -> dict[str, Any] | None:
        """Return the latest row of an image from the part that holds it."""
        wanted = [("key_sha256", "=", digest), ("api", "=", self._api)]
        found = (row for rows in self._dataset.images_of(part, filters=wanted) for row in rows)
        return next(filter(self._dataset.is_latest_image, found), None)

    def write(self, outcomes: Sequence[TagResult | Failure]) -> None:
        """Write a batch: the labels first, then the images, whose file makes the batch count."""
        images, labels = rows_of(outcomes, self._api)
        merged_rows = (row if holds_answer(row) else self._merged(row) for row in images)
        if kept := [row for row in merged_rows if row is not None]:
            self._write(kept, labels)

    def _merged(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the row to write for an image without an answer; None to leave the held one."""
        held = self._dataset.index.row(row["api"], row["key_sha256"])
        if held is None:
            return row
        if held.status in ANSWERED and held.version == row["version"]:
            return None
        if held.status != Status.TAGGED.value and held.labels_batch == held.batch:
            # It has no labels that would stay.
            return row
        image = self._despite_compaction(partial(self._latest_image, row))
        if image is None or (new := merged(row, image)) is None:
            return row if image is None else None
        return new | {LABELS_BATCH: held.labels_batch}

    def _latest_image(self, row: dict[str, Any]) -> dict[str, Any] | None:
        held = self._dataset.index.row(row["api"], row["key_sha256"])
        return None if held is None else self._image(held.part, held.key_sha256)

    def _write(self, images: Rows, labels: Rows) -> None:
        now = self._dataset.index.later_than_all(self._clock())
        batch = f"{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}"
        part = part_name(batch)
        label_rows = [{**row, "batch": batch} for row in labels]
        own = {"written_at": now, "batch": batch}
        image_rows = [{LABELS_BATCH: None, **row, **own} for row in images]
        self._retry(_part_writer(self._dataset, part, image_rows, label_rows), len(images))
        self._dataset.add(part, image_rows)
        self._dataset.mark_loaded(part)

    def _retry(self, work: Callable[[], None], count: int) -> None:
        """Call ``work`` until the storage takes the files, or ``retry_seconds`` have passed.

        :raises StoreError: the storage failed for too long, or refuses the files.
        """
        try:
            self._retrier.call(work, is_transient=_is_worth_retrying, on_retry=_log_failure)
        # Each storage's library has an error tree of its own.
        except Exception as error:
            raise StoreError(
                f"{count} images could not be written to {self._dataset.files.place}: "
                f"{type(error).__name__}: {redact_text(str(error))[:300]}"
            ) from None

    def outcomes(self) -> Iterator[list[TagResult | Failure]]:
        """Yield the outcomes of images that need no further try, part by part."""
        dataset = self._dataset
        for part in dataset.live_parts():
            labels: dict[str, list[Mapping[str, Any]]] = {}
            for rows in dataset.labels_of(part):
                for row in dataset.latest_labels(rows):
                    labels.setdefault(row["key_sha256"], []).append(row)
            for rows in dataset.images_of(part):
                yield [
                    _outcome(row, labels.get(row["key_sha256"], []))
                    for row in rows
                    if row["api"] == self._api
                    and holds_answer(row)
                    and dataset.is_latest_image(row)
                ]


def _part_writer(
    dataset: ParquetDataset, part: str, image_rows: Rows, label_rows: Rows
) -> Callable[[], None]:
    """Return the work that writes a part; done again, it writes the same files."""

    def work() -> None:
        if label_rows:
            dataset.files.write("labels", part, pa.Table.from_pylist(label_rows, LABELS))
        dataset.files.write("images", part, pa.Table.from_pylist(image_rows, IMAGES))

    return work


def _is_worth_retrying(error: Exception, attempt: int) -> bool:
    """Tell whether the storage may take the file later."""
    del attempt
    return not isinstance(error, (FileNotFoundError, PermissionError))


def _log_failure(error: Exception, attempt: int) -> None:
    log.warning("Attempt %d to write a batch failed: %s", attempt, redact_text(str(error))[:300])


def _outcome(image: Mapping[str, Any], labels: Sequence[Mapping[str, Any]]) -> TagResult | Failure:
    return outcome_of(image, sorted(labels, key=lambda row: int(row["rank"])))

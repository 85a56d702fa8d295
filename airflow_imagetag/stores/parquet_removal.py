"""Private: lists, marks and deletes images of a Parquet dataset; loaded by a running task."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from airflow_imagetag.errors import ImageTagError, StoreError
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.selection.missing import HeldImage
from airflow_imagetag.stores.files import LABELS_BATCH
from airflow_imagetag.stores.key_sets import KeySet
from airflow_imagetag.stores.parquet_dataset import (
    IMAGES,
    READ_ROWS,
    ParquetDataset,
    Rows,
    part_name,
)
from airflow_imagetag.stores.rows import MISSING_SINCE

log = logging.getLogger(__name__)

_NAMES = pa.schema([IMAGES.field(name) for name in ("api", "key_sha256", "batch")])
_HELD = pa.schema([*_NAMES, IMAGES.field("image_key"), IMAGES.field(MISSING_SINCE)])


@dataclass(frozen=True, slots=True)
class ParquetRemoval:
    """The images of a dataset, those of one interface or of all.

    :param dataset: the dataset.
    :param api: only images of this interface; None for all.
    """

    dataset: ParquetDataset
    api: str | None

    def held(self) -> Iterator[list[HeldImage]]:
        """Yield the images, some at a time.

        :raises StoreError: the storage failed, or the dataset was compacted meanwhile.
        """
        with _store_errors(self.dataset, "The images cannot be listed in"):
            for part in self.dataset.live_parts():
                for rows in self.dataset.read("images", part, _HELD):
                    yield [
                        HeldImage(row["api"], row["image_key"], row[MISSING_SINCE] is not None)
                        for row in rows
                        if self.api in (None, row["api"]) and self.dataset.is_latest_image(row)
                    ]

    def mark(self, keys: KeySet, missing_since: datetime | None) -> int:
        """Set or take away the mark of images; return the number of those that were changed.

        Files are never changed: the changed rows are written to new files.

        :raises StoreError: the storage failed, or the dataset was compacted meanwhile.
        """
        changed: Rows = []
        count = 0
        with _store_errors(self.dataset, "The images could not be marked in"):
            for part in self.dataset.live_parts():
                for rows in self.dataset.images_of(part):
                    found = keys.rows_in(rows, self.api)
                    changed += self._changed(found, missing_since)
                    if len(changed) >= READ_ROWS:
                        count += self._write(changed)
                        changed = []
            count += self._write(changed)
        return count

    def _changed(
        self, rows: Collection[Mapping[str, Any]], missing_since: datetime | None
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows to write for images whose mark is another one."""
        for row in rows:
            batches = self.dataset.index.batches(row["api"], row["key_sha256"])
            is_latest = batches is not None and batches[0] == row["batch"]
            if batches is None or not is_latest or _is_marked(row) is (missing_since is not None):
                continue
            # Later than the row that it replaces, and earlier than any other: what a run writes
            # meanwhile is kept.
            written_at = row["written_at"] + timedelta(microseconds=1)
            yield {
                **row,
                MISSING_SINCE: missing_since,
                "written_at": written_at,
                LABELS_BATCH: batches[1],
            }

    def _write(self, rows: Rows) -> int:
        if rows:
            batch = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}"
            marked = [row | {"batch": batch} for row in rows]
            table = pa.Table.from_pylist(marked, IMAGES)
            self.dataset.files.write("images", part_name(batch), table)
        return len(rows)

    def delete(self, keys: KeySet) -> int:
        """Delete images and their labels; return the number of images.

        The files that hold a row of them are replaced by one without these rows. Run one deletion
        or compaction at a time.

        :raises StoreError: the storage failed, or the dataset was compacted meanwhile.
        """
        with _store_errors(self.dataset, "The images could not be deleted from"):
            self.dataset.remove_abandoned()
            every = self.dataset.load()
            # Of the same listing: rows of a later part are not in the index, and would be lost.
            live = self.dataset.live_of(every)
            # A compaction that was interrupted leaves parts that nothing reads.
            dead = sorted(set(every).difference(live))
            counts = {part: self._count(part, keys) for part in live}
            concerned = [part for part, count in counts.items() if count is not None]
            if concerned or dead:
                self.dataset.replace(concerned, dead, lambda rows: self._kept(rows, keys))
            return sum(counts[part] or 0 for part in concerned)

    def _count(self, part: str, keys: KeySet) -> int | None:
        """Return the number of images in the set whose latest row a part holds.

        None stands for a part without any row of such an image.
        """
        is_concerned = False
        count = 0
        for rows in self.dataset.read("images", part, _NAMES):
            found = keys.rows_in(rows, self.api)
            is_concerned = is_concerned or bool(found)
            count += sum(map(self.dataset.is_latest_image, found))
        if not is_concerned:
            labels = self.dataset.labels_of(part, schema=_NAMES)
            is_concerned = any(keys.rows_in(rows, self.api) for rows in labels)
        return count if is_concerned else None

    def _kept(self, rows: Rows, keys: KeySet) -> Rows:
        dropped = {id(row) for row in keys.rows_in(rows, self.api)}
        return [row for row in rows if id(row) not in dropped]


def _is_marked(row: Mapping[str, Any]) -> bool:
    return row[MISSING_SINCE] is not None


@contextmanager
def _store_errors(dataset: ParquetDataset, what: str) -> Iterator[None]:
    """Raise a ``StoreError`` for each error of the storage.

    :param what: the action that is refused, for the message.
    """
    try:
        yield
    except ImageTagError:
        raise
    except FileNotFoundError:
        raise StoreError(
            f"{what} {dataset.files.place}: the dataset was compacted meanwhile. Try again."
        ) from None
    # Each storage's library has an error tree of its own.
    except Exception as error:
        raise StoreError(
            f"{what} {dataset.files.place}: {type(error).__name__}: {redact_text(str(error))[:300]}"
        ) from None

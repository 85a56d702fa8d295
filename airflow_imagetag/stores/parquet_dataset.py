"""Private: a dataset of labels in Parquet files: its parts, the latest rows, compaction.

A part is a pair of files of one name, in ``labels/`` and in ``images/``. The images file makes the
part count: a labels file without one belongs to a writer that was killed between the two.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from airflow_imagetag.errors import StoreError
from airflow_imagetag.frames import IMAGE_COLUMNS, ORIGINAL_LABEL, frame, label_columns
from airflow_imagetag.stores.files import LABELS_BATCH, Files
from airflow_imagetag.stores.part_index import IndexRow, PartIndex, utc_text
from airflow_imagetag.stores.rows import MISSING_SINCE
from airflow_imagetag.stores.stored_rows import IMAGE_ROWS, LABEL_ROWS, StoredRows

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]

READ_ROWS = 20_000
"""Maximum number of rows held while a part is read."""

LISTINGS = 10
"""Maximum number of listings of a dataset whose parts are removed while they are read."""

ABANDONED_SECONDS = 24 * 3600
"""Age from which a labels file without an images file is removed; every batch ends sooner."""

_TIME_IN_NAME = re.compile(r"\d{8}T\d{6}")

REPLACES = b"imagetag.replaces"
"""Footer entry of a compacted part: the names of the parts that it replaces."""

_TIME = pa.timestamp("us", tz="UTC")

IMAGES = pa.schema(
    {
        "image_key": pa.string(),
        "image_uri": pa.string(),
        "version": pa.string(),
        "status": pa.string(),
        "content_sha256": pa.string(),
        "labels_count": pa.int64(),
        "api": pa.string(),
        "error": pa.string(),
        "code": pa.string(),
        "message": pa.string(),
        "attempts": pa.int64(),
        "tagged_at": _TIME,
        "key_sha256": pa.string(),
        "written_at": _TIME,
        "batch": pa.string(),
        "tries": pa.int64(),
        "first_failed_at": _TIME,
        "next_try_at": _TIME,
        MISSING_SINCE: _TIME,
        LABELS_BATCH: pa.string(),
    }
)
LABELS = pa.schema(
    {
        "image_key": pa.string(),
        "image_uri": pa.string(),
        "label": pa.string(),
        "probability": pa.float64(),
        "rank": pa.int64(),
        "category": pa.string(),
        "subcategory": pa.string(),
        "scene": pa.string(),
        "api": pa.string(),
        "tagged_at": _TIME,
        "key_sha256": pa.string(),
        "batch": pa.string(),
        ORIGINAL_LABEL: pa.string(),
    }
)


def part_name(batch: str) -> str:
    """Return the name of the part that a batch is written to."""
    return f"part-{batch}.parquet"


def is_compacted(part: str) -> bool:
    """Tell whether a part replaces others."""
    return part.startswith("compacted-")


@contextmanager
def open_dataset(
    path: str,
    conn_id: str | None,
    *,
    abandoned_seconds: float = ABANDONED_SECONDS,
    loads: bool = True,
) -> Iterator[ParquetDataset]:
    """Open the dataset in a folder, which need not exist.

    :param path: the folder.
    :param conn_id: the storage's connection, if the path names none.
    :param abandoned_seconds: age from which a labels file without an images file is removed.
    :param loads: read all images into the index.
    :raises ConfigurationError: the path or its connection cannot be used.
    """
    index = PartIndex()
    try:
        files = Files(path, conn_id)
        dataset = ParquetDataset(files, index, abandoned_seconds=abandoned_seconds)
        if loads and not dataset.load():
            files.check()
        yield dataset
    finally:
        index.close()


class ParquetDataset:
    """A dataset while a task uses it.

    :param files: the folder.
    :param index: the latest row of each image; empty.
    :param abandoned_seconds: age from which a labels file without an images file is removed.
    """

    def __init__(self, files: Files, index: PartIndex, *, abandoned_seconds: float) -> None:
        self.files = files
        self.index = index
        self._abandoned_seconds = abandoned_seconds
        self._loaded: set[str] = set()

    def load(self) -> list[str]:
        """Read the parts that the index does not hold yet, and return the names of all parts.

        :raises StoreError: a part is listed and cannot be opened.
        """
        for _ in range(LISTINGS):
            # Another thread may write a part after the listing.
            loaded = set(self._loaded)
            every = self.files.names("images")
            try:
                live = self.live_of(every)
                for part in live:
                    if part not in self._loaded:
                        self._load(part)
            except FileNotFoundError:
                # Compacted meanwhile: the part that replaces it has the same rows.
                continue
            if replaced := loaded.difference(live):
                # Those of their rows that still count are now known from the new parts.
                self.index.drop(replaced)
                self._loaded -= replaced
            return every
        raise StoreError(f"{self.files.place} lists parts that do not exist. Try again.")

    def _load(self, part: str) -> None:
        for rows in self.images_of(part):
            self.add(part, rows)
        self._loaded.add(part)

    def add(self, part: str, image_rows: Rows) -> None:
        """Take note of image rows that a part holds."""
        self.index.put(index_row(row, part) for row in image_rows)

    def mark_loaded(self, part: str) -> None:
        """Take note that the index holds all rows of a part."""
        self._loaded.add(part)

    def live_parts(self) -> list[str]:
        """Return the names of the parts that no compacted part replaces."""
        return self.live_of(self.files.names("images"))

    def live_of(self, names: list[str]) -> list[str]:
        """Return those of the parts that no compacted part replaces.

        :param names: names of all parts.
        """
        replaced = {
            name
            for part in names
            if is_compacted(part)
            for name in self.files.footer_list("images", part, REPLACES)
        }
        return [name for name in names if name not in replaced]

    def images_of(self, part: str, filters: Any = None) -> Iterator[Rows]:
        """Yield the image rows of a part.

        :param filters: conditions as pyarrow takes them.
        :raises FileNotFoundError: the part was removed.
        """
        return self.read("images", part, IMAGES, filters)

    def labels_of(
        self, part: str, filters: Any = None, *, schema: pa.Schema = LABELS
    ) -> Iterator[Rows]:
        """Yield the label rows of a part, which may have none.

        :param filters: conditions as pyarrow takes them.
        :param schema: the columns.
        :raises StoreError: the part was removed.
        """
        with self._not_compacted("labels", part):
            yield from self.read("labels", part, schema, filters)

    @contextmanager
    def _not_compacted(self, kind: str, part: str) -> Iterator[None]:
        """Raise our error where a file is missing since the dataset was compacted meanwhile."""
        try:
            yield
        except FileNotFoundError:
            # A part may have no labels; a compaction removes the images file first.
            if kind == "images" or part not in self.files.names("images"):
                raise StoreError(
                    f"{self.files.place} was compacted while it was read. Read it again."
                ) from None

    def read(self, kind: str, part: str, schema: pa.Schema, filters: Any = None) -> Iterator[Rows]:
        """Yield the rows of a file, with the columns of a schema.

        :param kind: ``images`` or ``labels``.
        :param filters: conditions as pyarrow takes them.
        :raises FileNotFoundError: the part was removed.
        """
        for table in self.files.read(kind, part, schema, READ_ROWS, filters):
            yield table.to_pylist()

    def is_latest_image(self, row: Mapping[str, Any]) -> bool:
        """Tell whether an image's row is its latest."""
        batches = self.index.batches(row["api"], row["key_sha256"])
        return batches is not None and batches[0] == row["batch"]

    def is_latest_label(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a label's row belongs to the labels of its image that count."""
        batches = self.index.batches(row["api"], row["key_sha256"])
        return batches is not None and batches[1] == row["batch"]

    def latest_labels(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of labels that count: one look-up for the rows of an image in sequence."""
        for (api, digest), labels in groupby(rows, itemgetter("api", "key_sha256")):
            batches = self.index.batches(api, digest)
            if batches is not None:
                yield from (row for row in labels if row["batch"] == batches[1])

    def labels_for(self, image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the labels of an image that count, perhaps of an earlier batch than its row's.

        :param image: the latest row of the image.
        """
        wanted = [("key_sha256", "=", image["key_sha256"]), ("api", "=", image["api"])]
        batch = image[LABELS_BATCH] or image["batch"]
        names = set(self.files.names("images"))
        own = part_name(batch)
        for part in [own] if own in names else [name for name in names if is_compacted(name)]:
            found = [row for rows in self.labels_of(part, wanted) for row in rows]
            if labels := list(self.latest_labels(found)):
                return labels
        return []

    def labels(self, *, frame_rows: int, originals: bool) -> Iterator[pd.DataFrame]:
        """Yield the latest labels of each image as frames.

        :param frame_rows: approximate number of rows in a frame.
        :param originals: add the column ``original_label``.
        :raises StoreError: the dataset was compacted meanwhile.
        """
        types = label_columns(originals=originals)
        columns: dict[str, list[Any]] = {name: [] for name in types}
        for part in self.live_parts():
            for rows in self.labels_of(part):
                for row in self.latest_labels(rows):
                    for name, values in columns.items():
                        values.append(row[name])
                if len(columns["label"]) >= frame_rows:
                    yield frame(columns, types)
                    columns = {name: [] for name in types}
        if columns["label"]:
            yield frame(columns, types)

    def images_frames(self, *, frame_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the latest row of each image as frames.

        :param frame_rows: approximate number of rows in a frame.
        :raises StoreError: the dataset was compacted meanwhile.
        """
        columns: dict[str, list[Any]] = {name: [] for name in IMAGE_COLUMNS}
        for part in self.live_parts():
            for row in filter(self.is_latest_image, self._image_rows(part)):
                for name, values in columns.items():
                    values.append(row["labels_count" if name == "labels" else name])
            if len(columns["image_key"]) >= frame_rows:
                yield frame(columns, IMAGE_COLUMNS)
                columns = {name: [] for name in IMAGE_COLUMNS}
        if columns["image_key"]:
            yield frame(columns, IMAGE_COLUMNS)

    def _image_rows(self, part: str) -> Iterator[dict[str, Any]]:
        with self._not_compacted("images", part):
            for rows in self.images_of(part):
                yield from rows

    def stored_rows(self) -> StoredRows:
        """Return all rows of the parts, which need not be loaded.

        :raises StoreError: while they are read, the dataset was compacted.
        """
        parts = self.live_parts()
        return StoredRows(
            self._pieces("images", parts, IMAGE_ROWS), self._pieces("labels", parts, LABEL_ROWS)
        )

    def _pieces(self, kind: str, parts: list[str], schema: pa.Schema) -> Iterator[pa.Table]:
        for part in parts:
            with self._not_compacted(kind, part):
                yield from self.files.read(kind, part, schema, READ_ROWS)

    def compact(self) -> None:
        """Rewrite all parts as one that holds only the latest rows, and remove them."""
        self.remove_abandoned()
        # The index must hold the parts that are removed in the end, or their rows would be lost.
        every = self.load()
        if len(every) < 2:
            return
        live = self.live_of(every)
        dead = sorted(set(every).difference(live))
        log.info("Compacted %d parts into %s", len(every), self.replace(live, dead, list))

    def replace(self, parts: list[str], dead: list[str], keep: Callable[[Rows], Rows]) -> str:
        """Replace parts by one with those of their rows that count, and return its name.

        The index must hold all parts.

        :param parts: the parts.
        :param dead: parts that another one has replaced already; they are removed, too.
        :param keep: returns those of some rows that are kept.
        :raises StoreError: a part was replaced meanwhile; nothing is lost.
        """
        now = datetime.now(UTC)
        part = f"compacted-{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}.parquet"
        old = [*dead, *parts]
        metadata = {REPLACES: json.dumps(old).encode()}
        try:
            noted = LABELS.with_metadata(metadata)
            labels = self._kept(parts, self.labels_of, self.is_latest_label, keep, noted)
            self.files.write_all("labels", part, noted, labels)
            noted = IMAGES.with_metadata(metadata)
            counts = partial(self._counts, frozenset(parts))
            images = self._kept(parts, self._images_with_labels, counts, keep, noted)
            self.files.write_all("images", part, noted, self._checked(images, parts))
        except (FileNotFoundError, StoreError):
            if part in self.files.names("labels"):
                self.files.remove("labels", part)
            raise StoreError(
                f"{self.files.place} was compacted, or images were deleted from it, meanwhile. Run "
                "one compaction or deletion at a time, and try again."
            ) from None
        for kind in ("images", "labels"):
            for name in set(old).intersection(self.files.names(kind)):
                self.files.remove(kind, name)
        return part

    def _counts(self, parts: Collection[str], row: Mapping[str, Any]) -> bool:
        """Tell whether an image's row is needed.

        It is if it is the latest; and if it is that of the labels that count, where the latest row
        is in another part and may not name them.

        :param parts: the parts that are replaced.
        """
        latest = self.index.row(row["api"], row["key_sha256"])
        if latest is None or latest.batch == row["batch"]:
            return latest is not None
        return latest.labels_batch == row["batch"] and latest.part not in parts

    def _checked(self, tables: Iterator[pa.Table], parts: Collection[str]) -> Iterator[pa.Table]:
        """Yield the tables, and check at the end that the parts still count.

        :raises FileNotFoundError: a part was replaced meanwhile.
        """
        yield from tables
        if replaced := set(parts).difference(self.live_parts()):
            raise FileNotFoundError(min(replaced))

    def _images_with_labels(self, part: str) -> Iterator[Rows]:
        """Yield the image rows of a part, each with the batch of the labels that count."""
        for rows in self.images_of(part):
            for row in rows:
                batches = self.index.batches(row["api"], row["key_sha256"])
                if batches is not None and batches[0] != batches[1]:
                    row[LABELS_BATCH] = batches[1]
            yield rows

    def _kept(
        self,
        parts: list[str],
        read: Callable[[str], Iterator[Rows]],
        is_kept: Callable[[Mapping[str, Any]], bool],
        keep: Callable[[Rows], Rows],
        schema: pa.Schema,
    ) -> Iterator[pa.Table]:
        for part in parts:
            for rows in read(part):
                if kept := keep(list(filter(is_kept, rows))):
                    yield pa.Table.from_pylist(kept, schema)

    def remove_abandoned(self) -> None:
        """Remove labels files whose writer was killed before it wrote their images file.

        Their rows do not count here, but a reader of the plain files would take them.
        """
        oldest = datetime.now(UTC) - timedelta(seconds=self._abandoned_seconds)
        # Labels first: a writer may be between the two files.
        labels = self.files.names("labels")
        for name in set(labels).difference(self.files.names("images")):
            written = _TIME_IN_NAME.search(name)
            if written and written[0] < f"{oldest:%Y%m%dT%H%M%S}":
                self.files.remove("labels", name)

    def remove(self) -> None:
        """Remove all files of the dataset."""
        for kind in ("images", "labels"):
            for name in self.files.names(kind):
                self.files.remove(kind, name)


def index_row(row: Mapping[str, Any], part: str) -> IndexRow:
    """Return the fields of an image's row that the index keeps.

    :param part: the file that holds it.
    """
    return IndexRow(
        row["api"],
        row["key_sha256"],
        row["version"],
        row["status"],
        row["image_uri"] is not None,
        row["content_sha256"],
        utc_text(row["written_at"]),
        row["batch"],
        part,
        row[LABELS_BATCH] or row["batch"],
        None if row["next_try_at"] is None else utc_text(row["next_try_at"]),
        row["tries"],
        None if row["first_failed_at"] is None else utc_text(row["first_failed_at"]),
        row[MISSING_SINCE] is not None,
    )

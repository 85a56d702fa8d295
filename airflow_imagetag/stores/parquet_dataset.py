"""Reads and writes a dataset of labels; loaded only by a running task."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # noqa: TID253 (this module is loaded by a running task only)

from airflow_imagetag.frames import LABEL_COLUMNS, frame
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.pending import Status, Stored
from airflow_imagetag.stores.base import DEFAULT_FRAME_ROWS, OpenStore
from airflow_imagetag.stores.files import Files
from airflow_imagetag.stores.part_index import IndexRow, PartIndex
from airflow_imagetag.stores.rows import digest_of, outcome_of, rows_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

READ_ROWS = 20_000
"""Rows held at a time while parts are read."""

REPLACES = b"imagetag.replaces"
"""Footer entry of a compacted part: names of the parts that it stands for."""

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
    }
)


@contextmanager
def open_dataset(path: str, conn_id: str | None) -> Iterator[OpenParquetStore]:
    """Open the dataset in a folder, which need not exist.

    :raises ConfigurationError: the path or its connection cannot be used.
    """
    index = PartIndex()
    try:
        store = OpenParquetStore(Files(path, conn_id), index)
        store.load()
        yield store
    finally:
        index.close()


class OpenParquetStore(OpenStore):
    """A dataset while a task uses it.

    :param files: the folder.
    :param index: where the latest word on each image is; empty.
    """

    def __init__(self, files: Files, index: PartIndex) -> None:
        self._files = files
        self._index = index

    def load(self) -> None:
        """Read what the dataset holds into the index."""
        for part in self._live_parts():
            for rows in self._read("images", part, IMAGES):
                self._index.put(_index_row(row, part) for row in rows)

    def known(self, keys: Collection[str], api: str) -> Mapping[str, Stored]:
        """Return what the dataset holds of the images with these keys."""
        found = ((key, self._index.stored(api, digest_of(key))) for key in keys)
        return {key: stored for key, stored in found if stored is not None}

    def answers(
        self, content_sha256: Collection[str], api: str
    ) -> Mapping[str, TagResult | Failure]:
        """Return the answers that were paid for images with these bytes, by digest."""
        found = ((digest, self._answer(digest, api)) for digest in content_sha256)
        return {digest: answer for digest, answer in found if answer is not None}

    def _answer(self, content_sha256: str, api: str) -> TagResult | Failure | None:
        place = self._index.settled_by_content(api, content_sha256)
        if place is None:
            return None
        digest, part = place
        wanted = [("key_sha256", "=", digest), ("api", "=", api)]

        def rows(kind: str, schema: pa.Schema) -> list[dict[str, Any]]:
            pieces = self._read(kind, part, schema, filters=wanted)
            return [row for piece in pieces for row in piece if self._counts(row)]

        images = rows("images", IMAGES)
        return _outcome(images[0], rows("labels", LABELS)) if images else None

    def write(self, outcomes: Sequence[TagResult | Failure], api: str) -> None:
        """Keep a batch: the labels first, then the images, whose file makes the batch count."""
        images, labels = rows_of(outcomes, api)
        images = [row for row in images if not self._is_settled_already(row)]
        if not images:
            return
        now = datetime.now(UTC)
        batch = f"{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}"
        part = f"part-{batch}.parquet"
        if labels:
            rows = [{**row, "batch": batch} for row in labels]
            self._files.write("labels", part, pa.Table.from_pylist(rows, LABELS))
        image_rows = [{**row, "written_at": now, "batch": batch} for row in images]
        self._files.write("images", part, pa.Table.from_pylist(image_rows, IMAGES))
        self._index.put(_index_row(row, part) for row in image_rows)

    def labels(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield all labels that count as frames."""
        columns: dict[str, list[Any]] = {name: [] for name in LABEL_COLUMNS}
        for part in self._live_parts():
            for rows in self._read("labels", part, LABELS):
                for row in filter(self._counts, rows):
                    for name, values in columns.items():
                        values.append(row[name])
                if len(columns["label"]) >= frame_rows:
                    yield frame(columns, LABEL_COLUMNS)
                    columns = {name: [] for name in LABEL_COLUMNS}
        if columns["label"]:
            yield frame(columns, LABEL_COLUMNS)

    def outcomes(self) -> Iterator[list[TagResult | Failure]]:
        """Yield what the dataset holds of images that need no further try, part by part."""
        for part in self._live_parts():
            labels: dict[str, list[dict[str, Any]]] = {}
            for rows in self._read("labels", part, LABELS):
                for row in filter(self._counts, rows):
                    labels.setdefault(row["key_sha256"], []).append(row)
            for rows in self._read("images", part, IMAGES):
                settled = [row for row in rows if self._counts(row) and _is_settled(row)]
                yield [_outcome(row, labels.get(row["key_sha256"], [])) for row in settled]

    def compact(self) -> None:
        """Rewrite all parts as one that holds only what counts, and remove them."""
        old = self._live_parts()
        every = self._files.names("images")
        if len(every) < 2:
            return
        now = datetime.now(UTC)
        part = f"compacted-{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}.parquet"
        metadata = {REPLACES: json.dumps(every).encode()}
        self._rewrite("labels", old, part, LABELS, metadata)
        self._rewrite("images", old, part, IMAGES, metadata)
        for kind in ("images", "labels"):
            for name in set(every).intersection(self._files.names(kind)):
                self._files.remove(kind, name)
        log.info("Compacted %d parts into %s", len(every), part)

    def remove(self) -> None:
        """Remove all files of the dataset."""
        for kind in ("images", "labels"):
            for name in self._files.names(kind):
                self._files.remove(kind, name)

    def _rewrite(
        self, kind: str, old: list[str], part: str, schema: pa.Schema, metadata: dict[bytes, bytes]
    ) -> None:
        def tables() -> Iterator[pa.Table]:
            for name in old:
                for rows in self._read(kind, name, schema):
                    if kept := [row for row in rows if self._counts(row)]:
                        yield pa.Table.from_pylist(kept, schema.with_metadata(metadata))

        self._files.write_all(kind, part, schema.with_metadata(metadata), tables())

    def _counts(self, row: Mapping[str, Any]) -> bool:
        batch: str = row["batch"]
        return self._index.batch(row["api"], row["key_sha256"]) == batch

    def _is_settled_already(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row that says only 'not this time' meets an earlier answer."""
        if _is_settled(row):
            return False
        stored = self._index.stored(row["api"], row["key_sha256"])
        return stored is not None and stored.status is not Status.UNFINISHED

    def _live_parts(self) -> list[str]:
        """Return the parts that count: those that no compacted one stands for.

        An images file makes its part count, so a labels file without one is not read: its writer
        was killed between the two.
        """
        names = self._files.names("images")
        replaced = {
            name
            for part in names
            if part.startswith("compacted-")
            for name in self._files.footer_list("images", part, REPLACES)
        }
        return [name for name in names if name not in replaced]

    def _read(
        self, kind: str, part: str, schema: pa.Schema, filters: Any = None
    ) -> Iterator[list[dict[str, Any]]]:
        for table in self._files.read(kind, part, schema, READ_ROWS, filters):
            yield table.to_pylist()


def _index_row(row: Mapping[str, Any], part: str) -> IndexRow:
    return IndexRow(
        row["api"],
        row["key_sha256"],
        row["version"],
        row["status"],
        row["image_uri"] is not None,
        row["content_sha256"],
        row["written_at"].isoformat(timespec="microseconds"),
        row["batch"],
        part,
    )


def _is_settled(row: Mapping[str, Any]) -> bool:
    status: Status = Status(row["status"])
    return status is not Status.UNFINISHED


def _outcome(image: Mapping[str, Any], labels: list[dict[str, Any]]) -> TagResult | Failure:
    return outcome_of(image, sorted(labels, key=lambda row: int(row["rank"])))

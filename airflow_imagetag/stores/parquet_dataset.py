"""Reads and writes a dataset of labels; loaded only by a running task."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import tenacity

from airflow_imagetag.errors import StoreError
from airflow_imagetag.frames import ORIGINAL_LABEL, frame, label_columns
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.safety.uris import redact_text
from airflow_imagetag.selection.rules import Status, StoredState
from airflow_imagetag.stores.base import DEFAULT_FRAME_ROWS, OpenStore
from airflow_imagetag.stores.files import Files
from airflow_imagetag.stores.part_index import IndexRow, PartIndex
from airflow_imagetag.stores.rows import digest_of, outcome_of, rows_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

READ_ROWS = 20_000
"""Rows held at a time while parts are read."""

LISTINGS = 10
"""How often a dataset is listed again because a part went away before it was read."""

RETRY_SECONDS = 300.0
"""How long a batch that was paid for is tried to be written while the storage fails."""

ABANDONED_SECONDS = 24 * 3600
"""No writer takes as long between the two files of a batch."""

_TIME_IN_NAME = re.compile(r"\d{8}T\d{6}")

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
        ORIGINAL_LABEL: pa.string(),
    }
)


@contextmanager
def open_dataset(path: str, conn_id: str | None) -> Iterator[OpenParquetStore]:
    """Open the dataset in a folder, which need not exist.

    :raises ConfigurationError: the path or its connection cannot be used.
    """
    index = PartIndex()
    try:
        files = Files(path, conn_id)
        store = OpenParquetStore(files, index)
        if not store.load():
            files.check()
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
        self._loaded: set[str] = set()

    def load(self) -> list[str]:
        """Read into the index what the dataset holds and the index does not; return the parts.

        :raises StoreError: a part is listed and cannot be opened.
        """
        for _ in range(LISTINGS):
            every = self._files.names("images")
            try:
                for part in self._live_parts(every):
                    if part not in self._loaded:
                        self._load(part)
            except FileNotFoundError:
                # Compacted while it was read: the part that stands for it has the same rows.
                continue
            return every
        raise StoreError(f"{self._files.place} lists parts that do not exist.")

    def _load(self, part: str) -> None:
        for rows in self._read("images", part, IMAGES):
            self._index.put(_index_row(row, part) for row in rows)
        self._loaded.add(part)

    def refresh(self) -> None:
        """Take note of the parts that other writers have added."""
        self.load()

    def release_connections(self) -> None:
        """Do nothing: files are open only while they are read."""

    def check_writable(self, *, originals: bool = False) -> None:
        """Write a file and remove it.

        :param originals: has no effect here: each new file has a column for them.
        :raises ConfigurationError: the storage does not let us.
        """
        del originals
        self._files.check_writable()

    def known(self, keys: Collection[str], api: str) -> Mapping[str, StoredState]:
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
        try:
            return self._read_answer(content_sha256, api)
        except FileNotFoundError:
            # Compacted since the index was made, which knows the new part after this.
            self.load()
            return self._read_answer(content_sha256, api)

    def _read_answer(self, content_sha256: str, api: str) -> TagResult | Failure | None:
        place = self._index.settled_by_content(api, content_sha256)
        if place is None:
            return None
        digest, part = place
        wanted = [("key_sha256", "=", digest), ("api", "=", api)]
        images = [
            row
            for rows in self._read("images", part, IMAGES, filters=wanted)
            for row in filter(self._counts, rows)
        ]
        labels = [
            row
            for rows in self._labels_of(part, filters=wanted)
            for row in filter(self._counts, rows)
        ]
        return _outcome(images[0], labels) if images else None

    def write(self, outcomes: Sequence[TagResult | Failure], api: str) -> None:
        """Keep a batch: the labels first, then the images, whose file makes the batch count."""
        images, labels = rows_of(outcomes, api)
        images = [row for row in images if not self._is_settled_already(row)]
        if images:
            self._write(images, labels)

    def _write(self, images: list[dict[str, Any]], labels: list[dict[str, Any]]) -> None:
        now = self._index.later_than_all(datetime.now(UTC))
        batch = f"{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}"
        part = f"part-{batch}.parquet"
        label_rows = [{**row, "batch": batch} for row in labels]
        image_rows = [{**row, "written_at": now, "batch": batch} for row in images]

        def work() -> None:
            # Whatever was written before a failure is written again under the same name.
            if label_rows:
                self._files.write("labels", part, pa.Table.from_pylist(label_rows, LABELS))
            self._files.write("images", part, pa.Table.from_pylist(image_rows, IMAGES))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_not_exception_type((FileNotFoundError, PermissionError)),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=20),
            stop=tenacity.stop_after_delay(RETRY_SECONDS),
            before_sleep=_log_failure,
            reraise=True,
        )
        try:
            retrying(work)
        # Each storage's library has an error tree of its own.
        except Exception as error:
            raise StoreError(
                f"{len(images)} images could not be written to {self._files.place}: "
                f"{type(error).__name__}: {redact_text(str(error))[:300]}"
            ) from None
        self._index.put(_index_row(row, part) for row in image_rows)
        self._loaded.add(part)

    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield all labels that count as frames.

        :raises StoreError: the dataset was compacted meanwhile, so that a part is gone.
        """
        types = label_columns(originals=originals)
        columns: dict[str, list[Any]] = {name: [] for name in types}
        for part in self._live_parts(self._files.names("images")):
            for rows in self._labels_of(part):
                for row in filter(self._counts, rows):
                    for name, values in columns.items():
                        values.append(row[name])
                if len(columns["label"]) >= frame_rows:
                    yield frame(columns, types)
                    columns = {name: [] for name in types}
        if columns["label"]:
            yield frame(columns, types)

    def outcomes(self, api: str) -> Iterator[list[TagResult | Failure]]:
        """Yield what the dataset holds of images that need no further try, part by part.

        :param api: interface that labelled them.
        """
        for part in self._live_parts(self._files.names("images")):
            labels: dict[str, list[dict[str, Any]]] = {}
            for rows in self._labels_of(part):
                for row in filter(self._counts, rows):
                    labels.setdefault(row["key_sha256"], []).append(row)
            for rows in self._read("images", part, IMAGES):
                settled = [
                    row
                    for row in rows
                    if row["api"] == api and self._counts(row) and _is_settled(row)
                ]
                yield [_outcome(row, labels.get(row["key_sha256"], [])) for row in settled]

    def compact(self) -> None:
        """Rewrite all parts as one that holds only what counts, and remove them."""
        self._remove_abandoned()
        # What is removed in the end must be in the index, or its rows would not count.
        every = self.load()
        if len(every) < 2:
            return
        old = self._live_parts(every)
        now = datetime.now(UTC)
        part = f"compacted-{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}.parquet"
        metadata = {REPLACES: json.dumps(every).encode()}
        for kind, schema, read in (
            ("labels", LABELS, self._labels_of),
            ("images", IMAGES, partial(self._read, "images", schema=IMAGES)),
        ):
            noted = schema.with_metadata(metadata)
            self._files.write_all(kind, part, noted, self._that_count(old, read, noted))
        for kind in ("images", "labels"):
            for name in set(every).intersection(self._files.names(kind)):
                self._files.remove(kind, name)
        log.info("Compacted %d parts into %s", len(every), part)

    def _that_count(
        self,
        parts: list[str],
        read: Callable[[str], Iterator[list[dict[str, Any]]]],
        schema: pa.Schema,
    ) -> Iterator[pa.Table]:
        for part in parts:
            for rows in read(part):
                if kept := [row for row in rows if self._counts(row)]:
                    yield pa.Table.from_pylist(kept, schema)

    def _remove_abandoned(self) -> None:
        """Remove labels whose writer was killed before it wrote their images.

        They count nowhere here, but whoever reads the files as they are would take them.
        """
        oldest = datetime.now(UTC) - timedelta(seconds=ABANDONED_SECONDS)
        # In this order: a writer may be between the two.
        labels = self._files.names("labels")
        for name in set(labels).difference(self._files.names("images")):
            written = _TIME_IN_NAME.search(name)
            if written and written[0] < f"{oldest:%Y%m%dT%H%M%S}":
                self._files.remove("labels", name)

    def remove(self) -> None:
        """Remove all files of the dataset."""
        for kind in ("images", "labels"):
            for name in self._files.names(kind):
                self._files.remove(kind, name)

    def _counts(self, row: Mapping[str, Any]) -> bool:
        batch: str = row["batch"]
        return self._index.batch(row["api"], row["key_sha256"]) == batch

    def _is_settled_already(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row that says only 'not this time' meets an earlier answer."""
        if _is_settled(row):
            return False
        stored = self._index.stored(row["api"], row["key_sha256"])
        return stored is not None and stored.status is not Status.UNFINISHED

    def _live_parts(self, names: list[str]) -> list[str]:
        """Return the parts that count: those that no compacted one stands for.

        An images file makes its part count, so a labels file without one is not read: its writer
        was killed between the two.

        :param names: of all images files.
        """
        replaced = {
            name
            for part in names
            if part.startswith("compacted-")
            for name in self._files.footer_list("images", part, REPLACES)
        }
        return [name for name in names if name not in replaced]

    def _labels_of(self, part: str, filters: Any = None) -> Iterator[list[dict[str, Any]]]:
        """Yield the labels of a part, which may have none.

        :raises StoreError: the part itself is gone.
        """
        try:
            yield from self._read("labels", part, LABELS, filters)
        except FileNotFoundError:
            # A compaction removes the images file first.
            if part not in self._files.names("images"):
                raise StoreError(
                    f"{self._files.place} was compacted while it was read. Read it again."
                ) from None

    def _read(
        self, kind: str, part: str, schema: pa.Schema, filters: Any = None
    ) -> Iterator[list[dict[str, Any]]]:
        for table in self._files.read(kind, part, schema, READ_ROWS, filters):
            yield table.to_pylist()


def _log_failure(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    reason = redact_text(str(error))[:300]
    log.warning("Attempt %d to write a batch failed: %s", state.attempt_number, reason)


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

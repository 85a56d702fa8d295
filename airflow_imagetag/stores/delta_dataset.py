"""Private: images and labels as two Delta tables: their rows, the latest ones, compaction.

A batch is three commits at most: its labels are appended, then its rows of images are written,
which makes the labels count, and at last rows that the batch replaces are removed. A reader that
takes the labels as they are sees too many only after a writer was killed between two of them.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_imagetag.backends.delta_places import DeltaPlace, delta_place
from airflow_imagetag.errors import ConfigurationError, ImageTagError
from airflow_imagetag.frames import IMAGE_COLUMNS, frame, label_columns
from airflow_imagetag.stores.parquet_dataset import IMAGES, LABELS, Rows, index_row
from airflow_imagetag.stores.part_index import IndexRow, PartIndex
from airflow_imagetag.stores.stored_rows import IMAGE_ROWS, LABEL_ROWS, StoredRows

if TYPE_CHECKING:
    import pandas as pd
    from deltalake import DeltaTable

log = logging.getLogger(__name__)

BATCH_TIME = "%Y%m%dT%H%M%S.%fZ"
"""Form of the time with which the name of a batch begins, so that later ones sort behind."""

READ_ROWS = 50_000
"""Maximum number of rows held while a table is read."""

READABLE = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
"""Features of a Delta table that change nothing in its files."""

ABANDONED = timedelta(hours=24)
"""Age from which labels without a row of their image are removed; every batch ends sooner."""

PART = ""
"""The index keeps no file of a row: Delta finds the file by its batch."""


class Stored(NamedTuple):
    """The rows of an image in a table that one batch has written."""

    api: str
    key_sha256: str
    batch: str


@dataclass(slots=True)
class Table:
    """One of the two tables.

    :param name: of its folder.
    :param schema: its columns.
    :param delta: the table; None while it does not exist.
    :param read: the files that the index holds.
    """

    name: str
    schema: pa.Schema
    delta: DeltaTable | None
    read: set[str]


@contextmanager
def open_dataset(
    path: str, conn_id: str | None, *, creates: bool = False, loads: bool = True
) -> Iterator[DeltaDataset]:
    """Open the tables in a folder, which need not exist.

    :param path: the folder.
    :param conn_id: the storage's connection, if the path names none.
    :param creates: create the tables if they do not exist.
    :param loads: read all images into the index.
    :raises ConfigurationError: the path, its connection or the extra ``delta`` cannot be used.
    """
    place = delta_place(path, conn_id)
    index = PartIndex()
    try:
        opened = DeltaDataset(place, index)
        if creates:
            opened.create()
        if loads:
            opened.load()
        yield opened
    finally:
        index.close()


class DeltaDataset:
    """The tables while a task uses them.

    :param place: the folder.
    :param index: the latest row of each image; empty.
    """

    def __init__(self, place: DeltaPlace, index: PartIndex) -> None:
        self.place = place
        self.index = index
        # Three threads use an open store, and one of them may open a table anew.
        self._lock = threading.RLock()
        self.images = Table("images", IMAGES, None, set())
        self.labels_table = Table("labels", LABELS, None, set())
        self._leftovers: dict[tuple[str, str], set[str]] = {}
        """Batches of labels that no row of an image names, by interface and key."""

    def create(self) -> None:
        """Create the tables that do not exist.

        :raises ConfigurationError: the storage refuses them.
        """
        from deltalake import DeltaTable

        for table in (self.labels_table, self.images):
            with self._foreign(ConfigurationError):
                DeltaTable.create(
                    self.place.table_uri(table.name),
                    table.schema,
                    mode="ignore",
                    storage_options=self.place.options(),
                )

    def load(self) -> None:
        """Read the rows of images that the index does not hold yet.

        :raises ConfigurationError: the folder holds other tables, or they cannot be read.
        """
        # A batch writes its labels first: no labels are read whose rows of images are not.
        for table in (self.labels_table, self.images):
            self._refresh(table)
        for rows in self._unread(self.images):
            self.index.put(index_row(row, PART) for row in rows)
        self._find_leftovers()

    def load_images(self) -> list[IndexRow]:
        """Read the rows of images that were added since, and return them."""
        self._refresh(self.images)
        added: list[IndexRow] = []
        for rows in self._unread(self.images):
            found = [index_row(row, PART) for row in rows]
            self.index.put(found)
            added += found
        return added

    def _refresh(self, table: Table) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with self._lock, self._foreign(ConfigurationError):
            if table.delta is not None:
                table.delta.update_incremental()
                return
            try:
                found = DeltaTable(
                    self.place.table_uri(table.name), storage_options=self.place.options()
                )
            except TableNotFoundError:
                return
        names = {field.name for field in found.schema().fields}
        if missing := set(table.schema.names) - names:
            raise ConfigurationError(
                f"{self.place.shown}/{table.name} is not a table of labels: it has no column "
                f"{', '.join(sorted(missing))}. Give the store a folder of its own."
            )
        features = set(found.protocol().reader_features or ()) - READABLE
        if features:
            raise ConfigurationError(
                f"{self.place.shown}/{table.name} uses {', '.join(sorted(features))} of Delta, "
                "which this store does not read. Rewrite the table without, and switch it off in "
                "the table's properties."
            )
        table.delta = found

    def forget(self) -> None:
        """Open the tables anew at the next reading, with the connection as it is then."""
        with self._lock:
            self.labels_table.delta = self.images.delta = None

    def _unread(self, table: Table) -> Iterator[Rows]:
        if table.delta is None:
            return
        files = set(self._files(table))
        for piece in self._scan(table, files=files - table.read):
            yield piece.to_pylist()
        table.read = files

    def _scan(
        self,
        table: Table,
        columns: Sequence[str] | None = None,
        *,
        files: Collection[str] | None = None,
        batches: Collection[str] | None = None,
    ) -> Iterator[pa.Table]:
        """Yield rows of a table in pieces.

        :param columns: names of the columns; None for all.
        :param files: names of the files to read; None for all.
        :param batches: leave out files without rows of these batches; None for no file.
        """
        names = self._files(table, batches) if files is None else sorted(files)
        schema = table.schema if columns is None else pa.schema(map(table.schema.field, columns))
        wanted = None if batches is None else sorted(batches)
        with self._foreign(ConfigurationError):
            for name in names:
                with self.place.file_system().open(
                    self.place.file_path(table.name, name), "rb"
                ) as file:
                    # Not the library's own dataset: pyarrow cannot compare its texts with others.
                    part = pq.ParquetFile(file)
                    for rows in part.iter_batches(
                        READ_ROWS, row_groups=_groups(part, wanted), columns=schema.names
                    ):
                        yield _as(schema, rows)

    def _files(self, table: Table, batches: Collection[str] | None = None) -> list[str]:
        """Return the names of the files of a table as it was when it was last read.

        :param batches: only files that may hold rows of these batches; None for all.
        """
        with self._lock, self._foreign(ConfigurationError):
            if table.delta is None:
                return []
            files = pa.table(table.delta.get_add_actions(flatten=True))
        names = files["path"].to_pylist()
        if batches is None or "min.batch" not in files.column_names:
            return sorted(names)
        wanted = sorted(batches)
        least, most = files["min.batch"].to_pylist(), files["max.batch"].to_pylist()
        return sorted(
            name
            for name, low, high in zip(names, least, most, strict=True)
            if _overlaps(wanted, low, high)
        )

    def _find_leftovers(self) -> None:
        """Take note of labels whose writer was killed before it wrote the rows of their images."""
        if self.labels_table.delta is None:
            return
        batches: set[str] = set()
        files = set(self._files(self.labels_table)) - self.labels_table.read
        for piece in self._scan(self.labels_table, ["batch"], files=files):
            batches.update(pc.unique(piece["batch"]).to_pylist())
        self.labels_table.read |= files
        if unknown := self.index.unknown_batches(batches):
            for piece in self._scan(self.labels_table, Stored._fields, batches=unknown):
                for api, key, batch in _distinct(_of(piece, "batch", unknown)):
                    self._leftovers.setdefault((api, key), set()).add(batch)

    def leftovers(self, api: str, key_sha256: str) -> set[str]:
        """Return the batches of an image's labels that no row of an image names."""
        return self._leftovers.get((api, key_sha256), set())

    def append(self, table: Table, rows: Rows) -> None:
        """Add rows in one commit, which meets no conflict."""
        from deltalake import write_deltalake

        with self._foreign(None):
            write_deltalake(
                self._existing(table), pa.Table.from_pylist(rows, table.schema), mode="append"
            )

    def replace(self, table: Table, removed: Iterable[tuple[str, str]], rows: Rows) -> None:
        """Remove all rows of some images and add others, in one commit.

        :param removed: interface and key of the images.
        :raises deltalake.exceptions.CommitFailedError: another writer has added rows meanwhile.
        """
        marks = [{"old_api": api, "old_key": key} for api, key in removed]
        source = pa.Table.from_pylist(
            [*marks, *rows],
            table.schema.append(pa.field("old_api", pa.string())).append(
                pa.field("old_key", pa.string())
            ),
        )
        with self._foreign(None):
            (
                self._existing(table)
                .merge(
                    source,
                    "t.key_sha256 = s.old_key AND t.api = s.old_api",
                    source_alias="s",
                    target_alias="t",
                )
                .when_matched_delete()
                .when_not_matched_insert(
                    {name: f"s.{name}" for name in table.schema.names},
                    predicate="s.old_key IS NULL",
                )
                .execute()
            )

    def remove_rows(self, table: Table, stale: Collection[Stored]) -> None:
        """Remove the rows that some batches have written of some images, in one commit.

        :raises deltalake.exceptions.CommitFailedError: another writer has added rows meanwhile.
        """
        if not stale:
            return
        source = pa.Table.from_pylist([row._asdict() for row in dict.fromkeys(stale)])
        with self._foreign(None):
            (
                self._existing(table)
                .merge(
                    source,
                    "t.key_sha256 = s.key_sha256 AND t.api = s.api AND t.batch = s.batch",
                    source_alias="s",
                    target_alias="t",
                )
                .when_matched_delete()
                .execute()
            )

    def _existing(self, table: Table) -> DeltaTable:
        self._refresh(table)
        if table.delta is None:
            self.create()
            self._refresh(table)
        assert table.delta is not None  # noqa: S101 (it was created)
        return table.delta

    def holds_batch(self, table: Table, batch: str) -> bool:
        """Tell whether a table holds rows of a batch."""
        self._refresh(table)
        pieces = self._scan(table, ["batch"], batches=[batch])
        return any(len(_of(piece, "batch", [batch])) for piece in pieces)

    def image_rows(self, columns: Sequence[str] | None = None) -> Iterator[Rows]:
        """Yield the latest rows of all images, some at a time.

        :param columns: names of the columns, those of ``Stored`` among them; None for all.
        """
        for piece in self._scan(self.images, columns):
            yield [row for row in piece.to_pylist() if self._is_latest(row)]

    def _is_latest(self, row: Mapping[str, Any]) -> bool:
        batches = self.index.batches(row["api"], row["key_sha256"])
        return batches is not None and batches[0] == row["batch"]

    def rows_of_images(self, table: Table, images: Collection[Stored]) -> Iterator[dict[str, Any]]:
        """Yield the rows that some batches have written of some images."""
        if not images:
            return
        wanted = set(images)
        batches = {row.batch for row in wanted}
        keys = {row.key_sha256 for row in wanted}
        for piece in self._scan(table, batches=batches):
            for row in _of(piece, "key_sha256", keys).to_pylist():
                if Stored(row["api"], row["key_sha256"], row["batch"]) in wanted:
                    yield row

    def labels(self, *, frame_rows: int, originals: bool) -> Iterator[pd.DataFrame]:
        """Yield the latest labels of each image as frames.

        :param frame_rows: approximate number of rows in a frame.
        :param originals: add the column ``original_label``.
        """
        types = label_columns(originals=originals)
        held: list[pa.Table] = []
        columns = [*types, "key_sha256", "batch"]
        for piece in self._scan(self.labels_table, columns):
            kept = self._latest(piece)
            # A piece may hold more rows than a frame.
            for start in range(0, len(kept), frame_rows):
                held.append(kept.slice(start, frame_rows))
                if sum(map(len, held)) >= frame_rows:
                    yield _frame(held, types)
                    held = []
        if held:
            yield _frame(held, types)

    def images_frames(self, *, frame_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the latest row of each image as frames.

        :param frame_rows: approximate number of rows in a frame.
        """
        columns: dict[str, list[Any]] = {name: [] for name in IMAGE_COLUMNS}
        for piece in self._scan(self.images):
            for row in piece.to_pylist():
                batches = self.index.batches(row["api"], row["key_sha256"])
                if batches is None or batches[0] != row["batch"]:
                    continue
                for name, values in columns.items():
                    values.append(row["labels_count" if name == "labels" else name])
                if len(columns["image_key"]) >= frame_rows:
                    yield frame(columns, IMAGE_COLUMNS)
                    columns = {name: [] for name in IMAGE_COLUMNS}
        if columns["image_key"]:
            yield frame(columns, IMAGE_COLUMNS)

    def stored_rows(self) -> StoredRows:
        """Return all rows of the tables, which need not be loaded."""
        for table in (self.labels_table, self.images):
            self._refresh(table)
        return StoredRows(
            self._scan(self.images, IMAGE_ROWS.names),
            self._scan(self.labels_table, LABEL_ROWS.names),
        )

    def _latest(self, piece: pa.Table) -> pa.Table:
        """Return the rows of labels that count."""
        stale = self._stale_in(piece)
        if not stale:
            return piece
        places = zip(*(piece[name].to_pylist() for name in Stored._fields), strict=True)
        return piece.filter(pa.array([place not in stale for place in places], pa.bool_()))

    def _stale_in(self, piece: pa.Table) -> set[tuple[str, str, str]]:
        """Return interface, key and batch of the rows of labels that do not count."""
        stale = set()
        for api, key, batch in _distinct(piece):
            batches = self.index.batches(api, key)
            if batches is None or batches[1] != batch:
                stale.add((api, key, batch))
        return stale

    def compact(self) -> None:
        """Remove rows that do not count, join small files, and remove files of old versions."""
        if self.images.delta is None or self.labels_table.delta is None:
            return
        names = Stored._fields
        stale: set[Stored] = set()
        for piece in self._scan(self.labels_table, names):
            stale.update(Stored(*place) for place in self._stale_in(piece))
        doubled = {
            Stored(*place)
            for piece in self._scan(self.images, names)
            for place in _distinct(piece)
            if (self.index.batches(*place[:2]) or place[2:])[0] != place[2]
        }
        # Those of a writer that is between its commits are not stale.
        self.load()
        with self._foreign(ConfigurationError):
            self.remove_rows(self.images, doubled)
            self.remove_rows(self.labels_table, set(filter(self._is_superseded, stale)))
            for table in (self.labels_table, self.images):
                delta = self._existing(table)
                counts = delta.optimize.compact()
                removed = delta.vacuum(dry_run=False)
                delta.create_checkpoint()
                delta.cleanup_metadata()
                log.info(
                    "Compacted %s/%s: %s files into %s, %d old files removed",
                    self.place.shown,
                    table.name,
                    *(counts[name] for name in ("numFilesRemoved", "numFilesAdded")),
                    len(removed),
                )

    def _is_superseded(self, row: Stored) -> bool:
        """Tell whether a later answer replaces labels, or their writer was killed long ago."""
        batches = self.index.batches(row.api, row.key_sha256)
        if batches is not None and row.batch < batches[1]:
            return True
        return row.batch < f"{datetime.now(UTC) - ABANDONED:{BATCH_TIME}}"

    @contextmanager
    def _foreign(self, kind: type[ImageTagError] | None) -> Iterator[None]:
        """Raise our own error for those of the library, unless ``kind`` is None."""
        try:
            yield
        except ImageTagError:
            raise
        # The library, the storage and pyarrow have errors of many classes.
        except Exception as error:
            if kind is None:
                raise
            raise self.place.error(error, kind) from None


def _groups(part: pq.ParquetFile, batches: list[str] | None) -> list[int]:
    """Return the numbers of the row groups that may hold rows of some batches."""
    metadata = part.metadata
    every = range(metadata.num_row_groups)
    if batches is None:
        return list(every)
    column = part.schema_arrow.get_field_index("batch")
    found = ((number, metadata.row_group(number).column(column).statistics) for number in every)
    return [
        number
        for number, statistics in found
        if statistics is None
        or not statistics.has_min_max
        or _overlaps(batches, statistics.min, statistics.max)
    ]


def _overlaps(ordered: list[str], low: str | None, high: str | None) -> bool:
    """Tell whether one of some texts, in order, lies between two others."""
    return low is None or high is None or bisect_left(ordered, low) < bisect_right(ordered, high)


def _as(schema: pa.Schema, rows: pa.RecordBatch) -> pa.Table:
    """Return rows with the columns and types of a schema; a column that is missing is null."""
    held = set(rows.schema.names)
    return pa.table(
        [
            rows.column(field.name).cast(field.type)
            if field.name in held
            else pa.nulls(len(rows), field.type)
            for field in schema
        ],
        schema=schema,
    )


def _of(piece: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    """Return the rows whose column has one of some values."""
    return piece.filter(pc.is_in(piece[column], pa.array(sorted(values), pa.string())))


def is_conflict(error: Exception, attempt: int) -> bool:
    """Tell whether another writer's commit came first."""
    del attempt
    from deltalake.exceptions import CommitFailedError

    return isinstance(error, CommitFailedError)


def _distinct(piece: pa.Table) -> Iterator[tuple[str, str, str]]:
    names = list(Stored._fields)
    found = piece.group_by(names).aggregate([])
    return zip(*(found[name].to_pylist() for name in names), strict=True)


def _frame(pieces: list[pa.Table], types: Mapping[str, str]) -> pd.DataFrame:
    table = pa.concat_tables(pieces)
    return frame({name: table[name].to_pylist() for name in types}, types)

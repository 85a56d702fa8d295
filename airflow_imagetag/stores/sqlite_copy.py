"""Private: a copy of any store in a temporary SQLite file, for its pages.

It makes the pages of a dataset, and of a store of another package, out of the same statements as
those of a database. The rows of a store are read once, in pieces: first its images, then its
labels, each as four numbers. A view shows them as the labels table of a database.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from airflow_imagetag.frames import ORIGINAL_LABEL
from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.browsing import CopyProgress
from airflow_imagetag.stores.part_index import IndexRow, PartIndex
from airflow_imagetag.stores.sql_browsing import QUERY_SECONDS, SqlBrowser
from airflow_imagetag.stores.sql_tables import SqlTables
from airflow_imagetag.stores.stored_rows import IMAGE_ROWS, rows_of_frames

if TYPE_CHECKING:
    from airflow_imagetag.stores.base import LabelStore

MAX_NAMES = 100_000
"""Maximum number of labels with their categories that are remembered while labels are copied."""

READ_ROWS = 20_000
"""Number of rows that are held while repeated images are compared."""

ANALYSED_ROWS = 1_000
"""Number of rows of each index from which SQLite estimates its selectivity."""

_NAMES = ("label", "category", "subcategory", "scene", ORIGINAL_LABEL)

_SCHEMA = f"""
CREATE TABLE labels_images (id INTEGER PRIMARY KEY, {", ".join(IMAGE_ROWS.names)});
CREATE TABLE name (id INTEGER PRIMARY KEY, {", ".join(_NAMES)});
CREATE TABLE label_of (image INTEGER, rank INTEGER, name INTEGER, probability REAL,
    PRIMARY KEY (image, rank)) WITHOUT ROWID;
CREATE VIEW labels AS
    SELECT image.api, image.key_sha256, rank, probability, {", ".join(_NAMES)}
    FROM label_of JOIN labels_images AS image ON image.id = label_of.image
        JOIN name ON name.id = label_of.name;
"""  # noqa: S608 (our own names)

_REPEATED = """
SELECT id, api, key_sha256, version, status, written_at, batch, coalesce(labels_batch, batch)
FROM labels_images WHERE (api, key_sha256) IN (
    SELECT api, key_sha256 FROM labels_images GROUP BY api, key_sha256 HAVING count(*) > 1
) ORDER BY api, key_sha256, id
"""

_WITH_LABELS = "SELECT count(*) FROM labels_images WHERE labels_count > 0"

# A cross join, so that SQLite looks the keys up, and not each image among the keys.
_IMAGE_IDS = """
SELECT wanted.key, image.id, coalesce(image.labels_batch, image.batch)
FROM json_each(?) AS wanted CROSS JOIN labels_images AS image
    ON image.api = ? AND image.key_sha256 = wanted.value
"""


@contextmanager
def open_copy(
    store: LabelStore, progress: CopyProgress | None = None, *, seconds: float = QUERY_SECONDS
) -> Iterator[SqlBrowser]:
    """Copy a store into a file that is removed in the end, and open it for pages.

    :param progress: is told how far the copy is.
    :param seconds: maximum time of a query.
    :raises ConfigurationError: the store does not tell its images.
    :raises StorageError: the store cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="imagetag-pages-") as folder:
        path = Path(folder) / "copy.db"
        made_at = datetime.now(UTC)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            _fill(database, store, progress or CopyProgress())
        engine = sa.create_engine(f"sqlite:///{path}", future=True)
        try:
            tables = SqlTables(engine, "labels", None, conn_id="copy", mode=StoreMode.READ)
            yield CopyBrowser(tables, seconds=seconds, made_at=made_at)
        finally:
            engine.dispose()


class CopyBrowser(SqlBrowser):
    """A copy of a store while its pages are made.

    :param tables: the tables of the copy.
    :param made_at: when the copy began, with a zone.
    """

    def __init__(self, tables: SqlTables, *, seconds: float, made_at: datetime) -> None:
        super().__init__(tables, seconds=seconds)
        self._made_at = made_at

    @property
    def made_at(self) -> datetime:
        """When the rows were copied, with a zone."""
        return self._made_at


def _fill(database: sqlite3.Connection, store: LabelStore, progress: CopyProgress) -> None:
    # The file does not outlive its reader.
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.executescript(_SCHEMA)
    database.execute("BEGIN")
    with store._stored_rows() or nullcontext(rows_of_frames(store)) as rows:
        for piece in rows.images:
            _insert_images(database, piece)
            progress.images += len(piece)
        database.execute("CREATE INDEX by_key ON labels_images (api, key_sha256)")
        _keep_latest(database)
        [progress.with_labels] = database.execute(_WITH_LABELS).fetchone()
        names = _Names(database)
        for piece in rows.labels:
            progress.labelled += _insert_labels(database, names, piece)
    database.execute("COMMIT")
    database.execute(f"PRAGMA analysis_limit = {ANALYSED_ROWS}")
    database.execute("ANALYZE")


def _insert_images(database: sqlite3.Connection, piece: pa.Table) -> None:
    columns = [_values(piece[name]) for name in IMAGE_ROWS.names]
    marks = ", ".join("?" * len(columns))
    database.executemany(
        f"INSERT INTO labels_images VALUES (NULL, {marks})",  # noqa: S608 (marks only)
        zip(*columns, strict=True),
    )


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return values as SQLite keeps them; times as SQLAlchemy writes them: UTC, without a zone."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _keep_latest(database: sqlite3.Connection) -> None:
    """Delete the rows of images that others replace, by the rule of the stores in folders."""
    with closing(PartIndex()) as index:
        found = database.execute(_REPEATED)
        while rows := found.fetchmany(READ_ROWS):
            index.put(
                IndexRow(api, digest, version, status, False, None, at, batch, "", labels_batch)
                for _, api, digest, version, status, at, batch, labels_batch in rows
            )
        kept: list[tuple[str, int]] = []
        dropped: list[tuple[int]] = []
        for (api, digest), group in groupby(database.execute(_REPEATED), itemgetter(1, 2)):
            # All of them were put.
            latest = cast("IndexRow", index.row(api, digest))
            batches = {row[0]: row[6] for row in group}
            number = max(one for one, batch in batches.items() if batch == latest.batch)
            kept.append((latest.labels_batch, number))
            dropped += [(one,) for one in batches if one != number]
    database.executemany("UPDATE labels_images SET labels_batch = ? WHERE id = ?", kept)
    database.executemany("DELETE FROM labels_images WHERE id = ?", dropped)


class _Names:
    """The different labels with their categories, each as a number.

    :param database: the copy.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._numbers: dict[tuple[str | None, ...], int] = {}

    def numbers(self, piece: pa.Table) -> np.ndarray[Any, Any]:
        """Return the number of each row of a table of labels."""
        codes = np.zeros(len(piece), np.int64)
        for name in _NAMES:
            encoded = _encoded(piece[name])
            own = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
            joint = pa.array(codes * (len(encoded.dictionary) + 1) + own)
            codes = joint.dictionary_encode().indices.to_numpy().astype(np.int64)
        firsts = np.zeros(codes.max(initial=-1) + 1, np.int64)
        firsts[codes[::-1]] = np.arange(len(piece))[::-1]
        columns = (piece[name].take(pa.array(firsts)).to_pylist() for name in _NAMES)
        numbers = [self._number(values) for values in zip(*columns, strict=True)]
        return np.array(numbers, np.int64)[codes]

    def _number(self, values: tuple[str | None, ...]) -> int:
        number = self._numbers.get(values)
        if number is None:
            if len(self._numbers) >= MAX_NAMES:
                # What is named twice is only written twice.
                self._numbers.clear()
            marks = ", ".join("?" * len(values))
            statement = f"INSERT INTO name VALUES (NULL, {marks})"  # noqa: S608 (marks only)
            number = self._database.execute(statement, values).lastrowid or 0
            self._numbers[values] = number
        return number


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.combine_chunks().dictionary_encode()


def _insert_labels(database: sqlite3.Connection, names: _Names, piece: pa.Table) -> int:
    """Insert the labels that count, and return the number of their images."""
    starts = _starts(piece)
    ids = _image_ids(database, piece.select(("api", "key_sha256", "batch")).take(pa.array(starts)))
    images = np.repeat(ids, np.diff(starts, append=len(piece)))
    if not images.all():
        piece, images = piece.filter(pa.array(images > 0)), images[images > 0]
    values = (
        images.tolist(),
        piece["rank"].to_pylist(),
        names.numbers(piece).tolist(),
        piece["probability"].to_pylist(),
    )
    statement = "INSERT OR REPLACE INTO label_of VALUES (?, ?, ?, ?)"
    database.executemany(statement, zip(*values, strict=True))
    return int(np.count_nonzero(ids))


def _starts(piece: pa.Table) -> np.ndarray[Any, Any]:
    """Return the places at which the labels of another image or of another batch begin."""
    differs = np.zeros(max(len(piece) - 1, 0), bool)
    for name in ("key_sha256", "api", "batch"):
        column = piece[name].combine_chunks()
        differs |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([np.arange(min(len(piece), 1)), np.flatnonzero(differs) + 1])


def _image_ids(database: sqlite3.Connection, batches: pa.Table) -> np.ndarray[Any, Any]:
    """Return the image of each interface, key and batch; 0 where its labels do not count."""
    apis, keys, names = (column.to_pylist() for column in batches.columns)
    ids = np.zeros(len(keys), np.int64)
    for api in set(apis):
        own = json.dumps([key if one == api else None for one, key in zip(apis, keys, strict=True)])
        for place, number, batch in database.execute(_IMAGE_IDS, (own, api)):
            if batch == names[place]:
                ids[place] = number
    return ids

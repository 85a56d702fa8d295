"""Private: a copy of any store in a temporary SQLite file, for its pages.

It makes the pages of a dataset, and of a store of another package, out of the same statements as
those of a database.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from airflow_imagetag.frames import ORIGINAL_LABEL
from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.rows import key_digest
from airflow_imagetag.stores.sql_browsing import QUERY_SECONDS, SqlBrowser
from airflow_imagetag.stores.sql_tables import SqlTables

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.stores.base import LabelStore

COPY_ROWS = 20_000
"""Number of rows that are copied at a time."""

_TEXTS = ("image_key", "image_uri", "version", "status", "content_sha256", "error", "code")
_TIMES = ("first_failed_at", "next_try_at", "tagged_at")


@contextmanager
def open_copy(store: LabelStore, *, seconds: float = QUERY_SECONDS) -> Iterator[SqlBrowser]:
    """Copy a store into a file that is removed in the end, and open it for pages.

    :param seconds: maximum time of a query.
    :raises ConfigurationError: the store does not tell its images.
    :raises StorageError: the store cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="imagetag-pages-") as folder:
        path = Path(folder) / "copy.db"
        made_at = datetime.now(UTC)
        engine = sa.create_engine(f"sqlite:///{path}", future=True)
        try:
            tables = SqlTables(engine, "labels", None, conn_id="copy", mode=StoreMode.READ)
            with engine.begin() as connection:
                for table in tables.images.metadata.sorted_tables:
                    # Without the indexes, which no page uses.
                    connection.execute(sa.schema.CreateTable(table))
            _fill(path, store, tables)
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


def _fill(path: Path, store: LabelStore, tables: SqlTables) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # The file does not outlive its reader.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        for frame in store.images(frame_rows=COPY_ROWS):
            _insert(database, tables.images, _image_columns(frame))
        for frame in store.labels(frame_rows=COPY_ROWS, originals=True):
            _insert(database, tables.labels_table, _label_columns(frame))
        database.execute("CREATE INDEX by_label ON labels (label, api, key_sha256, probability)")
        database.execute("COMMIT")
        database.execute("ANALYZE")


def _insert(database: sqlite3.Connection, table: sa.Table, columns: dict[str, list[Any]]) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join("?" * len(columns))
    # The names are those of our own tables.
    statement = f"INSERT OR REPLACE INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 (our own names)
    database.executemany(statement, zip(*columns.values(), strict=True))


def _image_columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        "api": _texts(frame["api"]),
        "key_sha256": [key_digest(key) for key in frame["image_key"]],
        **{name: _texts(frame[name]) for name in (*_TEXTS, "message")},
        "labels_count": frame["labels"].tolist(),
        "attempts": [0] * len(frame),
        "tries": [None if tries != tries else tries for tries in _objects(frame["tries"])],
        **{name: _times(frame[name]) for name in _TIMES},
    }


def _label_columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    texts = ("image_key", "image_uri", "label", "category", "subcategory", "scene", ORIGINAL_LABEL)
    return {
        "api": _texts(frame["api"]),
        "key_sha256": [key_digest(key) for key in frame["image_key"]],
        "rank": frame["rank"].tolist(),
        "probability": frame["probability"].tolist(),
        "tagged_at": _times(frame["tagged_at"]),
        **{name: _texts(frame[name]) for name in texts},
    }


def _objects(column: Any) -> list[Any]:
    return list(column.astype(object).where(column.notna(), None))


def _texts(column: Any) -> list[Any]:
    return [None if value is None else str(value) for value in _objects(column)]


def _times(column: Any) -> list[Any]:
    """Return times as SQLAlchemy writes them to SQLite: in UTC, without a zone."""
    return [
        None
        if moment is None
        else moment.to_pydatetime()
        .astimezone(UTC)
        .replace(tzinfo=None)
        .isoformat(" ", timespec="microseconds")
        for moment in _objects(column)
    ]

"""Private: labels in the tables of an SQL database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from airflow_imagetag.backends.databases import quoted_name, split_name
from airflow_imagetag.stores.base import DEFAULT_FRAME_ROWS, LabelStore, StoreMode

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.selection.missing import HeldImage
    from airflow_imagetag.stores.browsing import StoreBrowser
    from airflow_imagetag.stores.sql_open import OpenSqlStore
    from airflow_imagetag.stores.sql_removal import SqlRemoval


@dataclass(repr=False)
class SqlLabelStore(LabelStore):
    """Labels in a table, one row for each image and label, beside tables of images and of runs.

    The tables are ``<table>``, ``<table>_images`` and ``<table>_runs``. They are created on first
    use, or checked. Each batch is written in one transaction, where the database has transactions.
    The databases are PostgreSQL, SQLite, MySQL, MariaDB, DuckDB, Snowflake, BigQuery, Redshift,
    Databricks and Trino.

    :param conn_id: an Airflow connection whose hook is one of ``common.sql``. (templated)
    :param table: name of the labels table: ``table`` or ``schema.table``. (templated)
    :param schema: schema of the tables, which must exist. (templated)
    """

    conn_id: str
    table: str = "image_labels"
    schema: str | None = field(default=None, kw_only=True)

    template_fields: ClassVar[Sequence[str]] = ("conn_id", "table", "schema")

    def open(
        self, api: str, mode: StoreMode = StoreMode.WRITE
    ) -> AbstractContextManager[OpenSqlStore]:
        """Return a context in which the labels of one interface can be read and written.

        :param api: the interface that labels the images.
        :param mode: read or write; reading creates no table.
        :raises ConfigurationError: the connection cannot be used, or a table does not fit.
        :raises StorageError: the database cannot be reached.
        """
        from airflow_imagetag.stores.sql_open import open_sql_store

        return open_sql_store(self.conn_id, self.table, self.schema, api, mode)

    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield the labels of all interfaces as frames, in the order of api and key digest.

        :param frame_rows: number of rows in a frame.
        :param originals: add the column ``original_label``.
        """
        from airflow_imagetag.stores.sql_tables import open_tables

        with open_tables(self.conn_id, self.table, self.schema, StoreMode.WRITE) as tables:
            yield from tables.labels(frame_rows=frame_rows, originals=originals)

    def held(self, *, api: str | None = None) -> Iterator[list[HeldImage]]:
        """Yield the images that the store holds, some at a time.

        :param api: only those of this interface; None for all.
        """
        with self._images(api, StoreMode.READ) as images:
            yield from images.held()

    def mark(
        self, keys: Iterable[str], *, missing_since: datetime | None, api: str | None = None
    ) -> int:
        """Set or take away ``missing_since`` of images; their labels stay.

        :param keys: keys of images; those that the store does not hold are left out.
        :param missing_since: the time, with a zone; None takes the mark away.
        :param api: only images of this interface; None for all.
        :return: the number of images that were changed.
        :raises StoreError: the database failed for too long.
        """
        from airflow_imagetag.stores.key_sets import key_set

        with key_set(keys) as digests, self._images(api, StoreMode.WRITE) as images:
            return images.mark(digests, missing_since)

    def delete(self, keys: Iterable[str], *, api: str | None = None) -> int:
        """Delete the rows of images and of their labels, and copies of them in checkpoints.

        A deleted image is new if its source still has it, and is paid for again.

        :param keys: keys of images; those that the store does not hold are left out.
        :param api: only images of this interface; None for all.
        :return: the number of deleted rows of images.
        :raises StoreError: the database failed for too long.
        """
        from airflow_imagetag.stores.checkpoints import delete_from_checkpoints
        from airflow_imagetag.stores.key_sets import key_set

        with key_set(keys) as digests:
            with self._images(api, StoreMode.WRITE) as images:
                deleted = images.delete(digests)
            delete_from_checkpoints(digests, api)
        return deleted

    def dataset_refs(self) -> Mapping[str, DatasetRef]:
        """Return the two tables."""
        from airflow_imagetag.adapters.dataset_refs import IMAGES, LABELS, TableRef

        in_name, table = split_name(self.table, "table")
        schema = self.schema or in_name
        return {
            kind: TableRef(self.conn_id, quoted_name(name), schema)
            for kind, name in ((LABELS, table), (IMAGES, f"{table}_images"))
        }

    @contextmanager
    def _images(self, api: str | None, mode: StoreMode) -> Iterator[SqlRemoval]:
        from airflow_imagetag.stores.sql_removal import SqlRemoval
        from airflow_imagetag.stores.sql_tables import open_tables

        with open_tables(self.conn_id, self.table, self.schema, mode) as tables:
            yield SqlRemoval(tables, api)

    def images(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the images of all interfaces as frames, in the order of api and key digest.

        :param frame_rows: number of rows in a frame.
        """
        from airflow_imagetag.stores.sql_tables import open_tables

        with open_tables(self.conn_id, self.table, self.schema, StoreMode.READ) as tables:
            yield from tables.images_frames(frame_rows=frame_rows)

    def _browse(self) -> AbstractContextManager[StoreBrowser]:
        from airflow_imagetag.stores.sql_browsing import open_sql_browser

        return open_sql_browser(self.conn_id, self.table, self.schema)

    def _missing_place(self) -> str | None:
        from airflow_imagetag.stores.sql_tables import open_tables

        with open_tables(self.conn_id, self.table, self.schema, StoreMode.READ) as tables:
            name = tables.labels_table.fullname
            return f"table {name} in {self.conn_id!r}" if tables.is_missing else None

    def runs(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the runs that wrote to the tables as frames, in the order of their starts.

        :param frame_rows: number of rows in a frame.
        """
        from airflow_imagetag.stores.sql_tables import open_tables

        with open_tables(self.conn_id, self.table, self.schema, StoreMode.READ) as tables:
            yield from tables.runs(frame_rows=frame_rows)

    def upgrade(self) -> list[str]:
        """Create the tables and the columns that are missing, and return the changes.

        :raises ConfigurationError: the connection cannot be used, a table does not fit, or the
            database refuses a change.
        :raises StorageError: the database cannot be reached.
        """
        from airflow_imagetag.stores.sql_tables import open_tables

        with open_tables(self.conn_id, self.table, self.schema, StoreMode.READ) as tables:
            return tables.upgrade()

    @property
    def server_name(self) -> str:
        """Id of the connection."""
        return self.conn_id

    @property
    def asset_uri(self) -> str:
        """``imagetag://connection/schema/table``, or without the schema if none is named."""
        in_name, table = split_name(self.table, "table")
        schema = self.schema or in_name
        parts = [self.conn_id, table] if schema is None else [self.conn_id, schema, table]
        return "imagetag://" + "/".join(quote(part, safe="") for part in parts)

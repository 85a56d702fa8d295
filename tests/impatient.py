"""A store in a database that gives up early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from airflow_imagetag.backends.databases import engine_of
from airflow_imagetag.stores import SqlLabelStore, StoreMode
from airflow_imagetag.stores.sql_open import OpenSqlStore
from airflow_imagetag.stores.sql_tables import SqlTables


@dataclass(repr=False)
class ImpatientStore(SqlLabelStore):
    """A ``SqlLabelStore`` with short waits.

    :param retry_seconds: how long a statement is retried in write mode.
    :param busy_seconds: how long a statement waits for the lock of an SQLite file.
    """

    retry_seconds: float = field(default=0.3, kw_only=True)
    busy_seconds: float = field(default=0.1, kw_only=True)

    @contextmanager
    def open(self, api: str, mode: StoreMode = StoreMode.WRITE) -> Iterator[OpenSqlStore]:
        """Open the store as its base does, but for the waits."""
        engine = engine_of(self.conn_id, sqlite_busy_seconds=self.busy_seconds)
        try:
            tables = SqlTables(engine, self.table, self.schema, conn_id=self.conn_id, mode=mode)
            tables.prepare()
            yield OpenSqlStore(tables, api, retry_seconds=self.retry_seconds)
        finally:
            engine.dispose()

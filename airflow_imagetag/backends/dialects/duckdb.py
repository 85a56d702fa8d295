"""Private: DuckDB, a warehouse in a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.dialects.base import (
    KeyColumn,
    Ordering,
    UniqueKey,
    execute_at_connect,
)
from airflow_imagetag.backends.dialects.warehouse import Row, Warehouse, kind_of

_COLUMNS = """
SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns()
WHERE table_name = :name AND schema_name = COALESCE(:schema, current_schema())
  AND database_name = current_database()
ORDER BY column_index
"""

_UNIQUE = """
SELECT count(*) FROM duckdb_constraints()
WHERE table_name = :name AND schema_name = COALESCE(:schema, current_schema())
  AND database_name = current_database()
  AND constraint_type IN ('PRIMARY KEY', 'UNIQUE') AND constraint_column_names = [:column]
"""

_KINDS = (
    ("VARCHAR", sa.String()),
    ("TIMESTAMP", sa.TIMESTAMP()),
    ("DATE", sa.Date()),
    ("BOOLEAN", sa.Boolean()),
    ("DOUBLE", sa.Float()),
    ("FLOAT", sa.Float()),
    ("DECIMAL", sa.Numeric()),
    ("BLOB", sa.LargeBinary()),
)
"""Types by the beginning of their names, beside whole numbers."""

_WHOLE = ("INT", "HUGEINT", "BIGINT", "SMALLINT", "TINYINT")

_LOCKED = ("could not set lock on file", "conflicting lock", "transaction conflict", "conflict on")
"""DuckDB's errors have no codes. Another process has the file, or another thread the rows."""

INTERRUPT_SECONDS = 0.05
"""Interval in which statements are ended whose time is over."""

_OPENING = threading.Lock()
"""Held while a session begins or ends: the first one of a process opens the file, the last one
closes it, and a session that begins meanwhile would find a database that is not complete."""


class DuckDb(Warehouse):
    """DuckDB. A process that has the file open keeps all others out, so sessions are short."""

    def engine_options(self, hook: Any) -> Mapping[str, Any]:
        """Return options for short sessions, with the settings of the connection."""
        from duckdb_engine import ConnectionWrapper

        class Session(ConnectionWrapper):
            def close(self) -> None:
                with _OPENING:
                    super().close()

        def begin() -> Session:
            with _OPENING:
                return Session(hook.get_conn())

        return {"poolclass": sa.pool.NullPool, "creator": begin}

    @contextmanager
    def limited(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """End the statements of a ``with`` block when the time for all of them is over."""
        driver: Any = connection.connection.dbapi_connection
        ended = threading.Event()

        def interrupt() -> None:
            wait = seconds
            while not ended.wait(wait):
                driver.interrupt()
                # For a statement that begins later.
                wait = INTERRUPT_SECONDS

        watcher = threading.Thread(target=interrupt, name="imagetag-limit", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def prepare(self, engine: sa.Engine, *, busy_seconds: float) -> None:
        """Set the time zone."""
        del busy_seconds
        execute_at_connect(engine, "SET TimeZone = 'UTC'")

    def lacks(self, engine: sa.Engine) -> str | None:
        """Return the need of a store that a database in memory does not meet."""
        if engine.url.database in (None, "", ":memory:"):
            return "a file: a database in memory ends with the task. Set the connection's host"
        return None

    def is_transient(self, error: sa_exc.DBAPIError) -> bool:
        """Tell whether another process has the file, or another thread the rows."""
        message = str(error.orig).lower()
        return any(text in message for text in _LOCKED)

    def text_of(self, column: Any) -> Any:
        """Return the text of a column's values, without the column's collation."""
        return sa.func.decode(sa.func.encode(super().text_of(column)), type_=self.text_type)

    def ordering(self, engine: sa.Engine, column: KeyColumn) -> Ordering:
        """Return how rows are ordered by their keys."""
        del engine, column
        # A primary key is unique letter by letter, and a collation may order two of them as one.
        return Ordering()

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        return sa.func.hash(text, type_=sa.BigInteger)

    def unique_key(
        self, engine: sa.Engine, name: str, schema: str | None, column: str
    ) -> UniqueKey | None:
        """Return how a column is kept unique, from the catalog."""
        values = {"name": name, "schema": schema, "column": column}
        with engine.connect() as connection:
            count = connection.execute(sa.text(_UNIQUE), values).scalar_one()
        return UniqueKey() if count else None

    def columns(
        self, engine: sa.Engine, name: str, schema: str | None
    ) -> dict[str, dict[str, Any]]:
        """Return the columns of a table, from the catalog."""
        with engine.connect() as connection:
            rows = connection.execute(sa.text(_COLUMNS), {"name": name, "schema": schema}).all()
        return {
            column: {
                "name": column,
                "type": _type_of(kind),
                "nullable": is_nullable,
                "default": default,
            }
            for column, kind, is_nullable, default in rows
        }

    def has_table(self, engine: sa.Engine, table: sa.Table) -> bool:
        """Tell whether a table exists."""
        return bool(self.columns(engine, table.name, table.schema))

    def append(self, connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
        """Insert rows from Arrow, which DuckDB reads where it is."""
        if not rows:
            return
        import pyarrow as pa

        types = {
            "text": pa.string(),
            "whole": pa.int64(),
            "number": pa.float64(),
            "time": pa.timestamp("us", tz="UTC"),
        }
        schema = pa.schema([(column.name, types[kind_of(column)]) for column in table.columns])
        batch = pa.Table.from_pylist(rows, schema=schema)
        prepare = connection.engine.dialect.identifier_preparer
        names = ", ".join(prepare.quote(column.name) for column in table.columns)
        raw: Any = connection.connection.dbapi_connection
        raw.register("imagetag_batch", batch)
        try:
            connection.exec_driver_sql(
                f"INSERT INTO {prepare.format_table(table)} ({names})"
                f" SELECT {names} FROM imagetag_batch"
            )
        finally:
            raw.unregister("imagetag_batch")


def _type_of(name: str) -> Any:
    if any(part in name for part in _WHOLE) and "[" not in name:
        return sa.BigInteger()
    found = (kind for beginning, kind in _KINDS if name.startswith(beginning) and "[" not in name)
    return next(found, sa.types.NullType())

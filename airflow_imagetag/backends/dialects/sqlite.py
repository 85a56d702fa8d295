"""Private: SQLite."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy import types as sa_types
from sqlalchemy.dialects import sqlite

from airflow_imagetag.backends.dialects.base import (
    Dialect,
    KeyColumn,
    Moments,
    Ordering,
    UniqueKey,
    insert_on_conflict,
    text_of_bytes,
)
from airflow_imagetag.backends.dialects.mysql import read_moments
from airflow_imagetag.safety.uris import BLANKS, is_writable
from airflow_imagetag.selection.shards import key_hash

_TRANSIENT = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR})

COLLATIONS = ("BINARY", "NOCASE", "RTRIM")
"""The collations that every SQLite has."""

_INDEXES = """
SELECT i.origin, min(x.coll), count(*), min(x.name)
FROM pragma_index_list(:name, :schema) AS i
JOIN pragma_index_xinfo(i.name, :schema) AS x ON x."key" = 1
WHERE i."unique" = 1 AND i.partial = 0 GROUP BY i.name
"""
_COLUMNS = "SELECT name, type, pk FROM pragma_table_info(:name, :schema)"


CLOCK_STEPS = 20_000
"""Number of steps of its machine between two looks at the clock."""


class Sqlite(Dialect):
    """SQLite."""

    is_exact = True
    has_hash = True
    replaces_rows = True
    numbers_equal_columns = True
    has_partial_indexes = True

    def day_of(self, moment: Any) -> Any:
        """Return the day of a point in time as text: it has no type of a day."""
        return sa.func.date(moment, type_=sa.String())

    @contextmanager
    def limited(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """End the statements of a ``with`` block when the time for all of them is over."""
        driver: Any = connection.connection.dbapi_connection
        ends = time.monotonic() + seconds
        driver.set_progress_handler(lambda: time.monotonic() > ends, CLOCK_STEPS)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)

    def prepare(self, engine: sa.Engine, *, busy_seconds: float) -> None:
        """Wait for other transactions, and add the functions that the statements call."""
        milliseconds = round(busy_seconds * 1000)

        def at_connect(dbapi_connection: Any, _record: Any) -> None:
            # SQLAlchemy begins the transactions: the driver would begin them too late to wait.
            dbapi_connection.isolation_level = None
            dbapi_connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
            dbapi_connection.create_function(
                "imagetag_hash", 1, lambda text: key_hash(str(text)), deterministic=True
            )
            dbapi_connection.create_function("imagetag_text", 1, text_of_bytes, deterministic=True)

        sa.event.listen(engine, "connect", at_connect)
        sa.event.listen(engine, "begin", _begin_immediately)

    def fault_of_file(self, path: str, error: Exception) -> str | None:
        """Return why a file cannot be opened: the driver's message does not name it."""
        if "unable to open database file" not in str(error):
            return None
        if path.startswith("//"):
            # Airflow's hook adds a slash.
            path = "/" + path.lstrip("/")
        is_uri = path.startswith("file:")
        if not is_uri and not Path(path).absolute().parent.is_dir():
            return f"there is no folder for {path}. Create it, or correct the host"
        return f"{path} cannot be opened. Give this user access to it, or correct the host"

    def read_leniently(self, connection: sa.Connection, error: sa_exc.DBAPIError) -> bool:
        """Take texts that are no UTF-8: a column of text may hold any bytes."""
        driver: Any = connection.connection.dbapi_connection
        if "decode to UTF-8" not in str(error.orig) or driver.text_factory is not str:
            return False
        driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        return True

    def bound_text(self, text: str) -> Any:
        """Return a text to compare keys with; one that is no UTF-8 as its bytes."""
        if text.isascii() or is_writable(text):
            return super().bound_text(text)
        content = text.encode(errors="surrogateescape")
        return sa.cast(sa.literal(content, sa.LargeBinary()), sa.Text())

    def bound_key(self, value: Any) -> Any:
        """Return a key as a parameter that compares with its column."""
        return self.bound_text(value) if isinstance(value, str) else super().bound_key(value)

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell by its code whether an error may pass."""
        code = getattr(origin, "sqlite_errorcode", None)
        return None if code is None else code & 0xFF in _TRANSIENT

    def text_of(self, column: Any) -> Any:
        """Return the text of a column's values."""
        is_bytes = sa.func.typeof(column) == "blob"
        text = sa.cast(column, sa.String)
        return sa.case((is_bytes, sa.func.imagetag_text(column)), else_=text)

    def exact(self, text: Any) -> Any:
        """Return a text under the collation of its bytes."""
        return text.collate("BINARY")

    def beginning(self, text: Any, characters: int) -> Any:
        """Return the first characters of a text, or bytes of a BLOB."""
        return sa.func.substr(text, 1, characters)

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but blanks."""
        return text.is_(None) | (sa.func.trim(text, BLANKS) == "")

    def hash_of(self, text: Any) -> Any:
        """Return the number that this package computes."""
        return sa.func.imagetag_hash(text, type_=sa.Integer)

    def ordering(self, engine: sa.Engine, column: KeyColumn) -> Ordering:
        """Return how rows are ordered, by the affinity of their keys."""
        is_unique, kind = column.unique is not None, column.kind
        if not is_unique and kind is not None and _has_affinity(kind):
            # Values that differ byte by byte have different texts then.
            return Ordering(is_exact=True, collation="BINARY")
        return super().ordering(engine, column)

    def unique_key(
        self, engine: sa.Engine, name: str, schema: str | None, column: str
    ) -> UniqueKey | None:
        """Return how a column is kept unique, from the catalog."""
        values = {"name": name, "schema": schema or "main"}
        with engine.connect() as connection:
            columns = connection.execute(sa.text(_COLUMNS), values).all()
            indexes = connection.execute(sa.text(_INDEXES), values).all()
        declared = {row[0]: str(row[1]).upper() for row in columns}.get(column, "")
        if not declared or "BLOB" in declared or declared == "ANY":
            # The number 1 and the text '1' are different values of one text.
            return None
        keys = [row[0] for row in columns if row[2]]
        if keys == [column] and not any(origin == "pk" for origin, *_ in indexes):
            # The number of the row itself.
            return UniqueKey()
        for _, collation, count, indexed in indexes:
            if count == 1 and indexed == column and collation in COLLATIONS:
                return UniqueKey(collation)
        return None

    def moment(self, moment: datetime) -> Any:
        """Return a point in time as a number of days."""
        return sa.func.julianday(super().moment(moment), type_=sa.Float)

    def moments(self, column: Any) -> Moments:
        """Return a column as points in time; it keeps them as texts of several forms."""
        text = sa.cast(column, sa.String)
        return read_moments(text, sa.func.julianday(column, type_=sa.Float))

    def insert(self, table: sa.Table, *, replace: bool) -> Any:
        """Return an insert with ON CONFLICT."""
        return insert_on_conflict(sqlite.insert(table), table, replace=replace)


def _begin_immediately(connection: Any) -> None:
    # Otherwise a transaction that reads before it writes fails where it could have waited.
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _has_affinity(kind: Any) -> bool:
    """Tell whether a column turns a text of digits into a number, or the reverse."""
    return not isinstance(kind, (sa_types.NullType, sa.LargeBinary))

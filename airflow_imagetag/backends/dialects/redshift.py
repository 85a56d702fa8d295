"""Private: Amazon Redshift, which takes some of PostgreSQL's statements and its drivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects.base import execute_at_connect
from airflow_imagetag.backends.dialects.postgresql import PostgreSql
from airflow_imagetag.backends.dialects.warehouse import Row, Warehouse
from airflow_imagetag.safety.uris import BLANKS

TEXT_BYTES = 65_535
"""Longest VARCHAR; without a length it has 256 bytes."""

_COLUMNS = """
SELECT column_name, data_type, is_nullable = 'YES', column_default
FROM information_schema.columns
WHERE table_name = :name AND table_schema = COALESCE(:schema, current_schema())
ORDER BY ordinal_position
"""

_KINDS = {
    "character varying": sa.String(),
    "character": sa.String(),
    "text": sa.String(),
    "bigint": sa.BigInteger(),
    "integer": sa.Integer(),
    "smallint": sa.SmallInteger(),
    "numeric": sa.Numeric(),
    "double precision": sa.Float(),
    "real": sa.Float(),
    "boolean": sa.Boolean(),
    "date": sa.Date(),
    "timestamp without time zone": sa.TIMESTAMP(),
    "timestamp with time zone": sa.TIMESTAMP(timezone=True),
}


_ASKS_ESCAPES = "show standard_conforming_strings"
"""Statement of SQLAlchemy 2 at the first connect, which Redshift refuses."""


class Redshift(Warehouse):
    """Redshift. Its catalogs are not those that SQLAlchemy's dialect of PostgreSQL reads."""

    merge_alias = None
    timeout = "SET statement_timeout TO {milliseconds}"
    # A cluster of one node refuses to fetch more.
    streamed_rows = 1_000

    def engine_options(self, hook: Any) -> Mapping[str, Any]:
        """Return options with which PostgreSQL's drivers send only what Redshift takes."""
        del hook
        # It names its encoding by a name that not every psycopg knows. The look-up of a type that
        # it does not have takes a savepoint.
        return {"connect_args": {"client_encoding": "utf8"}, "use_native_hstore": False}

    def prepare(self, engine: sa.Engine, *, busy_seconds: float) -> None:
        """Set the time zone, and answer for the server what SQLAlchemy asks PostgreSQL."""
        del busy_seconds
        _insert_many_rows(engine)
        sa.event.listen(engine, "connect", _prepare_nothing)
        sa.event.listen(engine, "do_execute", _answer_escapes)
        execute_at_connect(engine, "SET TIME ZONE 'UTC'")

    @property
    def text_type(self) -> Any:
        """The longest text."""
        return sa.String(TEXT_BYTES)

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell by SQLSTATE whether an error may pass, as PostgreSQL's driver gives it."""
        return PostgreSql(self.name).is_transient_code(origin)

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but blanks."""
        return text.is_(None) | (sa.func.btrim(self.text_of(text), BLANKS) == "")

    def storable(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return rows without zero bytes in their texts, which it does not take."""
        return PostgreSql(self.name).storable(rows)

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        return sa.func.abs(sa.func.mod(sa.func.fnv_hash(text), 2_147_483_647))

    def columns(
        self, engine: sa.Engine, name: str, schema: str | None
    ) -> dict[str, dict[str, Any]]:
        """Return the columns of a table, from the catalog."""
        with engine.connect() as connection:
            rows = connection.execute(sa.text(_COLUMNS), {"name": name, "schema": schema}).all()
        if not rows:
            raise sa.exc.NoSuchTableError(name)
        return {
            column: {
                "name": column,
                "type": _KINDS.get(str(kind), sa.types.NullType()),
                "nullable": is_nullable,
                "default": default,
            }
            for column, kind, is_nullable, default in rows
        }

    def has_table(self, engine: sa.Engine, table: sa.Table) -> bool:
        """Tell whether a table exists."""
        try:
            return bool(self.columns(engine, table.name, table.schema))
        except sa.exc.NoSuchTableError:
            return False

    def append(self, connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
        """Insert rows; SQLAlchemy sends many of them in one statement, as prepared."""
        if rows:
            connection.execute(table.insert(), rows)


def _insert_many_rows(engine: sa.Engine) -> None:
    """Let SQLAlchemy insert many rows with a statement, by whichever driver."""
    dialect: Any = engine.dialect
    # Not done for psycopg 3.
    dialect.use_insertmanyvalues_wo_returning = True
    mode = getattr(dialect, "executemany_mode", None)

    def restore(_dbapi_connection: Any, _record: Any) -> None:
        # SQLAlchemy 1.4 gives it up for a server of this version.
        dialect.executemany_mode = mode

    if mode is not None:
        sa.event.listen(engine, "connect", restore)


def _prepare_nothing(dbapi_connection: Any, _record: Any) -> None:
    """Let psycopg 3 prepare no statements, which it would drop by one that Redshift refuses."""
    if hasattr(dbapi_connection, "prepare_threshold"):
        dbapi_connection.prepare_threshold = None


def _answer_escapes(cursor: Any, statement: str, _parameters: Any, _context: Any) -> bool:
    """Answer that a backslash in a text escapes, as before PostgreSQL 8.2; tell whether it did."""
    if statement != _ASKS_ESCAPES:
        return False
    cursor.execute("SELECT 'off'")
    return True

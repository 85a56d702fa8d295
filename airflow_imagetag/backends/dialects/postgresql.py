"""Private: PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import postgresql

from airflow_imagetag.backends.dialects.base import (
    Dialect,
    KeyColumn,
    Ordering,
    UniqueKey,
    blanks_pattern,
    count_of,
    execute_at_connect,
    insert_on_conflict,
    sqlstate_of,
)

TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
"""Classes of SQLSTATE: connection, rollback, resources, locks, operator, system, internal."""

REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied for database",
)
"""Messages of libpq about a refused login, for which it passes no SQLSTATE to the driver."""

UNDEFINED_FUNCTION = "42883"
"""SQLSTATE, also for an operator that two types do not have."""

OUT_OF_RESOURCES = "53"
"""Class of SQLSTATE."""

HASHES_LISTS_SINCE = (14,)
"""First version that finds a value in a long list by its hash, not one by one."""

EXACT_OIDS = frozenset({20, 21, 23, 26, 1082, 1083, 1114, 1184, 2950})
"""Whole numbers, dates, times and UUIDs: equal values have equal texts."""

TEXT_OIDS = frozenset({25, 1043})
"""Texts: equal ones are the same, except under a collation of the user's own."""

REDSHIFT_VERSION = 80_002
"""Version that each Amazon Redshift tells its clients, as libpq writes it."""

RECORD_OIDS = frozenset({2249, 2287})
"""Rows without a named type, and arrays of them, which PostgreSQL cannot read from a text."""

# A row of a child table may have the key of one in its parent. An index under another collation
# allows keys that the column's own collation calls equal.
_UNIQUE = """
SELECT count(*) FROM pg_index AS i
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
WHERE i.indrelid = to_regclass(:name) AND a.attname = :column
  AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL
  AND (a.attcollation = i.indcollation[0] OR c.collisdeterministic)
  AND (t.relkind = 'p' OR NOT EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = t.oid))
"""


class PostgreSql(Dialect):
    """PostgreSQL."""

    is_exact = True
    has_hash = True
    replaces_rows = True
    # It reads every type from its text. Drivers do not have a value for each.
    binds_keys_as_texts = True
    has_partial_indexes = True

    @classmethod
    def text_index_options(cls, column: str) -> Mapping[str, Any]:
        """Return a hash index: a B-tree takes no text above some 2,700 bytes."""
        del column
        return {"using": "hash"}

    def planned_in_full(self, engine: sa.Engine, statement: sa.Select[Any]) -> sa.CTE | None:
        """Return a materialized expression."""
        if (engine.dialect.server_version_info or ()) < HASHES_LISTS_SINCE:
            return None
        return statement.cte("candidates").prefix_with("MATERIALIZED")

    def lacks_space(self, error: sa_exc.DBAPIError) -> bool:
        """Tell by SQLSTATE whether memory, the disk or a limit of temporary files is used up."""
        return (sqlstate_of(error.orig) or "").startswith(OUT_OF_RESOURCES)

    @contextmanager
    def limited(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """End each statement of a ``with`` block after some time."""
        milliseconds = max(1, round(seconds * 1000))
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
        yield

    def prepare(self, engine: sa.Engine, *, busy_seconds: float) -> None:
        """Set the time zone, the style of dates and the digits of floats."""
        del busy_seconds
        execute_at_connect(
            engine, "SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'; SET extra_float_digits = 1"
        )

    def misfit(self, dbapi_connection: Any) -> str | None:
        """Return a reason if it is Amazon Redshift, by the version that the session was told."""
        # No statement is sent; drivers other than psycopg's do not have it.
        told = getattr(dbapi_connection, "info", None)
        if getattr(told, "server_version", None) != REDSHIFT_VERSION:
            return None
        return (
            "its server is an Amazon Redshift, or a PostgreSQL 8.0.2. Give the connection the type "
            "'redshift', of apache-airflow-providers-amazon"
        )

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell by SQLSTATE, or by the message of a refused login, whether an error may pass."""
        state = sqlstate_of(origin)
        if state is not None:
            return state[:2] in TRANSIENT_CLASSES
        return False if any(text in str(origin) for text in REFUSALS) else None

    def is_type_mismatch(self, error: sa_exc.DBAPIError) -> bool:
        """Tell whether it refuses to compare values of two types."""
        return sqlstate_of(error.orig) == UNDEFINED_FUNCTION

    def text_of(self, column: Any) -> Any:
        """Return the text of a column's values."""
        # Of the database, under which texts are equal only letter by letter; that of the column may
        # call other texts equal.
        return sa.cast(column, sa.String).collate("default")

    def exact(self, text: Any) -> Any:
        """Return a text under the collation of its bytes."""
        return text.collate("C")

    def beginning(self, text: Any, characters: int) -> Any:
        """Return the first characters of a text."""
        return sa.func.substr(self.text_of(text), 1, characters)

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but blanks."""
        # As digits: the database may have an encoding without most of these characters.
        digits = sa.func.encode(sa.func.convert_to(sa.cast(text, sa.Text), "UTF8"), "hex")
        return text.is_(None) | digits.op("~")(blanks_pattern())

    def storable(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return rows without zero bytes in their texts, which it does not take."""
        return [
            {
                name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
                for name, value in row.items()
            }
            for row in rows
        ]

    def is_null(self, key: Any) -> Any:
        """Return the condition that a row has no key."""
        # Of a row as a value, IS NULL says that each of its parts is NULL.
        return key.is_not_distinct_from(sa.null())

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        # Without the sign bit: the remainder of a negative number is negative.
        return sa.func.hashtext(text, type_=sa.Integer).op("&")(0x7FFFFFFF)

    def ordering(self, engine: sa.Engine, column: KeyColumn) -> Ordering:
        """Return how rows are ordered, by the number of the key's type."""
        if column.unique is not None:
            return super().ordering(engine, column)
        oid = _oid(engine, column.rows, column.key)
        if oid is None or oid in RECORD_OIDS:
            return Ordering(is_native=False)
        is_text = oid in TEXT_OIDS and not _has_own_equality(engine)
        return Ordering(is_exact=is_text or oid in EXACT_OIDS)

    def unique_key(
        self, engine: sa.Engine, name: str, schema: str | None, column: str
    ) -> UniqueKey | None:
        """Return how a column is kept unique, from the catalog."""
        regclass = engine.dialect.identifier_preparer.format_table(sa.table(name, schema=schema))
        return UniqueKey() if count_of(engine, _UNIQUE, name=regclass, column=column) else None

    def moment(self, moment: datetime) -> Any:
        """Return a point in time as a parameter with a zone."""
        return sa.literal(moment, sa.DateTime(timezone=True))

    def now_microseconds(self) -> Any:
        """Return the server's clock."""
        # now() is the beginning of the transaction, before it waited for the row.
        moment: Any = sa.func.extract("epoch", sa.func.clock_timestamp())
        return sa.cast(moment * 1_000_000, sa.BigInteger)

    def stored_moment(self, moment: datetime) -> datetime:
        """Return the point in time with its zone."""
        return moment

    def insert(self, table: sa.Table, *, replace: bool) -> Any:
        """Return an insert with ON CONFLICT."""
        return insert_on_conflict(postgresql.insert(table), table, replace=replace)

    def gather_statistics(self, engine: sa.Engine, table: sa.Table) -> None:
        """Analyze a table without statistics, such as one from a backup.

        The server does so by itself a minute after rows were added. Until then it plans for a
        nearly empty table and compares every image of a source with each of its rows, which may
        take days.
        """
        name = engine.dialect.identifier_preparer.format_table(table)
        unknown = sa.text(
            "SELECT relpages = 0 AND pg_relation_size(oid) > 0 FROM pg_class"
            " WHERE oid = to_regclass(:name)"
        )
        with engine.begin() as connection:
            if connection.execute(unknown, {"name": name}).scalar():
                # A sample of fixed size. The server only warns a role that does not own the table.
                analyze = sa.DDL("ANALYZE %(fullname)s")  # type: ignore[no-untyped-call]
                connection.execute(analyze.against(table))


def _oid(engine: sa.Engine, rows: sa.FromClause, key: Any) -> int | None:
    """Return the number of the key's type; None for a type without an order."""
    statement = sa.select(key).select_from(rows).order_by(key).limit(0)
    try:
        with engine.connect() as connection:
            cursor: Any = connection.execute(statement).cursor
            return int(cursor.description[0][1])
    except sa_exc.DBAPIError as error:
        if sqlstate_of(error.orig) == UNDEFINED_FUNCTION:
            return None
        raise


def _has_own_equality(engine: sa.Engine) -> bool:
    """Tell whether it has a collation under which different texts may be equal."""
    statement = sa.text("SELECT count(*) FROM pg_collation WHERE NOT collisdeterministic")
    try:
        with engine.connect() as connection:
            return bool(connection.execute(statement).scalar_one())
    except sa_exc.ProgrammingError:
        # Before version 12 there is none.
        return False

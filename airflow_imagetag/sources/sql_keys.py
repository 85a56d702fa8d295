"""Private: the order of rows by key, and pages of them; loaded when a task reads a table.

The rows after the last one of a page must begin with the next one, whatever the type of the key and
whatever its collation calls equal. So the bound of a page has the type of the key, and where keys
may be equal without being the same, their texts decide, byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy import types as sa_types
from sqlalchemy.dialects import mysql

from airflow_imagetag.backends.databases import is_transient, is_type_mismatch
from airflow_imagetag.backends.sql_texts import MYSQL, exact, text_of
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources.sql_unique import UniqueKey

Row = Mapping[str, Any]

POSTGRES_EXACT_OIDS = frozenset({20, 21, 23, 26, 1082, 1083, 1114, 1184, 2950})
"""PostgreSQL's whole numbers, dates, times and UUIDs: equal values have equal texts."""

POSTGRES_TEXT_OIDS = frozenset({25, 1043})
"""PostgreSQL's texts: equal ones are the same, except under a collation of the user's own."""

POSTGRES_RECORD_OIDS = frozenset({2249, 2287})
"""Rows without a named type, and arrays of them, which PostgreSQL cannot read from a text."""


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """The order of rows by key.

    :param column: the key.
    :param dialect: the database, as SQLAlchemy names it.
    :param is_native: the database orders the keys by their own type; else by their texts.
    :param is_exact: no two keys are equal and have different texts.
    :param collation: the collation of SQLite that orders the keys; None for the column's own.
    """

    column: Any
    dialect: str
    is_native: bool = True
    is_exact: bool = False
    collation: str | None = None

    @property
    def text(self) -> Any:
        """The text of a key."""
        return text_of(self.column, self.dialect)

    @property
    def same(self) -> Any:
        """The expression whose value is equal in the rows that share a key."""
        return self._key if self.is_native and self.is_exact else self._exact_text

    @property
    def bounds(self) -> list[Any]:
        """The columns that a page needs beside the texts for the bound of the next page."""
        # PostgreSQL reads every type from its text. Drivers do not have a value for each.
        has_value = self.is_native and self.dialect != "postgresql"
        return [self.column.label("native_key")] if has_value else []

    def order_by(self) -> list[Any]:
        """Return the expressions to order the rows by."""
        keys = [self._key] if self.is_native else []
        return keys if keys and self.is_exact else [*keys, self._exact_text]

    def after(self, row: Row) -> Any:
        """Return the condition of the rows that come after a row."""
        if not self.is_native:
            return self._exact_text > self._bound_text(row)
        later = self._key > self._bound(row)
        if self.is_exact:
            return later
        return later | (self.finds(row) & (self._exact_text > self._bound_text(row)))

    def finds(self, row: Row) -> Any:
        """Return the condition of the rows whose key is equal to that of a row."""
        return self._key == self._bound(row)

    def on(self, column: Any) -> KeyOrder:
        """Return the order of the same keys in another subquery."""
        return replace(self, column=column)

    def by_text(self) -> KeyOrder:
        """Return the order of the keys' texts."""
        return replace(self, is_native=False)

    @property
    def _key(self) -> Any:
        return self.column if self.collation is None else self.column.collate(self.collation)

    @property
    def _exact_text(self) -> Any:
        return exact(self.text, self.dialect)

    def _bound(self, row: Row) -> Any:
        if self.dialect == "postgresql":
            # Without a type of its own, so that the server gives it the type of the key.
            return sa.bindparam(None, row["key"], type_=sa_types.NullType(), unique=True)
        return sa.literal(row["native_key"])

    def _bound_text(self, row: Row) -> Any:
        bound = sa.literal(row["key"], sa.String())
        return exact(bound, self.dialect) if self.dialect in MYSQL else bound


def order_of(
    engine: sa.Engine, rows: sa.FromClause, key: Any, *, kind: Any, unique: UniqueKey | None
) -> KeyOrder:
    """Return the order in which the rows of a table or query are read.

    :param engine: the database.
    :param rows: the table or query.
    :param key: its column of keys.
    :param kind: the type of the column as SQLAlchemy reports it; None for a query.
    :param unique: how the database keeps the column unique; None if two keys may be equal.
    """
    order = KeyOrder(key, engine.dialect.name)
    if order.dialect in MYSQL and not _is_ordered_in_mysql(kind):
        return order.by_text()
    if unique is not None:
        return replace(order, is_exact=True, collation=unique.collation)
    if order.dialect == "sqlite" and kind is not None and _has_affinity(kind):
        # Values that differ byte by byte have different texts then.
        return replace(order, is_exact=True, collation="BINARY")
    if order.dialect != "postgresql":
        return order
    oid = _postgres_oid(engine, rows, key)
    if oid is None or oid in POSTGRES_RECORD_OIDS:
        return order.by_text()
    is_text = oid in POSTGRES_TEXT_OIDS and not _has_own_equality(engine)
    return replace(order, is_exact=is_text or oid in POSTGRES_EXACT_OIDS)


def is_found(engine: sa.Engine, rows: sa.FromClause, order: KeyOrder, row: Row) -> bool:
    """Tell whether the database finds a row again by its key, as the bound of a page must be."""
    statement = sa.select(sa.literal(1)).select_from(rows).where(order.finds(row)).limit(1)
    try:
        with engine.connect() as connection:
            return connection.execute(statement).first() is not None
    except sa_exc.DBAPIError as error:
        if is_transient(error):
            raise
        return False


def _postgres_oid(engine: sa.Engine, rows: sa.FromClause, key: Any) -> int | None:
    """Return the number of the key's type; None for a type without an order."""
    statement = sa.select(key).select_from(rows).order_by(key).limit(0)
    try:
        with engine.connect() as connection:
            cursor: Any = connection.execute(statement).cursor
            return int(cursor.description[0][1])
    except sa_exc.DBAPIError as error:
        if is_type_mismatch(error):
            return None
        raise


def _has_own_equality(engine: sa.Engine) -> bool:
    """Tell whether PostgreSQL has a collation under which different texts may be equal."""
    statement = sa.text("SELECT count(*) FROM pg_collation WHERE NOT collisdeterministic")
    try:
        with engine.connect() as connection:
            return bool(connection.execute(statement).scalar_one())
    except sa_exc.ProgrammingError:
        # Before version 12 there is none.
        return False


def _has_affinity(kind: Any) -> bool:
    """Tell whether a column of SQLite turns a text of digits into a number, or the reverse."""
    return not isinstance(kind, (sa_types.NullType, sa.LargeBinary))


def _is_ordered_in_mysql(kind: Any) -> bool:
    """Tell whether values compare with a bound as they are ordered.

    A value of ENUM and SET is ordered by its number and compared as a text, and a FLOAT is compared
    as a DOUBLE.
    """
    if isinstance(kind, (mysql.ENUM, mysql.SET, sa.Float)):
        return False
    numbers_and_times = (sa.Integer, sa.Numeric, sa.Date, sa.DateTime)
    texts_and_bytes = (sa.String, sa.BINARY, sa.VARBINARY, sa.LargeBinary)
    return isinstance(kind, (*numbers_and_times, *texts_and_bytes))


def numbered(rows: sa.FromClause, order: KeyOrder, names: Sequence[str | None]) -> sa.FromClause:
    """Return the rows numbered within their key, the greatest first, and counted.

    :param order: the order of the rows by key.
    :param names: the columns that decide which row is the greatest: version, URI, bytes.
    """
    places: list[Any] = []
    # The bytes come last: they are compared only if two rows agree in all other columns.
    for name in filter(None, names):
        column = rows.c[name]
        # A NULL is the greatest value in PostgreSQL and the smallest in the others.
        places += [column.is_(None), column.desc()]
        if name != names[-1] and not order.is_exact:
            # Of texts that a collation calls equal, the same one in every run.
            places.append(exact(text_of(column, order.dialect), order.dialect).desc())
    place = sa.func.row_number().over(partition_by=order.same, order_by=places or [order.same])
    copies = sa.func.count().over(partition_by=order.same)
    return sa.select(
        *rows.c, place.label("imagetag_place"), copies.label("imagetag_copies")
    ).subquery("numbered")


class Pages:
    """The rows of a statement in the order of their keys.

    :param engine: the database.
    :param statement: all rows, with the text of the key as ``key``.
    :param order: the order.
    :param size: number of rows in a page.
    """

    def __init__(
        self, engine: sa.Engine, statement: sa.Select[Any], order: KeyOrder, size: int
    ) -> None:
        self._engine = engine
        self._order = order
        self._statement = (
            statement.add_columns(*order.bounds).order_by(*order.order_by()).limit(size)
        )
        self.size = size

    def first(self) -> Sequence[Any]:
        """Return the rows of the first page."""
        return self._read(self._statement)

    def after(self, row: Any) -> Sequence[Any]:
        """Return the rows of the page after a row."""
        return self._read(self._statement.where(self._order.after(row)))

    def _read(self, statement: sa.Select[Any]) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(statement).mappings().all()


def is_null(key: Any, dialect: str) -> Any:
    """Return the condition that a row has no key."""
    # Of a row as a value, IS NULL says that each of its parts is NULL.
    return key.is_not_distinct_from(sa.null()) if dialect == "postgresql" else key.is_(None)


def in_shard(dialect: str, key: Any, shard: Shard) -> Any:
    """Return the condition that a key belongs to a shard, computed by the database.

    All tasks of a run ask the same database, so any hash function of the database serves.
    """
    number: Any
    if dialect == "postgresql":
        # Without the sign bit: the remainder of a negative number is negative.
        number = sa.func.hashtext(key, type_=sa.Integer).op("&")(0x7FFFFFFF)
    elif dialect in ("mysql", "mariadb"):
        # CRC32() is shorter, but puts similar keys into the same part.
        digits = sa.func.substring(sa.func.md5(key), 1, 8)
        number = sa.cast(sa.func.conv(digits, 16, 10), mysql.INTEGER(unsigned=True))
    else:
        number = sa.func.imagetag_hash(key, type_=sa.Integer)
    return number % shard.count == shard.index

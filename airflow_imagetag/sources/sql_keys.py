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

from airflow_imagetag.backends.dialects import Dialect, KeyColumn, Ordering, dialect_of
from airflow_imagetag.selection.shards import Shard

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """The order of rows by key.

    :param column: the key.
    :param dialect: the database.
    :param ordering: how the database orders the keys.
    """

    column: Any
    dialect: Dialect
    ordering: Ordering

    @property
    def is_native(self) -> bool:
        """Whether the database orders the keys by their own type; else by their texts."""
        return self.ordering.is_native

    @property
    def is_exact(self) -> bool:
        """Whether no two keys are equal and have different texts."""
        return self.ordering.is_exact

    @property
    def text(self) -> Any:
        """The text of a key."""
        return self.dialect.text_of(self.column)

    @property
    def same(self) -> Any:
        """The expression whose value is equal in the rows that share a key."""
        return self._key if self.is_native and self.is_exact else self._exact_text

    @property
    def bounds(self) -> list[Any]:
        """The columns that a page needs beside the texts for the bound of the next page."""
        has_value = self.is_native and not self.dialect.binds_keys_as_texts
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

    def is_among(self, texts: Sequence[str]) -> Any:
        """Return the condition of the rows whose key has one of these texts."""
        if self.is_native and self.is_exact and self.dialect.binds_keys_as_texts:
            return self._key.in_(_bound_list(texts, sa_types.NullType()))
        return self._exact_text.in_(_bound_list(texts, sa.String()))

    def finds(self, row: Row) -> Any:
        """Return the condition of the rows whose key is equal to that of a row."""
        return self._key == self._bound(row)

    def on(self, column: Any) -> KeyOrder:
        """Return the order of the same keys in another subquery."""
        return replace(self, column=column)

    def by_text(self) -> KeyOrder:
        """Return the order of the keys' texts."""
        return replace(self, ordering=replace(self.ordering, is_native=False))

    @property
    def _key(self) -> Any:
        collation = self.ordering.collation
        return self.column if collation is None else self.column.collate(collation)

    @property
    def _exact_text(self) -> Any:
        return self.dialect.exact(self.text)

    def _bound(self, row: Row) -> Any:
        if self.dialect.binds_keys_as_texts:
            # Without a type of its own, so that the server gives it the type of the key.
            return sa.bindparam(None, row["key"], type_=sa_types.NullType(), unique=True)
        return self.dialect.bound_key(row["native_key"])

    def _bound_text(self, row: Row) -> Any:
        return self.dialect.bound_text(row["key"])


def _bound_list(texts: Sequence[str], kind: Any) -> Any:
    return sa.bindparam(None, list(texts), type_=kind, unique=True, expanding=True)


def order_of(engine: sa.Engine, column: KeyColumn) -> KeyOrder:
    """Return the order in which the rows of a table or query are read.

    :param engine: the database.
    :param column: the keys of the rows.
    """
    dialect = dialect_of(engine)
    return KeyOrder(column.key, dialect, dialect.ordering(engine, column))


def is_found(engine: sa.Engine, rows: sa.FromClause, order: KeyOrder, row: Row) -> bool:
    """Tell whether the database finds a row again by its key, as the bound of a page must be."""
    statement = sa.select(sa.literal(1)).select_from(rows).where(order.finds(row)).limit(1)
    try:
        with engine.connect() as connection:
            return connection.execute(statement).first() is not None
    except sa_exc.DBAPIError as error:
        if order.dialect.is_transient(error):
            raise
        return False


def candidates(
    engine: sa.Engine, statement: sa.Select[Any], order: KeyOrder, most: int
) -> list[str] | None:
    """Return the texts of the keys of a statement's rows, if these are few.

    Only in a database that can be told to plan for all rows of the statement. Planned for a page, a
    statement that finds few rows in a large table looks up each row of the table by itself.

    :param statement: the rows that meet all conditions; some may share a key.
    :param order: the order of the rows by key.
    :param most: maximum number of rows.
    :return: None if there are more, or if the database cannot tell.
    """
    keys = statement.with_only_columns(order.text.label("key"))
    found = order.dialect.planned_in_full(engine, keys)
    if found is None:
        return None
    try:
        with engine.connect() as connection:
            texts = connection.execute(sa.select(found.c.key).limit(most + 1)).scalars().all()
    except sa_exc.DBAPIError as error:
        if not order.dialect.lacks_space(error):
            raise
        return None
    return None if len(texts) > most else list(dict.fromkeys(texts))


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
            places.append(order.dialect.exact(order.dialect.text_of(column)).desc())
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
            try:
                return connection.execute(statement).mappings().all()
            except sa_exc.DBAPIError as error:
                if not self._order.dialect.read_leniently(connection, error):
                    raise
                return connection.execute(statement).mappings().all()


def in_shard(dialect: Dialect, key: Any, shard: Shard) -> Any:
    """Return the condition that a key belongs to a shard, computed by the database.

    All tasks of a run ask the same database, so any hash function of the database serves.
    """
    return dialect.hash_of(key) % shard.count == shard.index

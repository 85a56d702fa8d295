"""Private: the two tables of a store, and whether existing ones fit; loaded by a running task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import types as sa_types

from airflow_imagetag.backends.dialects import (
    dialect_named,
    dialect_of,
    partial_index_options,
    table_options,
    text_index_options,
)
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.frames import ORIGINAL_LABEL
from airflow_imagetag.stores.rows import ANSWERED, LIFE_COLUMNS, MISSING_SINCE

KEY_DIGEST_LENGTH = 64

NEXT_TRY_AT = "next_try_at"

ADDED_COLUMNS = (*LIFE_COLUMNS, ORIGINAL_LABEL)
"""Columns that tables of earlier versions do not have."""

UNANSWERED = f"status NOT IN ({', '.join(map(repr, ANSWERED))})"
"""Condition of a small index, where a database has such indexes. It uses them for queries that have
the same condition, word for word."""


class UtcDateTime(sa_types.TypeDecorator[datetime]):
    """A point in time: with its zone if the database has such a type, else in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        """Return the type with microseconds."""
        return dialect.type_descriptor(dialect_named(dialect.name).time_type)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the value as the database keeps it."""
        return None if value is None else dialect_named(dialect.name).stored_moment(value)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the value in UTC."""
        del dialect
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def tables(
    name: str, schema: str | None, *, lacking: Collection[str] = ()
) -> tuple[sa.Table, sa.Table]:
    """Return the images table and the labels table.

    The primary key holds a digest of the image's key: keys of any length must be unique, and no
    database indexes a text of any length.

    :param lacking: columns that tables of an earlier version do not have, some of
        ``ADDED_COLUMNS``.
    """
    names = {"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"}
    metadata = sa.MetaData(schema=schema, naming_convention=names)
    images = sa.Table(
        f"{name}_images",
        metadata,
        sa.Column("api", sa.String(64), primary_key=True),
        sa.Column("key_sha256", sa.String(KEY_DIGEST_LENGTH), primary_key=True),
        sa.Column("image_key", sa.Text, nullable=False),
        sa.Column("image_uri", sa.Text),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("content_sha256", sa.String(64)),
        sa.Column("labels_count", sa.Integer, nullable=False),
        sa.Column("error", sa.String(64)),
        sa.Column("code", sa.String(128)),
        sa.Column("message", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("tagged_at", UtcDateTime, nullable=False),
        *(column for column in _life_columns() if column.name not in lacking),
        **table_options(),
    )
    labels = sa.Table(
        name,
        metadata,
        sa.Column("api", sa.String(64), primary_key=True),
        sa.Column("key_sha256", sa.String(KEY_DIGEST_LENGTH), primary_key=True),
        sa.Column("rank", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("image_key", sa.Text, nullable=False),
        sa.Column("image_uri", sa.Text),
        sa.Column("label", sa.Text, nullable=False),
        # 53 bits of mantissa: a double in every database.
        sa.Column("probability", sa.Float(53), nullable=False),
        sa.Column("category", sa.Text),
        sa.Column("subcategory", sa.Text),
        sa.Column("scene", sa.Text),
        sa.Column("tagged_at", UtcDateTime, nullable=False),
        *([] if ORIGINAL_LABEL in lacking else [sa.Column(ORIGINAL_LABEL, sa.Text)]),
        **table_options(),
    )
    for table in (images, labels):
        sa.Index(None, table.c.image_key, **text_index_options("image_key"))
    sa.Index(None, images.c.content_sha256)
    if NEXT_TRY_AT in images.c:
        sa.Index(None, images.c[NEXT_TRY_AT], **partial_index_options(sa.text(UNANSWERED)))
    return images, labels


def _life_columns() -> Iterator[sa.Column[Any]]:
    yield sa.Column("tries", sa.Integer)
    yield sa.Column("first_failed_at", UtcDateTime)
    yield sa.Column(NEXT_TRY_AT, UtcDateTime)
    yield sa.Column(MISSING_SINCE, UtcDateTime)


def added_columns(engine: sa.Engine, table: sa.Table, names: Iterable[str]) -> list[str]:
    """Return the statements that add columns to an existing table.

    :param table: the table with all columns.
    """
    dialect = dialect_of(engine)
    name = engine.dialect.identifier_preparer.format_table(table)
    types = {one: dialect.column_type(table.c[one]).compile(engine.dialect) for one in names}
    return [f"ALTER TABLE {name} ADD {column} {kind}" for column, kind in types.items()]


def add_columns(engine: sa.Engine, table: sa.Table, names: Collection[str]) -> None:
    """Add columns to an existing table, and the index of the time of the next try.

    :param table: the table with all columns.
    :raises sqlalchemy.exc.DBAPIError: the database refuses it.
    """
    with engine.begin() as connection:
        for statement in added_columns(engine, table, names):
            connection.execute(sa.DDL(statement))  # type: ignore[no-untyped-call]
    for index in table.indexes:
        if NEXT_TRY_AT in index.columns and NEXT_TRY_AT in names:
            dialect_of(engine).add_index(engine, index)


def lacking_columns(engine: sa.Engine, table: sa.Table) -> list[str]:
    """Return the columns of ``ADDED_COLUMNS`` that an existing table lacks."""
    names = dialect_of(engine).columns(engine, table.name, table.schema)
    return [
        column.name
        for column in table.columns
        if column.name in ADDED_COLUMNS and column.name not in names
    ]


def require_originals(engine: sa.Engine, table: sa.Table, place: str) -> None:
    """Check that a labels table can hold the original names of renamed labels.

    :param table: the table; without the column if the table of the database has none.
    :param place: names the database in messages.
    :raises ConfigurationError: it cannot; names the statement that adds the column.
    """
    if ORIGINAL_LABEL in table.c:
        return
    name = engine.dialect.identifier_preparer.format_table(table)
    raise ConfigurationError(
        f"{table.fullname} has no column {ORIGINAL_LABEL} for the names that label_map replaces: "
        f"an earlier version created the table. Run this once through {place}: "
        f"ALTER TABLE {name} ADD {ORIGINAL_LABEL} {sa.Text().compile(engine.dialect)}"
    )


def schema_mismatches(engine: sa.Engine, table: sa.Table) -> Iterator[str]:
    """Yield the mismatches of an existing table, each as a clause of an error message."""
    dialect = dialect_of(engine)
    found = dialect.columns(engine, table.name, table.schema)
    for column in table.columns:
        actual = found.pop(column.name, None)
        if actual is None:
            yield f"column {column.name!r} is missing"
        elif _kind(actual["type"]) not in (_kind(column.type), None) and not (
            _is_whole(actual["type"]) and _kind(column.type) == "whole number"
        ):
            yield f"column {column.name!r} is {actual['type']}, not {column.type}"
    for name, actual in found.items():
        if not actual["nullable"] and actual.get("default") is None:
            yield f"column {name!r} is not used here, takes no NULL and has no default"
    key = dialect.key_of(engine, table)
    wanted = [column.name for column in table.primary_key.columns]
    if key is not None and set(key) != set(wanted):
        yield f"the primary key is ({', '.join(key)}), not ({', '.join(wanted)})"


def _is_whole(column_type: Any) -> bool:
    """Tell whether a type is a decimal number without places, as Snowflake has for integers."""
    return isinstance(column_type, sa.Numeric) and column_type.scale == 0


def _kind(column_type: Any) -> str | None:
    for kind, name in (
        (sa.String, "text"),
        (sa.Integer, "whole number"),
        (sa.Numeric, "number"),
        # From SQLAlchemy 2.1 on, Float is no subclass of Numeric.
        (sa.Float, "number"),
        (sa_types.DateTime, "time"),
        (UtcDateTime, "time"),
    ):
        if isinstance(column_type, kind):
            return name
    return None

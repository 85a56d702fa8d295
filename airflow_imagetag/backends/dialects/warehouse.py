"""Private: the common part of data warehouses: large batches through a staging table and MERGE."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from math import ceil
from typing import Any, ClassVar
from uuid import uuid4

import sqlalchemy as sa

from airflow_imagetag.backends.dialects.base import (
    Dialect,
    KeyColumn,
    Moments,
    Ordering,
    split_columns,
)
from airflow_imagetag.safety.uris import BLANKS

Row = dict[str, Any]

LEAST_SECONDS = 30
"""Least limit of a statement: a warehouse that has gone to sleep starts first."""


class Warehouse(Dialect):
    """A data warehouse.

    It keeps no unique keys and has no indexes. A statement takes a second or more, however few rows
    it changes, so batches are large: the rows of images travel into a staging table, from which one
    MERGE takes them.
    """

    is_exact = True
    has_hash = True
    is_warehouse = True
    batch_images = 20_000
    batch_seconds = 60.0
    page_rows = 50_000
    replaces_rows = True

    has_transactions: ClassVar[bool] = True
    """Several statements take effect together, or not at all."""

    stage_prefixes: ClassVar[Sequence[str]] = ("TEMPORARY",)
    """What stands before TABLE where a staging table is created."""

    merge_alias: ClassVar[str | None] = "held"
    """Name of the target within a MERGE; None where it must have its own."""

    timeout: ClassVar[str | None] = None
    """Statement that limits the later ones of a session to ``{seconds}`` or ``{milliseconds}``."""

    @contextmanager
    def limited(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """End each statement of a ``with`` block after some time, where its session can be told."""
        if self.timeout is not None:
            whole = max(LEAST_SECONDS, ceil(seconds))
            connection.exec_driver_sql(
                self.timeout.format(seconds=whole, milliseconds=1000 * whole)
            )
        yield

    @property
    def text_type(self) -> Any:
        """The type of a text of any length."""
        return sa.String()

    # -- texts and keys ---------------------------------------------------------------------------

    def text_of(self, column: Any) -> Any:
        """Return the text of a column's values."""
        return sa.cast(column, self.text_type)

    def beginning(self, text: Any, characters: int) -> Any:
        """Return the first characters of a text."""
        return sa.func.substr(self.text_of(text), 1, characters)

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but blanks."""
        return text.is_(None) | (sa.func.trim(self.text_of(text), BLANKS) == "")

    def ordering(self, engine: sa.Engine, column: KeyColumn) -> Ordering:
        """Return how rows are ordered: by their own type where equal keys have equal texts."""
        del engine
        kind = column.kind
        is_text = isinstance(kind, sa.String) and not isinstance(kind, sa.Enum)
        is_exact = (is_text and not kind.collation) or isinstance(kind, sa.Integer)
        return Ordering(is_native=is_exact, is_exact=is_exact)

    # -- times ------------------------------------------------------------------------------------

    @property
    def time_type(self) -> Any:
        """The type of a point in time with its zone."""
        return sa.TIMESTAMP(timezone=True)

    def stored_moment(self, moment: datetime) -> datetime:
        """Return the point in time in UTC."""
        return moment.astimezone(UTC)

    def moment(self, moment: datetime) -> Any:
        """Return a point in time as a parameter with a zone."""
        return sa.literal(moment.astimezone(UTC), self.time_type)

    def moments(self, column: Any) -> Moments:
        """Return a column of times or dates as points in time; without a zone they are in UTC."""
        return Moments(sa.cast(column, self.time_type), self.text_of(column), sa.false())

    # -- tables -----------------------------------------------------------------------------------

    def key_of(self, engine: sa.Engine, table: sa.Table) -> None:
        """Return None: it enforces no primary key."""
        del engine, table

    def add_index(self, engine: sa.Engine, index: sa.Index) -> None:
        """Do nothing: tables have no indexes."""
        del engine, index

    def create(self, engine: sa.Engine, metadata: sa.MetaData) -> None:
        """Create the tables that do not exist, without keys and indexes."""
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(self.create_table(table))

    def create_table(self, table: sa.Table) -> Any:
        """Return the statement that creates a table unless it exists."""
        return sa.schema.CreateTable(self.plain_table(table), if_not_exists=True)

    def plain_table(self, table: sa.Table, name: str | None = None, **options: Any) -> sa.Table:
        """Return a table with the same columns, and neither keys nor indexes.

        :param name: name of the table; None for the same name.
        :param options: further arguments of the table.
        """
        columns = (
            sa.Column(column.name, self.column_type(column), nullable=column.nullable)
            for column in table.columns
        )
        name = table.name if name is None else name
        return sa.Table(name, sa.MetaData(), *columns, schema=table.schema, **options)

    def column_type(self, column: sa.Column[Any]) -> Any:
        """Return the type of a column, with the database's own types of long texts and times."""
        if isinstance(column.type, sa.Text):
            return self.text_type
        return self.time_type if kind_of(column) == "time" else column.type

    # -- batches ----------------------------------------------------------------------------------

    def changed_rows(self, connection: sa.Connection, table: sa.Table, statement: Any) -> int:
        """Execute an update or a delete, and return the number of rows that it is for."""
        # Not every driver tells how many rows a statement has changed.
        count = sa.select(sa.func.count()).select_from(table).where(statement.whereclause)
        found = int(connection.execute(count).scalar_one())
        connection.execute(statement)
        return found

    @contextmanager
    def staged(
        self, connection: sa.Connection, table: sa.Table, rows: list[Row]
    ) -> Iterator[sa.Table]:
        """Give a staging table with rows of a table; it is gone afterwards.

        :param table: the table that the rows are for.
        """
        stage = self._stage(table)
        create = sa.schema.CreateTable(stage)
        connection.execute(create)
        try:
            self.append(connection, stage, rows)
            yield stage
        except BaseException:
            # A temporary table ends with its session. Dropping it now would commit half a batch.
            if not self.has_transactions:
                connection.execute(sa.schema.DropTable(stage))
            raise
        connection.execute(sa.schema.DropTable(stage))

    def stage_options(self) -> dict[str, Any]:
        """Return further arguments of a staging table."""
        return {}

    def _stage(self, table: sa.Table) -> sa.Table:
        name = f"{table.name}_stage_{uuid4().hex[:12]}"
        options = self.stage_options()
        stage = self.plain_table(table, name, prefixes=list(self.stage_prefixes), **options)
        if self.stage_prefixes:
            # A temporary table belongs to its session.
            stage.schema = None
        return stage

    @abstractmethod
    def append(self, connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
        """Insert rows that a table does not hold, many with each statement."""

    def probe(self, connection: sa.Connection, table: sa.Table, row: Row) -> None:
        """Try to insert a row, or no row where it could not be rolled back."""
        if self.has_transactions:
            self.append(connection, table, [row])
        else:
            columns = list(table.columns)
            nothing = sa.select(*columns).where(sa.false())
            connection.execute(table.insert().from_select(columns, nothing))

    def merge(self, connection: sa.Connection, table: sa.Table, stage: sa.Table) -> None:
        """Take the rows of a staging table into a table."""
        connection.exec_driver_sql(self.merge_statement(connection.engine, table, stage))

    def merge_statement(self, engine: sa.Engine, table: sa.Table, stage: sa.Table) -> str:
        """Return the statement that takes the rows of a staging table into a table.

        The rows replace those that have the same primary key.
        """
        prepare = engine.dialect.identifier_preparer
        keys, others = split_columns(table)
        target = prepare.format_table(table)
        held = self.merge_alias or prepare.quote(table.name)
        same = " AND ".join(f"{held}.{key} = fresh.{key}" for key in map(prepare.quote, keys))
        update = ", ".join(f"{name} = fresh.{name}" for name in map(prepare.quote, others))
        names = [prepare.quote(column.name) for column in table.columns]
        alias = f" AS {self.merge_alias}" if self.merge_alias else ""
        return (
            f"MERGE INTO {target}{alias} USING {prepare.format_table(stage)} AS fresh ON {same}"
            f" WHEN MATCHED THEN UPDATE SET {update}"
            f" WHEN NOT MATCHED THEN INSERT ({', '.join(names)})"
            f" VALUES ({', '.join(f'fresh.{name}' for name in names)})"
        )


class JsonWarehouse(Warehouse):
    """A warehouse to which rows travel as one parameter, a JSON text that it takes apart.

    It is one statement for thousands of rows, and no value of a row is part of a statement.
    """

    batch_bytes: ClassVar[int] = 500_000
    """Maximum size of the text of one statement."""

    def append(self, connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
        """Insert rows that a table does not hold."""
        if not rows:
            return
        # The colon of the parameter is the only one that SQLAlchemy must see.
        text = self.append_statement(connection.engine, table).replace(":", r"\:")
        statement = sa.text(text.replace(r"\:rows", ":rows"))
        for batch in json_texts(rows, self.batch_bytes):
            connection.execute(statement, {"rows": batch})

    def append_statement(self, engine: sa.Engine, table: sa.Table) -> str:
        """Return the statement that inserts the rows of the parameter ``rows``."""
        prepare = engine.dialect.identifier_preparer
        names = ", ".join(prepare.quote(column.name) for column in table.columns)
        return f"INSERT INTO {prepare.format_table(table)} ({names}) {self.select_rows(table)}"

    @abstractmethod
    def select_rows(self, table: sa.Table) -> str:
        """Return the query of the rows of the parameter ``rows``, with the columns of a table."""


def json_texts(rows: Sequence[Row], most_bytes: int) -> Iterator[str]:
    """Yield rows as texts of JSON lists, each of at most so many bytes unless one row is larger.

    Missing values are left out. Times are texts in UTC.
    """
    texts: list[str] = []
    size = 0
    for row in rows:
        given = {name: _plain(value) for name, value in row.items() if value is not None}
        text = json.dumps(given, ensure_ascii=False, separators=(",", ":"))
        length = len(text.encode("utf-8", "surrogatepass")) + 1
        if texts and size + length > most_bytes:
            yield f"[{','.join(texts)}]"
            texts, size = [], 0
        texts.append(text)
        size += length
    if texts:
        yield f"[{','.join(texts)}]"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value


def kind_of(column: sa.Column[Any]) -> str:
    """Return the kind of a column's values: text, whole, number or time."""
    if isinstance(column.type, sa.String):
        return "text"
    if isinstance(column.type, sa.Integer):
        return "whole"
    return "number" if isinstance(column.type, (sa.Float, sa.Numeric)) else "time"

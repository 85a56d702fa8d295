"""Private: the behaviour of most databases; a subclass for each states its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.safety.uris import BLANKS


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """No two rows of a table have equal keys.

    :param collation: the keys are equal under this collation of SQLite; None for the column's own.
    """

    collation: str | None = None


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """The keys of a table or query.

    :param rows: the table or query.
    :param key: its column of keys.
    :param kind: the type of the column as SQLAlchemy reports it; None for a query.
    :param unique: how the database keeps the column unique; None if two keys may be equal.
    """

    rows: sa.FromClause
    key: Any
    kind: Any
    unique: UniqueKey | None


@dataclass(frozen=True, slots=True)
class Ordering:
    """How a database orders the keys of a table or query.

    :param is_native: by their own type; else by their texts.
    :param is_exact: no two keys are equal and have different texts.
    :param collation: the collation of SQLite that orders the keys; None for the column's own.
    """

    is_native: bool = True
    is_exact: bool = False
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class Moments:
    """A column as points in time.

    :param value: expression that compares with ``Dialect.moment``.
    :param text: the column as text.
    :param is_unreadable: whether a row has a value that is not a point in time; false in a database
        that compares only values of one type.
    """

    value: Any
    text: Any
    is_unreadable: Any


class Dialect:
    """A database that has no class of its own: plain statements.

    A subclass states in what its database differs. No other module asks for the name of a database.

    :param name: the database, as SQLAlchemy names it.
    """

    is_exact: ClassVar[bool] = False
    """Texts can be compared byte by byte with ``text_of`` and ``exact``."""

    has_hash: ClassVar[bool] = False
    """``hash_of`` serves for shards; of other databases every row is read and filtered."""

    enforces_unique_keys: ClassVar[bool] = False
    """The unique keys that it reports are enforced; data warehouses do not enforce theirs."""

    binds_keys_as_texts: ClassVar[bool] = False
    """A key of any type compares with a parameter that is its text."""

    numbers_equal_columns: ClassVar[bool] = False
    """Of two columns with one name in a query it takes the first, and numbers the second."""

    table_options: ClassVar[Mapping[str, Any]] = {}
    """Options with which tables are created, by SQLAlchemy's names without the database."""

    has_partial_indexes: ClassVar[bool] = False
    """An index can hold only the rows that meet a condition."""

    replaces_rows: ClassVar[bool] = False
    """A statement that replaces rows which exist is known, so it can hold a store."""

    is_warehouse: ClassVar[bool] = False
    """Batches travel through a staging table."""

    batch_images: ClassVar[int | None] = None
    """Number of images that a store writes together by default; None for that of any store."""

    batch_seconds: ClassVar[float | None] = None
    """Maximum wait of a finished image for its batch by default; None for that of any store."""

    page_rows: ClassVar[int | None] = None
    """Number of rows in a page of a table or query; None for the usual ones."""

    streamed_rows: ClassVar[int] = 5_000
    """Maximum number of rows that the driver fetches at a time from a cursor of the server."""

    lookup_keys: ClassVar[int] = 500
    """Maximum number of keys in one statement; SQLite before 3.32 takes 999 parameters."""

    def __init__(self, name: str) -> None:
        self.name = name

    # -- sessions ---------------------------------------------------------------------------------

    def engine_options(self, hook: Any) -> Mapping[str, Any]:
        """Return further arguments of SQLAlchemy's ``create_engine`` for a hook of Airflow."""
        del hook
        return {}

    @classmethod
    def text_index_options(cls, column: str) -> Mapping[str, Any]:
        """Return the options of an index of a text of any length."""
        del cls, column
        return {}

    def prepare(self, engine: sa.Engine, *, busy_seconds: float) -> None:
        """Prepare the sessions of a new engine: times in UTC, texts of values that do not vary.

        :param busy_seconds: maximum wait for another transaction on a database that is a file.
        """
        del engine, busy_seconds

    def misfit(self, dbapi_connection: Any) -> str | None:
        """Return the reason why a server is not of this database; None if it is or may be.

        :param dbapi_connection: a new session of the driver.
        """
        del dbapi_connection
        return None

    def fault_of_file(self, path: str, error: Exception) -> str | None:
        """Return why the file of a database cannot be opened, and the remedy; None if unknown.

        :param path: the database, as the connection names it.
        :param error: the driver's error.
        """
        del path, error
        return None

    # -- errors -----------------------------------------------------------------------------------

    def is_transient(self, error: sa_exc.DBAPIError) -> bool:
        """Tell whether the database is away or busy, so that it may answer later."""
        if error.connection_invalidated:
            return True
        found = self.is_transient_code(error.orig)
        if found is not None:
            return found
        return isinstance(error, (sa_exc.OperationalError, sa_exc.InterfaceError))

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell whether a driver's error says that the database is away or busy.

        :param origin: the driver's error.
        :return: None if the error does not say.
        """
        del origin
        return None

    def is_type_mismatch(self, error: sa_exc.DBAPIError) -> bool:
        """Tell whether it refuses to compare values of two types."""
        del error
        return False

    # -- texts ------------------------------------------------------------------------------------

    def text_of(self, column: Any) -> Any:
        """Return the text of a column's values, which is different for different values.

        Bytes that are no UTF-8, or hold a zero byte, become hexadecimal digits where the database
        would put a question mark or refuse the statement.
        """
        return sa.cast(column, sa.String)

    def exact(self, text: Any) -> Any:
        """Return a text as the database orders and compares it byte by byte."""
        return text

    def bound_text(self, text: str) -> Any:
        """Return a text as a parameter that compares with ``exact``."""
        return sa.literal(text, sa.String())

    def bound_key(self, value: Any) -> Any:
        """Return a key as a parameter that compares with its column."""
        return sa.literal(value)

    def beginning(self, text: Any, characters: int) -> Any:
        """Return the first characters of a text, or more of it."""
        del characters
        return text

    def equal_texts(self, one: Any, other: Any) -> Any:
        """Return the condition that two texts are equal, letter by letter."""
        return one == other

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but blanks.

        It is that of ``safety.uris.is_blank`` where ``is_exact``; else only spaces are blanks.
        """
        return text.is_(None) | (sa.func.trim(sa.cast(text, sa.String)) == "")

    def storable(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return rows as its texts can hold them."""
        return rows

    # -- keys -------------------------------------------------------------------------------------

    def is_null(self, key: Any) -> Any:
        """Return the condition that a row has no key."""
        return key.is_(None)

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text that is not negative and spreads texts evenly."""
        raise NotImplementedError

    def ordering(self, engine: sa.Engine, column: KeyColumn) -> Ordering:
        """Return how the rows of a table or query are ordered by their keys."""
        del engine
        unique = column.unique
        return Ordering() if unique is None else Ordering(is_exact=True, collation=unique.collation)

    def unique_key(
        self, engine: sa.Engine, name: str, schema: str | None, column: str
    ) -> UniqueKey | None:
        """Return how a column of a table is kept unique; None if two rows may have equal values.

        Indexes of some rows, of an expression or of the beginning of a text do not count.
        """
        if not self.enforces_unique_keys:
            return None
        return UniqueKey() if _is_reported(sa.inspect(engine), name, schema, column) else None

    # -- times ------------------------------------------------------------------------------------

    def moment(self, moment: datetime) -> Any:
        """Return a point in time, which has a zone, as a parameter."""
        # Without a zone in UTC, as the session is set to.
        return sa.literal(moment.astimezone(UTC).replace(tzinfo=None), sa.DateTime())

    def moments(self, column: Any) -> Moments:
        """Return a column as points in time."""
        return Moments(column, sa.cast(column, sa.String), sa.false())

    def now_microseconds(self) -> Any:
        """Return the server's clock in microseconds; of this machine where it has none."""
        return sa.literal(int(time.time() * 1_000_000), sa.BigInteger)

    def day_of(self, moment: Any) -> Any:
        """Return the day of a point in time, in the zone of the session."""
        return sa.cast(moment, sa.Date)

    # -- bounds -----------------------------------------------------------------------------------

    def planned_in_full(self, engine: sa.Engine, statement: sa.Select[Any]) -> sa.CTE | None:
        """Return a statement as an expression that is planned for all of its rows.

        A limit outside of it ends the reading early, and does not decide the plan.

        :param engine: it has connected to the server.
        :return: None where the database cannot be told, or needs not be.
        """
        del engine, statement
        return None

    def lacks_space(self, error: sa_exc.DBAPIError) -> bool:
        """Tell whether it has no space for the temporary files of a statement."""
        del error
        return False

    @contextmanager
    def limited(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """End the statements of a ``with`` block when the time is over, where it can.

        :param connection: it has begun no transaction.
        :param seconds: time for all of them, or for each of them.
        """
        del connection, seconds
        yield

    def read_leniently(self, connection: sa.Connection, error: sa_exc.DBAPIError) -> bool:
        """Let a connection read texts that are none; tell whether this may mend an error.

        What cannot be decoded is read as lone surrogates.

        :param error: the error of a statement that reads.
        """
        del connection, error
        return False

    # -- tables of a store ------------------------------------------------------------------------

    @property
    def time_type(self) -> Any:
        """The type of a point in time with microseconds."""
        return sa.DateTime(timezone=True)

    def stored_moment(self, moment: datetime) -> datetime:
        """Return a point in time as a column of ``time_type`` takes it."""
        return moment.astimezone(UTC).replace(tzinfo=None)

    def lacks(self, engine: sa.Engine) -> str | None:
        """Return the need of a store that the database does not meet; None if it meets all."""
        del engine
        if self.replaces_rows:
            return None
        return (
            "a statement that replaces rows which exist (ON CONFLICT, ON DUPLICATE KEY or MERGE), "
            "which is known for each database of its own"
        )

    def columns(
        self, engine: sa.Engine, name: str, schema: str | None
    ) -> dict[str, dict[str, Any]]:
        """Return the columns of a table by name, as SQLAlchemy's inspector describes them.

        :raises sqlalchemy.exc.NoSuchTableError: there is no such table.
        """
        found = sa.inspect(engine).get_columns(name, schema=schema)
        return {column["name"]: dict(column) for column in found}

    def has_table(self, engine: sa.Engine, table: sa.Table) -> bool:
        """Tell whether a table exists."""
        return bool(sa.inspect(engine).has_table(table.name, schema=table.schema))

    def key_of(self, engine: sa.Engine, table: sa.Table) -> list[str] | None:
        """Return the primary key of an existing table; None where tables have none."""
        found = sa.inspect(engine).get_pk_constraint(table.name, schema=table.schema)
        return list(found["constrained_columns"])

    def create(self, engine: sa.Engine, metadata: sa.MetaData) -> None:
        """Create the tables that do not exist, with their keys and indexes."""
        metadata.create_all(engine)

    def add_index(self, engine: sa.Engine, index: sa.Index) -> None:
        """Create an index of an existing table, where tables have indexes."""
        index.create(engine, checkfirst=True)

    def column_type(self, column: sa.Column[Any]) -> Any:
        """Return the type of a column as tables are created with."""
        return column.type

    def insert(self, table: sa.Table, *, replace: bool) -> Any:
        """Return the insert for rows that may exist.

        :param replace: overwrite existing rows; else leave them as they are.
        """
        raise NotImplementedError

    def remedy(self, origin: Any, tables: Sequence[str]) -> str:
        """Return how to mend tables that refuse a row; empty if it is not known.

        :param origin: the driver's error.
        :param tables: names of the tables.
        """
        del origin, tables
        return ""

    def probe(self, connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
        """Try to insert a row, within a transaction that is rolled back."""
        connection.execute(table.insert(), [row])

    def changed_rows(self, connection: sa.Connection, table: sa.Table, statement: Any) -> int:
        """Execute an update or a delete, and return the number of rows that it changed."""
        del table
        return max(int(connection.execute(statement).rowcount), 0)

    def staged(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]
    ) -> AbstractContextManager[sa.Table]:
        """Give a staging table of a warehouse with rows of a table; it is gone afterwards."""
        raise NotImplementedError

    def append(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]
    ) -> None:
        """Insert rows that a table of a warehouse does not hold, many with each statement."""
        raise NotImplementedError

    def merge(self, connection: sa.Connection, table: sa.Table, stage: sa.Table) -> None:
        """Take the rows of a staging table into a table of a warehouse, by its primary key."""
        raise NotImplementedError

    def gather_statistics(self, engine: sa.Engine, table: sa.Table) -> None:
        """Let the database analyze a table without statistics, where its plans need them."""
        del engine, table


class EnforcingDialect(Dialect):
    """A database without a class of its own that enforces the unique keys which it reports."""

    enforces_unique_keys = True


def insert_on_conflict(insert: Any, table: sa.Table, *, replace: bool) -> Any:
    """Return an insert with ON CONFLICT.

    :param insert: a plain insert of the database's own kind.
    :param table: the table.
    :param replace: replace rows with the same key; else leave them.
    """
    keys, others = split_columns(table)
    if not replace:
        return insert.on_conflict_do_nothing(index_elements=keys)
    new = {name: insert.excluded[name] for name in others}
    return insert.on_conflict_do_update(index_elements=keys, set_=new)


def split_columns(table: sa.Table) -> tuple[list[str], list[str]]:
    """Return the names of the columns of a table's primary key, and of the others."""
    keys = [column.name for column in table.primary_key.columns]
    return keys, [column.name for column in table.columns if column.name not in keys]


def count_of(engine: sa.Engine, statement: str, **values: Any) -> int:
    """Return the number that a query of a catalog gives; 0 if the server has no such catalog."""
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text(statement), values).scalar_one())
    except sa_exc.ProgrammingError:
        # A server that only resembles this database has other catalogs.
        return 0


def execute_at_connect(engine: sa.Engine, *statements: str) -> None:
    """Let an engine execute statements in each new session."""

    def execute(dbapi_connection: Any, _record: Any) -> None:
        cursor = dbapi_connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement)
        finally:
            cursor.close()
        dbapi_connection.commit()

    sa.event.listen(engine, "connect", execute)


@cache
def blanks_pattern() -> str:
    """Return the regular expression of blanks as hexadecimal digits of UTF-8."""
    return f"^({'|'.join(sorted(blank.encode().hex() for blank in BLANKS))})*$"


def text_of_bytes(content: bytes) -> str:
    """Return the text that bytes are in UTF-8, else their hexadecimal digits."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    return f"0x{content.hex().upper()}" if "\0" in text else text


def sqlstate_of(origin: Any) -> str | None:
    """Return the SQLSTATE of a driver's error, if it has one."""
    # psycopg2 calls it pgcode, psycopg sqlstate.
    state = getattr(origin, "pgcode", None) or getattr(origin, "sqlstate", None)
    return None if state is None else str(state)


def _is_reported(inspector: Any, name: str, schema: str | None, column: str) -> bool:
    found: list[Sequence[str] | None] = [
        inspector.get_pk_constraint(name, schema=schema).get("constrained_columns")
    ]
    found += [
        constraint["column_names"]
        for constraint in inspector.get_unique_constraints(name, schema=schema)
    ]
    found += [
        index["column_names"]
        for index in inspector.get_indexes(name, schema=schema)
        if index.get("unique")
        and not index.get("expressions")
        and not any(option.endswith("_where") for option in index.get("dialect_options", {}))
    ]
    return [column] in found

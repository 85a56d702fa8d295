"""Private: MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from airflow_imagetag.backends.dialects.base import (
    Dialect,
    KeyColumn,
    Moments,
    Ordering,
    UniqueKey,
    blanks_pattern,
    count_of,
    execute_at_connect,
    split_columns,
)

_TRANSIENT = frozenset({1040, 1053, 1203, 1205, 1213, 1226})
"""Too many connections, shutdown, limits of a user, lock timeout, deadlock."""

_LACKING_CHARACTERS = frozenset({1366, 3988})
"""A text has characters that the column's character set does not have."""

INDEXED_CHARACTERS = 191
"""Number of characters in the index of a text: 767 bytes, the limit of older row formats."""

_CLIENT_ERRORS = range(2000, 3000)
"""Errors of the client: no connection, or a lost one."""

_UNIQUE = """
SELECT count(*) FROM (
    SELECT s.INDEX_NAME FROM information_schema.STATISTICS AS s
    JOIN information_schema.TABLES AS t
      ON t.TABLE_SCHEMA = s.TABLE_SCHEMA AND t.TABLE_NAME = s.TABLE_NAME
    WHERE s.TABLE_SCHEMA = COALESCE(:schema, DATABASE()) AND s.TABLE_NAME = :name
      AND t.ENGINE NOT IN ('MRG_MYISAM', 'MERGE', 'FEDERATED', 'CONNECT', 'SPIDER')
    GROUP BY s.INDEX_NAME
    HAVING MAX(s.NON_UNIQUE) = 0 AND COUNT(*) = 1 AND MAX(s.COLUMN_NAME) = :column
       AND MAX(s.SUB_PART) IS NULL
) AS found
"""


class MySql(Dialect):
    """MySQL and MariaDB."""

    is_exact = True
    has_hash = True
    replaces_rows = True
    # The database's own character set may lack most of the world's characters.
    table_options: ClassVar[Mapping[str, Any]] = {"charset": "utf8mb4", "collate": "utf8mb4_bin"}

    @classmethod
    def text_index_options(cls, column: str) -> Mapping[str, Any]:
        """Return an index of the beginning of a text."""
        return {"length": {column: INDEXED_CHARACTERS}}

    def remedy(self, origin: Any, tables: Sequence[str]) -> str:
        """Return how to convert tables whose character set lacks characters."""
        if next(iter(getattr(origin, "args", ())), None) not in _LACKING_CHARACTERS:
            return ""
        statements = "; ".join(
            f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            for table in tables
        )
        return f" Their character set lacks characters. Run this once: {statements}"

    @contextmanager
    def limited(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """End each statement of a ``with`` block after some time."""
        # The two have different names and units for it.
        if getattr(connection.dialect, "is_mariadb", False):
            connection.exec_driver_sql(f"SET SESSION max_statement_time = {seconds:.3f}")
        else:
            milliseconds = max(1, round(seconds * 1000))
            connection.exec_driver_sql(f"SET SESSION max_execution_time = {milliseconds}")
        yield

    def prepare(self, engine: sa.Engine, *, busy_seconds: float) -> None:
        """Set the time zone, and a character set that has every character."""
        del busy_seconds
        sa.event.listen(engine, "connect", _use_utf8)
        execute_at_connect(engine, "SET time_zone = '+00:00'")

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell by its number whether an error may pass."""
        number = next(iter(getattr(origin, "args", ())), None)
        if not isinstance(number, int):
            return None
        return number in _CLIENT_ERRORS or number in _TRANSIENT

    def text_of(self, column: Any) -> Any:
        """Return the text of a column's values."""
        text = _utf8(column)
        is_same = _bytes(text).op("<=>", is_comparison=True)(_bytes(column))
        has_zero = sa.func.instr(_bytes(column), sa.literal(b"\0", sa.LargeBinary)) > 0
        is_no_text = (sa.func.charset(column) == "binary") & (~is_same | has_zero)
        return sa.case((is_no_text, sa.func.concat("0x", sa.func.hex(column))), else_=text)

    def exact(self, text: Any) -> Any:
        """Return the bytes of a text."""
        # In one character set, since tables may differ in theirs.
        return _bytes(_utf8(text))

    def bound_text(self, text: str) -> Any:
        """Return a text as a parameter that compares with ``exact``."""
        return self.exact(super().bound_text(text))

    def beginning(self, text: Any, characters: int) -> Any:
        """Return the first characters of a text."""
        return sa.func.substr(self.text_of(text), 1, characters)

    def equal_texts(self, one: Any, other: Any) -> Any:
        """Return the condition that two texts are equal, letter by letter.

        It calls texts equal that differ in case, accents or blanks at the end, as their collation
        says. An index serves the first comparison.
        """
        return (one == other) & (self.exact(one) == self.exact(other))

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but blanks."""
        digits = sa.func.lower(sa.func.hex(_utf8(text)))
        return text.is_(None) | digits.op("REGEXP")(blanks_pattern())

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        # CRC32() is shorter, but puts similar keys into the same part.
        digits = sa.func.substring(sa.func.md5(text), 1, 8)
        return sa.cast(sa.func.conv(digits, 16, 10), mysql.INTEGER(unsigned=True))

    def ordering(self, engine: sa.Engine, column: KeyColumn) -> Ordering:
        """Return how rows are ordered, by the type of their keys."""
        if not _is_ordered(column.kind):
            return Ordering(is_native=False)
        return super().ordering(engine, column)

    def unique_key(
        self, engine: sa.Engine, name: str, schema: str | None, column: str
    ) -> UniqueKey | None:
        """Return how a column is kept unique, from the catalog."""
        is_unique = count_of(engine, _UNIQUE, name=name, schema=schema, column=column) > 0
        return UniqueKey() if is_unique else None

    def moments(self, column: Any) -> Moments:
        """Return a column as points in time; it compares any text without an error."""
        text = sa.cast(column, sa.String)
        return read_moments(text, sa.cast(column, mysql.DATETIME(fsp=6)))

    def now_microseconds(self) -> Any:
        """Return the server's clock."""
        # SQLAlchemy's own function of this name takes no precision: it returns whole seconds.
        moment = sa.func.unix_timestamp(sa.literal_column("SYSDATE(6)"))
        return sa.cast(moment * 1_000_000, sa.Integer)

    @property
    def time_type(self) -> Any:
        """The type of a point in time with microseconds."""
        return mysql.DATETIME(fsp=6)

    def insert(self, table: sa.Table, *, replace: bool) -> Any:
        """Return an insert with ON DUPLICATE KEY, or IGNORE."""
        _, others = split_columns(table)
        insert = mysql.insert(table)
        if not replace:
            return insert.prefix_with("IGNORE")
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in others})


def _use_utf8(dbapi_connection: Any, _record: Any) -> None:
    # Each driver encodes texts by itself, too, so SET NAMES is not enough.
    for name in ("set_character_set", "set_charset_collation"):
        if hasattr(dbapi_connection, name):
            getattr(dbapi_connection, name)("utf8mb4")
            return
    cursor = dbapi_connection.cursor()
    cursor.execute("SET NAMES utf8mb4")
    cursor.close()


def read_moments(text: Any, value: Any) -> Moments:
    """Return the points in time of a database that would take a plain number for some time.

    :param text: the column as text.
    :param value: the point in time that the database reads from the column.
    """
    moment = sa.case((text.like("____-__-__%"), value), else_=sa.null())
    return Moments(moment, text, (sa.func.trim(text) != "") & moment.is_(None))


def _utf8(value: Any) -> Any:
    return sa.cast(value, mysql.CHAR(charset="utf8mb4"))


def _bytes(value: Any) -> Any:
    return sa.cast(value, sa.LargeBinary)


def _is_ordered(kind: Any) -> bool:
    """Tell whether values compare with a bound as they are ordered.

    A value of ENUM and SET is ordered by its number and compared as a text, and a FLOAT is compared
    as a DOUBLE.
    """
    if isinstance(kind, (mysql.ENUM, mysql.SET, sa.Float)):
        return False
    numbers_and_times = (sa.Integer, sa.Numeric, sa.Date, sa.DateTime)
    texts_and_bytes = (sa.String, sa.BINARY, sa.VARBINARY, sa.LargeBinary)
    return isinstance(kind, (*numbers_and_times, *texts_and_bytes))

"""Private: read a table or query page by page; loaded only when a task reads one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import mysql

from airflow_imagetag.backends.databases import (
    engine_of,
    is_transient,
    is_type_mismatch,
    reason_of,
    split_name,
)
from airflow_imagetag.errors import (
    ConfigurationError,
    DuplicateKeyError,
    ImageError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.models import Entry, Image, RejectedImage, SkippedImage
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.selection.rules import Condition, Window
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources.sql_times import times_of

log = logging.getLogger(__name__)

T = TypeVar("T")

SHARDING_DIALECTS = ("mariadb", "mysql", "postgresql", "sqlite")
"""Databases whose hash function is used for shards; of others, every row is read and filtered."""


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Number of rows in a page.

    :param indexed: of a table with unique keys.
    :param unindexed: of a query, or a table whose keys may repeat: the database scans all of its
        rows for each page.
    :param with_content: of rows that hold the bytes: a page is held in memory whole.
    """

    indexed: int = 2_000
    unindexed: int = 20_000
    with_content: int = 16


class Rows(Protocol):
    """A table or query and its columns, as ``SqlImages`` has them."""

    conn_id: str
    table: str | None
    sql: str | None
    key: str
    uri: str | None
    content: str | None
    version: str | None


class SqlReader:
    """Reads a table or query once.

    :param source: the table or query.
    :param shard: only the images of this part.
    :param limit: maximum number of images that the caller takes.
    :param condition: a condition on key, version and URI that the database applies.
    :param pages: sizes of pages.
    """

    def __init__(
        self,
        source: Rows,
        *,
        shard: Shard | None = None,
        limit: int | None = None,
        condition: Condition | None = None,
        pages: PageSizes | None = None,
    ) -> None:
        self._source = source
        self._shard = shard
        self._condition = condition
        self._limit = limit
        self._page_rows = PageSizes() if pages is None else pages
        self._engine = engine_of(source.conn_id)
        self._is_sharded = self._engine.dialect.name in SHARDING_DIALECTS

    def entries(self) -> Iterator[Entry]:
        """Yield a row with an image as an image, and a faulty row as a rejected image."""
        return self._reading(self._entries)

    def images(self, window: Window | None) -> Iterator[Image]:
        """Yield the rows that hold an image, without its bytes.

        :param window: only rows whose version lies in this time.
        :raises ConfigurationError: there is a window, and the source names no version.
        """
        if window is not None and self._source.version is None:
            raise ConfigurationError(
                "modified_after and settle_seconds need the time of a row's last change: name a "
                "column of timestamps with SqlImages(version=...), such as 'updated_at'."
            )
        hint = "" if window is None else f" {self._needs_times()}"
        return self._reading(lambda rows: self._images(rows, window), hint)

    def _reading(self, read: Callable[[sa.FromClause], Iterator[T]], hint: str = "") -> Iterator[T]:
        try:
            yield from read(self._rows_from())
        except sa_exc.NoSuchTableError:
            raise self._wrong("there is no such table.") from None
        except sa_exc.DBAPIError as error:
            wrong = self._wrong(f"{reason_of(error)}{hint if is_type_mismatch(error) else ''}")
            raise (StorageError(wrong.message) if is_transient(error) else wrong) from None
        finally:
            self._engine.dispose()

    def _entries(self, rows: sa.FromClause) -> Iterator[Entry]:
        yield from self._without_key(rows)
        for row in self._pages(rows, self._page_statement(rows), self._page_size(rows)):
            yield from self._entries_of(row)

    def _images(self, rows: sa.FromClause, window: Window | None) -> Iterator[Image]:
        statement = self._page_statement(rows, with_content=False)
        # A NULL is not unequal to anything, so the condition leaves it out, too.
        if self._source.uri:
            uri_text = sa.cast(rows.c[self._source.uri], sa.String)
            statement = statement.where(sa.func.trim(uri_text) != "")
        elif self._source.content:
            empty = sa.literal(b"", sa.LargeBinary)
            statement = statement.where(rows.c[self._source.content] != empty)
        if window is not None and self._source.version is not None:
            times = times_of(rows.c[self._source.version], self._engine.dialect.name)
            statement = statement.add_columns(times.is_unreadable.label("has_no_time"))
            statement = statement.where(times.lie_in(window) | times.is_unreadable)
        for row in self._pages(rows, statement, self._page_size(rows, with_content=False)):
            if row.get("has_no_time"):
                where = f"{self._source.version!r} of the row {redact(row['key'])!r}"
                raise self._wrong(f"{where} is not a timestamp. {self._needs_times()}")
            uri = _text(row["uri"])
            # The database's TRIM removes blanks, but no other white space.
            if uri != "":
                yield Image(str(row["key"]), uri, version=row["version"])

    def _needs_times(self) -> str:
        return (
            f"modified_after and settle_seconds need version={self._source.version!r} to be a "
            "column of timestamps or dates: name one, or make one with sql=."
        )

    def _wrong(self, reason: str) -> ConfigurationError:
        what = "sql" if self._source.table is None else f"table {self._source.table!r}"
        return ConfigurationError(
            f"SqlImages cannot read {what} through connection {self._source.conn_id!r}: {reason}"
        )

    def _columns(self) -> list[str]:
        source = self._source
        names = (source.key, source.uri, source.content, source.version)
        return list(dict.fromkeys(name for name in names if name is not None))

    def _rows_from(self) -> sa.FromClause:
        """Return the rows with unique keys, and the number of rows that share each key."""
        if self._source.sql is not None:
            # Text of the user's own; its colons and percent signs are not parameters.
            statement = re.sub(r"(?<!:):(?!:)", r"\\:", self._source.sql.strip().rstrip(";"))
            wanted: list[Any] = [sa.column(name) for name in self._columns()]
            # The new line ends a comment, which would take the closing bracket with it.
            return self._unique(sa.text(f"{statement}\n").columns(*wanted).subquery("source"))
        schema, name = split_name(self._source.table or "", "table")
        inspector = sa.inspect(self._engine)
        found = {column["name"] for column in inspector.get_columns(name, schema=schema)}
        missing = [column for column in self._columns() if column not in found]
        if missing or not found:
            raise self._wrong(
                f"it has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(sorted(map(repr, found))) or 'none'}."
            )
        columns: list[Any] = [sa.column(name) for name in self._columns()]
        table = sa.table(name, *columns, schema=schema).alias("source")
        return table if self._is_unique(inspector, name, schema) else self._unique(table)

    def _is_unique(self, inspector: Any, name: str, schema: str | None) -> bool:
        keys = [inspector.get_pk_constraint(name, schema=schema).get("constrained_columns")]
        keys += [
            constraint["column_names"]
            for constraint in inspector.get_unique_constraints(name, schema=schema)
        ]
        keys += [
            index["column_names"]
            for index in inspector.get_indexes(name, schema=schema)
            # A partial index does not make the other rows unique.
            if index.get("unique") and not index.get("dialect_options", {}).get("postgresql_where")
        ]
        return [self._source.key] in keys

    def _unique(self, rows: sa.FromClause) -> sa.FromClause:
        """Return the rows numbered within their key, the greatest version first, and counted."""
        key = rows.c[self._source.key]
        order: list[Any] = []
        # The bytes come last: they are compared only if two rows agree in all other columns.
        for name in (self._source.version, self._source.uri, self._source.content):
            if name is not None:
                # A NULL is the greatest value in PostgreSQL and the smallest in the others.
                order += [rows.c[name].is_(None), rows.c[name].desc()]
        place = sa.func.row_number().over(partition_by=key, order_by=order or [key])
        copies = sa.func.count().over(partition_by=key)
        return sa.select(
            *rows.c, place.label("imagetag_place"), copies.label("imagetag_copies")
        ).subquery("numbered")

    def _without_key(self, rows: sa.FromClause) -> Iterator[Entry]:
        """Yield the rows without a key as skipped: no store can hold their failure."""
        if self._shard is not None and self._shard.index > 0:
            return
        statement = sa.select(sa.func.count()).where(rows.c[self._source.key].is_(None))
        with self._engine.connect() as connection:
            count = connection.execute(statement.select_from(rows)).scalar_one()
        if count:
            log.warning("Left out %d rows whose key %r is null", count, self._source.key)
        for _ in range(count):
            yield SkippedImage("")

    def _page_size(self, rows: sa.FromClause, *, with_content: bool = True) -> int:
        sizes = self._page_rows
        page = sizes.unindexed if "imagetag_place" in rows.c else sizes.indexed
        if self._source.content is not None and with_content:
            page = sizes.with_content
        # A run that takes five images does not read two thousand.
        return min(page, self._limit or page)

    def _pages(
        self, rows: sa.FromClause, statement: sa.Select[Any], page_rows: int
    ) -> Iterator[Any]:
        statement = statement.limit(page_rows)
        last: Any = None
        while True:
            page = statement
            if last is not None:
                page = page.where(rows.c[self._source.key] > last)
            with self._engine.connect() as connection:
                found = connection.execute(page).mappings().all()
            yield from found
            if len(found) < page_rows:
                return
            last = found[-1]["native_key"]

    def _page_statement(self, rows: sa.FromClause, *, with_content: bool = True) -> sa.Select[Any]:
        source = self._source
        key = rows.c[source.key]
        key_text = sa.cast(key, sa.String)
        empty = sa.literal("")
        version: Any = empty
        if source.version:
            version = sa.func.coalesce(sa.cast(rows.c[source.version], sa.String), empty)
        uri = rows.c[source.uri] if source.uri else None
        columns = [
            key.label("native_key"),
            key_text.label("key"),
            version.label("version"),
            (sa.null() if uri is None else uri).label("uri"),
            (rows.c[source.content] if source.content and with_content else sa.null()).label(
                "content"
            ),
        ]
        statement = sa.select(*columns).where(key.is_not(None))
        if "imagetag_place" in rows.c:
            statement = statement.add_columns(rows.c.imagetag_copies.label("copies"))
            statement = statement.where(rows.c.imagetag_place == 1)
        else:
            statement = statement.add_columns(sa.literal(1).label("copies"))
        if self._shard is not None and self._is_sharded:
            statement = statement.where(_in_shard(self._engine.dialect.name, key_text, self._shard))
        if self._condition is not None:
            statement = statement.where(self._condition(key_text, version, uri))
        return statement.order_by(key)

    def _entries_of(self, row: Any) -> Iterator[Entry]:
        key = str(row["key"])
        if self._shard is not None and not (self._is_sharded or self._shard.holds(key)):
            return
        try:
            yield self._image(key, row)
        except ImageError as error:
            yield RejectedImage(key, None, error, version=row["version"], is_tolerated=True)
        if row["copies"] > 1:
            yield RejectedImage(
                key,
                None,
                DuplicateKeyError(
                    f"{row['copies']} rows have this key; the one with the greatest version was "
                    "taken. Make the keys unique."
                ),
                # The version of the image that was taken: once it is stored, the row is not new.
                version=row["version"],
                is_tolerated=True,
            )

    def _image(self, key: str, row: Any) -> Image:
        source = self._source
        if source.content is not None:
            content = row["content"]
            if content is None:
                raise InvalidImageError(f"The row has no image: {source.content!r} is null.")
            if not isinstance(content, (bytes, bytearray, memoryview)):
                raise InvalidImageError(f"{source.content!r} holds a {type(content).__name__}.")
            return Image(key, content=bytes(content), version=row["version"])
        uri = _text(row["uri"])
        if not uri:
            raise InvalidImageError(f"The row has no URI: {source.uri!r} is null or empty.")
        return Image(key, uri, version=row["version"])


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip()


def _in_shard(dialect: str, key: Any, shard: Shard) -> Any:
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

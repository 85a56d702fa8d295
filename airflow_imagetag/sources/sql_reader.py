"""Private: read a table or query page by page; loaded only when a task reads one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import (
    engine_of,
    reason_of,
    split_name,
)
from airflow_imagetag.backends.dialects import KeyColumn, UniqueKey, dialect_of, text_of_bytes
from airflow_imagetag.errors import (
    ConfigurationError,
    DuplicateKeyError,
    ImageError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.models import Entry, Image, RejectedImage, SkippedImage
from airflow_imagetag.safety.redaction import redact, storable_name
from airflow_imagetag.safety.uris import MAX_NAME_CHARACTERS, is_blank
from airflow_imagetag.selection.rules import Condition, Window
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources.items import text_fault
from airflow_imagetag.sources.sql_keys import (
    KeyOrder,
    Pages,
    candidates,
    in_shard,
    is_found,
    numbered,
    order_of,
)
from airflow_imagetag.sources.sql_times import times_of

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Number of rows in a page.

    :param indexed: of a table with unique keys.
    :param unindexed: of a query, or a table whose keys may repeat: the database scans all of its
        rows for each page.
    :param with_content: of rows that hold the bytes: a page is held in memory whole.
    :param candidates: maximum number of rows that a condition leaves for whose keys alone the
        pages are read, if these are without the bytes.
    """

    indexed: int = 2_000
    unindexed: int = 20_000
    with_content: int = 16
    candidates: int = 10_000


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
        self._dialect = dialect_of(self._engine)
        self._is_sharded = self._dialect.has_hash
        # Of a table's key, as the database describes it.
        self._kind: Any = None
        self._unique: UniqueKey | None = None

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

    def keys(self) -> Iterator[str]:
        """Yield the keys of the rows that have one, as entries have them."""
        return self._reading(self._keys)

    def count(self) -> int:
        """Return the number of rows that have a key, one for each key."""
        [count] = self._reading(self._counts)
        return count

    def _order(self, rows: sa.FromClause) -> KeyOrder:
        keys = KeyColumn(rows, rows.c[self._source.key], self._kind, self._unique)
        return order_of(self._engine, keys)

    def _counts(self, rows: sa.FromClause) -> Iterator[int]:
        order = self._order(rows)
        statement = self._select(self._one_of_each(rows, order), with_content=False).subquery()
        with self._engine.connect() as connection:
            yield connection.execute(sa.select(sa.func.count()).select_from(statement)).scalar_one()

    def _reading(self, read: Callable[[sa.FromClause], Iterator[T]], hint: str = "") -> Iterator[T]:
        try:
            yield from read(self._rows_from())
        except sa_exc.NoSuchTableError:
            raise self._wrong("there is no such table.") from None
        except sa_exc.DBAPIError as error:
            is_mismatch = self._dialect.is_type_mismatch(error)
            wrong = self._wrong(f"{reason_of(error)}{hint if is_mismatch else ''}")
            raise (
                StorageError(wrong.message) if self._dialect.is_transient(error) else wrong
            ) from None
        finally:
            self._engine.dispose()

    def _entries(self, rows: sa.FromClause) -> Iterator[Entry]:
        yield from self._without_key(rows)
        for row in self._pages(rows, self._select, with_content=self._source.content is not None):
            yield from self._entries_of(row)

    def _keys(self, rows: sa.FromClause) -> Iterator[str]:
        select = partial(self._select, with_content=False)
        for row in self._pages(rows, select, with_content=False):
            yield storable_name(str(row["key"]))

    def _images(self, rows: sa.FromClause, window: Window | None) -> Iterator[Image]:
        for row in self._pages(rows, partial(self._select_images, window), with_content=False):
            if row.get("has_no_time"):
                where = f"{self._source.version!r} of the row {redact(row['key'])!r}"
                raise self._wrong(f"{where} is not a timestamp. {self._needs_times()}")
            key, uri = str(row["key"]), _text(row["uri"])
            # The database's TRIM removes spaces, but no other blanks.
            if uri is None or not is_blank(uri):
                image = Image(key, uri, version=row["version"])
                if text_fault(image) is None:
                    yield image

    def _select_images(self, window: Window | None, rows: sa.FromClause) -> sa.Select[Any]:
        """Return the statement of the rows that hold an image, without the bytes."""
        statement = self._select(rows, with_content=False)
        # A NULL is not unequal to anything, so the condition leaves it out, too.
        if self._source.uri:
            uri_text = sa.cast(rows.c[self._source.uri], sa.String)
            statement = statement.where(sa.func.trim(uri_text) != "")
        elif self._source.content:
            empty = sa.literal(b"", sa.LargeBinary)
            statement = statement.where(rows.c[self._source.content] != empty)
        if window is not None and self._source.version is not None:
            times = times_of(rows.c[self._source.version], self._dialect)
            statement = statement.add_columns(times.is_unreadable.label("has_no_time"))
            statement = statement.where(times.lie_in(window) | times.is_unreadable)
        return statement

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
        """Return the table or query."""
        if self._source.sql is not None:
            # Text of the user's own; its colons and percent signs are not parameters.
            statement = re.sub(r"(?<!:):(?!:)", r"\\:", self._source.sql.strip().rstrip(";"))
            wanted: list[Any] = [sa.column(name) for name in self._columns()]
            # The new line ends a comment, which would take the closing bracket with it.
            rows = sa.text(f"{statement}\n").columns(*wanted).subquery("source")
            self._check_names(rows)
            return rows
        schema, name = split_name(self._source.table or "", "table")
        found = {
            column: described["type"]
            for column, described in self._dialect.columns(self._engine, name, schema).items()
        }
        missing = [column for column in self._columns() if column not in found]
        if missing or not found:
            raise self._wrong(
                f"it has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(sorted(map(repr, found))) or 'none'}."
            )
        self._kind = found[self._source.key]
        self._unique = self._dialect.unique_key(self._engine, name, schema, self._source.key)
        columns: list[Any] = [sa.column(name) for name in self._columns()]
        return sa.table(name, *columns, schema=schema).alias("source")

    def _check_names(self, rows: sa.FromClause) -> None:
        """Check that a query has no two columns of one name, of which SQLite takes the first.

        :raises ConfigurationError: it has.
        """
        if not self._dialect.numbers_equal_columns:
            return
        statement = sa.select(sa.text("*")).select_from(rows).limit(0)
        with self._engine.connect() as connection:
            # It numbers the others: id, id:1.
            names = set(connection.execute(statement).keys())
        if twice := [name for name in self._columns() if {name, f"{name}:1"} <= names]:
            raise self._wrong(f"it has more than one column {', '.join(map(repr, twice))}.")

    def _without_key(self, rows: sa.FromClause) -> Iterator[Entry]:
        """Yield the rows without a key as skipped: no store can hold their failure."""
        if self._shard is not None and self._shard.index > 0:
            return
        statement = sa.select(sa.func.count()).where(self._has_no_key(rows))
        with self._engine.connect() as connection:
            count = connection.execute(statement.select_from(rows)).scalar_one()
        if count:
            log.warning("Left out %d rows whose key %r is null", count, self._source.key)
        for _ in range(count):
            yield SkippedImage("")

    def _has_no_key(self, rows: sa.FromClause) -> Any:
        return self._dialect.is_null(rows.c[self._source.key])

    def _pages(
        self,
        rows: sa.FromClause,
        select: Callable[[sa.FromClause], sa.Select[Any]],
        *,
        with_content: bool,
    ) -> Iterator[Any]:
        """Yield the rows of a statement in the order of their keys, read page by page.

        :param select: returns the statement of all rows.
        :raises ConfigurationError: the database does not find keys again; nothing was yielded.
        """
        order = self._order(rows)
        # Pages with the bytes are many and small: each would name all keys.
        if self._condition is not None and not with_content:
            keys = candidates(self._engine, select(rows), order, self._page_rows.candidates)
            if keys == []:
                return
            if keys is not None:
                rows = self._narrowed(rows, order, keys)
                order = order.on(rows.c[self._source.key])
        pages = self._paged(rows, order, select, with_content=with_content)
        found = pages.first()
        is_last = len(found) < pages.size
        if order.is_native and not is_last and not is_found(self._engine, rows, order, found[-1]):
            if not self._dialect.is_exact:
                raise self._not_ordered()
            pages = self._paged(rows, order.by_text(), select, with_content=with_content)
            found = pages.first()
        yield from found
        while len(found) == pages.size:
            last = found[-1]
            found = pages.after(last)
            if found and found[0]["key"] == last["key"] and not self._dialect.is_exact:
                raise self._not_ordered()
            yield from found

    def _narrowed(self, rows: sa.FromClause, order: KeyOrder, keys: list[str]) -> sa.FromClause:
        """Return the rows that have one of these keys."""
        # A unique key may have a type that the database does not read from a text.
        if self._unique is not None and not is_found(self._engine, rows, order, {"key": keys[0]}):
            order = order.by_text()
        return sa.select(*rows.c).where(order.is_among(keys)).subquery("narrowed")

    def _not_ordered(self) -> ConfigurationError:
        return self._wrong(
            f"the values of the column {self._source.key!r} cannot be compared with themselves, as "
            "those of floating numbers. Make a text or a whole number of it with sql=."
        )

    def _paged(
        self,
        rows: sa.FromClause,
        order: KeyOrder,
        select: Callable[[sa.FromClause], sa.Select[Any]],
        *,
        with_content: bool,
    ) -> Pages:
        sizes = self._page_rows
        single = self._one_of_each(rows, order)
        size = sizes.indexed if single is rows else self._dialect.page_rows or sizes.unindexed
        if with_content:
            size = sizes.with_content
        # A run that takes five images does not read two thousand.
        size = min(size, self._limit or size)
        return Pages(self._engine, select(single), order.on(single.c[self._source.key]), size)

    def _one_of_each(self, rows: sa.FromClause, order: KeyOrder) -> sa.FromClause:
        """Return the rows with a place among those of their key, unless the key is unique."""
        if self._unique is not None and order.is_native:
            return rows
        return numbered(rows, order, (self._source.version, self._source.uri, self._source.content))

    def _select(self, rows: sa.FromClause, *, with_content: bool = True) -> sa.Select[Any]:
        """Return the statement of the rows that have a key, one for each key."""
        source = self._source
        key = rows.c[source.key]
        key_text = self._dialect.text_of(key)
        empty = sa.literal("")
        version: Any = empty
        if source.version:
            version = sa.func.coalesce(self._dialect.text_of(rows.c[source.version]), empty)
        uri = rows.c[source.uri] if source.uri else None
        columns = [
            key_text.label("key"),
            self._beginning(version).label("version"),
            (sa.null() if uri is None else self._beginning(uri)).label("uri"),
            (rows.c[source.content] if source.content and with_content else sa.null()).label(
                "content"
            ),
        ]
        statement = sa.select(*columns).where(~self._has_no_key(rows))
        if "imagetag_place" in rows.c:
            statement = statement.add_columns(rows.c.imagetag_copies.label("copies"))
            statement = statement.where(rows.c.imagetag_place == 1)
        else:
            statement = statement.add_columns(sa.literal(1).label("copies"))
        if self._shard is not None and self._is_sharded:
            statement = statement.where(in_shard(self._dialect, key_text, self._shard))
        if self._condition is not None:
            statement = statement.where(self._condition(key_text, version, uri))
        return statement

    def _beginning(self, text: Any) -> Any:
        """Return as much of a text as tells whether it is too long: it may have megabytes."""
        return self._dialect.beginning(text, MAX_NAME_CHARACTERS + 1)

    def _entries_of(self, row: Any) -> Iterator[Entry]:
        key = str(row["key"])
        if self._shard is not None and not (self._is_sharded or self._shard.holds(key)):
            return
        # A text of SQLite may be none, and the failure is kept all the same.
        version = row["version"] and row["version"].encode(errors="replace").decode()
        try:
            yield self._image(key, row)
        except ImageError as error:
            name = storable_name(key)
            yield RejectedImage(name, None, error, version=version, is_tolerated=True)
        if row["copies"] > 1:
            yield RejectedImage(
                storable_name(key),
                None,
                DuplicateKeyError(
                    f"{row['copies']} rows have this key; the one with the greatest version was "
                    "taken. Make the keys unique."
                ),
                # The version of the image that was taken: once it is stored, the row is not new.
                version=version,
                is_tolerated=True,
            )

    def _image(self, key: str, row: Any) -> Image:
        source = self._source
        content, uri = row["content"], _text(row["uri"])
        if source.content is not None:
            if content is None:
                raise InvalidImageError(f"The row has no image: {source.content!r} is null.")
            if not isinstance(content, (bytes, bytearray, memoryview)):
                raise InvalidImageError(f"{source.content!r} holds a {type(content).__name__}.")
            content = bytes(content)
        elif uri is None or is_blank(uri):
            raise InvalidImageError(f"The row has no URI: {source.uri!r} is null or empty.")
        image = Image(key, uri, content, row["version"])
        if fault := text_fault(image):
            raise InvalidImageError(fault)
        return image


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return text_of_bytes(value)
    return None if value is None else str(value)

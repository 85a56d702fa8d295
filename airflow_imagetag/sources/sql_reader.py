"""Reads a table or query page by page; loaded only when a task reads one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa  # noqa: TID253 (this module is loaded by a running task only)
from sqlalchemy import exc as sa_exc  # noqa: TID253

from airflow_imagetag.databases import engine_of, split_name
from airflow_imagetag.errors import (
    ConfigurationError,
    DuplicateKeyError,
    ImageError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.models import Entry, Image, RejectedImage
from airflow_imagetag.pending import Condition
from airflow_imagetag.shards import Shard

if TYPE_CHECKING:
    from airflow_imagetag.sources.sql import SqlImages

log = logging.getLogger(__name__)

PAGE_ROWS = 2_000
CONTENT_PAGE_ROWS = 16
"""Rows with the bytes in them: a page is held in memory whole."""

SHARDING_DIALECTS = ("mariadb", "mysql", "postgresql", "sqlite")
"""Databases with a hash that is known here; of others, every row is read and the rest left out."""

REPORTED_ROWS_WITHOUT_KEY = 100


class SqlReader:
    """One reading of a :class:`~airflow_imagetag.sources.sql.SqlImages`."""

    def __init__(
        self,
        source: SqlImages,
        *,
        shard: Shard | None,
        limit: int | None,
        pending: Condition | None,
    ) -> None:
        self._source = source
        self._shard = shard
        self._pending = pending
        page = PAGE_ROWS if source.content is None else CONTENT_PAGE_ROWS
        # A run that takes five images need not read two thousand.
        self._page_rows = min(page, limit or page)
        self._engine = engine_of(source.conn_id)
        self._is_sharded = self._engine.dialect.name in SHARDING_DIALECTS

    def entries(self) -> Iterator[Entry]:
        """Yield rows as images, and the faulty ones as rejected."""
        try:
            rows = self._rows_from()
            yield from self._without_key(rows)
            yield from self._pages(rows)
        except sa_exc.OperationalError as error:
            # SQLite says so of a statement that is wrong, the others of a server out of reach.
            if self._engine.dialect.name == "sqlite":
                raise self._wrong(_reason(error)) from None
            raise StorageError(str(self._wrong(_reason(error)))) from None
        except (sa_exc.DBAPIError, sa_exc.NoSuchTableError) as error:
            raise self._wrong(_reason(error)) from None
        finally:
            self._engine.dispose()

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
        """Return what to select from: rows with unique keys, and how many rows share each."""
        if self._source.sql is not None:
            # Text of the user's own; its colons and percent signs are not parameters.
            statement = re.sub(r"(?<![:\\]):(?!:)", r"\\:", self._source.sql.strip().rstrip(";"))
            wanted: list[Any] = [sa.column(name) for name in self._columns()]
            return self._unique(sa.text(statement).columns(*wanted).subquery("source"))
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
        return [self._source.key] in keys

    def _unique(self, rows: sa.FromClause) -> sa.FromClause:
        """Return the rows numbered by key, the greatest version first, and counted."""
        key = rows.c[self._source.key]
        order: list[Any] = [
            rows.c[name].desc()
            for name in (self._source.version, self._source.uri)
            if name is not None
        ]
        place = sa.func.row_number().over(partition_by=key, order_by=order or [key])
        copies = sa.func.count().over(partition_by=key)
        return sa.select(
            *rows.c, place.label("imagetag_place"), copies.label("imagetag_copies")
        ).subquery("numbered")

    def _without_key(self, rows: sa.FromClause) -> Iterator[Entry]:
        if self._shard is not None and self._shard.index > 0:
            return
        columns = [rows.c[self._source.uri]] if self._source.uri else [sa.literal(None)]
        statement = (
            sa.select(*columns)
            .where(rows.c[self._source.key].is_(None))
            .limit(REPORTED_ROWS_WITHOUT_KEY)
        )
        with self._engine.connect() as connection:
            found = connection.execute(statement).all()
        for number, row in enumerate(found):
            error = InvalidImageError(f"The row has no key: {self._source.key!r} is null.")
            yield RejectedImage(f"row {number} without key", _text(row[0]), error)

    def _pages(self, rows: sa.FromClause) -> Iterator[Entry]:
        statement = self._page_statement(rows)
        last: Any = None
        while True:
            page = statement
            if last is not None:
                page = page.where(rows.c[self._source.key] > last)
            with self._engine.connect() as connection:
                found = connection.execute(page).mappings().all()
            for row in found:
                yield from self._entries_of(row)
            if len(found) < self._page_rows:
                return
            last = found[-1]["native_key"]

    def _page_statement(self, rows: sa.FromClause) -> sa.Select[Any]:
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
            (rows.c[source.content] if source.content else sa.null()).label("content"),
        ]
        statement = sa.select(*columns).where(key.is_not(None))
        if "imagetag_place" in rows.c:
            statement = statement.add_columns(rows.c.imagetag_copies.label("copies"))
            statement = statement.where(rows.c.imagetag_place == 1)
        else:
            statement = statement.add_columns(sa.literal(1).label("copies"))
        if self._shard is not None and self._is_sharded:
            statement = statement.where(_in_shard(self._engine.dialect.name, key_text, self._shard))
        if self._pending is not None:
            statement = statement.where(self._pending(key_text, version, uri))
        return statement.order_by(key).limit(self._page_rows)

    def _entries_of(self, row: Any) -> Iterator[Entry]:
        key = str(row["key"])
        if self._shard is not None and not (self._is_sharded or self._shard.holds(key)):
            return
        try:
            yield self._image(key, row)
        except ImageError as error:
            yield RejectedImage(key, None, error, version=row["version"])
        if row["copies"] > 1:
            yield RejectedImage(
                key,
                None,
                DuplicateKeyError(
                    f"{row['copies']} rows have this key; the one with the greatest version was "
                    "taken. Make the keys unique."
                ),
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
    """Return the condition that a key belongs to a part, computed by the database.

    Every task of a run asks the same database, so any hash of its own serves.
    """
    number: Any
    if dialect == "postgresql":
        # Without the sign, which the remainder would keep.
        number = sa.func.hashtext(key, type_=sa.Integer).op("&")(0x7FFFFFFF)
    elif dialect in ("mysql", "mariadb"):
        number = sa.func.crc32(key, type_=sa.Integer)
    else:
        number = sa.func.imagetag_crc32(key, type_=sa.Integer)
    return number % shard.count == shard.index


def _reason(error: sa_exc.SQLAlchemyError) -> str:
    """Return what the database said, without the statement and its parameters."""
    origin = getattr(error, "orig", None)
    return " ".join(str(error if origin is None else origin).split())[:300]

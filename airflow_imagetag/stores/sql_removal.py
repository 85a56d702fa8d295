"""Private: lists, marks and deletes images of a label store; loaded by a running task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import reason_of
from airflow_imagetag.errors import StoreError
from airflow_imagetag.selection.missing import HeldImage
from airflow_imagetag.stores.key_sets import KeySet
from airflow_imagetag.stores.rows import MISSING_SINCE
from airflow_imagetag.stores.sql_retries import StatementRetrier
from airflow_imagetag.stores.sql_tables import SqlTables


@dataclass(frozen=True, slots=True)
class SqlRemoval:
    """The images of a store, those of one interface or of all.

    :param tables: the two tables.
    :param api: only images of this interface; None for all.
    """

    tables: SqlTables
    api: str | None

    def held(self) -> Iterator[list[HeldImage]]:
        """Yield the images, some at a time.

        :raises StoreError: the database failed.
        """
        try:
            yield from self._held()
        except sa_exc.DBAPIError as error:
            raise StoreError(f"{self._not_read}: {reason_of(error)}") from None

    def _held(self) -> Iterator[list[HeldImage]]:
        if self.tables.is_missing:
            return
        images = self.tables.images
        missing_since = images.c.get(MISSING_SINCE, sa.null())
        columns = (images.c.api, images.c.image_key, missing_since.is_not(None).label("is_missing"))
        statement = self._own(sa.select(*columns))
        options = {"stream_results": True, "yield_per": self.tables.dialect.streamed_rows}
        with self.tables.engine.connect().execution_options(**options) as connection:
            for rows in connection.execute(statement).partitions():
                yield [HeldImage(api, key, bool(is_missing)) for api, key, is_missing in rows]

    def delete(self, keys: KeySet) -> int:
        """Delete images and their labels, some in each transaction; return their number."""
        tables = self.tables

        def work(connection: sa.Connection, api: str, digests: list[str]) -> int:
            # As a batch is written: the image rows first, whose locks make writers take turns.
            delete = _with(tables.images.delete(), tables.images, api, digests)
            deleted = tables.dialect.changed_rows(connection, tables.images, delete)
            labels = tables.labels_table
            connection.execute(_with(labels.delete(), labels, api, digests))
            return deleted

        return self._each(keys, "could not be deleted from", work)

    def mark(self, keys: KeySet, missing_since: datetime | None) -> int:
        """Set or take away the mark of images; return the number of those that were changed."""
        images = self.tables.images

        def work(connection: sa.Connection, api: str, digests: list[str]) -> int:
            update = images.update().values({MISSING_SINCE: missing_since})
            marked = images.c[MISSING_SINCE]
            is_other = marked.is_not(None) if missing_since is None else marked.is_(None)
            statement = _with(update, images, api, digests).where(is_other)
            return self.tables.dialect.changed_rows(connection, images, statement)

        return self._each(keys, "could not be marked in", work)

    def _each(
        self, keys: KeySet, what: str, work: Callable[[sa.Connection, str, list[str]], int]
    ) -> int:
        """Call ``work`` for some images in each transaction, and return the sum of its results.

        :param what: the action that failed, for the error message.
        """
        retrier = StatementRetrier(self.tables.dialect, self.tables.mode)
        apis = [self.api] if self.api is not None else retrier.call(self._apis, self._not_read)
        total = 0
        for api in apis:
            for digests in keys.chunks(self.tables.dialect.lookup_keys):

                def transaction(api: str = api, digests: list[str] = digests) -> int:
                    with self.tables.writing.begin() as connection:
                        return work(connection, api, digests)

                place = self.tables.images.fullname
                total += retrier.call(transaction, f"{len(digests)} images {what} {place}")
        return total

    def _apis(self) -> list[str]:
        """Return the interfaces: the primary key begins with them, so each is named."""
        statement = sa.select(self.tables.images.c.api).distinct()
        with self.tables.engine.connect() as connection:
            return list(connection.execute(statement).scalars())

    @property
    def _not_read(self) -> str:
        return f"{self.tables.images.fullname} could not be read"

    def _own(self, statement: Any) -> Any:
        if self.api is None:
            return statement
        return statement.where(self.tables.images.c.api == self.api)


def _with(statement: Any, table: sa.Table, api: str, digests: list[str]) -> Any:
    """Return the statement for the rows of these images only."""
    return statement.where(table.c.api == api, table.c.key_sha256.in_(digests))

"""Private: the tables of a label store: created, checked, read; loaded by a running task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import tenacity
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import engine_of, reason_of, split_name
from airflow_imagetag.backends.dialects import STORES, dialect_of
from airflow_imagetag.errors import ConfigurationError, StorageError, StoreError
from airflow_imagetag.frames import IMAGE_COLUMNS, ORIGINAL_LABEL, frame, label_columns
from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.rows import LIFE_COLUMNS, without_originals
from airflow_imagetag.stores.sql_runs import SqlRuns
from airflow_imagetag.stores.sql_schema import (
    add_columns,
    added_columns,
    lacking_columns,
    require_originals,
    schema_mismatches,
    tables,
)

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@contextmanager
def open_tables(
    conn_id: str, table: str, schema: str | None, mode: StoreMode
) -> Iterator[SqlTables]:
    """Open the two tables of a store, which are created or checked.

    :param conn_id: connection of the database.
    :param table: name of the labels table, with or without its schema.
    :param schema: schema of both tables.
    :param mode: in read mode nothing is created and missing tables count as empty.
    :raises ConfigurationError: the connection cannot be used, or a table does not fit.
    :raises StorageError: the database cannot be reached.
    """
    in_name, name = split_name(table, "table")
    if schema is not None and in_name not in (None, schema):
        raise ConfigurationError(f"table={table!r} and schema={schema!r} disagree; keep one.")
    engine = engine_of(conn_id)
    try:
        _require_database(engine, conn_id)
        opened = SqlTables(engine, name, schema or in_name, conn_id=conn_id, mode=mode)
        opened.prepare()
        yield opened
    finally:
        engine.dispose()


def _require_database(engine: sa.Engine, conn_id: str) -> None:
    """Check that the database is one that a store can be in.

    :raises ConfigurationError: it is not.
    """
    dialect = dialect_of(engine)
    lack = dialect.lacks(engine)
    if lack is not None:
        raise ConfigurationError(
            f"SqlLabelStore cannot keep labels through connection {conn_id!r}: {dialect.name} "
            f"lacks {lack}. A store can be in {STORES}."
        )


class SqlTables:
    """The labels table and the images table while a task uses them.

    :param engine: the database.
    :param name: name of the labels table.
    :param schema: schema of both tables.
    :param conn_id: connection of the database.
    :param mode: read or write.
    """

    def __init__(
        self, engine: sa.Engine, name: str, schema: str | None, *, conn_id: str, mode: StoreMode
    ) -> None:
        self.engine = engine
        self.dialect = dialect_of(engine)
        self.writing = engine.execution_options(writes=True)
        self.conn_id = conn_id
        self.mode = mode
        self.is_missing = False
        """Whether a table does not exist yet; only in read mode."""
        self.images, self.labels_table = tables(name, schema)
        self._lacking: Collection[str] = ()

    def prepare(self) -> None:
        """Create the tables, or check the existing ones.

        :raises ConfigurationError: names the mismatches.
        :raises StorageError: the database cannot be reached.
        """
        try:
            if self.mode is StoreMode.WRITE:
                self._create()
                self.dialect.gather_statistics(self.engine, self.images)
            found = self._existing()
            self.is_missing = len(found) < 2
            problems = [
                f"{table.fullname}: {problem}"
                for table in found
                for problem in schema_mismatches(self.engine, table)
            ]
        except sa_exc.DBAPIError as error:
            kind = StorageError if self.dialect.is_transient(error) else ConfigurationError
            raise kind(
                "The label tables cannot be created or read through connection "
                f"{self.conn_id!r}: {reason_of(error)}"
            ) from None
        if problems:
            raise ConfigurationError(
                f"The label tables in connection {self.conn_id!r} have an incompatible schema: "
                f"{'; '.join(problems)}. Fix them, or use another table."
            )
        added = [name for name in LIFE_COLUMNS if name in self._lacking]
        if added and self.mode is StoreMode.WRITE:
            self._upgrade(added)

    def _create(self) -> None:
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.5), reraise=True
        ):
            # If two tasks create the tables at once, one of them fails and then finds them.
            with attempt:
                self.dialect.create(self.engine, self.images.metadata)

    def _existing(self) -> list[sa.Table]:
        """Return the tables that exist: another task may have created only the first yet."""
        exists = self._existence()
        found = list(filter(exists, (self.images, self.labels_table)))
        lacking = [name for table in found for name in lacking_columns(self.engine, table)]
        self._use_tables(lacking)
        return list(filter(exists, (self.images, self.labels_table)))

    def _existence(self) -> Callable[[sa.Table], bool]:
        """Return a function that tells whether a table exists."""
        return partial(self.dialect.has_table, self.engine)

    def _use_tables(self, lacking: Collection[str]) -> None:
        """Take tables of an earlier version as they are.

        :param lacking: columns that they do not have.
        """
        labels = self.labels_table
        self._lacking = lacking
        self.images, self.labels_table = tables(labels.name, labels.schema, lacking=lacking)

    def _upgrade(self, added: list[str]) -> None:
        """Add the columns that the images table of an earlier version lacks."""
        self._use_tables([name for name in self._lacking if name not in added])
        self._add(self.images, added)

    def upgrade(self) -> list[str]:
        """Create the tables and the columns that are missing, and return the changes.

        :raises ConfigurationError: the database refuses it; names the statements.
        """
        lacking = self._lacking
        self._use_tables(())
        exists = self._existence()
        missing = [table for table in (self.images, self.labels_table) if not exists(table)]
        self.mode = StoreMode.WRITE
        self.prepare()
        changes = [f"Created the table {table.fullname}." for table in missing]
        if added := [name for name in LIFE_COLUMNS if name in lacking]:
            changes.append(f"Added the columns {', '.join(added)} to {self.images.fullname}.")
        if ORIGINAL_LABEL in lacking:
            self._use_tables(())
            self._add(self.labels_table, [ORIGINAL_LABEL])
            changes.append(f"Added the column {ORIGINAL_LABEL} to {self.labels_table.fullname}.")
        return changes + self._create_runs()

    def _create_runs(self) -> list[str]:
        runs = self._runs
        try:
            is_new = runs.create()
        except sa_exc.DBAPIError as error:
            raise ConfigurationError(
                f"{runs.table.fullname} cannot be created through connection {self.conn_id!r}: "
                f"{reason_of(error)}"
            ) from None
        return [f"Created the table {runs.table.fullname}."] if is_new else []

    @property
    def _runs(self) -> SqlRuns:
        return SqlRuns(self.engine, self.labels_table.name, self.labels_table.schema)

    def runs(self, *, frame_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the runs of all interfaces as frames; a missing table holds none.

        :param frame_rows: number of rows in a frame.
        :raises StoreError: the table cannot be read.
        """
        try:
            if self._runs.exists:
                yield from self._runs.frames(frame_rows=frame_rows)
        except sa_exc.DBAPIError as error:
            raise StoreError(
                f"{self._runs.table.fullname} could not be read: {reason_of(error)}"
            ) from None

    def _add(self, table: sa.Table, added: Collection[str]) -> None:
        """Add columns to a table of an earlier version.

        :raises ConfigurationError: the database refuses it; names the statements.
        """
        log.info("Adding the columns %s to %s", ", ".join(added), table.fullname)
        try:
            add_columns(self.engine, table, added)
        except sa_exc.DBAPIError as error:
            # Another task may have added them meanwhile.
            if lacking := lacking_columns(self.engine, table):
                statements = "; ".join(added_columns(self.engine, table, lacking))
                raise ConfigurationError(
                    f"{table.fullname} was created by an earlier version and lacks columns, which "
                    f"cannot be added: {reason_of(error)}. Run these statements once through "
                    f"connection {self.conn_id!r}: {statements}"
                ) from None

    def require_originals(self) -> None:
        """Check that the labels table can hold the original names of renamed labels.

        :raises ConfigurationError: it cannot; names the statement that adds the column.
        """
        require_originals(self.engine, self.labels_table, f"connection {self.conn_id!r}")

    def probe(self, image: dict[str, Any], label: dict[str, Any]) -> None:
        """Insert a row into each table and roll back.

        :raises ConfigurationError: the database refuses the rows.
        """
        try:
            with self.writing.connect() as connection, connection.begin() as transaction:
                self.dialect.probe(connection, self.images, image)
                self.dialect.probe(connection, self.labels_table, label)
                transaction.rollback()
        except sa_exc.DBAPIError as error:
            names = [self.labels_table.fullname, self.images.fullname]
            raise ConfigurationError(
                f"{names[0]} and {names[1]} cannot be written: {reason_of(error)}."
                f"{self.dialect.remedy(error.orig, names)}"
            ) from None

    def storable(
        self, images: list[dict[str, Any]], labels: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rows of a batch as these tables take them.

        :raises ConfigurationError: a label has an original name, which the labels table of an
            earlier version cannot hold.
        """
        if any(row[ORIGINAL_LABEL] is not None for row in labels):
            self.require_originals()
        elif ORIGINAL_LABEL not in self.labels_table.c:
            labels = without_originals(labels)
        return self.dialect.storable(images), self.dialect.storable(labels)

    def labels(self, *, frame_rows: int, originals: bool) -> Iterator[pd.DataFrame]:
        """Yield all labels as frames, in the order of api and key digest.

        :param frame_rows: number of rows in a frame.
        :param originals: add the column ``original_label``.
        """
        types = label_columns(originals=originals)
        table = self.labels_table
        columns = [table.c.get(name, sa.null().label(name)) for name in types]
        statement = sa.select(*columns).order_by(table.c.api, table.c.key_sha256, table.c["rank"])
        yield from self._frames(statement, types, frame_rows)

    def images_frames(self, *, frame_rows: int) -> Iterator[pd.DataFrame]:
        """Yield all images as frames, in the order of api and key digest.

        :param frame_rows: number of rows in a frame.
        """
        if self.is_missing:
            return
        table = self.images
        statement = sa.select(
            *(
                table.c.labels_count.label(name)
                if name == "labels"
                else table.c.get(name, sa.null()).label(name)
                for name in IMAGE_COLUMNS
            )
        ).order_by(table.c.api, table.c.key_sha256)
        yield from self._frames(statement, IMAGE_COLUMNS, frame_rows)

    def _frames(
        self, statement: sa.Select[Any], types: Mapping[str, str], frame_rows: int
    ) -> Iterator[pd.DataFrame]:
        """Yield the rows of a statement as frames.

        :param types: names and types of the columns.
        """
        options = {"stream_results": True, "yield_per": min(frame_rows, self.dialect.streamed_rows)}
        with self.engine.connect().execution_options(**options) as connection:
            result = connection.execute(statement)
            while rows := list(islice(result, frame_rows)):
                columns = dict(zip(types, zip(*rows, strict=True), strict=True))
                yield frame(columns, types)

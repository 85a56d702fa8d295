"""Private: asks and fills the tables of a label store; loaded by a running task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.selection.rules import (
    UNFINISHED,
    Condition,
    Need,
    Retag,
    Rule,
    Status,
    StoredState,
)
from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.open_store import BatchBounds, OpenStore, UnlabelledCounts
from airflow_imagetag.stores.rows import (
    LIFE_COLUMNS,
    MISSING_SINCE,
    key_digest,
    outcome_of,
    rows_of,
)
from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope
from airflow_imagetag.stores.sql_batches import Batch, chunks
from airflow_imagetag.stores.sql_retries import (
    RETRY_SECONDS,
    RUN_RETRY_SECONDS,
    StatementRetrier,
)
from airflow_imagetag.stores.sql_rule import SqlRule, is_due
from airflow_imagetag.stores.sql_runs import SqlRuns
from airflow_imagetag.stores.sql_schema import UNANSWERED
from airflow_imagetag.stores.sql_tables import SqlTables, open_tables

T = TypeVar("T")

PROBE_KEY = "probe \u732b \U0001f600"
"""Key and label of the rows that are tried: a character set may have no Chinese, or no emoji."""


@contextmanager
def open_sql_store(
    conn_id: str,
    table: str,
    schema: str | None,
    api: str,
    mode: StoreMode,
    *,
    retry_seconds: float = RETRY_SECONDS,
) -> Iterator[OpenSqlStore]:
    """Open the store in two tables for one interface.

    :param conn_id: connection of the database.
    :param table: name of the labels table, with or without its schema.
    :param schema: schema of both tables.
    :param api: the interface that labels the images.
    :param mode: read or write.
    :param retry_seconds: how long a statement is retried in write mode.
    :raises ConfigurationError: the connection cannot be used, or a table does not fit.
    :raises StorageError: the database cannot be reached.
    """
    with open_tables(conn_id, table, schema, mode) as tables:
        yield OpenSqlStore(tables, api, retry_seconds=retry_seconds)


class OpenSqlStore(OpenStore):
    """The labels of one interface in a database, while a task uses them.

    :param tables: the two tables.
    :param api: the interface that labels the images.
    :param retry_seconds: how long a statement is retried in write mode.
    """

    def __init__(self, tables: SqlTables, api: str, *, retry_seconds: float) -> None:
        self._tables = tables
        self._api = api
        self._retry = StatementRetrier(
            tables.dialect, tables.mode, retry_seconds=retry_seconds
        ).call
        labels = tables.labels_table
        self._runs = SqlRuns(tables.engine, labels.name, labels.schema)
        self._has_runs = False
        # The record of a run is read in read mode, too, as long as it is written.
        self._run_retrier = StatementRetrier(
            tables.dialect, StoreMode.WRITE, retry_seconds=min(retry_seconds, RUN_RETRY_SECONDS)
        )

    def refresh(self) -> None:
        """Check again for tables that were missing; rows are read anew by each question."""
        if self._tables.is_missing:
            self._tables.prepare()

    def release_connections(self) -> None:
        """Close idle connections; the next question opens its own."""
        self._tables.engine.dispose()

    def check_writable(self, *, originals: bool = False) -> None:
        """Insert a row into each table and roll back.

        :raises ConfigurationError: the database refuses the rows, or the labels table of an earlier
            version cannot hold original names.
        """
        tables = self._tables
        if originals:
            tables.require_originals()
        tables.probe(*_probe_rows(tables.labels_table))

    @property
    def batch(self) -> BatchBounds:
        """Bounds of a batch: large ones in a warehouse."""
        dialect, usual = self._tables.dialect, super().batch
        return BatchBounds(
            dialect.batch_images or usual.images, dialect.batch_seconds or usual.seconds
        )

    def known(self, keys: Collection[str]) -> Mapping[str, StoredState]:
        """Return the state of the images with these keys."""
        if self._tables.is_missing:
            return {}
        key_of = {key_digest(key): key for key in keys}
        return self._retry(lambda: self._known(key_of), self._not_read)

    @property
    def _not_read(self) -> str:
        return f"{self._tables.images.fullname} could not be read"

    def _known(self, key_of: Mapping[str, str]) -> dict[str, StoredState]:
        images = self._tables.images
        found: dict[str, StoredState] = {}
        with self._tables.engine.connect() as connection:
            for some in chunks(list(key_of), self._tables.dialect.lookup_keys):
                # The texts of URIs are not needed, and may be long.
                statement = sa.select(
                    images.c.key_sha256,
                    images.c.version,
                    images.c.status,
                    images.c.image_uri.is_not(None).label("has_uri"),
                    *(images.c.get(name, sa.null().label(name)) for name in LIFE_COLUMNS),
                ).where(images.c.api == self._api, images.c.key_sha256.in_(some))
                for row in connection.execute(statement):
                    found[key_of[row.key_sha256]] = StoredState(
                        row.version,
                        Status(row.status),
                        bool(row.has_uri),
                        row.next_try_at,
                        row.tries or 0,
                        row.first_failed_at,
                    )
        return found

    @property
    def database(self) -> str:
        """Id of the connection whose database holds the tables."""
        return self._tables.conn_id

    def condition(self, rule: Rule) -> Condition:
        """Return the condition that an image is new, or due."""
        return partial(self._is_pending, rule)

    def _is_pending(self, rule: Rule, key: Any, version: Any, uri: Any) -> Any:
        if self._tables.is_missing:
            return sa.false() if rule.only_failed or rule.need is Need.DUE else sa.true()
        images, dialect = self._tables.images, self._tables.dialect
        same_image = dialect.equal_texts(images.c.image_key, key) & (images.c.api == self._api)
        same_version = dialect.equal_texts(images.c.version, version)
        parts = SqlRule(images, rule, same_image, same_version, uri, dialect)
        wanted = [Need.NEW, Need.DUE] if rule.need is None else [rule.need]
        return sa.or_(*(parts.condition(need) for need in wanted))

    def may_be_due(self, rule: Rule) -> bool:
        """Tell whether some stored image is due by the rule."""
        if rule.retag is Retag.ALWAYS or self._tables.is_missing:
            return False
        if rule.retry_failed or rule.only_failed:
            return True
        images = self._tables.images
        # An image that was given up has no time of a next try either.
        waits = images.c.status != Status.GAVE_UP.value
        conditions = (*self._unanswered(), waits, is_due(images, rule.now))
        statement = sa.select(sa.literal(1)).where(*conditions)
        return self._retry(lambda: self._first(statement.limit(1)) is not None, self._not_read)

    def unlabelled(self, now: datetime) -> UnlabelledCounts:
        """Return the number of images that wait or were given up."""
        if self._tables.is_missing:
            return UnlabelledCounts()
        images = self._tables.images
        next_try_at = images.c.get("next_try_at", sa.null())
        gave_up = images.c.status == Status.GAVE_UP.value
        group = sa.case((gave_up, "gave_up"), (is_due(images, now), "due"), else_="later")
        statement = sa.select(
            group.label("kind"), sa.func.count().label("images"), sa.func.min(next_try_at)
        )
        statement = statement.where(*self._unanswered()).group_by(group)
        if MISSING_SINCE in images.c:
            statement = statement.where(images.c[MISSING_SINCE].is_(None))
        rows = self._retry(lambda: self._all(statement), self._not_read)
        counts = {kind: images for kind, images, _ in rows}
        times = [moment for kind, _, moment in rows if kind == "later"]
        return UnlabelledCounts(
            waiting=counts.get("due", 0) + counts.get("later", 0),
            due=counts.get("due", 0),
            gave_up=counts.get("gave_up", 0),
            next_try_at=_utc(times[0]) if times else None,
        )

    def _unanswered(self) -> list[Any]:
        """Return the conditions of images without an answer, which a small index serves."""
        return [sa.text(UNANSWERED), self._tables.images.c.api == self._api]

    def _first(self, statement: Any) -> Any:
        with self._tables.engine.connect() as connection:
            return connection.execute(statement).first()

    def _all(self, statement: Any) -> list[Any]:
        with self._tables.engine.connect() as connection:
            return list(connection.execute(statement).all())

    def answers(self, content_sha256: Collection[str]) -> Mapping[str, TagResult | Failure]:
        """Return the answers that were paid for images with these bytes, by digest."""
        if self._tables.is_missing:
            return {}
        return self._retry(lambda: self._answers(content_sha256), self._not_read)

    def _answers(self, content_sha256: Collection[str]) -> dict[str, TagResult | Failure]:
        found: dict[str, TagResult | Failure] = {}
        with self._tables.engine.connect() as connection:
            for some in chunks(list(content_sha256), self._tables.dialect.lookup_keys):
                images = self._settled_images(connection, some)
                keys = [image["key_sha256"] for image in images.values()]
                labels = self._labels_by_key(connection, keys) if keys else {}
                for digest, image in images.items():
                    found[digest] = outcome_of(image, labels.get(image["key_sha256"], ()))
        return found

    def _settled_images(
        self, connection: sa.Connection, digests: list[str]
    ) -> dict[str, dict[str, Any]]:
        """Return one image with an answer for each digest of bytes that has one."""
        images = self._tables.images
        statement = sa.select(images).where(
            images.c.content_sha256.in_(digests),
            images.c.api == self._api,
            # In version 0.1.0 such an image has a digest, and no answer.
            images.c.status != UNFINISHED,
        )
        # The last row of equal bytes is kept: labels rather than a failure.
        is_failed = images.c.status == Status.FAILED.value
        order = sa.case((is_failed, 0), (images.c.status == Status.TAGGED.value, 2), else_=1)
        rows = connection.execute(statement.order_by(order)).mappings()
        return {row["content_sha256"]: dict(row) for row in rows}

    def _labels_by_key(
        self, connection: sa.Connection, keys: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        labels = self._tables.labels_table
        statement = sa.select(labels).where(
            labels.c.api == self._api, labels.c.key_sha256.in_(keys)
        )
        found: dict[str, list[dict[str, Any]]] = {}
        for row in connection.execute(statement.order_by(labels.c["rank"])).mappings():
            found.setdefault(row["key_sha256"], []).append(dict(row))
        return found

    def write(self, outcomes: Sequence[TagResult | Failure]) -> None:
        """Write a batch in one transaction; while the database fails, the write is retried."""
        images, labels = rows_of(outcomes, self._api)
        if not images:
            return
        tables = self._tables
        written = (tables.images, tables.labels_table, tables.dialect)
        batch = Batch(*written, *tables.storable(images, labels), self._api)

        def work() -> None:
            with tables.writing.begin() as connection:
                batch.write(connection)

        self._retry(work, f"{len(images)} images could not be written to {tables.images.fullname}")

    @property
    def keeps_runs(self) -> bool:
        """True."""
        return True

    def record_run(self, run: RunRecord) -> None:
        """Write the row of a run, or overwrite it; the first one creates the table."""

        def work() -> None:
            if not self._has_runs:
                self._runs.create()
                self._has_runs = True
            self._runs.put(run)

        self._retry_run(work, "written")

    def unended_runs(self) -> Sequence[RunRecord]:
        """Return the runs without an end."""
        runs = self._runs
        return self._retry_run(lambda: runs.unended(self._api) if runs.exists else [], "read")

    def spending(self, scope: SpendingScope) -> Spending:
        """Return the calls and the cost of the runs of this interface."""
        return self._retry_run(partial(self._runs.spending, self._api, scope), "read")

    def _retry_run(self, work: Callable[[], T], done: str) -> T:
        """Call ``work`` until the database answers, or a short time has passed.

        :param done: ends the error message.
        :raises StoreError: the database failed for too long, or refuses the statement.
        """
        return self._run_retrier.call(work, f"{self._runs.table.fullname} could not be {done}")


def _probe_rows(labels_table: sa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a row for the images table and one for the labels table."""
    now = datetime.now(UTC)
    probe = Failure(PROBE_KEY, None, "probe", None, "", 0, now, is_final=True)
    [image], _ = rows_of([probe], "probe")
    shared = {name: image[name] for name in ("api", "key_sha256", "image_key", "tagged_at")}
    own = {"rank": 1, "label": PROBE_KEY, "probability": 0.0}
    return image, {column.name: None for column in labels_table.columns} | shared | own


def _utc(moment: Any) -> datetime | None:
    """Return a time of an aggregate, whose type some databases lose."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

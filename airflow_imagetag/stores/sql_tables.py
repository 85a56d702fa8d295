"""Opens, asks and fills the two tables of a store; loaded only by a running task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import engine_of, is_transient, reason_of, split_name
from airflow_imagetag.errors import ConfigurationError, ImageTagError, StorageError, StoreError
from airflow_imagetag.frames import ORIGINAL_LABEL, frame, label_columns
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.selection.rules import Condition, Retag, Rule, Status, StoredState
from airflow_imagetag.stores.base import DEFAULT_FRAME_ROWS, OpenStore
from airflow_imagetag.stores.rows import digest_of, outcome_of, rows_of, without_originals
from airflow_imagetag.stores.sql_batches import Batch, chunks, without_zero_bytes
from airflow_imagetag.stores.sql_schema import (
    equal_texts,
    gather_statistics,
    has_originals,
    require_originals,
    schema_mismatches,
    tables,
)

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

T = TypeVar("T")

RACE_ATTEMPTS = 4

RETRY_SECONDS = 300.0
"""How long a batch that was paid for is tried to be written while the database fails; questions
have the same patience, since what cannot be asked ends the run as well."""


@contextmanager
def open_tables(
    conn_id: str, table: str, schema: str | None, *, to_write: bool
) -> Iterator[OpenSqlStore]:
    """Open the store in the two tables, which are created or checked.

    :param to_write: False creates nothing, takes missing tables for empty ones, and does not wait
        for a database that is away.
    :raises ConfigurationError: the connection cannot be used, or a table does not fit.
    :raises StorageError: the database cannot be reached.
    """
    in_name, name = split_name(table, "table")
    if schema is not None and in_name not in (None, schema):
        raise ConfigurationError(f"table={table!r} and schema={schema!r} disagree; keep one.")
    engine = engine_of(conn_id)
    try:
        place = f"connection {conn_id!r}"
        store = OpenSqlStore(engine, name, schema or in_name, place=place, to_write=to_write)
        store.prepare()
        yield store
    finally:
        engine.dispose()


class OpenSqlStore(OpenStore):
    """A store while a task uses it.

    :param engine: the database.
    :param table: name of the labels table.
    :param schema: schema of both tables.
    :param place: names the database in messages.
    :param to_write: False for one that is only asked.
    """

    def __init__(
        self, engine: sa.Engine, table: str, schema: str | None, *, place: str, to_write: bool
    ) -> None:
        self._engine = engine
        self._place = place
        self._to_write = to_write
        self._is_missing = False
        self._writing = engine.execution_options(writes=True)
        self._images, self._labels = tables(table, schema)

    def refresh(self) -> None:
        """Look whether tables that were missing are there; the database is asked anew each time."""
        if self._is_missing:
            self.prepare()

    def release_connections(self) -> None:
        """Close the connections that are kept for the next question, which opens its own."""
        self._engine.dispose()

    def prepare(self) -> None:
        """Create the tables, or check those that exist.

        :raises ConfigurationError: says what does not fit.
        :raises StorageError: the database cannot be reached.
        """
        try:
            if self._to_write:
                self._create()
                gather_statistics(self._engine, self._images)
            found = self._found()
            self._is_missing = len(found) < 2
            problems = [
                f"{table.fullname}: {problem}"
                for table in found
                for problem in schema_mismatches(self._engine, table)
            ]
        except sa_exc.DBAPIError as error:
            kind = StorageError if is_transient(error) else ConfigurationError
            raise kind(
                f"The label tables cannot be created or read through {self._place}: "
                f"{reason_of(error)}"
            ) from None
        if problems:
            raise ConfigurationError(
                f"The label tables in {self._place} do not fit: {'; '.join(problems)}. Mend them, "
                "or name another table."
            )

    def _create(self) -> None:
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.5), reraise=True
        ):
            # Two tasks that create the tables at once: one of them fails, and finds them then.
            with attempt:
                self._images.metadata.create_all(self._engine)

    def _found(self) -> list[sa.Table]:
        """Return the tables that are there: a writer may be between the two."""
        inspector = sa.inspect(self._engine)

        def is_there(table: sa.Table) -> bool:
            return inspector.has_table(table.name, schema=table.schema)

        name, schema = self._labels.name, self._labels.schema
        if is_there(self._labels) and not has_originals(self._engine, self._labels):
            # Made by an earlier version; it serves as it is where no label is renamed.
            self._images, self._labels = tables(name, schema, originals=False)
        return list(filter(is_there, (self._images, self._labels)))

    def check_writable(self, *, originals: bool = False) -> None:
        """Write a row to each table and take it back.

        :raises ConfigurationError: the database does not let us, or the labels table of an earlier
            version cannot hold original names.
        """
        if originals:
            require_originals(self._engine, self._labels, self._place)
        now = datetime.now(UTC)
        probe = Failure("probe", None, "probe", None, "", 0, now, is_final=True)
        [image], _ = rows_of([probe], "probe")
        label = {
            **{column.name: None for column in self._labels.columns},
            **{name: image[name] for name in ("api", "key_sha256", "image_key", "tagged_at")},
            "rank": 1,
            "label": "probe",
            "probability": 0.0,
        }
        try:
            with self._writing.connect() as connection, connection.begin() as transaction:
                connection.execute(self._images.insert(), [image])
                connection.execute(self._labels.insert(), [label])
                transaction.rollback()
        except sa_exc.DBAPIError as error:
            raise ConfigurationError(
                f"{self._labels.fullname} and {self._images.fullname} cannot be written: "
                f"{reason_of(error)}"
            ) from None

    def known(self, keys: Collection[str], api: str) -> Mapping[str, StoredState]:
        """Return what the store holds of the images with these keys."""
        if self._is_missing:
            return {}
        key_of = {digest_of(key): key for key in keys}
        return self._patiently(
            lambda: self._known(key_of, api), f"{self._images.fullname} could not be read"
        )

    def _known(self, key_of: Mapping[str, str], api: str) -> dict[str, StoredState]:
        images = self._images
        found: dict[str, StoredState] = {}
        with self._engine.connect() as connection:
            for some in chunks(list(key_of)):
                statement = sa.select(
                    images.c.key_sha256, images.c.version, images.c.status, images.c.image_uri
                ).where(images.c.api == api, images.c.key_sha256.in_(some))
                for row in connection.execute(statement):
                    found[key_of[row.key_sha256]] = StoredState(
                        row.version, Status(row.status), row.image_uri is not None
                    )
        return found

    def pending(self, rule: Rule, api: str) -> Condition:
        """Return the condition that an image is new."""
        images = self._images

        def condition(key: Any, version: Any, uri: Any) -> Any:
            if rule.retag is Retag.ALWAYS or self._is_missing:
                return sa.true()
            settled = images.c.status == Status.TAGGED.value
            if not rule.retry_failed:
                failed = images.c.status == Status.FAILED.value
                if uri is not None:
                    failed &= images.c.image_uri.is_not(None) | (
                        sa.func.trim(sa.func.coalesce(uri, "")) == ""
                    )
                settled |= failed
            dialect = self._engine.dialect.name
            same = equal_texts(images.c.image_key, key, dialect) & (images.c.api == api)
            if rule.retag is Retag.CHANGED:
                same &= equal_texts(images.c.version, version, dialect)
            return ~sa.exists().where(same & settled)

        return condition

    def answers(
        self, content_sha256: Collection[str], api: str
    ) -> Mapping[str, TagResult | Failure]:
        """Return the answers that were paid for images with these bytes, by digest."""
        return self._patiently(
            lambda: self._answers(content_sha256, api),
            f"{self._images.fullname} could not be read",
        )

    def _answers(self, content_sha256: Collection[str], api: str) -> dict[str, TagResult | Failure]:
        images, labels = self._images, self._labels
        settled = images.c.status.in_([Status.TAGGED.value, Status.FAILED.value])
        found: dict[str, TagResult | Failure] = {}
        with self._engine.connect() as connection:
            for some in chunks(list(content_sha256)):
                statement = sa.select(images).where(
                    images.c.content_sha256.in_(some), images.c.api == api, settled
                )
                # The last one of equal bytes is taken: labels rather than a failure.
                statement = statement.order_by(images.c.status)
                rows = {
                    row.content_sha256: dict(row._mapping) for row in connection.execute(statement)
                }
                if not rows:
                    continue
                keys = [row["key_sha256"] for row in rows.values()]
                labels_of: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
                statement = sa.select(labels).where(
                    labels.c.api == api, labels.c.key_sha256.in_(keys)
                )
                for row in connection.execute(statement.order_by(labels.c["rank"])):
                    labels_of[row.key_sha256].append(dict(row._mapping))
                for digest, image in rows.items():
                    found[digest] = outcome_of(image, labels_of[image["key_sha256"]])
        return found

    def write(self, outcomes: Sequence[TagResult | Failure], api: str) -> None:
        """Keep a batch in one transaction; a database that fails meanwhile is tried again."""
        images, labels = rows_of(outcomes, api)
        if not images:
            return
        if any(row[ORIGINAL_LABEL] is not None for row in labels):
            require_originals(self._engine, self._labels, self._place)
        elif ORIGINAL_LABEL not in self._labels.c:
            labels = without_originals(labels)
        if self._engine.dialect.name == "postgresql":
            images, labels = (list(map(without_zero_bytes, rows)) for rows in (images, labels))
        batch = Batch(self._images, self._labels, images, labels, api)

        def work() -> None:
            with self._writing.begin() as connection:
                batch.write(connection)

        name = self._images.fullname
        self._patiently(work, f"{len(images)} images could not be written to {name}")

    def _patiently(self, work: Callable[[], T], what: str) -> T:
        """Do what the database may be asked again while it fails.

        :param what: what did not succeed, the beginning of a message.
        :raises StoreError: it failed for too long, or in a way that waiting does not mend.
        :raises StorageError: it failed while it was only asked, in a way that may pass.
        """
        retrying = tenacity.Retrying(
            retry=_may_pass,
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=20),
            stop=tenacity.stop_after_delay(RETRY_SECONDS if self._to_write else 0.0),
            before_sleep=partial(_log_failure, what),
            reraise=True,
        )
        try:
            return retrying(work)
        except sa_exc.DBAPIError as error:
            kind: type[ImageTagError] = StoreError
            if not self._to_write and is_transient(error):
                kind = StorageError
            raise kind(f"{what}: {reason_of(error)}") from None

    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield all labels as frames, in the order of api and key digest."""
        types = label_columns(originals=originals)
        columns = [self._labels.c.get(name, sa.null().label(name)) for name in types]
        order = (self._labels.c.api, self._labels.c.key_sha256, self._labels.c["rank"])
        statement = sa.select(*columns).order_by(*order)
        options = {"stream_results": True, "yield_per": min(frame_rows, 5_000)}
        with self._engine.connect().execution_options(**options) as connection:
            result = connection.execute(statement)
            while rows := list(islice(result, frame_rows)):
                columns_of_rows = dict(zip(types, zip(*rows, strict=True), strict=True))
                yield frame(columns_of_rows, types)


def _log_failure(what: str, state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    reason = reason_of(error) if isinstance(error, sa_exc.DBAPIError) else repr(error)
    log.warning("Attempt %d: %s: %s", state.attempt_number, what, reason)


def _may_pass(state: tenacity.RetryCallState) -> bool:
    """Tell whether what failed may succeed later: a lost connection, a deadlock, a race."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, sa_exc.IntegrityError):
        # Of two writers at once, one is refused; a row that breaks a rule is refused each time.
        return state.attempt_number < RACE_ATTEMPTS
    lost = isinstance(error, sa_exc.DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, (sa_exc.OperationalError, sa_exc.InterfaceError))

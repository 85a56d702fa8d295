"""Private: the queries of the pages to the tables of a store; loaded by a report or an API server.

Each query has a limit of time in PostgreSQL, MySQL, MariaDB and SQLite, and a limit of rows. Pages
follow the primary key, one interface after the other, so the first page of a large table costs as
little as that of a small one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import reason_of
from airflow_imagetag.errors import StorageError
from airflow_imagetag.frames import ORIGINAL_LABEL
from airflow_imagetag.selection.rules import Status
from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.browsing import (
    MAX_PAGE_IMAGES,
    Cursor,
    DayCount,
    DayCounts,
    ImageFilter,
    ImagePage,
    LabelSample,
    QueryTooSlowError,
    StoreBrowser,
    StoredImage,
    StoredLabel,
)
from airflow_imagetag.stores.digest_slices import LAST_DIGEST, slices
from airflow_imagetag.stores.rows import LIFE_COLUMNS, key_digest
from airflow_imagetag.stores.sql_tables import SqlTables, open_tables

T = TypeVar("T")

QUERY_SECONDS = 5.0
"""Maximum time of a query of a page."""

WHOLE_SHARE = 0.4
"""Share of that time in which a page is looked for at once; then it is looked for in slices."""

COUNT_SECONDS = 1.0
"""Maximum time to count all images; then their number is estimated."""

_TIMES = ("first_failed_at", "next_try_at", "tagged_at", "missing_since")

MAX_APIS = 50
"""Maximum number of interfaces that are read."""

MAX_LABELS = 60
"""Maximum number of labels that are read of each image of a page."""

MAX_DAYS = 20_000
"""Maximum number of groups of interface, status and day."""

ESTIMATE_IMAGES = 20_000
"""Number of images from which the number of all is estimated."""

MAX_SAMPLE_LABELS = 400_000
"""Maximum number of labels in a sample."""

_DIGITS = 13
"""Number of hex digits of a digest that a float holds exactly."""


@contextmanager
def open_sql_browser(
    conn_id: str, table: str, schema: str | None, *, seconds: float = QUERY_SECONDS
) -> Iterator[SqlBrowser]:
    """Open the tables of a store for its pages; nothing is created.

    :param seconds: maximum time of a query.
    :raises ConfigurationError: the connection cannot be used, or a table does not fit.
    :raises StorageError: the database cannot be reached.
    """
    with open_tables(conn_id, table, schema, StoreMode.READ) as tables:
        yield SqlBrowser(tables, seconds=seconds)


class SqlBrowser(StoreBrowser):
    """The tables of a store while its pages are made.

    :param tables: the tables, in read mode.
    :param seconds: maximum time of a query.
    """

    def __init__(self, tables: SqlTables, *, seconds: float = QUERY_SECONDS) -> None:
        self._tables = tables
        self._seconds = seconds
        self._preparing = threading.Lock()

    def _is_missing(self) -> bool:
        tables = self._tables
        if tables.is_missing:
            with self._preparing:
                tables.prepare()
        return tables.is_missing

    def apis(self) -> Sequence[str]:
        """Return the interfaces whose images the store holds, sorted."""
        if self._is_missing():
            return ()
        column = self._tables.images.c.api

        def ask(connection: sa.Connection) -> list[str]:
            found: list[str] = []
            # One step into the index for each, where DISTINCT would read all of it.
            while len(found) < MAX_APIS:
                statement = sa.select(sa.func.min(column))
                if found:
                    statement = statement.where(column > found[-1])
                following = connection.execute(statement).scalar()
                if following is None:
                    break
                found.append(following)
            return found

        return self._within(self._seconds, ask)

    def day_counts(self) -> DayCounts:
        """Return the numbers of images by interface, status and day."""
        apis = self.apis()
        try:
            rows = self._within(min(COUNT_SECONDS, self._seconds), self._counts)
            return DayCounts(rows if apis else ())
        except QueryTooSlowError:
            estimates = [row for api in apis for row in self._estimated(api)]
            return DayCounts(estimates, is_estimate=True)

    def _counts(self, connection: sa.Connection, *conditions: Any) -> list[DayCount]:
        if self._tables.is_missing:
            return []
        images = self._tables.images
        day = self._tables.dialect.day_of(images.c.tagged_at)
        statement = (
            sa.select(
                images.c.api,
                images.c.status,
                day.label("day"),
                sa.func.count().label("images"),
                sa.func.sum(images.c.labels_count).label("labels"),
            )
            .where(*conditions)
            .group_by(images.c.api, images.c.status, day)
            .limit(MAX_DAYS)
        )
        return [
            DayCount(row.api, row.status, _as_day(row.day), row.images, int(row.labels or 0))
            for row in connection.execute(statement)
        ]

    def _estimated(self, api: str) -> list[DayCount]:
        """Return the numbers of an interface's images, scaled from those with small digests."""
        images = self._tables.images

        def ask(connection: sa.Connection) -> list[DayCount]:
            boundary = self._boundary(connection, api, ESTIMATE_IMAGES)
            own = [images.c.api == api]
            if boundary is None:
                return self._counts(connection, *own)
            # Digests are spread evenly, so the boundary tells the share of the sample.
            share = int(boundary[:_DIGITS], 16) / 16**_DIGITS
            return [
                DayCount(
                    row.api,
                    row.status,
                    row.day,
                    round(row.images / share),
                    round(row.labels / share),
                )
                for row in self._counts(connection, *own, images.c.key_sha256 < boundary)
            ]

        return self._within(self._seconds, ask)

    def _boundary(self, connection: sa.Connection, api: str, count: int) -> str | None:
        """Return the digest that so many images of an interface are below; None for fewer."""
        images = self._tables.images
        statement = (
            sa.select(images.c.key_sha256)
            .where(images.c.api == api)
            .order_by(images.c.key_sha256)
            .offset(count)
            .limit(1)
        )
        found = connection.execute(statement).scalar()
        return None if found is None else str(found)

    def label_sample(self, max_images: int) -> LabelSample:
        """Return the labels of at most so many images."""
        apis = self.apis()
        each = max(1, max_images // max(1, len(apis)))
        parts = [
            self._within(self._seconds, partial(self._sample, api=api, max_images=each))
            for api in apis
        ]
        return LabelSample(
            [row for rows, _, _ in parts for row in rows],
            sum(images for _, images, _ in parts),
            all(is_all for _, _, is_all in parts),
        )

    def _sample(
        self, connection: sa.Connection, *, api: str, max_images: int
    ) -> tuple[list[tuple[str, str, float]], int, bool]:
        images, labels = self._tables.images, self._tables.labels_table
        boundary = self._boundary(connection, api, max_images)
        own, of_images = [labels.c.api == api], [images.c.api == api]
        if boundary is not None:
            own.append(labels.c.key_sha256 < boundary)
            of_images.append(images.c.key_sha256 < boundary)
        of_images.append(images.c.labels_count > 0)
        statement = sa.select(labels.c.key_sha256, labels.c.label, labels.c.probability)
        rows = connection.execute(statement.where(*own).limit(MAX_SAMPLE_LABELS))
        found = [(f"{api}:{row[0]}", str(row[1]), float(row[2])) for row in rows]
        counted = connection.execute(
            sa.select(sa.func.count()).select_from(images).where(*of_images)
        )
        return found, int(counted.scalar() or 0), boundary is None

    def page(self, wanted: ImageFilter, after: Cursor | None, size: int) -> ImagePage:
        """Return the images that meet the conditions, with their labels."""
        size = min(max(size, 1), MAX_PAGE_IMAGES)
        apis = [api for api in self.apis() if wanted.api in (None, api)]
        ends = time.monotonic() + self._seconds
        found: list[StoredImage] = []
        for api in apis:
            if after is not None and api < after.api:
                continue
            start = after.digest if after is not None and api == after.api else ""
            of_api = partial(self._page_of, api=api, wanted=wanted)
            images, behind = self._walked(of_api, start, size + 1 - len(found), ends)
            found += images
            if len(found) > size:
                shown = found[:size]
                return ImagePage(shown, Cursor(shown[-1].api, shown[-1].digest))
            if behind != LAST_DIGEST:
                return self._cut(found, api, behind)
        return ImagePage(found, None)

    def _walked(
        self, ask: Callable[..., list[StoredImage]], start: str, count: int, ends: float
    ) -> tuple[list[StoredImage], str]:
        """Return the images of an interface behind a digest, and how far all of them are known.

        :param ask: queries a slice of the digests.
        :param ends: when the time is over, on the monotonic clock.
        """
        with suppress(QueryTooSlowError):
            whole = partial(ask, start=start, end=LAST_DIGEST, count=count)
            seconds = min(self._seconds * WHOLE_SHARE, ends - time.monotonic())
            return self._within(seconds, whole), LAST_DIGEST
        # What a database cannot find at once it finds piece by piece, and the next page goes on.
        found: list[StoredImage] = []
        behind = start
        with suppress(QueryTooSlowError):
            for low, high in slices(start):
                part = partial(ask, start=low, end=high, count=count - len(found))
                found += self._within(ends - time.monotonic(), part)
                behind = high
                if len(found) >= count:
                    break
        return found, behind

    def _cut(self, found: list[StoredImage], api: str, behind: str) -> ImagePage:
        if not found and not behind:
            raise self._too_slow(self._seconds)
        return ImagePage(found, Cursor(api, behind), is_cut=True)

    def _page_of(
        self,
        connection: sa.Connection,
        *,
        api: str,
        wanted: ImageFilter,
        start: str,
        end: str,
        count: int,
    ) -> list[StoredImage]:
        """Return the first images whose digests are behind one and up to another one."""
        images = self._tables.images

        def between(table: sa.Table) -> Iterator[Any]:
            # Not where it excludes nothing: a database would take it for a rare condition.
            if start:
                yield table.c.key_sha256 > start
            if end != LAST_DIGEST:
                yield table.c.key_sha256 <= end

        statement = (
            sa.select(*self._image_columns())
            .where(images.c.api == api, *between(images))
            .where(*self._conditions(wanted, api, list(between(self._tables.labels_table))))
            .order_by(images.c.key_sha256)
            .limit(count)
        )
        return self._with_labels(connection, connection.execute(statement).mappings().all())

    def _conditions(self, wanted: ImageFilter, api: str, within: list[Any]) -> Iterator[Any]:
        images, labels = self._tables.images.c, self._tables.labels_table.c
        if wanted.key is not None:
            yield images.key_sha256 == key_digest(wanted.key)
        if wanted.status is not None:
            yield images.status == wanted.status
        if wanted.since is not None:
            yield images.tagged_at >= wanted.since
        if wanted.until is not None:
            yield images.tagged_at < wanted.until
        if wanted.needs_label:
            given = [labels.api == api, labels.key_sha256 == images.key_sha256, *within]
            if wanted.label is not None:
                # The first comparison is the one that an index on the label serves.
                given.append(labels.label.in_(sorted(_spellings(self._stored(wanted.label)))))
            if wanted.min_probability is not None:
                given.append(labels.probability >= wanted.min_probability)
            if wanted.max_probability is not None:
                given.append(labels.probability <= wanted.max_probability)
            yield sa.exists().where(*given)
        if wanted.text is not None:
            text = self._stored(wanted.text)
            same = [labels.api == api, labels.key_sha256 == images.key_sha256, *within]
            in_label = sa.exists().where(*same, _contains(labels.label, text))
            yield _contains(images.image_key, text) | in_label

    def _stored(self, text: str) -> str:
        """Return a text as the database holds it, which may not take each character."""
        return str(self._tables.dialect.storable([{"text": text}])[0]["text"])

    def _image_columns(self) -> list[Any]:
        images = self._tables.images
        names = (
            *("api", "key_sha256", "image_key", "image_uri", "version", "status"),
            *("content_sha256", "labels_count", "error", "code", "message", "tagged_at"),
        )
        lately = [images.c.get(name, sa.null().label(name)) for name in LIFE_COLUMNS]
        return [*(images.c[name] for name in names), *lately]

    def _with_labels(
        self, connection: sa.Connection, rows: Sequence[Any], *, labels: bool = True
    ) -> list[StoredImage]:
        found: dict[tuple[str, str], list[StoredLabel]] = {}
        table = self._tables.labels_table
        for api in sorted({row["api"] for row in rows}) if labels else ():
            digests = [row["key_sha256"] for row in rows if row["api"] == api]
            statement = (
                sa.select(
                    *(table.c[n] for n in ("key_sha256", "label", "probability", "category")),
                    *(table.c[n] for n in ("subcategory", "scene")),
                    table.c.get(ORIGINAL_LABEL, sa.null()).label(ORIGINAL_LABEL),
                )
                .where(
                    table.c.api == api,
                    table.c.key_sha256.in_(digests),
                    table.c["rank"] <= MAX_LABELS,
                )
                .order_by(table.c.key_sha256, table.c["rank"])
            )
            for digest, *values in connection.execute(statement):
                found.setdefault((api, digest), []).append(StoredLabel(*values))
        return [_stored_image(row, found) for row in rows]

    def image(self, digest: str) -> Sequence[StoredImage]:
        """Return the rows of the image with this key digest, one for each interface."""
        apis = self.apis()
        if not apis:
            return ()
        images = self._tables.images
        statement = (
            sa.select(*self._image_columns())
            .where(images.c.api.in_(list(apis)), images.c.key_sha256 == digest)
            .order_by(images.c.api)
        )

        def ask(connection: sa.Connection) -> list[StoredImage]:
            return self._with_labels(connection, connection.execute(statement).mappings().all())

        return self._within(self._seconds, ask)

    def unlabelled(self, max_images: int) -> Sequence[StoredImage]:
        """Return images without labels through an error: at most so many, without their labels."""
        if self._is_missing():
            return ()
        images = self._tables.images
        statement = (
            sa.select(*self._image_columns())
            .where(images.c.status != Status.TAGGED.value)
            .limit(max_images)
        )

        def ask(connection: sa.Connection) -> list[StoredImage]:
            rows = connection.execute(statement).mappings().all()
            return self._with_labels(connection, rows, labels=False)

        return self._within(self._seconds, ask)

    def _within(self, seconds: float, ask: Callable[[sa.Connection], T]) -> T:
        """Return the answer of a query that the database ends when the time is over."""
        began = time.monotonic()
        tables = self._tables
        if seconds <= 0:
            raise self._too_slow(self._seconds)
        try:
            with (
                tables.engine.connect() as connection,
                tables.dialect.limited(connection, seconds),
            ):
                return ask(connection)
        except sa_exc.DBAPIError as error:
            if time.monotonic() - began >= 0.9 * seconds:
                raise self._too_slow(seconds) from None
            name = tables.images.fullname
            raise StorageError(f"{name} cannot be read: {reason_of(error)}") from None

    def _too_slow(self, seconds: float) -> QueryTooSlowError:
        name = self._tables.images.fullname
        return QueryTooSlowError(f"{name} did not answer within {seconds:g} seconds.")


def _spellings(label: str) -> set[str]:
    return {label, label.lower(), label.capitalize(), label.title()}


def _contains(column: Any, text: str) -> Any:
    """Return the condition that a text holds another one, whatever the case of its letters."""
    return sa.func.lower(column).contains(text.lower(), autoescape=True)


def _as_day(value: Any) -> date:
    return date.fromisoformat(str(value)[:10])


def _stored_image(row: Any, labels: dict[tuple[str, str], list[StoredLabel]]) -> StoredImage:
    values = dict(row)
    digest = values.pop("key_sha256")
    moments = {name: _utc(values[name]) for name in _TIMES if name in values}
    return StoredImage(
        **(values | moments), digest=digest, labels=tuple(labels.get((values["api"], digest), ()))
    )


def _utc(moment: Any) -> Any:
    return (
        moment.replace(tzinfo=UTC) if isinstance(moment, datetime) and not moment.tzinfo else moment
    )

"""Private: writes a batch of rows to the two tables of a store; loaded by a running task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects import Dialect
from airflow_imagetag.stores.rows import ANSWERED, holds_answer, merged


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are written together.

    :param images: the images table.
    :param labels: the labels table.
    :param dialect: their database.
    :param image_rows: in the order of their digests.
    :param label_rows: all labels of these images; they replace earlier ones.
    :param api: interface that labelled the images.
    """

    images: sa.Table
    labels: sa.Table
    dialect: Dialect
    image_rows: list[dict[str, Any]]
    label_rows: list[dict[str, Any]]
    api: str

    def write(self, connection: sa.Connection) -> None:
        """Write the batch within the connection's transaction."""
        if self.dialect.is_warehouse:
            self._merge(connection)
            return
        # The image rows go first and in one order: their locks make two writers of the same image
        # take turns, and the order prevents a deadlock.
        answered = self._answered
        if answered:
            connection.execute(self.dialect.insert(self.images, replace=True), answered)
        self._put_unanswered(connection, self._unanswered)
        ours = self.labels.c
        digests = [row["key_sha256"] for row in answered]
        for some in chunks(digests, self.dialect.lookup_keys):
            connection.execute(
                self.labels.delete().where(ours.api == self.api, ours.key_sha256.in_(some))
            )
        if self.label_rows:
            connection.execute(self.labels.insert(), self.label_rows)

    @property
    def _answered(self) -> list[dict[str, Any]]:
        return [row for row in self.image_rows if holds_answer(row)]

    @property
    def _unanswered(self) -> list[dict[str, Any]]:
        return [row for row in self.image_rows if not holds_answer(row)]

    def _merge(self, connection: sa.Connection) -> None:
        """Write the batch from a staging table.

        The labels go first: where each statement takes effect by itself, an image counts as done
        only once its labels are there.
        """
        changed, new = self._against_held(connection, self._unanswered)
        rows = [*self._answered, *changed, *new]
        if not rows:
            return
        with self.dialect.staged(connection, self.images, rows) as stage:
            answered = sa.select(stage.c.key_sha256).where(stage.c.status.in_(ANSWERED))
            ours = self.labels.c
            connection.execute(
                self.labels.delete().where(ours.api == self.api, ours.key_sha256.in_(answered))
            )
            self.dialect.append(connection, self.labels, self.label_rows)
            self.dialect.merge(connection, self.images, stage)

    def _put_unanswered(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
        """Insert rows of images without an answer, or take over an earlier answer's digest.

        An answer for the same version stays as it is.
        """
        changed, new = self._against_held(connection, rows)
        if changed:
            connection.execute(_update(self.images), list(map(_with_bound_key, changed)))
        if new:
            connection.execute(self.dialect.insert(self.images, replace=False), new)

    def _against_held(
        self, connection: sa.Connection, rows: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rows that change existing ones, and those of new images."""
        held = self._held(connection, [row["key_sha256"] for row in rows])
        found = [merged(row, held[row["key_sha256"]]) for row in rows if row["key_sha256"] in held]
        changed = [row for row in found if row is not None]
        return changed, [row for row in rows if row["key_sha256"] not in held]

    def _held(self, connection: sa.Connection, digests: list[str]) -> dict[str, dict[str, Any]]:
        """Return and, where rows can be, lock the existing rows of images."""
        images = self.images
        held: dict[str, dict[str, Any]] = {}
        for some in chunks(digests, self.dialect.lookup_keys):
            statement = sa.select(images).where(self._with_digests(some))
            if not self.dialect.is_warehouse:
                statement = statement.order_by(images.c.key_sha256).with_for_update()
            for row in connection.execute(statement).mappings():
                held[row["key_sha256"]] = dict(row)
        return held

    def _with_digests(self, digests: list[str]) -> Any:
        return (self.images.c.api == self.api) & self.images.c.key_sha256.in_(digests)


def _update(table: sa.Table) -> Any:
    """Return the statement that overwrites the row of ``_with_bound_key``."""
    keys = [column.name for column in table.primary_key.columns]
    others = [column.name for column in table.columns if column.name not in keys]
    same = sa.and_(*(table.c[name] == sa.bindparam(f"old_{name}") for name in keys))
    return table.update().where(same).values({name: sa.bindparam(name) for name in others})


def _with_bound_key(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("api", "key_sha256")
    return {name: value for name, value in row.items() if name not in keys} | {
        f"old_{name}": row[name] for name in keys
    }


def chunks(items: list[str], most: int) -> Iterator[list[str]]:
    """Yield the items in lists of at most so many."""
    for start in range(0, len(items), most):
        yield items[start : start + most]

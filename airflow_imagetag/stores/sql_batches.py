"""Private: writes a batch of rows to the two tables of a store; loaded by a running task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects import dialect_of
from airflow_imagetag.stores.rows import holds_answer, merged

LOOKUP_KEYS = 500
"""Maximum number of keys in one statement; SQLite before 3.32 takes 999 parameters."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are written together.

    :param images: the images table.
    :param labels: the labels table.
    :param image_rows: in the order of their digests.
    :param label_rows: all labels of these images; they replace earlier ones.
    :param api: interface that labelled the images.
    """

    images: sa.Table
    labels: sa.Table
    image_rows: list[dict[str, Any]]
    label_rows: list[dict[str, Any]]
    api: str

    def write(self, connection: sa.Connection) -> None:
        """Write the batch within the connection's transaction."""
        # The image rows go first and in one order: their locks make two writers of the same image
        # take turns, and the order prevents a deadlock.
        answered = [row for row in self.image_rows if holds_answer(row)]
        self._put(connection, answered)
        self._put_unanswered(connection, [row for row in self.image_rows if not holds_answer(row)])
        ours = self.labels.c
        for digests in chunks([row["key_sha256"] for row in answered]):
            connection.execute(
                self.labels.delete().where(ours.api == self.api, ours.key_sha256.in_(digests))
            )
        if self.label_rows:
            connection.execute(self.labels.insert(), self.label_rows)

    def _put(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
        """Insert rows, or overwrite those that exist."""
        if not rows:
            return
        insert = dialect_of(connection.engine).insert(self.images, replace=True)
        if insert is None:
            there = self._with_digests([row["key_sha256"] for row in rows])
            connection.execute(self.images.delete().where(there))
            insert = self.images.insert()
        connection.execute(insert, rows)

    def _put_unanswered(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
        """Insert rows of images without an answer, or take over an earlier answer's digest.

        An answer for the same version stays as it is.
        """
        if not rows:
            return
        held = self._held(connection, [row["key_sha256"] for row in rows])
        found = [merged(row, held[row["key_sha256"]]) for row in rows if row["key_sha256"] in held]
        if changed := [row for row in found if row is not None]:
            connection.execute(_update(self.images), list(map(_with_bound_key, changed)))
        new = [row for row in rows if row["key_sha256"] not in held]
        if new:
            insert = dialect_of(connection.engine).insert(self.images, replace=False)
            connection.execute(self.images.insert() if insert is None else insert, new)

    def _held(self, connection: sa.Connection, digests: list[str]) -> dict[str, dict[str, Any]]:
        """Return and lock the existing rows of images."""
        images = self.images
        held: dict[str, dict[str, Any]] = {}
        for some in chunks(digests):
            statement = sa.select(images).where(self._with_digests(some))
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


def chunks(items: list[str]) -> Iterator[list[str]]:
    """Yield the items in lists of at most ``LOOKUP_KEYS``."""
    for start in range(0, len(items), LOOKUP_KEYS):
        yield items[start : start + LOOKUP_KEYS]

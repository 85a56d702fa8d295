"""Private: writes a batch of rows to the two tables of a store; loaded by a running task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_imagetag.selection.rules import Status

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
        settled = [row for row in self.image_rows if row["status"] != Status.UNFINISHED.value]
        unfinished = [row for row in self.image_rows if row["status"] == Status.UNFINISHED.value]
        self._put(connection, settled, replace=True)
        # A failure of the service says nothing about the image, so an earlier answer stays.
        self._put(connection, unfinished, replace=False)
        ours = self.labels.c
        for digests in chunks([row["key_sha256"] for row in settled]):
            connection.execute(
                self.labels.delete().where(ours.api == self.api, ours.key_sha256.in_(digests))
            )
        if self.label_rows:
            connection.execute(self.labels.insert(), self.label_rows)

    def _put(self, connection: sa.Connection, rows: list[dict[str, Any]], *, replace: bool) -> None:
        if not rows:
            return
        insert = _insert(self.images, connection.dialect.name, replace=replace)
        if insert is None:
            ours = self.images.c
            digests = [row["key_sha256"] for row in rows]
            there = (ours.api == self.api) & ours.key_sha256.in_(digests)
            if replace:
                connection.execute(self.images.delete().where(there))
            else:
                held = set(connection.execute(sa.select(ours.key_sha256).where(there)).scalars())
                rows = [row for row in rows if row["key_sha256"] not in held]
            insert = self.images.insert()
        if rows:
            connection.execute(insert, rows)


def chunks(items: list[str]) -> Iterator[list[str]]:
    """Yield the items in lists of at most ``LOOKUP_KEYS``."""
    for start in range(0, len(items), LOOKUP_KEYS):
        yield items[start : start + LOOKUP_KEYS]


def without_zero_bytes(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without zero bytes in its texts, which PostgreSQL does not take."""
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in row.items()
    }


def _insert(table: sa.Table, dialect: str, *, replace: bool) -> Any:
    """Return the database's insert for rows that may exist; None if SQLAlchemy has none.

    :param replace: overwrite existing rows; else leave them as they are.
    """
    keys = [column.name for column in table.primary_key.columns]
    others = [column.name for column in table.columns if column.name not in keys]
    if dialect in ("postgresql", "sqlite"):
        from sqlalchemy.dialects import postgresql, sqlite

        insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
        if not replace:
            return insert.on_conflict_do_nothing(index_elements=keys)
        new = {name: insert.excluded[name] for name in others}
        return insert.on_conflict_do_update(index_elements=keys, set_=new)
    if dialect in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        rows = mysql.insert(table)
        if not replace:
            return rows.prefix_with("IGNORE")
        return rows.on_duplicate_key_update({name: rows.inserted[name] for name in others})
    return None

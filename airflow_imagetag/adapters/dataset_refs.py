"""Private: the places of a source or a store as datasets, before anything is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KEY = "key"
URI = "uri"
CONTENT = "content"
VERSION = "version"

LABELS = "labels"
IMAGES = "images"


@dataclass(frozen=True, slots=True)
class TableRef:
    """A table of a database.

    :param conn_id: connection of the database.
    :param table: name of the table: ``table`` or ``schema.table``.
    :param schema: its schema, if the name has none.
    :param columns: of a source, the columns by what they hold: ``key``, ``uri``, ``content``,
        ``version``.
    """

    conn_id: str
    table: str
    schema: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueryRef:
    """The tables that a query reads.

    :param conn_id: connection of the database.
    :param sql: the query.
    """

    conn_id: str
    sql: str


@dataclass(frozen=True, slots=True)
class FolderRef:
    """A folder of a storage, or of the worker's disk.

    :param path: path or URI, with or without a connection.
    """

    path: str


DatasetRef = TableRef | QueryRef | FolderRef

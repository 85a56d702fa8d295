"""Labels in two tables of an SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow_imagetag.adapters.descriptions import described
from airflow_imagetag.backends.databases import split_name
from airflow_imagetag.stores.base import LabelStore

if TYPE_CHECKING:
    from airflow_imagetag.stores.sql_tables import OpenSqlStore


@dataclass(repr=False)
class SqlLabelStore(LabelStore):
    """Labels in a table, one row for each image and label, and the images in a second table.

    The tables are ``<table>`` and ``<table>_images``. They are created on first use, or checked.
    Each batch is written in one transaction. PostgreSQL, SQLite, MySQL and MariaDB are supported;
    another database that SQLAlchemy knows is tried with plain statements.

    :param conn_id: an Airflow connection whose hook is one of ``common.sql``. (templated)
    :param table: name of the labels table: ``table`` or ``schema.table``. (templated)
    :param schema: schema of both tables, which must exist. (templated)
    """

    conn_id: str
    table: str = "image_labels"
    schema: str | None = field(default=None, kw_only=True)

    template_fields: ClassVar[Sequence[str]] = ("conn_id", "table", "schema")

    def open(self, *, to_write: bool = True) -> AbstractContextManager[OpenSqlStore]:
        """Return a context in which the store can be read and written.

        :param to_write: False for one that is only asked what it holds; it creates no table.
        :raises ConfigurationError: the connection cannot be used, or a table does not fit.
        :raises StorageError: the database cannot be reached.
        """
        from airflow_imagetag.stores.sql_tables import open_tables

        return open_tables(self.conn_id, self.table, self.schema, to_write=to_write)

    @property
    def asset_uri(self) -> str:
        """``imagetag://connection/schema/table``, the schema where one is named."""
        in_name, table = split_name(self.table, "table")
        schema = self.schema or in_name
        parts = [self.conn_id, table] if schema is None else [self.conn_id, schema, table]
        return "imagetag://" + "/".join(quote(part, safe="") for part in parts)

    def serialize(self) -> dict[str, Any]:
        """Return the description as Airflow shows it."""
        return described(self)

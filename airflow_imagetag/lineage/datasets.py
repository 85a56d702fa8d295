"""Private: names of datasets as OpenLineage's naming conventions have them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from airflow_imagetag.adapters.airflow_sdk import BaseHook
from airflow_imagetag.adapters.dataset_refs import DatasetRef, FolderRef, QueryRef, TableRef
from airflow_imagetag.backends.databases import split_name
from airflow_imagetag.safety.redaction import without_secrets
from airflow_imagetag.safety.uris import is_local, local_path, split_object

log = logging.getLogger(__name__)


class DatasetName(NamedTuple):
    """The name of a dataset.

    :param namespace: the server or the bucket.
    :param name: the table or the folder.
    """

    namespace: str
    name: str


def names_of(ref: DatasetRef) -> list[DatasetName]:
    """Return the names of the datasets of a place; none for one that cannot be looked up.

    Lineage must not fail a task, and the task itself reports what is wrong with a connection.
    """
    try:
        match ref:
            case FolderRef(path):
                return [folder_name(path)]
            case TableRef(conn_id, table, schema):
                in_name, name = split_name(table, "table")
                return [_Database.of(conn_id).table_name(schema or in_name, name)]
            case QueryRef(conn_id, sql):
                return _Database.of(conn_id).tables_of(sql)
    # A hook of any provider is asked, and a parser.
    except Exception as error:
        log.warning("No lineage of %s: %s: %s", type(ref).__name__, type(error).__name__, error)
    return []


def folder_name(path: str) -> DatasetName:
    """Return the name of a folder: its bucket and its path, or ``file`` and the path."""
    if is_local(path):
        return DatasetName("file", str(Path(local_path(path)).absolute()))
    storage, _, name = split_object(without_secrets(path))
    scheme, _, bucket = storage.partition("://")
    return DatasetName(f"{scheme}://{bucket.rpartition('@')[2]}", name.strip("/") or "/")


@dataclass(frozen=True, slots=True)
class _Database:
    """A database as OpenLineage names it.

    :param namespace: scheme, host and port.
    :param database: name of the database; None where the namespace tells it.
    :param normalize: returns a name as the database compares it.
    :param default_schema: looks up the schema of a table without one.
    :param parse: returns the tables that a query reads.
    """

    namespace: str
    database: str | None
    normalize: Callable[[str], str]
    default_schema: Callable[[], str | None]
    parse: Callable[[str, str | None], list[Any]]

    @classmethod
    def of(cls, conn_id: str) -> _Database:
        connection: Any = BaseHook.get_connection(conn_id)
        hook = connection.get_hook()
        describe = getattr(hook, "get_openlineage_database_info", None)
        info = None if describe is None else describe(connection)

        def parse(sql: str, schema: str | None) -> list[Any]:
            from airflow.providers.openlineage.sqlparser import SQLParser

            dialect = hook.get_openlineage_database_dialect(connection)
            parsed = SQLParser(dialect=dialect, default_schema=schema).parse([sql])
            return [] if parsed is None else list(parsed.in_tables)

        if info is None:
            return cls(*_of_connection(connection), str, lambda: None, parse)
        return cls(
            f"{info.scheme}://{info.authority}" if info.authority else str(info.scheme),
            info.database,
            str.upper if info.is_uppercase_names else info.normalize_name_method,
            hook.get_openlineage_default_schema,
            parse,
        )

    def table_name(self, schema: str | None, table: str) -> DatasetName:
        """Return the name of a table.

        :param schema: its schema; None for the default one.
        """
        return self._named(None, schema or self.default_schema(), table)

    def tables_of(self, sql: str) -> list[DatasetName]:
        """Return the names of the tables that a query reads."""
        found = self.parse(sql, self.default_schema())
        return [self._named(one.database, one.schema, one.name) for one in found]

    def _named(self, database: str | None, schema: str | None, table: str) -> DatasetName:
        parts = (database or self.database, schema, table)
        return DatasetName(self.namespace, ".".join(self.normalize(part) for part in parts if part))


def _of_connection(connection: Any) -> tuple[str, str | None]:
    """Return namespace and database of a connection whose hook does not tell them."""
    authority = connection.host or ""
    if connection.port:
        authority = f"{authority}:{connection.port}"
    return without_secrets(f"{connection.conn_type}://{authority}"), connection.schema or None

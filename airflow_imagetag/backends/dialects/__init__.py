"""Private: the table of databases. All that differs between them is in a class for each.

A running task loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_imagetag.backends.dialects.base import (
    Dialect,
    EnforcingDialect,
    KeyColumn,
    Moments,
    Ordering,
    UniqueKey,
    text_of_bytes,
)
from airflow_imagetag.backends.dialects.bigquery import BigQuery
from airflow_imagetag.backends.dialects.clickhouse import ClickHouse
from airflow_imagetag.backends.dialects.databricks import Databricks
from airflow_imagetag.backends.dialects.duckdb import DuckDb
from airflow_imagetag.backends.dialects.mysql import MySql
from airflow_imagetag.backends.dialects.postgresql import PostgreSql
from airflow_imagetag.backends.dialects.redshift import Redshift
from airflow_imagetag.backends.dialects.snowflake import Snowflake
from airflow_imagetag.backends.dialects.sqlite import Sqlite
from airflow_imagetag.backends.dialects.trino import Trino

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

__all__ = [
    "NAME_OPTION",
    "STORES",
    "Dialect",
    "KeyColumn",
    "Moments",
    "Ordering",
    "UniqueKey",
    "dialect_named",
    "dialect_of",
    "partial_index_options",
    "table_options",
    "text_index_options",
    "text_of_bytes",
]

_DIALECTS: dict[str, type[Dialect]] = {
    "bigquery": BigQuery,
    "clickhouse": ClickHouse,
    "clickhousedb": ClickHouse,
    "cockroachdb": EnforcingDialect,
    "databricks": Databricks,
    "duckdb": DuckDb,
    "mariadb": MySql,
    "mssql": EnforcingDialect,
    "mysql": MySql,
    "oracle": EnforcingDialect,
    "postgresql": PostgreSql,
    "redshift": Redshift,
    "snowflake": Snowflake,
    "sqlite": Sqlite,
    "trino": Trino,
}
"""The class of each database, by the name that SQLAlchemy has for it."""


STORES = (
    "PostgreSQL, MySQL, MariaDB, SQLite, DuckDB, Snowflake, BigQuery, Redshift, Databricks or Trino"
)
"""The databases that a store can be in."""

NAME_OPTION = "imagetag_dialect"
"""Option of an engine whose driver is that of another database."""


def dialect_of(engine: Engine) -> Dialect:
    """Return the dialect of an engine's database."""
    return dialect_named(engine.get_execution_options().get(NAME_OPTION, engine.dialect.name))


def table_options() -> dict[str, Any]:
    """Return the options with which each database creates a table, for SQLAlchemy's ``Table``."""
    return {
        f"{name}_{option}": value
        for name, kind in _DIALECTS.items()
        for option, value in kind.table_options.items()
    }


def text_index_options(column: str) -> dict[str, Any]:
    """Return the options with which each database indexes a text of any length."""
    return {
        f"{name}_{option}": value
        for name, kind in _DIALECTS.items()
        for option, value in kind.text_index_options(column).items()
    }


def partial_index_options(condition: Any) -> dict[str, Any]:
    """Return the options of an index of some rows, for the databases that have such indexes."""
    return {
        f"{name}_where": condition for name, kind in _DIALECTS.items() if kind.has_partial_indexes
    }


def dialect_named(name: str) -> Dialect:
    """Return the dialect of a database.

    :param name: the database, as SQLAlchemy names it; of an unknown one plain statements are tried.
    """
    return _DIALECTS.get(name, Dialect)(name)

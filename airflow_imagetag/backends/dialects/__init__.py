"""Private: the table of databases. All that differs between them is in a class for each.

A running task loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_imagetag.backends.dialects.base import (
    Dialect,
    EnforcingDialect,
    Moments,
    Ordering,
    UniqueKey,
    text_of_bytes,
)
from airflow_imagetag.backends.dialects.mysql import MySql
from airflow_imagetag.backends.dialects.postgresql import PostgreSql
from airflow_imagetag.backends.dialects.sqlite import Sqlite

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

__all__ = [
    "Dialect",
    "Moments",
    "Ordering",
    "UniqueKey",
    "dialect_named",
    "dialect_of",
    "text_of_bytes",
]

_DIALECTS: dict[str, type[Dialect]] = {
    "cockroachdb": EnforcingDialect,
    "duckdb": EnforcingDialect,
    "mariadb": MySql,
    "mssql": EnforcingDialect,
    "mysql": MySql,
    "oracle": EnforcingDialect,
    "postgresql": PostgreSql,
    "sqlite": Sqlite,
}
"""The class of each database, by the name that SQLAlchemy has for it."""


def dialect_of(engine: Engine) -> Dialect:
    """Return what an engine's database does in its own way."""
    return dialect_named(engine.dialect.name)


def dialect_named(name: str) -> Dialect:
    """Return what a database does in its own way.

    :param name: the database, as SQLAlchemy names it; of an unknown one plain statements are tried.
    """
    return _DIALECTS.get(name, Dialect)(name)

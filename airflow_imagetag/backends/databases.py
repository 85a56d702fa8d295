"""SQL databases: SQLAlchemy engines through Airflow's connections."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import (
    ConfigurationError,
    ImageTagError,
    StorageError,
    UnknownConnectionError,
)
from airflow_imagetag.safety.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from airflow_imagetag.backends.dialects import Dialect

SQLITE_BUSY_SECONDS = 60.0
"""Maximum wait of a writer for another transaction on a SQLite file."""

_PART = re.compile(r'"((?:[^"]|"")+)"|([^\s".;\'`\\\x00-\x1f]+)')
"""One part of a table's name, in double quotes or plain."""


_SQL_HOOKS = {
    "google_cloud_platform": ("airflow.providers.google.cloud.hooks.bigquery", "BigQueryHook"),
    "databricks": ("airflow.providers.databricks.hooks.databricks_sql", "DatabricksSqlHook"),
}
"""Hooks of common.sql for connection types whose own hook is another one."""

_DIALECTS_OF_HOOKS = {"redshift": "redshift"}
"""Databases that a hook reaches through the driver of another one, by the hook's type."""

_UNREACHABLE = frozenset(
    {"ConnectionError", "ConnectTimeout", "EndpointConnectionError", "Timeout", "TimeoutError"}
    | {"TransportError"}
)
"""Classes of errors that may pass, of the libraries by which hooks ask for tokens."""


def engine_of(conn_id: str, *, sqlite_busy_seconds: float | None = None) -> Engine:
    """Return an SQLAlchemy engine for a connection, with a session in UTC.

    :param conn_id: a connection whose hook is one of ``common.sql``.
    :param sqlite_busy_seconds: maximum wait for another transaction on a SQLite file; None for
        ``SQLITE_BUSY_SECONDS``.
    :raises ConfigurationError: it has no such hook, a package is missing, or its fields are wrong.
    :raises StorageError: the hook could not reach a service that gives it a token.
    """
    from airflow_imagetag.backends.dialects import NAME_OPTION, dialect_named, dialect_of

    hook = _hook_of(conn_id)
    kind = str(getattr(hook, "conn_type", ""))
    # 'future' makes SQLAlchemy 1.4, which Airflow 2.11 has, behave as 2.0.
    options: dict[str, Any] = {"future": True, "pool_pre_ping": True}
    try:
        options |= dialect_named(kind).engine_options(hook)
        engine: Engine = hook.get_sqlalchemy_engine(options)
    except Exception as error:
        raise _unusable(conn_id, error) from None
    if kind in _DIALECTS_OF_HOOKS:
        engine.update_execution_options(**{NAME_OPTION: _DIALECTS_OF_HOOKS[kind]})
    seconds = SQLITE_BUSY_SECONDS if sqlite_busy_seconds is None else sqlite_busy_seconds
    database = dialect_of(engine)
    _watch_connects(engine, conn_id, database)
    database.prepare(engine, busy_seconds=seconds)
    return engine


def _watch_connects(engine: Engine, conn_id: str, database: Dialect) -> None:
    """Raise our own errors for those that a driver raises before it reaches the database.

    A file of a key, a package or a token may be missed only then. The errors of the database stay
    as they are, since their callers tell those that may pass. A server of another kind is refused.
    """
    import sqlalchemy as sa

    def connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        del record
        try:
            made = dialect.connect(*arguments, **options)
            reason = database.misfit(made)
            if reason is not None:
                made.close()
                raise _misfit(conn_id, reason)
            return made
        except dialect.dbapi.Error as error:
            reason = database.fault_of_file(str(engine.url.database), error)
            if reason is None:
                raise
            raise _misfit(conn_id, reason) from None
        except ImageTagError:
            raise
        # A driver and the libraries by which it gets tokens have errors of many classes.
        except Exception as error:
            raise _unusable(conn_id, error) from None

    sa.event.listen(engine, "do_connect", connect)


def _misfit(conn_id: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"Connection {conn_id!r} cannot be used: {reason}.")


def _unusable(conn_id: str, error: Exception) -> ImageTagError:
    """Return the error for a connection of which no hook or engine can be made."""
    reason = f"{type(error).__name__}: {redact(reason_of(error))}"
    if any(kind.__name__ in _UNREACHABLE for kind in type(error).__mro__):
        return StorageError(f"Connection {conn_id!r} cannot be used at the moment: {reason}")
    return ConfigurationError(
        f"Connection {conn_id!r} cannot be used through SQLAlchemy: {reason}. Install the provider "
        "and the SQLAlchemy dialect of its database, and correct the fields of the connection."
    )


def split_name(name: str, what: str) -> tuple[str | None, str]:
    """Return the schema and the name of a table: ``name`` or ``schema.name``.

    Each part may stand in double quotes.

    :param what: names the parameter in the error message.
    :raises ConfigurationError: it is not the name of one table.
    """
    parts: list[str] = []
    position = 0
    while match := _PART.match(name, position):
        quoted, plain = match.groups()
        parts.append(quoted.replace('""', '"') if quoted is not None else plain)
        position = match.end()
        # Another part must follow a dot.
        if name[position : position + 1] != "." or position + 1 == len(name):
            break
        position += 1
    if position != len(name) or not 1 <= len(parts) <= 2:
        raise ConfigurationError(
            f"{what}={name!r} is not the name of a table. Write 'table' or 'schema.table', and a "
            "part with blanks, dots or other special characters in double quotes."
        )
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def quoted_name(name: str) -> str:
    """Return the name of a table without its schema as ``split_name`` takes it."""
    return '"' + name.replace('"', '""') + '"'


def reason_of(error: BaseException) -> str:
    """Return the database's message, without the statement and its parameters."""
    origin = getattr(error, "orig", None)
    return " ".join(str(error if origin is None else origin).split())[:300]


def _hook_of(conn_id: str) -> Any:
    from airflow_imagetag.adapters.airflow_sdk import AirflowNotFoundException, BaseHook

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise UnknownConnectionError(
            f"There is no connection {conn_id!r}. Correct conn_id, or create it with 'airflow "
            f"connections add {conn_id} --conn-type ...'."
        ) from None
    try:
        hook = _make_hook(connection, conn_id)
    # A hook's class is code of others: it may raise anything for a package or a field.
    except Exception as error:
        raise ConfigurationError(
            f"Connection {conn_id!r} has no usable hook. Install the provider of its database, "
            "such as apache-airflow-providers-postgres, and give the connection its type. "
            f"Airflow says: {redact(reason_of(error))}"
        ) from None
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise ConfigurationError(
            f"Connection {conn_id!r} is not an SQL database: {type(hook).__name__} is not a hook "
            "of common.sql. Name another connection."
        )
    return hook


def _make_hook(connection: Any, conn_id: str) -> Any:
    if connection.conn_type not in _SQL_HOOKS:
        return connection.get_hook()
    module, name = _SQL_HOOKS[connection.conn_type]
    hook_class = getattr(import_module(module), name)
    return hook_class(**{hook_class.conn_name_attr: conn_id})

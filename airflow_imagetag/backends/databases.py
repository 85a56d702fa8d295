"""The door to SQL databases: SQLAlchemy engines through Airflow's connections."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_imagetag.backends.engine_cache import EngineCache
from airflow_imagetag.errors import ConfigurationError, UnknownConnectionError
from airflow_imagetag.selection.shards import key_hash

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.exc import DBAPIError

_PART = re.compile(r'"((?:[^"]|"")+)"|([^\s".;\'`\\\x00-\x1f]+)')
SQLITE_BUSY_SECONDS = 60.0
"""How long a writer waits for another one's transaction on a SQLite file."""


_CONNECTION_FIELDS = ("conn_type", "host", "schema", "login", "password", "port", "extra")
_engines = EngineCache()


def engine_of(conn_id: str) -> Engine:
    """Return an SQLAlchemy engine for a connection, with a session in UTC.

    :param conn_id: a connection whose hook is one of ``common.sql``.
    :raises ConfigurationError: it has no such hook, or the driver is not installed.
    """
    connection, hook = _hook_of(conn_id)
    key = (conn_id, *(getattr(connection, name) for name in _CONNECTION_FIELDS))
    return _engines.engine(key, lambda: _new_engine(conn_id, hook))


def _new_engine(conn_id: str, hook: Any) -> Engine:
    from sqlalchemy import event
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        # 'future' makes SQLAlchemy 1.4, which Airflow 2.11 has, behave as 2.0.
        engine: Engine = hook.get_sqlalchemy_engine({"future": True, "pool_pre_ping": True})
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigurationError(
            f"Connection {conn_id!r} cannot be used through SQLAlchemy: {type(error).__name__}. "
            "Install the SQLAlchemy dialect of its database."
        ) from None
    prepare = _PREPARE_SESSION.get(engine.dialect.name)
    if prepare is not None:
        event.listen(engine, "connect", prepare)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "begin", _begin_immediately)
    return engine


def _begin_immediately(connection: Any) -> None:
    # Without it, a transaction that reads before it writes fails where it could have waited.
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def split_name(name: str, what: str) -> tuple[str | None, str]:
    """Return schema and name of ``name``, ``schema.name`` or either part in double quotes.

    :param what: the parameter, for the message.
    :raises ConfigurationError: it is not one name of a table.
    """
    parts: list[str] = []
    position = 0
    while match := _PART.match(name, position):
        quoted, plain = match.groups()
        parts.append(quoted.replace('""', '"') if quoted is not None else plain)
        position = match.end()
        # A dot must have a part behind it.
        if name[position : position + 1] != "." or position + 1 == len(name):
            break
        position += 1
    if position != len(name) or not 1 <= len(parts) <= 2:
        raise ConfigurationError(
            f"{what}={name!r} is not the name of a table. Write 'table' or 'schema.table', and a "
            "part with blanks, dots or other special characters in double quotes."
        )
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def is_transient(error: DBAPIError) -> bool:
    """Tell whether the database may answer later: it is away or busy, and does not refuse.

    Decided by the codes of the drivers for PostgreSQL, MySQL and SQLite.
    """
    from sqlalchemy.exc import InterfaceError, OperationalError

    if error.connection_invalidated:
        return True
    origin: Any = error.orig
    sqlite_code = getattr(origin, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in _SQLITE_PASSING
    state = getattr(origin, "pgcode", None) or getattr(origin, "sqlstate", None)
    if state is not None:
        return str(state)[:2] in _POSTGRES_PASSING
    number = next(iter(getattr(origin, "args", ())), None)
    if isinstance(number, int):
        # From 2000 on it is the client that speaks: no connection, or a lost one.
        return 2000 <= number < 3000 or number in _MYSQL_PASSING
    if any(text in str(origin) for text in _POSTGRES_REFUSALS):
        return False
    return isinstance(error, (OperationalError, InterfaceError))


def is_of_types(error: DBAPIError) -> bool:
    """Tell whether PostgreSQL refuses to compare values of two types."""
    origin: Any = error.orig
    state = getattr(origin, "pgcode", None) or getattr(origin, "sqlstate", None)
    return state == _POSTGRES_NO_OPERATOR


def reason_of(error: BaseException) -> str:
    """Return what the database said, without the statement and its parameters."""
    origin = getattr(error, "orig", None)
    return " ".join(str(error if origin is None else origin).split())[:300]


_SQLITE_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR})
_POSTGRES_PASSING = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
"""Classes of SQLSTATE: connection, rollback, resources, locks, operator, system, internal."""

_POSTGRES_NO_OPERATOR = "42883"

_MYSQL_PASSING = frozenset({1040, 1053, 1203, 1205, 1213, 1226})
"""Too many connections, shutdown, limits of a user, lock timeout, deadlock."""

_POSTGRES_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied for database",
)
"""What libpq says of a login that is refused: at this time it hands no code to the driver."""


def _hook_of(conn_id: str) -> tuple[Any, Any]:
    """Return a connection and its hook."""
    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowNotFoundException,
        BaseHook,
    )

    try:
        connection = BaseHook.get_connection(conn_id)
        hook = connection.get_hook()  # type: ignore[no-untyped-call]
    except AirflowNotFoundException:
        raise UnknownConnectionError(
            f"There is no connection {conn_id!r}. Correct conn_id, or create it with 'airflow "
            f"connections add {conn_id} --conn-type ...'."
        ) from None
    # Airflow meets a type that no installed provider has with errors of several kinds.
    except (AirflowException, AttributeError, ImportError) as error:
        raise ConfigurationError(
            f"Connection {conn_id!r} has no usable hook. Install the provider of its database, "
            "such as apache-airflow-providers-postgres, and see that the connection has its type. "
            f"Airflow says: {error}"
        ) from None
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise ConfigurationError(
            f"Connection {conn_id!r} is no SQL database: {type(hook).__name__} is not a hook of "
            "common.sql."
        )
    return connection, hook


def _execute(statement: str, dbapi_connection: Any, _record: Any) -> None:
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()
    dbapi_connection.commit()


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # The driver must leave transactions to SQLAlchemy, or it begins them too late to wait.
    dbapi_connection.isolation_level = None
    dbapi_connection.execute(f"PRAGMA busy_timeout = {int(SQLITE_BUSY_SECONDS * 1000)}")
    dbapi_connection.create_function(
        "imagetag_hash", 1, lambda text: key_hash(str(text)), deterministic=True
    )


# Versions are compared as text, and the text of a point in time depends on the session's zone, and
# in PostgreSQL on its style of dates.
_PREPARE_SESSION: dict[str, Callable[..., None]] = {
    "postgresql": partial(_execute, "SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'"),
    "mysql": partial(_execute, "SET time_zone = '+00:00'"),
    "mariadb": partial(_execute, "SET time_zone = '+00:00'"),
    "sqlite": _prepare_sqlite,
}

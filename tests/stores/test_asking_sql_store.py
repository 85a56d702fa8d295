"""A store that is only asked: it creates nothing, and says whether waiting may help."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import API, Database, postgres_server, tagged
from sqlalchemy.dialects import mysql

from airflow_imagetag.backends import databases as doors
from airflow_imagetag.errors import ConfigurationError, StorageError, StoreError
from airflow_imagetag.selection.rules import Rule, Status
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.stores.sql_schema import equal_texts

STORE = SqlLabelStore("warehouse", "product_labels")


def write(*keys: str) -> None:
    """Label images."""
    with STORE.open() as opened:
        opened.write([tagged(key, "x") for key in keys], API)


def test_it_creates_no_table(database: Database):
    """A sensor may have no right to; a store that is not there holds nothing."""
    with STORE.open(to_write=False) as opened:
        assert opened.known(["a", "b"], API) == {}
        assert opened.pending(Rule(), API) is not None
    assert database.tables() == set()


def test_it_says_what_it_holds(database: Database):
    """As a store that is written to does."""
    write("a")
    with STORE.open(to_write=False) as opened:
        held = opened.known(["a", "b"], API)
    assert {key: stored.status for key, stored in held.items()} == {"a": Status.TAGGED}


def test_tables_that_are_made_later_are_seen(database: Database):
    """A sensor keeps the store open between looks while the first run of an operator makes it."""
    with STORE.open(to_write=False) as opened:
        assert opened.known(["a"], API) == {}
        write("a")
        opened.refresh()
        assert set(opened.known(["a"], API)) == {"a"}


def test_one_table_of_two_is_no_store_yet(database: Database):
    """Another task is just making them."""
    write("a")
    database.run("DROP TABLE product_labels")
    with STORE.open(to_write=False) as opened:
        assert opened.known(["a"], API) == {}
    write("a")
    database.run("DROP TABLE product_labels_images")
    with STORE.open(to_write=False) as opened:
        assert opened.known(["a"], API) == {}


def test_one_table_of_another_kind_is_refused(database: Database):
    """The store could never be made beside it."""
    database.run("CREATE TABLE product_labels (id integer)")
    with (
        pytest.raises(ConfigurationError, match="do not fit: product_labels"),
        STORE.open(to_write=False),
    ):
        pass


def test_tables_of_another_kind_are_refused(database: Database):
    """Whoever waits for them would wait for ever."""
    for name in ("product_labels", "product_labels_images"):
        database.run(f"CREATE TABLE {name} (id integer)")
    with (
        pytest.raises(ConfigurationError, match="'warehouse' do not fit"),
        STORE.open(to_write=False),
    ):
        pass


def test_a_schema_that_is_not_there_holds_nothing(postgres: Database):
    """It may be made with the tables."""
    with SqlLabelStore("warehouse", schema="nowhere").open(to_write=False) as opened:
        assert opened.known(["a"], API) == {}


# -- faults -----------------------------------------------------------------------------------


def test_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It may be back: the error says so, and comes at once."""
    fields = {"conn_type": "postgres", "host": str(tmp_path), "login": "x", "schema": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))
    began = time.monotonic()
    with pytest.raises(StorageError, match="'warehouse'"), STORE.open(to_write=False):
        pass
    assert time.monotonic() - began < 5


@pytest.fixture
def guarded(postgres: Database, pytestconfig: pytest.Config) -> dict[str, Any]:
    """Give a connection of a role that needs a password."""
    server = postgres_server(pytestconfig)
    rules = Path(server.pgdata) / "pg_hba.conf"
    if "needs_password" not in rules.read_text():
        rules.write_text("local all needs_password scram-sha-256\n" + rules.read_text())
    if not postgres.rows("SELECT 1 FROM pg_roles WHERE rolname = 'needs_password'"):
        postgres.script("CREATE ROLE needs_password LOGIN PASSWORD 'correctHorse'")
    postgres.run("SELECT pg_reload_conf()")
    fields: dict[str, Any] = json.loads(postgres.connection_json)
    return fields | {"login": "needs_password", "password": "correctHorse"}


WRONG = [
    {"password": "wrongBattery"},
    {"password": None},
    {"login": "nobody_knows_me"},
    {"schema": "no_such_database"},
]


@pytest.mark.parametrize("changes", WRONG)
def test_a_login_that_is_refused(
    guarded: dict[str, Any], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Waiting mends no wrong password, role or database: source and store say so at once."""
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", json.dumps(guarded))
    store, source = (
        SqlLabelStore("locked"),
        SqlImages("locked", sql="SELECT 1 AS id, 'x' AS image_url"),
    )
    with store.open(to_write=False) as opened:
        assert opened.known(["a"], API) == {}
    assert [image.key for image in source.images()] == ["1"]
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", json.dumps(guarded | changes))
    began = time.monotonic()
    with (
        pytest.raises(ConfigurationError, match="'locked'") as caught,
        store.open(to_write=False),
    ):
        pass
    assert "wrongBattery" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="'locked'"):
        list(source.images())
    assert time.monotonic() - began < 5


def test_a_table_that_may_not_be_read(
    postgres: Database, guarded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Waiting grants no right."""
    write("a")
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", json.dumps(guarded))
    store = SqlLabelStore("locked", "product_labels")
    with store.open(to_write=False) as opened, pytest.raises(StoreError, match="permission denied"):
        opened.known(["a"], API)


@contextlib.contextmanager
def closed(database: Database) -> Iterator[None]:
    """Let the database refuse sessions and end those that there are, as a restart does."""
    name = database.engine.url.database
    admin = sa.create_engine(
        database.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT", future=True
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"),
            {"n": name},
        )
        yield
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    admin.dispose()


def test_a_database_that_goes_away_between_two_questions(postgres: Database):
    """A question fails at once, for now, and the next one is answered."""
    write("a")
    with STORE.open(to_write=False) as opened:
        assert set(opened.known(["a"], API)) == {"a"}
        with closed(postgres):
            began = time.monotonic()
            with pytest.raises(StorageError, match="product_labels_images"):
                opened.known(["a"], API)
            assert time.monotonic() - began < 5
        assert set(opened.known(["a"], API)) == {"a"}


@pytest.mark.parametrize("server", ["mysql", "mariadb"])
def test_mysql_compares_keys_byte_by_byte(server: str):
    """Its collations take texts for equal that a store keeps apart; an index finds candidates."""
    condition = equal_texts(sa.column("held"), sa.column("asked"), server)
    text = "CAST(CAST({} AS CHAR CHARACTER SET utf8mb4) AS BINARY)"
    assert str(condition.compile(dialect=mysql.dialect())) == (
        f"held = asked AND {text.format('held')} = {text.format('asked')}"
    )


def test_keys_that_differ_in_case(database: Database):
    """Each is an image of its own, and so are those that differ in a blank at the end."""
    database.run("CREATE TABLE products (id varchar(9) PRIMARY KEY, image_url text)")
    for key in ("a", "A", "a ", "\u00e4"):
        database.run("INSERT INTO products VALUES (:id, 'https://x')", {"id": key})
    write("a")
    with STORE.open(to_write=False) as opened:
        source = SqlImages("warehouse", table="products")
        found = [image.key for image in source.images(pending=opened.pending(Rule(), API))]
    assert sorted(found) == ["A", "a ", "\u00e4"]


def test_a_locked_file(sqlite: Database, monkeypatch: pytest.MonkeyPatch):
    """Another program writes for a long time; it will end."""
    write("a")
    monkeypatch.setattr(doors, "SQLITE_BUSY_SECONDS", 0.05)
    with STORE.open(to_write=False) as opened:
        other = sqlite.engine.raw_connection()
        other.isolation_level = None  # type: ignore[attr-defined]
        other.cursor().execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            opened.known(["a"], API)
        with pytest.raises(StorageError, match="locked"), STORE.open(to_write=False):
            pass
        other.rollback()
        other.close()
        assert set(opened.known(["a"], API)) == {"a"}

"""A store in read mode: it creates nothing, and its errors tell whether waiting may help."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import API, Database, postgres_server, tagged
from impatient import ImpatientStore
from sqlalchemy.dialects import mysql

from airflow_imagetag.backends.dialects import dialect_named
from airflow_imagetag.errors import ConfigurationError, StorageError, StoreError
from airflow_imagetag.selection.rules import Rule, Status
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore, StoreMode

STORE = SqlLabelStore("warehouse", "product_labels")


def write(*keys: str) -> None:
    """Label images."""
    with STORE.open(API) as opened:
        opened.write([tagged(key, "x") for key in keys])


def test_it_creates_no_table(database: Database):
    """A sensor may lack the right to; a store that does not exist holds nothing."""
    with STORE.open(API, StoreMode.READ) as opened:
        assert opened.known(["a", "b"]) == {}
        assert opened.condition(Rule()) is not None
    assert database.tables() == set()


def test_it_tells_the_states_of_images(database: Database):
    """A key that it does not hold is left out, as in write mode."""
    write("a")
    with STORE.open(API, StoreMode.READ) as opened:
        held = opened.known(["a", "b"])
    assert {key: stored.status for key, stored in held.items()} == {"a": Status.TAGGED}


def test_tables_that_are_created_later_are_seen(database: Database):
    """A sensor keeps the store open between queries while an operator's first run creates it."""
    with STORE.open(API, StoreMode.READ) as opened:
        assert opened.known(["a"]) == {}
        write("a")
        opened.refresh()
        assert set(opened.known(["a"])) == {"a"}


def test_one_table_of_two_is_no_store_yet(database: Database):
    """Another task is creating them at the moment."""
    write("a")
    database.run("DROP TABLE product_labels")
    with STORE.open(API, StoreMode.READ) as opened:
        assert opened.known(["a"]) == {}
    write("a")
    database.run("DROP TABLE product_labels_images")
    with STORE.open(API, StoreMode.READ) as opened:
        assert opened.known(["a"]) == {}


def test_one_table_of_another_kind_is_refused(database: Database):
    """The store could never be created beside it."""
    database.run("CREATE TABLE product_labels (id integer)")
    with (
        pytest.raises(ConfigurationError, match="incompatible schema: product_labels"),
        STORE.open(API, StoreMode.READ),
    ):
        pass


def test_tables_of_another_kind_are_refused(database: Database):
    """A sensor would wait for ever."""
    for name in ("product_labels", "product_labels_images"):
        database.run(f"CREATE TABLE {name} (id integer)")
    with (
        pytest.raises(ConfigurationError, match="'warehouse' have an incompatible schema"),
        STORE.open(API, StoreMode.READ),
    ):
        pass


def test_a_schema_that_is_not_there_holds_nothing(postgres: Database):
    """It may be created with the tables."""
    with SqlLabelStore("warehouse", schema="nowhere").open(API, StoreMode.READ) as opened:
        assert opened.known(["a"]) == {}


# -- faults -----------------------------------------------------------------------------------


def test_a_server_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The error tells that it may be back, and no attempt is repeated before."""
    fields = {"conn_type": "postgres", "host": str(tmp_path), "login": "x", "schema": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))
    with pytest.raises(StorageError, match="'warehouse'"), STORE.open(API, StoreMode.READ):
        pass
    assert "Attempt" not in caplog.text


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
    {"login": "unknown_role"},
    {"schema": "no_such_database"},
]


@pytest.mark.parametrize("changes", WRONG)
def test_a_login_that_is_refused(
    guarded: dict[str, Any],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Waiting mends no wrong password, role or database, so source and store fail at once."""
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", json.dumps(guarded))
    store, source = (
        SqlLabelStore("locked"),
        SqlImages("locked", sql="SELECT 1 AS id, 'x' AS image_url"),
    )
    with store.open(API, StoreMode.READ) as opened:
        assert opened.known(["a"]) == {}
    assert [image.key for image in source.images()] == ["1"]
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", json.dumps(guarded | changes))
    with (
        pytest.raises(ConfigurationError, match="'locked'") as caught,
        store.open(API, StoreMode.READ),
    ):
        pass
    assert "wrongBattery" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="'locked'"):
        list(source.images())
    assert "Attempt" not in caplog.text


def test_a_table_that_may_not_be_read(
    postgres: Database, guarded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Waiting grants no right."""
    write("a")
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", json.dumps(guarded))
    store = SqlLabelStore("locked", "product_labels")
    with (
        store.open(API, StoreMode.READ) as opened,
        pytest.raises(StoreError, match="permission denied"),
    ):
        opened.known(["a"])


@contextlib.contextmanager
def closed(database: Database) -> Iterator[None]:
    """Let the database refuse new sessions and end the others, as a restart does."""
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


def test_a_database_that_goes_away_between_two_questions(
    postgres: Database, caplog: pytest.LogCaptureFixture
):
    """A look-up fails without a second attempt, and the next one is answered."""
    write("a")
    with STORE.open(API, StoreMode.READ) as opened:
        assert set(opened.known(["a"])) == {"a"}
        with closed(postgres):
            with pytest.raises(StorageError, match="product_labels_images"):
                opened.known(["a"])
            assert "Attempt" not in caplog.text
        assert set(opened.known(["a"])) == {"a"}


@pytest.mark.parametrize("server", ["mysql", "mariadb"])
def test_mysql_compares_keys_byte_by_byte(server: str):
    """Its collations call texts equal that a store keeps apart; an index finds candidates."""
    condition = dialect_named(server).equal_texts(sa.column("held"), sa.column("asked"))
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
    with STORE.open(API, StoreMode.READ) as opened:
        source = SqlImages("warehouse", table="products")
        images = source.push_down.images(opened.condition(Rule()), window=None, limit=None)
        found = [image.key for image in images]
    assert sorted(found) == ["A", "a ", "\u00e4"]


def test_a_locked_file(sqlite: Database):
    """Another program writes for a long time; it will end."""
    write("a")
    store = ImpatientStore("warehouse", "product_labels", busy_seconds=0.05)
    with store.open(API, StoreMode.READ) as opened:
        other = sqlite.engine.raw_connection()
        other.isolation_level = None  # type: ignore[attr-defined]
        other.cursor().execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            opened.known(["a"])
        with pytest.raises(StorageError, match="locked"), store.open(API, StoreMode.READ):
            pass
        other.rollback()
        other.close()
        assert set(opened.known(["a"])) == {"a"}

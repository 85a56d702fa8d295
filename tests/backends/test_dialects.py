"""The table of databases, and the statements of those warehouses that no test can run."""

from __future__ import annotations

import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from databases import API, Database, tagged
from sqlalchemy.dialects import registry

from airflow_imagetag.backends.databases import engine_of
from airflow_imagetag.backends.dialects import dialect_named, dialect_of
from airflow_imagetag.errors import ConfigurationError, StorageError
from airflow_imagetag.selection.rules import Need, Rule
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.sources.sql_keys import in_shard
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.stores.sql_rule import SqlRule
from airflow_imagetag.stores.sql_schema import tables

WAREHOUSES = ("snowflake", "bigquery", "redshift", "databricks", "trino")

needs_warehouses = pytest.mark.skipif(
    importlib.util.find_spec("sqlglot") is None, reason="the group warehouses is not installed"
)


class Recorder:
    """Compiles what is executed, as the connection of a database that is not there.

    :param name: the database.
    """

    def __init__(self, name: str) -> None:
        self.dialect = registry.load(name)()
        self.engine = self
        self.statements: list[str] = []

    def execute(self, statement: Any, values: Any = None) -> None:
        """Keep a statement."""
        del values
        self.statements.append(" ".join(str(statement.compile(dialect=self.dialect)).split()))

    def exec_driver_sql(self, statement: str) -> None:
        """Keep a statement."""
        self.statements.append(statement)


def parsed(statement: str, name: str) -> Any:
    """Return a statement as a parser of the database's SQL understands it."""
    import sqlglot

    # A parameter becomes a text.
    text = re.sub(r"%\(\w+\)s|__\[POSTCOMPILE_\w+\]|(?<![\w:'\d]):`?[a-z]\w*`?", "'x'", statement)
    return sqlglot.parse_one(text.replace("%%", "%"), dialect=name)


@needs_warehouses
@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("snowflake", "ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = 30"),
        ("redshift", "SET statement_timeout TO 30000"),
        ("databricks", "SET STATEMENT_TIMEOUT = 30"),
        ("trino", "SET SESSION query_max_run_time = '30s'"),
        # Its sessions have no such setting.
        ("bigquery", None),
    ],
)
def test_a_session_of_a_warehouse_is_told_the_limit_of_a_page(name, statement):
    """At least as long as one that has gone to sleep needs to start."""
    recorder: Any = Recorder(name)
    with dialect_named(name).limited(recorder, 5):
        pass
    assert recorder.statements == ([] if statement is None else [statement])


@needs_warehouses
@pytest.mark.parametrize("name", WAREHOUSES)
def test_the_statements_of_a_batch(name: str):
    """Tables without indexes, a staging table, one MERGE by key: each is SQL of the database."""
    from sqlglot import exp

    recorder: Any = Recorder(name)
    dialect = dialect_named(name)
    images, labels = tables("image_labels", "marketing")
    for table in (images, labels):
        recorder.execute(dialect.create_table(table))  # type: ignore[attr-defined]
    row = {"api": API, "key_sha256": "0" * 64, "rank": 1}
    with dialect.staged(recorder, images, [row]) as stage:
        dialect.append(recorder, labels, [row])
        dialect.merge(recorder, images, stage)
    kinds = [type(parsed(statement, name)) for statement in recorder.statements]
    create, insert = exp.Create, exp.Insert
    assert kinds == [create, create, create, insert, insert, exp.Merge, exp.Drop]
    merge = parsed(recorder.statements[-2], name)
    assert merge.this.name == images.name
    assert {one.name for one in merge.args["on"].find_all(exp.Column)} == {"api", "key_sha256"}
    assert not re.search("PRIMARY KEY|INDEX", " ".join(recorder.statements))


@needs_warehouses
@pytest.mark.parametrize("name", WAREHOUSES)
def test_the_difference_of_source_and_store(name: str):
    """The rule of new images and a shard are a condition that the warehouse evaluates."""
    recorder: Any = Recorder(name)
    dialect = dialect_named(name)
    images, _ = tables("image_labels", "marketing")
    rows: Any = sa.table("products", sa.column("id"), sa.column("url"), sa.column("v")).alias("p")
    key, version = dialect.text_of(rows.c.id), dialect.text_of(rows.c.v)
    rule = SqlRule(
        images,
        Rule(),
        dialect.equal_texts(images.c.image_key, key),
        dialect.equal_texts(images.c.version, version),
        rows.c.url,
        dialect,
    )
    new = rule.condition(Need.NEW) & in_shard(dialect, key, Shard(1, 4))
    recorder.execute(sa.select(key, version).where(new).order_by(dialect.exact(key)))
    [statement] = recorder.statements
    assert "EXISTS" in statement
    assert parsed(statement, name).args["where"] is not None


def test_a_database_in_which_no_store_can_be(monkeypatch: pytest.MonkeyPatch):
    """The error says what it lacks and which databases have it."""

    class Hook:
        def get_sqlalchemy_engine(self, options: dict[str, Any]) -> Any:
            engine = sa.create_engine("sqlite://", **options)
            engine.dialect.name = "oracle"
            return engine

    monkeypatch.setattr("airflow_imagetag.backends.databases._hook_of", lambda _: Hook())
    with (
        pytest.raises(ConfigurationError, match=r"oracle lacks .*MERGE.*PostgreSQL, MySQL"),
        SqlLabelStore("warehouse").open(API),
    ):
        pass


@pytest.mark.parametrize("error", [RuntimeError("no key file /k.json"), KeyError("account")])
def test_an_engine_that_cannot_be_made(error: Exception, monkeypatch: pytest.MonkeyPatch):
    """Whatever a hook raises becomes an error of the configuration."""

    class Hook:
        def get_sqlalchemy_engine(self, options: dict[str, Any]) -> Any:
            raise error

    monkeypatch.setattr("airflow_imagetag.backends.databases._hook_of", lambda _: Hook())
    with pytest.raises(ConfigurationError, match=type(error).__name__):
        engine_of("warehouse")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("/keys/x.p8"), ConfigurationError),
        (ImportError("no module"), ConfigurationError),
        (ConnectionError("no route"), StorageError),
    ],
)
def test_a_driver_that_fails_before_it_connects(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    """A key file, a package or a server of tokens may be missed only then."""

    def connect(*_: Any, **__: Any) -> None:
        raise error

    class Hook:
        def get_sqlalchemy_engine(self, options: dict[str, Any]) -> Any:
            engine = sa.create_engine("sqlite://", **options)
            monkeypatch.setattr(engine.dialect, "connect", connect)
            return engine

    monkeypatch.setattr("airflow_imagetag.backends.databases._hook_of", lambda _: Hook())
    with pytest.raises(kind, match="Connection 'warehouse'"):
        list(SqlImages("warehouse", table="products").entries())
    store = SqlLabelStore("warehouse")
    with pytest.raises(kind, match="Connection 'warehouse'"), store.open(API):
        pass


def test_a_table_whose_characters_are_few(latin1: Database):
    """A run ends before it pays, with the statements that convert the tables."""
    store = SqlLabelStore("warehouse", "labels")
    with store.open(API):
        pass
    latin1.run("ALTER TABLE labels_images CONVERT TO CHARACTER SET latin1")
    with store.open(API) as opened:
        with pytest.raises(ConfigurationError, match="labels CONVERT TO CHARACTER SET utf8mb4"):
            opened.check_writable()
        latin1.run("ALTER TABLE labels_images CONVERT TO CHARACTER SET utf8mb4")
        opened.check_writable()


def test_keys_that_a_collation_calls_equal(latin1: Database):
    """Each is an image of its own, once, and none is new after it was labelled."""
    keys = [
        "a",
        "A",
        "\u00e4",
        "\u00c4",
        "e",
        "E",
        "\u00e9",
        "\u00c9",
        "o",
        "O",
        "\u732b\U0001f600",
        "a ",
    ]
    latin1.run(
        "CREATE TABLE products (id varchar(20), image_url text)"
        " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    )
    latin1.run("INSERT INTO products VALUES (:id, 'https://x')", *({"id": key} for key in keys))
    source = SqlImages("warehouse", table="products")
    store = SqlLabelStore("warehouse", "labels")
    with store.open(API) as opened:
        for expected in (sorted(keys), []):
            condition = opened.condition(Rule())
            found = source.push_down.images(condition, window=None, limit=None)
            assert sorted(image.key for image in found) == expected
            opened.write([tagged(key, "\u732b") for key in keys])
    [frame] = store.labels()
    assert set(frame["image_key"]) == set(keys)
    assert set(frame["label"]) == {"\u732b"}


@pytest.mark.parametrize("unique", ["", "PRIMARY KEY"])
def test_keys_that_a_collation_of_duckdb_calls_equal(duckdb_file: Database, unique: str):
    """Each is an image of its own under its own name, and none is new after it was labelled."""
    keys = ["a", "A", "\u00e4", "\u00c4", "e", "E", "\u00e9", "a "]
    duckdb_file.script(
        f"CREATE TABLE products (id varchar COLLATE NOCASE.NOACCENT {unique}, image_url varchar)"
    )
    rows = [{"id": key} for key in keys]
    duckdb_file.run("INSERT INTO products VALUES (:id, 'https://x')", *rows)
    table, query = (
        SqlImages("warehouse", **where)
        for where in ({"table": "products"}, {"sql": "SELECT * FROM products"})
    )
    for source in (table, query):
        assert sorted(entry.key for entry in source.entries()) == sorted(keys)
    with SqlLabelStore("warehouse", "labels").open(API) as opened:
        for expected in (sorted(keys), []):
            condition = opened.condition(Rule())
            found = table.push_down.images(condition, window=None, limit=None)
            assert sorted(image.key for image in found) == expected
            opened.write([tagged(key, "x") for key in keys])


def test_a_warehouse_takes_large_batches(duckdb_file: Database):
    """A task that names no bounds of a batch has those of the store's database."""
    with SqlLabelStore("warehouse").open(API) as opened:
        assert (opened.batch.images, opened.batch.seconds) == (20_000, 60.0)
    engine = engine_of("warehouse")
    assert dialect_of(engine).is_warehouse


def test_sessions_of_duckdb_begin_and_end_in_threads_at_once(duckdb_file: Database):
    """Also while the first one opens the file, and while the last one closes it."""
    batch = pd.DataFrame({"number": [1, 2]})

    def work(_: int) -> None:
        for _ in range(40):
            with engine_of("warehouse").connect() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.register("batch", batch)
                total = connection.exec_driver_sql("SELECT sum(number) FROM batch").scalar_one()
                assert total == 3
                raw.unregister("batch")

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, range(3)))


def test_rows_of_duckdb(duckdb_file: Database):
    """Tables and queries are read, in shards too, and compared with a store in the same file."""
    duckdb_file.script("CREATE TABLE products (id varchar, image_url varchar, changed timestamp)")
    duckdb_file.script(
        "INSERT INTO products SELECT 'k' || i, 'https://x/' || i, TIMESTAMP '2026-07-01'"
        " FROM range(9) AS numbers(i)"
    )
    source = SqlImages("warehouse", table="products", version="changed")
    shards = [list(source.entries(shard=Shard(index, 3))) for index in range(3)]
    assert sorted(entry.key for shard in shards for entry in shard) == [f"k{n}" for n in range(9)]
    store = SqlLabelStore("warehouse")
    with store.open(API) as opened:
        opened.write([tagged("k1", "x", version="2026-07-01 00:00:00"), tagged("k2", "x")])
        found = source.push_down.images(opened.condition(Rule()), window=None, limit=None)
        # The second has another version.
        assert {image.key for image in found} == {f"k{n}" for n in range(9)} - {"k1"}
    query = SqlImages("warehouse", sql="SELECT * FROM products WHERE id > 'k6'")
    assert [entry.key for entry in query.entries()] == ["k7", "k8"]

"""A few new rows of a large table or query: found in one pass, and then read by their keys."""

from __future__ import annotations

import time
from typing import Any

import pytest
from databases import API, Database

from airflow_imagetag.errors import DuplicateKeyError
from airflow_imagetag.models import Entry
from airflow_imagetag.selection.difference import new_entries, new_images
from airflow_imagetag.selection.rules import Need, Rule
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.sources.sql_reader import PageSizes, SqlReader
from airflow_imagetag.stores import SqlLabelStore

QUERY = "SELECT * FROM products"


def described(entries: Any) -> list[tuple[str, str | None, str]]:
    """Return key, version and kind of each entry."""

    def kind(entry: Entry) -> str:
        error = getattr(entry, "error", None)
        return type(entry if error is None else error).__name__

    return [(entry.key, getattr(entry, "version", None), kind(entry)) for entry in entries]


def read(condition: Any, *, most: int, **fields: Any) -> list[tuple[str, str | None, str]]:
    """Return the entries of the table, or of a query, that meet a condition.

    :param most: number of rows up to which the pages are read by their keys.
    """
    source = SqlImages("warehouse", version="at", **(fields or {"table": "products"}))
    pages = PageSizes(indexed=3, unindexed=3, with_content=3, candidates=most)
    return described(SqlReader(source, condition=condition, pages=pages).entries())


def is_old(key: Any, version: Any, uri: Any) -> Any:
    """Return the condition that a row has the first version."""
    del key, uri
    return version == "v1"


@pytest.fixture
def copies(database: Database) -> Database:
    """Give a table in which keys have one row, two rows or none, and some rows have no URI."""
    database.run("CREATE TABLE products (id text, image_url text, at text)")
    rows = [("a", "v1"), ("b", "v1"), ("b", "v1"), ("c", "v1"), ("c", "v2"), ("d", "v2")]
    rows += [(f"k{n}", "v1") for n in range(7)]
    database.run(
        "INSERT INTO products VALUES (:id, :uri, :at)",
        *({"id": key, "uri": f"https://x/{n}", "at": at} for n, (key, at) in enumerate(rows)),
        {"id": "e", "uri": None, "at": "v1"},
        {"id": None, "uri": "https://x/none", "at": "v1"},
    )
    return database


@pytest.mark.parametrize("most", [0, 1, 9, 11, 12, 13, 10_000])
@pytest.mark.parametrize("fields", [{"table": "products"}, {"sql": QUERY}])
def test_rows_that_share_a_key(copies: Database, fields: dict[str, str], most: int):
    """All rows of a key decide, also those that do not meet the condition."""
    expected = [
        ("", None, "SkippedImage"),
        ("a", "v1", "Image"),
        ("b", "v1", "Image"),
        ("b", "v1", DuplicateKeyError.__name__),
        # The greatest version of c is another one.
        ("e", "v1", "InvalidImageError"),
        *((f"k{n}", "v1", "Image") for n in range(7)),
    ]
    assert read(is_old, most=most, **fields) == expected


def test_a_table_with_the_name_of_the_expression(copies: Database):
    """The names of a user do not collide with those of a statement."""
    copies.run("CREATE TABLE candidates AS SELECT * FROM products")
    expected = read(is_old, most=99)
    assert read(is_old, most=99, table="candidates") == expected
    assert read(is_old, most=99, sql="SELECT * FROM candidates") == expected
    named = "WITH candidates AS (SELECT * FROM products) SELECT * FROM candidates"
    assert read(is_old, most=99, sql=named) == expected


ROWS = 20_000
NEW = ["19998", "19999", "20000"]


@pytest.fixture
def labelled(postgres: Database) -> SqlLabelStore:
    """Give a store of all rows but three of a table."""
    store = SqlLabelStore("warehouse", table="product_labels")
    with store.open(API):
        pass
    postgres.run("CREATE TABLE products (id text PRIMARY KEY, image_url text, at text)")
    postgres.run(
        "INSERT INTO products SELECT lpad(n::text, 5, '0'), 'https://x/' || n, 'v1'"
        f" FROM generate_series(1, {ROWS}) AS n"
    )
    postgres.run(
        "INSERT INTO product_labels_images (api, key_sha256, image_key, image_uri, version,"
        " status, labels_count, attempts, tagged_at)"
        " SELECT :api, encode(sha256(convert_to(id, 'UTF8')), 'hex'), id, image_url, at, 'tagged',"
        " 0, 1, now() FROM products WHERE id < :new",
        {"api": API, "new": NEW[0]},
    )
    with postgres.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return store


def looked_up(database: Database) -> int:
    """Return the number of times that an image of the store was looked up by its key."""
    # They are counted when a session ends, and sessions end a moment after they are closed.
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    for _ in range(600):
        if not database.value(others):
            break
        time.sleep(0.05)
    return int(
        database.value(
            "SELECT idx_scan FROM pg_stat_user_indexes"
            " WHERE indexrelname = 'ix_product_labels_images_image_key'"
        )
    )


@pytest.mark.parametrize("fields", [{"table": "products"}, {"sql": QUERY}])
def test_the_store_is_not_asked_for_each_row(
    postgres: Database, labelled: SqlLabelStore, fields: dict[str, str]
):
    """A look-up for each of a million rows takes longer than one pass over both tables."""
    source = SqlImages("warehouse", version="at", **fields)
    with labelled.open(API) as opened:
        found = new_images(source, opened, Rule(), window=None, limit=10)
        assert [image.key for image in found] == NEW
        entries = new_entries(source, opened, Rule(), shard=None, limit=None)
        assert [entry.key for entry in entries] == NEW
    assert looked_up(postgres) < ROWS / 100


@pytest.mark.parametrize("fields", [{"table": "products"}, {"sql": QUERY}])
def test_a_server_that_limits_temporary_files(
    postgres: Database, labelled: SqlLabelStore, fields: dict[str, str]
):
    """The rows are looked up one by one, which needs no file."""
    name = postgres.engine.url.database
    for setting in ("work_mem = '64kB'", "temp_file_limit = '64kB'"):
        postgres.script(f"ALTER DATABASE {name} SET {setting}")
    source = SqlImages("warehouse", version="at", **fields)
    with labelled.open(API) as opened:
        found = new_images(source, opened, Rule(need=Need.NEW), window=None, limit=10)
        assert [image.key for image in found] == NEW
    assert looked_up(postgres) >= ROWS

"""Images from a table or a query, on PostgreSQL and SQLite."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import API, Database, TaskInstance, postgres_server, tagged

from airflow_imagetag.errors import (
    ConfigurationError,
    DuplicateKeyError,
    ImageTagError,
    StorageError,
)
from airflow_imagetag.models import Entry, Image, RejectedImage, SkippedImage
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.selection.rules import Rule
from airflow_imagetag.selection.shards import parse_shard
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.sources.sql_reader import PageSizes, SqlReader
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.testing import Emulator


def in_small_pages(source: SqlImages) -> Iterator[Entry]:
    """Return the entries of a source, which are read seven rows at a time."""
    pages = PageSizes(indexed=7, unindexed=7, with_content=7)
    return SqlReader(source, pages=pages).entries()


def keys(entries: Iterator[Entry]) -> list[str]:
    """Return the keys of the images."""
    return [entry.key for entry in entries if isinstance(entry, Image)]


def rejected(entries: Iterator[Entry]) -> list[tuple[str, str]]:
    """Return key and error class of the rejected entries."""
    return [
        (entry.key, type(entry.error).__name__)
        for entry in entries
        if isinstance(entry, RejectedImage)
    ]


def products(database: Database, count: int, *, unique: bool = True) -> None:
    """Make a table of images."""
    key = "PRIMARY KEY" if unique else ""
    database.run(f"CREATE TABLE products (sku varchar(99) {key}, photo text, changed text)")
    if not count:
        return
    database.run(
        "INSERT INTO products VALUES (:key, :uri, :version)",
        *(
            {"key": f"sku-{n:04}", "uri": f"https://shop/{n}.jpg", "version": f"v{n}"}
            for n in range(count)
        ),
    )


def source(**fields: Any) -> SqlImages:
    """Describe the images of the table."""
    described = {"table": "products", "key": "sku", "uri": "photo", "version": "changed"} | fields
    return SqlImages("warehouse", **{k: v for k, v in described.items() if v is not None})


# -- tables, queries and names ----------------------------------------------------------------


def test_a_table(database: Database):
    """Each row is an image, in the order of the keys."""
    products(database, 3)
    assert list(source().entries()) == [
        Image(f"sku-{n:04}", f"https://shop/{n}.jpg", version=f"v{n}") for n in range(3)
    ]


def test_a_query(database: Database):
    """Each row of a query is an image."""
    products(database, 5)
    found = source(table=None, sql="SELECT * FROM products WHERE sku > 'sku-0002'").entries()
    assert keys(found) == ["sku-0003", "sku-0004"]


def test_without_a_version(database: Database):
    """A source without versions has images with an empty one."""
    products(database, 1)
    [entry] = source(version=None).entries()
    assert isinstance(entry, Image)
    assert not entry.version


@pytest.mark.parametrize("count", [0, 6, 7, 8, 14, 50])
@pytest.mark.parametrize("unique", [True, False])
def test_more_rows_than_a_page(database: Database, count: int, unique: bool):
    """Every row is read once, whatever the number of pages."""
    products(database, count, unique=unique)
    assert keys(in_small_pages(source())) == [f"sku-{n:04}" for n in range(count)]


def test_rows_that_come_while_it_reads(database: Database):
    """No transaction holds the table, so others may write; no row is read twice."""
    products(database, 20)
    entries = in_small_pages(source())
    first = [next(entries).key for _ in range(3)]
    database.run("INSERT INTO products VALUES ('sku-9999', 'https://shop/late.jpg', 'v')")
    database.run("DELETE FROM products WHERE sku = 'sku-0019'")
    found = first + keys(entries)
    assert found == [*(f"sku-{n:04}" for n in range(19)), "sku-9999"]


ODD_NAMES = [
    "Mixed Case",
    "order",
    "select",
    "a column with blanks",
    'quo"te',
    "it's",
    "50%",
    "50%(x)s",
    "a:b",
    "semi;colon",
    "dot.ted",
    "日本",
    "native_key",
]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("unique", [True, False])
def test_odd_names(database: Database, name: str, unique: bool):
    """Tables and columns may have any name; no name is read as SQL."""
    quote = '"' + name.replace('"', '""') + '"'
    key_column = '"' + (name + " key").replace('"', '""') + '"'
    database.script(f"CREATE TABLE {quote} ({key_column} text, {quote} text)")
    if unique:
        database.script(f"DROP TABLE {quote}")
        database.script(f"CREATE TABLE {quote} ({key_column} text PRIMARY KEY, {quote} text)")
    database.script(f"INSERT INTO {quote} VALUES ('a', 'https://x/a')")
    found = SqlImages("warehouse", table=quote, key=f"{name} key", uri=name).entries()
    assert list(found) == [Image("a", "https://x/a", version="")]


def test_a_schema(postgres: Database):
    """A table is named with its schema, either part in quotes where it needs them."""
    postgres.run('CREATE SCHEMA "Sales 2026"')
    postgres.run('CREATE TABLE "Sales 2026".products (id text PRIMARY KEY, image_url text)')
    postgres.run("""INSERT INTO "Sales 2026".products VALUES ('a', 'https://x/a')""")
    postgres.run("CREATE TABLE products (id text PRIMARY KEY, image_url text)")
    assert keys(SqlImages("warehouse", table='"Sales 2026".products').entries()) == ["a"]
    assert keys(SqlImages("warehouse", table="public.products").entries()) == []


def test_a_view(database: Database):
    """A view has no key that the database knows, and is read all the same."""
    products(database, 3)
    database.run("CREATE VIEW shown AS SELECT * FROM products WHERE sku <> 'sku-0001'")
    assert keys(source(table="shown").entries()) == ["sku-0000", "sku-0002"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sku, photo, changed FROM products WHERE photo LIKE '%.jpg';",
        "SELECT sku, photo, changed FROM products WHERE photo LIKE 'https://%' ;\n ",
        "SELECT sku, photo, 'a:b' AS changed FROM products WHERE ':x' <> '%(x)s'",
        "SELECT sku, photo, '12:30:45' AS changed FROM products -- all :of them; 100%",
        "WITH chosen AS (SELECT * FROM products) SELECT * FROM chosen",
        r"SELECT sku, photo, 'back\:slash' AS changed FROM products",
    ],
)
def test_a_query_is_taken_as_it_is(database: Database, sql: str):
    """Colons, percent signs, comments and a semicolon at the end are the user's own."""
    products(database, 3)
    found = list(source(table=None, sql=sql).entries())
    assert [entry.key for entry in found] == ["sku-0000", "sku-0001", "sku-0002"]
    expected = {"a:b": "a:b", "12:30:45": "12:30:45", r"back\:slash": r"back\:slash"}
    for text, version in expected.items():
        if f"'{text}'" in sql:
            assert {entry.version for entry in found if isinstance(entry, Image)} == {version}


def test_casts_in_a_query(postgres: Database):
    """PostgreSQL's casts and slices have colons of their own."""
    postgres.run("CREATE TABLE photos (id integer PRIMARY KEY, urls text[], at timestamptz)")
    postgres.script("INSERT INTO photos VALUES (1, '{https://x/a,https://x/b}', now())")
    sql = (
        "SELECT id::text AS sku, (urls[1:2])[1]::text AS photo, at::date::text AS changed"
        " FROM photos"
    )
    [entry] = source(table=None, sql=sql).entries()
    assert (entry.key, entry.uri if isinstance(entry, Image) else None) == ("1", "https://x/a")


# -- faulty rows ------------------------------------------------------------------------------


def test_rows_without_a_key_are_left_out(database: Database, caplog: pytest.LogCaptureFixture):
    """The log says how many; no store could remember them, so they are no failures of every run."""
    products(database, 2, unique=False)
    database.run("INSERT INTO products VALUES (NULL, 'https://x/lost', 'v')")
    found = list(source().entries())
    assert keys(iter(found)) == ["sku-0000", "sku-0001"]
    assert [entry for entry in found if not isinstance(entry, Image)] == [SkippedImage("")]
    assert "Left out 1 rows whose key 'sku' is null" in caplog.text


def test_rows_without_a_uri_are_reported(database: Database):
    """NULL, an empty text and blanks are no URI; the version is kept."""
    products(database, 1)
    for number, uri in enumerate((None, "", "  ")):
        database.run(
            "INSERT INTO products VALUES (:key, :uri, 'v')", {"key": f"no {number}", "uri": uri}
        )
    found = list(source().entries())
    assert rejected(iter(found)) == [(f"no {n}", "InvalidImageError") for n in range(3)]
    assert {entry.version for entry in found if isinstance(entry, RejectedImage)} == {"v"}
    assert keys(iter(found)) == ["sku-0000"]


@pytest.mark.parametrize("kind", ["table", "sql"])
def test_of_rows_that_share_a_key_the_greatest_version_is_taken(database: Database, kind: str):
    """In every run the same one, and the others are reported; a NULL is no great version."""
    products(database, 20, unique=False)
    for version in (None, "v3", "v9", "v1", None):
        database.run(
            "INSERT INTO products VALUES ('sku-0003', :uri, :version)",
            {"uri": f"https://shop/{version}.jpg", "version": version},
        )
    fields: dict[str, Any] = {"table": "products"}
    if kind == "sql":
        fields = {"table": None, "sql": "SELECT * FROM products"}
    runs = [list(in_small_pages(source(**fields))) for _ in range(3)]
    chosen = [entry for entry in runs[0] if isinstance(entry, Image)]
    assert Counter(entry.key for entry in chosen) == {f"sku-{n:04}": 1 for n in range(20)}
    assert chosen[3] == Image("sku-0003", "https://shop/v9.jpg", version="v9")
    assert rejected(iter(runs[0])) == [("sku-0003", "DuplicateKeyError")]
    [report] = [entry for entry in runs[0] if isinstance(entry, RejectedImage)]
    assert isinstance(report.error, DuplicateKeyError)
    assert "6 rows" in report.error.message
    assert [list(map(str, run)) for run in runs[1:]] == [list(map(str, runs[0]))] * 2


def test_of_rows_without_versions_the_choice_is_stable(database: Database):
    """The order of the rows on the disk decides nothing."""
    for table, order in (("one", (1, 2, 3)), ("two", (3, 1, 2))):
        database.run(f"CREATE TABLE {table} (id text, image_url text)")
        for number in order:
            database.run(f"INSERT INTO {table} VALUES ('a', 'https://x/{number}')")
    chosen = [
        next(entry for entry in SqlImages("warehouse", table=table).entries())
        for table in ("one", "two")
    ]
    assert chosen == [Image("a", "https://x/3", version="")] * 2


def test_of_bytes_without_versions_the_choice_is_stable(database: Database):
    """Also where only the bytes tell the rows apart."""
    binary = "bytea" if database.is_postgres else "BLOB"
    for table, order in (("one", (1, 2, 3)), ("two", (3, 1, 2))):
        database.run(f"CREATE TABLE {table} (id text, photo {binary})")
        database.run(
            f"INSERT INTO {table} VALUES ('a', :photo)", *({"photo": bytes([n])} for n in order)
        )
    chosen = [
        next(entry for entry in SqlImages("warehouse", table=table, content="photo").entries())
        for table in ("one", "two")
    ]
    assert chosen == [Image("a", content=b"\x03", version="")] * 2


def test_a_second_run_reports_no_row_again(
    database: Database, service: Emulator, small_jpegs: Any, sqlite_store: str
):
    """Faulty rows that are known do not make every later run fail."""
    binary = "bytea" if database.is_postgres else "BLOB"
    database.run(f"CREATE TABLE photos (id text, photo {binary}, version text)")
    images = small_jpegs(30)
    database.run(
        "INSERT INTO photos VALUES (:id, :photo, 'v1')",
        *({"id": f"p{n}", "photo": data} for n, data in enumerate(images)),
    )
    database.run("INSERT INTO photos SELECT 'p3', photo, 'v0' FROM photos WHERE id = 'p4'")
    database.run("INSERT INTO photos VALUES (NULL, NULL, 'v1')")
    database.run("INSERT INTO photos VALUES ('empty', NULL, 'v1')")
    for conn_id in ("warehouse", sqlite_store):
        for number, expected in enumerate((30, 0, 0)):
            service.reset_stats()
            task_instance = TaskInstance()
            summary = ImageTagOperator(
                task_id="label",
                images=SqlImages("warehouse", table="photos", content="photo", version="version"),
                store=SqlLabelStore(conn_id, "photo_labels"),
            ).execute({"ti": task_instance})
            assert (summary["tagged"], service.stats.billed) == (expected, expected)
            failures = Counter(task_instance.xcoms["failures"]["error"])
            assert failures == (
                {} if number else {"DuplicateKeyError": 1, "InvalidImageError": 1}
            ), (conn_id, number)


@pytest.fixture
def sqlite_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a connection to another SQLite file and return its id."""
    fields = {"conn_type": "sqlite", "host": str(tmp_path / "elsewhere.db")}
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(fields))
    return "elsewhere"


# -- kinds of keys, versions and content ------------------------------------------------------


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("integer", "g"),
        ("bigint", "5000000000 + g"),
        ("numeric(12, 2)", "g + 0.5"),
        ("uuid", "md5(g::text)::uuid"),
        ("timestamptz", "timestamptz '2026-07-01 00:00Z' + g * interval '7 hours'"),
        ("timestamp", "timestamp '2026-07-01 00:00' + g * interval '1.5 hours'"),
        ("date", "date '2026-07-01' + g"),
        ("varchar(20)", "'k' || g"),
        ("char(20)", "'k' || g"),
    ],
)
def test_kinds_of_keys(postgres: Database, kind: str, made: str, unique: bool):
    """Pages go on after the last key, whatever its type; the text is the one that SQL gives."""
    key = "PRIMARY KEY" if unique else ""
    postgres.run(f"CREATE TABLE photos (id {kind} {key}, image_url text)")
    postgres.script(
        f"INSERT INTO photos SELECT {made}, 'https://x/a' FROM generate_series(1, 40) g"
    )
    with postgres.engine.connect() as connection:
        connection.exec_driver_sql("SET TIME ZONE 'UTC'")
        rows = connection.exec_driver_sql(
            "SELECT CAST(id AS varchar) FROM photos ORDER BY photos.id"
        )
        expected = [text for (text,) in rows]
    assert keys(in_small_pages(SqlImages("warehouse", table="photos"))) == expected


@pytest.mark.parametrize(
    ("kind", "make"),
    [("integer", int), ("text", lambda n: str(uuid.UUID(int=n))), ("real", lambda n: n + 0.5)],
)
def test_kinds_of_keys_in_sqlite(sqlite: Database, kind: str, make: Any):
    """Numbers go in the order of numbers."""
    sqlite.run(f"CREATE TABLE photos (id {kind} PRIMARY KEY, image_url text)")
    sqlite.run(
        "INSERT INTO photos VALUES (:id, 'https://x/a')", *({"id": make(n)} for n in range(40))
    )
    assert keys(in_small_pages(SqlImages("warehouse", table="photos"))) == [
        str(make(n)) for n in range(40)
    ]


def test_the_text_of_a_time_depends_on_no_setting(postgres: Database):
    """A version stays the same under another zone or style of dates."""
    postgres.run(
        "CREATE TABLE photos (id integer PRIMARY KEY, image_url text, at timestamptz, day date,"
        " share double precision)"
    )
    postgres.script(
        "INSERT INTO photos VALUES (1, 'https://x/a', '2026-07-01 12:00:00.5Z', '2026-02-03', 0.1)"
    )
    name = postgres.engine.url.database

    def versions() -> list[str | None]:
        found = []
        for column in ("at", "day", "share"):
            [entry] = SqlImages("warehouse", table="photos", version=column).entries()
            assert isinstance(entry, Image)
            found.append(entry.version)
        return found

    expected = ["2026-07-01 12:00:00.5+00", "2026-02-03", "0.1"]
    assert versions() == expected
    for setting in ("TimeZone = 'Asia/Tokyo'", "DateStyle = 'German, DMY'"):
        postgres.script(f"ALTER DATABASE {name} SET {setting}")
        assert versions() == expected
    assert postgres.value("SHOW TimeZone") == "Asia/Tokyo"


def test_bytes(database: Database):
    """A column of bytes is the image itself; a NULL is reported."""
    binary = "bytea" if database.is_postgres else "BLOB"
    database.run(f"CREATE TABLE photos (id integer PRIMARY KEY, photo {binary}, changed text)")
    database.run(
        "INSERT INTO photos VALUES (:id, :photo, 'v')",
        *({"id": n, "photo": None if n == 9 else bytes([n, 0, 255])} for n in range(20)),
    )
    photos = source(table="photos", key="id", uri=None, content="photo")
    found = list(in_small_pages(photos))
    expected = [Image(str(n), content=bytes([n, 0, 255]), version="v") for n in range(20) if n != 9]
    assert (
        sorted(
            (entry for entry in found if isinstance(entry, Image)), key=lambda image: int(image.key)
        )
        == expected
    )
    assert rejected(iter(found)) == [("9", "InvalidImageError")]


def test_a_text_is_no_content(database: Database):
    """A column of texts, where bytes belong, is reported for each row."""
    products(database, 2)
    found = source(uri=None, content="photo").entries()
    assert [name for _, name in rejected(found)] == ["InvalidImageError"] * 2


# -- shards and limits ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("unique", [True, False])
def test_shards(database: Database, count: int, unique: bool):
    """They are disjoint and complete and about even, and faulty rows are reported once."""
    products(database, 800, unique=unique)
    database.run("UPDATE products SET photo = NULL WHERE sku = 'sku-0007'")
    if not unique:
        database.run("INSERT INTO products VALUES (NULL, 'https://x/lost', 'v')")
    described = source()
    found = [list(described.entries(shard=parse_shard(name))) for name in described.shards(count)]
    together = Counter(entry.key for part in found for entry in part)
    assert together.total() == 800 + (not unique)
    assert set(together.values()) == {1}
    for part in found:
        assert 0.7 * 800 / count < len(part) < 1.3 * 800 / count


def test_the_database_hands_over_the_rows_of_a_shard_and_no_others(
    database: Database, caplog: pytest.LogCaptureFixture
):
    """A sixteenth of the rows comes over the wire, counted where the driver gives them."""
    products(database, 1600)
    logging.getLogger("sqlalchemy.engine").setLevel(logging.DEBUG)
    try:
        with caplog.at_level(logging.DEBUG, "sqlalchemy.engine"):
            found = keys(source().entries(shard=parse_shard("3/16")))
    finally:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
    taken = {f"sku-{n:04}" for n in range(1600) if f"'sku-{n:04}'" in caplog.text}
    assert taken == set(found)
    assert 60 < len(taken) < 140


def test_shards_are_the_same_in_every_session(database: Database):
    """An image belongs to one shard, today and tomorrow."""
    products(database, 50)
    shard = parse_shard("2/5")
    assert keys(source().entries(shard=shard)) == keys(source().entries(shard=shard))


def test_a_limit_reads_no_more_than_it_needs(database: Database, caplog: pytest.LogCaptureFixture):
    """Five images of a large table take one small page."""
    products(database, 50)
    logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
    try:
        with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
            entries = source().entries(limit=5)
            found = [next(entries) for _ in range(5)]
    finally:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
    entries.close()  # type: ignore[attr-defined]
    assert [entry.key for entry in found] == [f"sku-{n:04}" for n in range(5)]


def test_max_images_takes_turns(database: Database, service: Emulator, small_jpegs: Any):
    """Each run labels that number of new images, until all are labelled."""
    binary = "bytea" if database.is_postgres else "BLOB"
    database.run(f"CREATE TABLE photos (id integer PRIMARY KEY, photo {binary})")
    database.run(
        "INSERT INTO photos VALUES (:id, :photo)",
        *({"id": n, "photo": data} for n, data in enumerate(small_jpegs(25))),
    )
    for expected in (10, 10, 5, 0):
        summary = ImageTagOperator(
            task_id="label",
            images=SqlImages("warehouse", table="photos", content="photo"),
            store=SqlLabelStore("warehouse", "photo_labels"),
            max_images="10",
        ).execute({})
        assert summary["tagged"] == expected
    assert service.stats.billed == 25


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"table": "products'; DROP TABLE victims; --"},
        {"table": "products; DROP TABLE victims"},
        {"table": '"products"; DROP TABLE victims; --'},
        {"table": '"x""; DROP TABLE victims; --"'},
        {"table": "(SELECT 1) x"},
        {"table": "products WHERE 1=1"},
        {"key": "sku'; DROP TABLE victims; --"},
        {"key": 'sku"; DROP TABLE victims; --'},
        {"uri": "photo) FROM products; DROP TABLE victims; --"},
        {"version": "1; DROP TABLE victims"},
        {"version": "now()"},
        {"table": None, "sql": "SELECT * FROM products; DROP TABLE victims"},
        {"table": None, "sql": "DROP TABLE victims"},
        {"table": None, "sql": "DELETE FROM victims"},
        {"table": "nothing_here"},
        {"table": None, "sql": "SELECT nonsense FROM nowhere"},
        {"table": None, "sql": ""},
    ],
)
def test_a_text_that_is_no_table_column_or_query_is_refused(
    database: Database, fields: dict[str, Any]
):
    """The message names the connection or the parameter, and nothing is changed."""
    products(database, 2)
    database.run("CREATE TABLE victims (id integer)")
    database.run("INSERT INTO victims VALUES (1)")
    with pytest.raises(ConfigurationError, match=r"warehouse|is not the name of a table"):
        list(source(**fields).entries())
    assert database.tables() == {"products", "victims"}
    assert database.value("SELECT count(*) FROM victims") == 1


def test_a_key_with_sql_in_it_is_a_key(database: Database):
    """Values are values, also as the last key of a page."""
    products(database, 6)
    database.run("CREATE TABLE victims (id integer)")
    evil = "sku-0005'; DROP TABLE victims; --"
    database.run("INSERT INTO products VALUES (:key, 'https://x/a', 'v')", {"key": evil})
    database.run("INSERT INTO products VALUES ('sku-9', 'https://x/b', 'v')")
    assert keys(in_small_pages(source()))[-2:] == [evil, "sku-9"]
    assert "victims" in database.tables()


@pytest.mark.parametrize(
    "fields", [{}, {"table": "a", "sql": "SELECT 1"}, {"table": "a", "uri": None}]
)
def test_a_source_that_is_none_is_refused_at_once(fields: dict[str, Any]):
    """The DAG's author learns it while the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="SqlImages takes one of"):
        SqlImages("warehouse", **fields)


@pytest.mark.parametrize("connection", [None, '{"conn_type": "http", "host": "x"}'])
def test_a_connection_that_is_no_database_is_named(
    connection: str | None, monkeypatch: pytest.MonkeyPatch
):
    """A missing connection and one of another kind are the configuration's fault."""
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", connection)
    with pytest.raises(ConfigurationError, match="'nowhere'"):
        list(SqlImages("nowhere", table="products").entries())


def test_a_server_out_of_reach_is_the_storages_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The task may be tried again; the message names the connection."""
    fields = {"conn_type": "postgres", "host": str(tmp_path), "login": "x", "schema": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_DOWN", json.dumps(fields))
    with pytest.raises(StorageError, match="'down'"):
        list(SqlImages("down", table="products").entries())


def test_a_wrong_password_shows_nowhere(
    postgres: Database, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
):
    """The message names the connection and gives the server's words."""
    server = postgres_server(pytestconfig)
    rules = Path(server.pgdata) / "pg_hba.conf"
    if "needs_password" not in rules.read_text():
        rules.write_text("local all needs_password scram-sha-256\n" + rules.read_text())
    if not postgres.rows("SELECT 1 FROM pg_roles WHERE rolname = 'needs_password'"):
        postgres.script("CREATE ROLE needs_password LOGIN PASSWORD 'correctHorse'")
    postgres.run("SELECT pg_reload_conf()")
    products(postgres, 1)
    postgres.script("GRANT SELECT ON products TO needs_password")
    fields = json.loads(postgres.connection_json) | {"login": "needs_password"}
    for password, fits in (("correctHorse", True), ("wrongBattery", False)):
        monkeypatch.setenv("AIRFLOW_CONN_LOCKED", json.dumps(fields | {"password": password}))
        described = SqlImages("locked", table="products", key="sku", uri="photo")
        if fits:
            assert keys(described.entries()) == ["sku-0000"]
        else:
            with pytest.raises(ImageTagError, match="'locked'") as caught:
                list(described.entries())
            assert "wrongBattery" not in str(caught.value)
            # A retry does not make a password right.
            assert not isinstance(caught.value, StorageError)
            assert caught.value.__cause__ is None


# -- in a DAG ---------------------------------------------------------------------------------


def test_fields_are_templates(postgres: Database):
    """Connection, table and query are rendered, and mapped tasks do not see each other's."""
    described = SqlImages("{{ c }}", table="products_{{ year }}", key="{{ not_rendered }}")
    operator = ImageTagOperator(task_id="label", images=described)
    for year in (2025, 2026):
        rendered = operator.render_template(operator.images, {"c": "warehouse", "year": year})
        assert (rendered.conn_id, rendered.table) == ("warehouse", f"products_{year}")
        assert rendered.key == "{{ not_rendered }}"
    assert described.table == "products_{{ year }}"


def test_it_is_described_the_same_every_time():
    """Airflow makes a new version of a DAG when a description changes."""
    described = source(table=None, sql="SELECT 1")
    assert described.serialize() == source(table=None, sql="SELECT 1").serialize()
    assert json.loads(json.dumps(described.serialize())) == {
        "type": "SqlImages",
        "conn_id": "warehouse",
        "sql": "SELECT 1",
        "key": "sku",
        "uri": "photo",
        "version": "changed",
    }


def test_it_leaves_no_connection_behind(postgres: Database):
    """A source that was read, to its end or not, has closed its connections."""
    products(postgres, 20)
    list(source().entries())
    entries = source(version=None).entries()
    next(entries)
    entries.close()  # type: ignore[attr-defined]
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert postgres.value(count) == 1


def test_only_new_images_are_read(database: Database):
    """With the store in the same database, one statement selects the new images."""
    products(database, 30)
    store = SqlLabelStore("warehouse", "product_labels")
    with store.open(API) as opened:
        opened.write([tagged(f"sku-{n:04}", "x", version=f"v{n}") for n in range(25)])
        condition = opened.condition(Rule())
        push_down = source().push_down
        new = push_down.entries(condition, shard=None, limit=None)
        assert keys(new) == [f"sku-{n:04}" for n in range(25, 30)]
        database.run("UPDATE products SET changed = 'new' WHERE sku IN ('sku-0003', 'sku-0004')")
        assert len(keys(push_down.entries(condition, shard=None, limit=None))) == 7
        assert push_down.count(condition, shard=None) == 7
        parts = [parse_shard(name) for name in source().shards(3)]
        assert sum(push_down.count(condition, shard=part) for part in parts) == 7
        twice = "SELECT * FROM products UNION ALL SELECT * FROM products"
        push_down = source(table=None, sql=twice).push_down
        assert push_down.count(condition, shard=None) == 7


def test_quoting_is_sqlalchemys(database: Database):
    """A name that needs no quotes is looked up as it is written."""
    products(database, 1)
    assert sa.inspect(database.engine).has_table("products")
    with pytest.raises(ConfigurationError, match="it has no column 'SKU'"):
        list(source(key="SKU").entries())

"""Keys of every type, on PostgreSQL, SQLite and MariaDB: each row once, under the text of its key.

Pages hold three rows, so that every type of key is the bound of several pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from databases import Database
from sqlalchemy.exc import DBAPIError, IntegrityError

from airflow_imagetag.errors import ConfigurationError, DuplicateKeyError
from airflow_imagetag.models import Entry, Image, RejectedImage
from airflow_imagetag.sources import SqlImages, sql_reader
from airflow_imagetag.sources.sql_reader import PageSizes, SqlReader

SMALL = PageSizes(indexed=3, unindexed=3, with_content=3)
URI = "https://x/a"


def read(**fields: Any) -> list[Entry]:
    """Return the entries of a source whose pages hold three rows."""
    described = {"key": "id"} | ({} if "sql" in fields else {"table": "photos"}) | fields
    return list(SqlReader(SqlImages("warehouse", **described), pages=SMALL).entries())


def keys(entries: list[Entry]) -> list[str]:
    """Return the keys of the images."""
    return [entry.key for entry in entries if isinstance(entry, Image)]


def duplicates(entries: list[Entry]) -> list[str]:
    """Return the keys that more than one row has."""
    return [
        entry.key
        for entry in entries
        if isinstance(entry, RejectedImage) and isinstance(entry.error, DuplicateKeyError)
    ]


def fill(database: Database, kind: str, values: list[str], *, unique: str = "PRIMARY KEY") -> None:
    """Make a table with these literals as keys."""
    database.script(f"CREATE TABLE photos (id {kind} {unique}, image_url text)")
    for value in values:
        database.script(f"INSERT INTO photos VALUES ({value}, '{URI}')")


def read_new(**fields: Any) -> list[Entry]:
    """Return the entries that meet a condition, as all do."""
    source = SqlImages("warehouse", key="id", **fields)
    reader = SqlReader(source, condition=lambda key, _version, _uri: key != "no key", pages=SMALL)
    return list(reader.entries())


def in_every_way(sql: str = "SELECT * FROM photos") -> Iterator[list[str]]:
    """Yield the keys of the table, and of a query of all its rows, with and without a condition."""
    yield keys(read())
    yield keys(read(sql=sql))
    yield keys(read_new(table="photos"))
    yield keys(read_new(sql=sql))


# -- types ------------------------------------------------------------------------------------

QUOTED = [f"'{n}'" for n in range(10)]
POSTGRES_TYPES = {
    "smallint": QUOTED,
    "bigint": [f"{5_000_000_000 + n}" for n in range(10)],
    "oid": QUOTED,
    "numeric": ["1.10", "0.1", "1e30", "-5", "'NaN'", "2", "3.00000000000000000001", "3"],
    "real": ["0.1", "0.2", "0.3", "16777216", "1e-30", "3.4e38", "'NaN'", "'-Infinity'", "0.7"],
    "double precision": ["0.1", "0.2", "0.30000000000000004", "0.3", "1e300", "'NaN'", "1", "2"],
    "boolean": ["true", "false"],
    "money": ["1.5", "2", "30", "-4", "1000000", "7"],
    "text": ["'a#1'", "'a?&;%'", "'a '", "'a'", "'A'", "'ä'", "E'a\\u0308'", "'\\x'", "'it''s'"],
    "char(5)": QUOTED,
    "name": QUOTED,
    '"char"': QUOTED,
    "bytea": [f"'\\x{n:02x}ff00'" for n in range(10)],
    "uuid": [f"md5('{n}')::uuid" for n in range(10)],
    "date": ["'4713-01-01 BC'", "'0001-01-01'", "'9999-12-31'", "'infinity'", "'2026-07-01'"],
    "time": ["'00:00'", "'23:59:59.999999'", "'12:00'", "'12:00:00.5'", "'24:00'"],
    "timetz": ["'12:00+02'", "'12:00+01'", "'11:00+00'", "'10:00+00'", "'12:00+00'"],
    "timestamp": ["'2026-07-01'", "'2026-07-01 00:00:00.000001'", "'20000-01-01'", "'infinity'"],
    "timestamptz": [
        "'2026-07-01+02'",
        "'2026-07-01'",
        "'-infinity'",
        "'20000-01-01'",
        "'2027-1-1'",
    ],
    "interval": ["'1 month'", "'31 days'", "'1 hour'", "'-5 days'", "'1 year'", "'1 minute'"],
    "inet": ["'10.0.0.1'", "'10.0.0.0/8'", "'::1'", "'192.168.0.1/24'", "'10.0.0.2'", "'10.0.0.3'"],
    "cidr": ["'10.0.0.0/8'", "'10.0.0.0/16'", "'::/0'", "'192.168.0.0/24'", "'11.0.0.0/8'"],
    "macaddr": [f"'08:00:2b:01:02:0{n}'" for n in range(10)],
    "macaddr8": [f"'08:00:2b:01:02:03:04:0{n}'" for n in range(10)],
    "bit(4)": [f"B'{n:04b}'" for n in range(10)],
    "varbit": ["B'1'", "B'10'", "B'01'", "B'0'", "B''", "B'111'", "B'0000'"],
    "jsonb": ["'1'", "'\"a\"'", "'[1]'", "'{\"a\": 1}'", "'null'", "'true'", "'2.50'", "'{}'"],
    "integer[]": ["'{}'", "'{1}'", "'{1,2}'", "'{2}'", "'{NULL}'", "'{3}'", "'{{1,2},{3,4}}'"],
    "text[]": ["'{}'", "'{\"a,b\"}'", "'{a,b}'", "'{\"\"}'", "'{\"it''s\"}'", "'{a%,#}'"],
    "int4range": ["'[1,2)'", "'[1,5)'", "'empty'", "'(,3)'", "'[7,)'", "'[2,3)'"],
    "tsvector": ["'a b'", "'c'", "'d e f'", "''", "'x:1A'"],
    "pg_lsn": [f"'0/{n}'" for n in range(10)],
    "mood": ["'sad'", "'ok'", "'happy'", "'blue?'"],
    "place": ["'(1,a)'", "'(1,\"b,c\")'", "'(0,)'", "'(2,x)'", "'(2,y)'"],
    "positive": QUOTED[1:],
}
"""Types of PostgreSQL that it can order, and literals of different keys."""


@pytest.fixture
def own_types(postgres: Database) -> Database:
    """Give a database with types of its own."""
    postgres.script("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'blue?')")
    postgres.script("CREATE TYPE place AS (shelf integer, box text)")
    postgres.script("CREATE DOMAIN positive AS integer CHECK (VALUE > 0)")
    return postgres


@pytest.mark.filterwarnings("ignore:Did not recognize type")
@pytest.mark.parametrize("unique", ["PRIMARY KEY", ""])
@pytest.mark.parametrize("kind", POSTGRES_TYPES)
def test_every_ordered_type_of_postgresql(own_types: Database, kind: str, unique: str):
    """Each key once, as its text, in the order of its type."""
    fill(own_types, kind, POSTGRES_TYPES[kind], unique=unique)
    with own_types.engine.connect() as connection:
        connection.exec_driver_sql("SET TIME ZONE 'UTC'")
        rows = connection.exec_driver_sql(
            "SELECT CAST(id AS varchar) FROM photos ORDER BY photos.id"
        )
        expected = [text for (text,) in rows]
    for found in in_every_way():
        assert len(set(found)) == len(POSTGRES_TYPES[kind])
        # PostgreSQL does not read a row from a text beside an operator, so their texts decide.
        assert found == (sorted(expected) if kind == "place" else expected)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("json", [f"'[{n}]'" for n in range(10)]),
        ("point", [f"'({n},1)'" for n in range(10)]),
        ("box", [f"'(1,1),({n},{n})'" for n in range(5)]),
        ("xid", QUOTED),
        ("regclass", ["'pg_class'", "'pg_type'", "'pg_index'", "'pg_proc'", "'pg_attribute'"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Did not recognize type")
def test_types_without_an_order_are_read_by_their_text(
    postgres: Database, kind: str, values: list[str]
):
    """A database that cannot order the keys can order their texts."""
    fill(postgres, kind, values, unique="")
    expected = {text for (text,) in postgres.rows("SELECT CAST(id AS varchar) FROM photos")}
    for found in in_every_way():
        assert len(found) == len(values)
        assert set(found) == expected


def test_rows_of_a_query_without_a_named_type(postgres: Database):
    """PostgreSQL cannot read such a row from a text."""
    fill(postgres, "integer", QUOTED)
    found = keys(read(sql="SELECT ROW(id, 'x') AS id, image_url FROM photos"))
    assert found == [f"({n},x)" for n in range(10)]


def test_a_lower_precision_of_floats_changes_no_key(postgres: Database):
    """A setting of the database decides neither the keys nor the pages."""
    fill(postgres, "real", ["0.1", "0.10000001", "0.10000002", "0.2", "0.3", "0.4"])
    name = postgres.engine.url.database
    expected = keys(read())
    assert len(set(expected)) == 6
    postgres.script(f"ALTER DATABASE {name} SET extra_float_digits = -3")
    assert keys(read()) == expected


SQLITE_TYPES = {
    "integer": QUOTED,
    "int": QUOTED,
    "real": ["0.1", "0.2", "0.30000000000000004", "1e300", "2", "-1"],
    "numeric": ["1", "'1.5'", "'a'", "2", "'10'", "9007199254740993"],
    "text": ["'a#1'", "'a '", "'a'", "'A'", "'ä'", "'日本'", "'%'"],
    "text COLLATE NOCASE": ["'a'", "'B'", "'c'", "'D'", "'e'"],
    "text COLLATE RTRIM": ["'a'", "' a'", "'c'", "'D'", "'e'"],
    "date": ["'2026-07-01'", "'2026-07-02'", "'2025-01-01'", "'x'"],
    "uuid": ["'a0'", "'1e5'", "'b'", "'c'"],
    "boolean": ["1", "0"],
    "blob": ["x'ff'", "x'fe'", "x'61'", "x'00'", "'b'", "1", "2.5"],
    "": ["1", "'a'", "2.5", "x'ff'", "'10'", "9", "x'62'"],
}


@pytest.mark.parametrize("unique", ["PRIMARY KEY", ""])
@pytest.mark.parametrize("kind", SQLITE_TYPES)
def test_every_type_of_sqlite(sqlite: Database, kind: str, unique: str):
    """Each key once, whatever classes of values a column holds."""
    fill(sqlite, kind, SQLITE_TYPES[kind], unique=unique)
    for found in in_every_way():
        assert len(set(found)) == len(found) == len(SQLITE_TYPES[kind])


def test_values_of_one_text_are_one_key(sqlite: Database):
    """A number, a text and bytes may have the same text, which is the key of the outputs."""
    fill(sqlite, "", ["1", "'1'", "x'31'", "2", "3", "4"])
    for entries in (read(), read(sql="SELECT * FROM photos")):
        assert sorted(keys(entries)) == ["1", "2", "3", "4"]
        assert duplicates(entries) == ["1"]


MARIADB_TYPES = {
    "int": QUOTED,
    "bigint unsigned": [f"{2**63 + n}" for n in range(10)],
    "decimal(30,5)": ["0.1", "1", "-2.5", "12345678901234567890.12345", "3", "4"],
    "float": ["0.1", "0.2", "0.3", "1e30", "5", "6"],
    "double": ["0.1", "0.2", "0.30000000000000004", "0.3", "1e300", "5"],
    "bit(4)": [f"b'{n:04b}'" for n in range(10)],
    "varchar(20)": ["'a#1'", "'b '", "'a'", "'ü'", "'日本'", "'%'", "'it''s'"],
    "varchar(20) CHARACTER SET latin1": ["'a'", "'ü'", "'é2'", "'b'", "'c'"],
    "varchar(20) COLLATE utf8mb4_bin": ["'a'", "'A'", "'ü'", "'Ü'", "'b'"],
    "char(5)": QUOTED,
    "binary(4)": [f"x'00ff{n:02x}00'" for n in range(10)],
    "varbinary(20)": ["x'ff'", "x'fe'", "'a'", "'A'", "'a '", "'日本'", "x'00'"],
    "enum('z','b','a','it''s')": ["'z'", "'b'", "'a'", "'it''s'"],
    "set('z','b','a')": ["'z'", "'b'", "'a'", "'z,a'", "''", "'b,a'"],
    "date": ["'2026-07-01'", "'1000-01-01'", "'9999-12-31'", "'2026-07-02'"],
    "datetime": ["'2026-07-01 12:00'", "'2026-07-01 12:00:01'", "'1000-01-01'", "'9999-12-31'"],
    "datetime(6)": [f"'2026-07-01 12:00:00.00000{n}'" for n in range(10)],
    "timestamp(6)": [f"'2026-07-01 12:00:00.00000{n}'" for n in range(10)],
    "time(6)": ["'-838:59:59'", "'00:00:00.000001'", "'838:59:59'", "'00:00'", "'12:00'"],
    "year": ["2026", "1901", "2155", "2000"],
    "uuid": [f"'00000000-0000-4000-8000-00000000000{n}'" for n in range(10)],
    "inet6": [f"'::{n}'" for n in range(10)],
}


@pytest.mark.filterwarnings("ignore:Did not recognize type")
@pytest.mark.parametrize("unique", ["PRIMARY KEY", ""])
@pytest.mark.parametrize("kind", MARIADB_TYPES)
def test_every_type_of_mariadb(mariadb: Database, kind: str, unique: str):
    """Each key once; those that the server orders and compares differently go by their text."""
    fill(mariadb, kind, MARIADB_TYPES[kind], unique=unique)
    for found in in_every_way():
        assert len(set(found)) == len(found) == len(MARIADB_TYPES[kind]), found


# -- keys that a collation calls equal ----------------------------------------------------------

ALIKE = ["'a'", "'A'", "'b'", "'B'", "'c'", "'d'", "'D'"]
TEXTS = sorted(value.strip("'") for value in ALIKE)


POSTGRES_SET_UP = {
    "citext": "CREATE EXTENSION citext",
    "icu": "CREATE COLLATION alike (provider = icu, locale = 'und-u-ks-level2',"
    " deterministic = false)",
}
"""Statements that not every server takes."""


@pytest.fixture(params=["sqlite", "mariadb", "citext", "icu"])
def alike(request: pytest.FixtureRequest) -> str:
    """Give a table whose keys differ in case only, which their collation calls equal."""
    name = request.param
    database: Database = request.getfixturevalue(
        name if name in ("sqlite", "mariadb") else "postgres"
    )
    kinds = {"sqlite": "text COLLATE NOCASE", "mariadb": "varchar(20)", "icu": "text COLLATE alike"}
    kind = kinds.get(name, name)
    if name in POSTGRES_SET_UP:
        try:
            database.script(POSTGRES_SET_UP[name])
        except DBAPIError as error:
            pytest.skip(f"This server has no {name}: {error.orig}")
    fill(database, kind, ALIKE, unique="")
    return name


def test_keys_that_a_collation_calls_equal_are_images_of_their_own(alike: str):
    """Each is read once and none is reported, in any number of runs."""
    for _ in range(2):
        for entries in (read(), read(sql="SELECT * FROM photos")):
            assert sorted(keys(entries)) == TEXTS
            assert duplicates(entries) == []


def test_keys_that_differ_in_blanks_only(mariadb: Database):
    """MariaDB pads a text with blanks before it compares."""
    fill(mariadb, "varchar(20)", ["'a'", "'a '", "'a  '", "'b'"], unique="")
    assert sorted(keys(read())) == ["a", "a ", "a  ", "b"]


# -- real and apparent uniqueness ----------------------------------------------------------------

UNIQUE_IN_APPEARANCE = {
    "a partial index": ["CREATE UNIQUE INDEX i ON photos (id) WHERE NOT deleted"],
    "an index of an expression": ["CREATE UNIQUE INDEX i ON photos ((id || image_url))"],
    "an index of two columns": ["CREATE UNIQUE INDEX i ON photos (id, image_url)"],
    "an index that is not unique": ["CREATE INDEX i ON photos (id)"],
}


@pytest.mark.parametrize("kind", UNIQUE_IN_APPEARANCE)
def test_apparent_uniqueness(database: Database, kind: str):
    """Two rows share a key although the table has a unique index: one is read, one reported."""
    false = "false" if database.is_postgres else "0"
    database.script(
        f"CREATE TABLE photos (id text, image_url text, deleted boolean NOT NULL DEFAULT {false})"
    )
    for statement in UNIQUE_IN_APPEARANCE[kind]:
        database.script(statement)
    true = "true" if database.is_postgres else "1"
    database.script(f"INSERT INTO photos VALUES ('a', 'https://x/1', {true})")
    if kind == "a partial index":
        database.script(f"INSERT INTO photos VALUES ('a', 'https://x/1', {true})")
    database.script(
        f"INSERT INTO photos VALUES ('a', 'https://x/2', {false}), ('b', '{URI}', {false})"
    )
    entries = read()
    assert keys(entries) == ["a", "b"]
    assert duplicates(entries) == ["a"]


def test_a_parent_of_other_tables(postgres: Database):
    """A unique key of a parent says nothing about the rows of its children."""
    postgres.script("CREATE TABLE photos (id integer PRIMARY KEY, image_url text)")
    postgres.script("CREATE TABLE old_photos (PRIMARY KEY (id)) INHERITS (photos)")
    for table in ("photos", "old_photos"):
        postgres.script(f"INSERT INTO {table} VALUES (1, 'https://x/{table}'), (2, '{URI}')")
    entries = read()
    assert keys(entries) == ["1", "2"]
    assert duplicates(entries) == ["1", "2"]
    assert duplicates(read(table="old_photos")) == []


@pytest.mark.parametrize("is_unique", [True, False])
def test_a_partitioned_table(postgres: Database, is_unique: bool):
    """Its own unique key holds for all partitions, and that of a partition for none but it."""
    key = "PRIMARY KEY (id)" if is_unique else "CHECK (id > 0)"
    postgres.script(
        f"CREATE TABLE photos (id integer, image_url text, {key}) PARTITION BY RANGE (id)"
    )
    postgres.script("CREATE TABLE low PARTITION OF photos FOR VALUES FROM (1) TO (5)")
    postgres.script("CREATE TABLE high PARTITION OF photos FOR VALUES FROM (5) TO (100)")
    if not is_unique:
        postgres.script("CREATE UNIQUE INDEX ON high (id)")
        postgres.script(f"INSERT INTO photos VALUES (1, '{URI}')")
    postgres.script(f"INSERT INTO photos SELECT g, '{URI}' FROM generate_series(1, 9) g")
    entries = read()
    assert keys(entries) == [str(n) for n in range(1, 10)]
    assert duplicates(entries) == ([] if is_unique else ["1"])


def test_an_index_that_was_never_finished(postgres: Database):
    """CREATE INDEX CONCURRENTLY leaves an invalid index where it finds two equal keys."""
    postgres.script("CREATE TABLE photos (id integer, image_url text)")
    postgres.script(
        f"INSERT INTO photos VALUES (1, 'https://x/1'), (1, 'https://x/2'), (2, '{URI}')"
    )
    by_itself = postgres.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with by_itself, pytest.raises(IntegrityError, match="could not create unique index"):
        by_itself.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY i ON photos (id)")
    assert postgres.value("SELECT count(*) FROM pg_indexes WHERE tablename = 'photos'") == 1
    assert duplicates(read()) == ["1"]


def test_an_index_on_a_partitioned_table_only(postgres: Database):
    """It is invalid until each partition has one."""
    postgres.script("CREATE TABLE photos (id integer, image_url text) PARTITION BY RANGE (id)")
    postgres.script("CREATE TABLE low PARTITION OF photos FOR VALUES FROM (1) TO (5)")
    postgres.script("CREATE UNIQUE INDEX i ON ONLY photos (id)")
    postgres.script(
        f"INSERT INTO photos VALUES (1, 'https://x/1'), (1, 'https://x/2'), (2, '{URI}')"
    )
    assert duplicates(read()) == ["1"]


def test_an_index_under_another_collation(sqlite: Database):
    """Keys that the column calls equal may both be there; none is left out."""
    fill(sqlite, "text COLLATE NOCASE", [], unique="")
    sqlite.script("CREATE UNIQUE INDEX i ON photos (id COLLATE BINARY)")
    for key in ALIKE:
        sqlite.script(f"INSERT INTO photos VALUES ({key}, '{URI}')")
    entries = read()
    assert sorted(keys(entries)) == TEXTS
    assert duplicates(entries) == []


@pytest.mark.parametrize("deferrable", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_unique_column_may_hold_nulls(postgres: Database, deferrable: str):
    """Rows without a key are left out, and the others are read once."""
    postgres.script(f"CREATE TABLE photos (id integer UNIQUE {deferrable}, image_url text)")
    postgres.script(f"INSERT INTO photos VALUES (NULL, '{URI}'), (NULL, '{URI}'), (1, '{URI}')")
    entries = read()
    assert keys(entries) == ["1"]
    assert len(entries) == 3


@pytest.mark.parametrize(
    ("definition", "is_unique"),
    [
        ("id varchar(99), image_url text, UNIQUE (id(2))", False),
        ("id varchar(99), image_url text, UNIQUE (id)", True),
        ("id varchar(99), image_url text, UNIQUE (id, image_url(9))", False),
    ],
)
def test_an_index_of_the_beginning_of_a_text(
    mariadb: Database, definition: str, is_unique: bool, monkeypatch: pytest.MonkeyPatch
):
    """Only an index of the whole key is one."""
    mariadb.script(f"CREATE TABLE photos ({definition})")
    mariadb.script(f"INSERT INTO photos VALUES ('abc', '{URI}'), ('bcd', '{URI}')")
    calls: list[Any] = []
    original: Any = vars(sql_reader)["numbered"]

    def recorded(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(sql_reader, "numbered", recorded)
    assert keys(read()) == ["abc", "bcd"]
    assert bool(calls) is not is_unique


def test_a_merge_table(mariadb: Database):
    """It declares the keys of its tables, and does not enforce them."""
    for name in ("one", "two"):
        mariadb.script(
            f"CREATE TABLE {name} (id int PRIMARY KEY, image_url varchar(99)) ENGINE=MyISAM"
        )
        mariadb.script(f"INSERT INTO {name} VALUES (1, 'https://x/{name}')")
    mariadb.script(
        "CREATE TABLE photos (id int PRIMARY KEY, image_url varchar(99))"
        " ENGINE=MERGE UNION=(one, two)"
    )
    entries = read()
    assert keys(entries) == ["1"]
    assert duplicates(entries) == ["1"]


def test_two_columns_of_one_name(sqlite: Database):
    """SQLite would take the first; the others refuse such a query themselves."""
    fill(sqlite, "integer", QUOTED)
    with pytest.raises(ConfigurationError, match="more than one column 'id'"):
        read(sql="SELECT a.id, b.id, a.image_url FROM photos a JOIN photos b ON a.id = b.id + 1")


def test_a_key_of_json_is_a_text(postgres: Database):
    """The key of the outputs is the text that SQL gives."""
    fill(postgres, "jsonb", ['\'{"b": 1,  "a": "é"}\''])
    [key] = keys(read())
    assert json.loads(key) == {"a": "é", "b": 1}


# -- texts that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TEXT PRIMARY KEY", "TEXT", "", "TEXT COLLATE NOCASE"])
def test_texts_of_sqlite_that_are_no_utf_8(sqlite: Database, kind: str):
    """Each such row is one rejected image, also at the end of a page, and the others are read."""
    sqlite.script(f"CREATE TABLE photos (id {kind}, image_url text, version text)")
    for number in range(9):
        sqlite.script(f"INSERT INTO photos VALUES ('G{number}', '{URI}', '1')")
    for key in ("47303541ff", "ff41", "eda080"):
        sqlite.script(f"INSERT INTO photos VALUES (CAST(x'{key}' AS TEXT), '{URI}', '1')")
    sqlite.script("INSERT INTO photos VALUES ('G3a', CAST(x'ff' AS TEXT), '1')")
    sqlite.script(f"INSERT INTO photos VALUES ('G3b', '{URI}', CAST(x'ff' AS TEXT))")
    entries = read(version="version")
    assert keys(entries) == [f"G{number}" for number in range(9)]
    rejected = [entry for entry in entries if isinstance(entry, RejectedImage)]
    assert len(rejected) == 5
    for entry in rejected:
        f"{entry.key}{entry.version}".encode()

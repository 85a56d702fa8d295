"""The store in two SQL tables, on PostgreSQL and SQLite."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import (
    API,
    NOON,
    Database,
    TaskInstance,
    failed,
    gathered,
    labels_named,
    tagged,
    unlimited,
)
from impatient import ImpatientStore

from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.errors import ConfigurationError, StoreError
from airflow_imagetag.frames import LABEL_COLUMNS
from airflow_imagetag.models import Failure, Image, TagResult
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.selection.difference import pending_entries
from airflow_imagetag.selection.rules import Condition, Need, Retag, Rule, Status, StoredState
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.stores.rows import key_digest
from airflow_imagetag.testing import Emulator, Faults

IMAGES_COLUMNS = {
    "api": "text",
    "key_sha256": "text",
    "image_key": "text",
    "image_uri": "text",
    "version": "text",
    "status": "text",
    "content_sha256": "text",
    "labels_count": "whole number",
    "error": "text",
    "code": "text",
    "message": "text",
    "attempts": "whole number",
    "tagged_at": "time",
    "tries": "whole number",
    "first_failed_at": "time",
    "next_try_at": "time",
    "missing_since": "time",
}
LABELS_COLUMNS = {
    "api": "text",
    "key_sha256": "text",
    "rank": "whole number",
    "image_key": "text",
    "image_uri": "text",
    "label": "text",
    "probability": "number",
    "category": "text",
    "subcategory": "text",
    "scene": "text",
    "tagged_at": "time",
    "original_label": "text",
}
ODD_KEYS = [
    "😀" * 2000,
    "it's",
    'say "cheese"',
    "back`tick\\slash",
    "two\nlines\r\tand a tab",
    "'; DROP TABLE product_labels; --",
    "50% of %(key)s and :name and {brace}",
    " blanks around ",
    "Straße-ñ-日本-\u202e",
]


@pytest.fixture
def store(database: Database) -> SqlLabelStore:
    """Describe a store in the database."""
    return SqlLabelStore(database.conn_id, "product_labels")


def kind_of(column_type: Any) -> str:
    """Return the kind of values that a column of an existing table takes."""
    kinds = {
        sa.String: "text",
        sa.Integer: "whole number",
        sa.Numeric: "number",
        sa.Float: "number",
        sa.DateTime: "time",
    }
    return next(name for kind, name in kinds.items() if isinstance(column_type, kind))


def write(store: SqlLabelStore, *outcomes: TagResult | Failure) -> None:
    """Write a batch."""
    with store.open(API) as opened:
        opened.write(outcomes)


def selected(source: SqlImages, condition: Condition) -> set[str]:
    """Return the keys of the entries that meet a condition."""
    return {entry.key for entry in source.push_down.entries(condition, shard=None, limit=None)}


def known(store: SqlLabelStore, *keys: str) -> dict[str, StoredState]:
    """Ask a store."""
    with store.open(API) as opened:
        return dict(opened.known(keys))


# -- tables -----------------------------------------------------------------------------------


def test_the_tables_have_the_documented_columns(database: Database, store: SqlLabelStore):
    """Analysts find the columns and types that the documentation names."""
    with store.open(API):
        pass
    inspector = sa.inspect(database.engine)
    for table, expected in (
        ("product_labels_images", IMAGES_COLUMNS),
        ("product_labels", LABELS_COLUMNS),
    ):
        found = {column["name"]: kind_of(column["type"]) for column in inspector.get_columns(table)}
        assert found == expected


def test_the_tables_have_keys_and_indexes(database: Database, store: SqlLabelStore):
    """An image and each of its labels can be there once, and are found by key and by content."""
    with store.open(API):
        pass
    inspector = sa.inspect(database.engine)
    keys = [
        inspector.get_pk_constraint(table)["constrained_columns"]
        for table in ("product_labels_images", "product_labels")
    ]
    assert keys == [["api", "key_sha256"], ["api", "key_sha256", "rank"]]
    indexed = [
        {tuple(index["column_names"]) for index in inspector.get_indexes(table)}
        for table in ("product_labels_images", "product_labels")
    ]
    assert indexed == [
        {("image_key",), ("content_sha256",), ("next_try_at",)},
        {("image_key",)},
    ]


def test_times_keep_their_zone_and_their_microseconds(database: Database, store: SqlLabelStore):
    """A time comes back as the same moment in UTC, whatever the zone of the session."""
    write(store, tagged("a", "x"))
    [frame] = store.labels()
    assert frame["tagged_at"].tolist() == [NOON]
    if database.is_postgres:
        assert database.value("SELECT pg_typeof(tagged_at)::text FROM product_labels") == (
            "timestamp with time zone"
        )


def test_a_second_opening_leaves_the_tables(database: Database, store: SqlLabelStore):
    """Rows and added columns stay."""
    write(store, tagged("a", "x"))
    database.run("ALTER TABLE product_labels_images ADD COLUMN note text")
    write(store, tagged("b", "y"))
    assert gathered(store.labels()) == [("a", "x"), ("b", "y")]
    assert database.tables() == {"product_labels", "product_labels_images"}


def until(is_true: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    for _ in range(600):
        if is_true():
            return
        time.sleep(0.1)
    pytest.fail("The condition did not become true.")


def test_a_restored_store_is_not_compared_row_by_row(postgres: Database):
    """PostgreSQL has no statistics of rows from a backup, so it is told to gather them."""
    store = SqlLabelStore("warehouse", 'public."Product labels"')
    write(store)
    images = 'public."Product labels_images"'
    postgres.run(f"ALTER TABLE {images} SET (autovacuum_enabled = off)")
    postgres.run(
        f"INSERT INTO {images} (api, key_sha256, image_key, version, status, labels_count,"
        f" attempts, tagged_at) SELECT '{API}', n, n, '', 'tagged', 0, 1, now()"
        " FROM generate_series(1, 20000) AS n"
    )
    known = "SELECT reltuples FROM pg_class WHERE relname = 'Product labels_images'"
    assert postgres.value(known) <= 0
    postgres.run("CREATE TABLE products (id varchar(9) PRIMARY KEY, image_url text)")
    postgres.run("INSERT INTO products SELECT n, 'u' FROM generate_series(1, 20001) AS n")
    source = SqlImages("warehouse", table="products")
    with store.open(API) as opened:
        condition = opened.condition(Rule(need=Need.NEW))
        [new] = source.push_down.entries(condition, shard=None, limit=None)
    assert new.key == "20001"
    assert postgres.value(known) == 20_000
    read = f"SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = '{images}'::regclass"
    # The server counts the rows when the session ends. Comparing each row of a page with each
    # image would read 400 million.
    until(lambda: postgres.value(read) > 0)
    assert postgres.value(read) < 2_000_000


def test_all_mismatches_are_named_at_once(database: Database, store: SqlLabelStore):
    """One message names each missing column, wrong type, wrong key and column in the way."""
    with store.open(API):
        pass
    database.run("DROP TABLE product_labels_images")
    database.run(
        "CREATE TABLE product_labels_images (api varchar(64) NOT NULL,"
        " key_sha256 varchar(64) NOT NULL PRIMARY KEY, image_key text NOT NULL, image_uri integer,"
        " status varchar(16) NOT NULL, content_sha256 varchar(64), labels_count integer NOT NULL,"
        " error varchar(64), code varchar(128), message text, attempts text NOT NULL,"
        " tagged_at timestamp NOT NULL, owner text NOT NULL, shade text NOT NULL DEFAULT 'x',"
        " note text)"
    )
    database.run("DROP TABLE product_labels")
    database.run(
        "CREATE TABLE product_labels (api varchar(64) NOT NULL, key_sha256 varchar(64) NOT NULL,"
        " rank integer NOT NULL, image_key text NOT NULL, image_uri text, label text NOT NULL,"
        " category text, subcategory text, scene text, tagged_at text NOT NULL)"
    )
    with pytest.raises(ConfigurationError) as caught, store.open(API):
        pass
    message = caught.value.message
    for part in (
        "'warehouse'",
        "product_labels_images: column 'version' is missing",
        "product_labels_images: column 'image_uri' is INTEGER",
        "product_labels_images: column 'attempts' is TEXT",
        "product_labels_images: column 'owner' is not used here",
        "product_labels_images: the primary key is (key_sha256), not (api, key_sha256)",
        "product_labels: column 'probability' is missing",
        "product_labels: column 'tagged_at' is TEXT",
        "product_labels: the primary key is (), not (api, key_sha256, rank)",
    ):
        assert part in message
    assert "shade" not in message
    assert "note" not in message


@pytest.mark.parametrize(("kind", "fits"), [("numeric(12, 9)", True), ("text", False)])
def test_any_kind_of_number_is_a_number(
    database: Database, store: SqlLabelStore, kind: str, fits: bool
):
    """An exact number does for a probability, and a text does not."""
    with store.open(API):
        pass
    statement = sa.schema.CreateTable(
        sa.Table("product_labels", sa.MetaData(), autoload_with=database.engine)
    ).compile(database.engine)
    assert "probability" in str(statement)
    database.run("DROP TABLE product_labels")
    database.script(
        re.sub(r"probability (DOUBLE PRECISION|FLOAT)", f"probability {kind}", str(statement))
    )
    if fits:
        write(store, tagged("a", "x"))
        [frame] = store.labels()
        assert frame["probability"].tolist() == [0.9]
    else:
        with (
            pytest.raises(ConfigurationError, match="column 'probability' is TEXT"),
            store.open(API),
        ):
            pass


def test_several_tasks_may_create_the_tables_at_once(store: SqlLabelStore):
    """One of them creates the tables, and the others find them."""
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        write(store, tagged(f"key {number}", "x"))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert len(gathered(store.labels())) == 4


def test_a_schema_is_used(postgres: Database):
    """Both tables lie in the schema, which the table's name or the parameter names."""
    postgres.run('CREATE SCHEMA "Cat alogue"')
    by_parameter = SqlLabelStore("warehouse", "labels", schema="Cat alogue")
    by_name = SqlLabelStore("warehouse", '"Cat alogue".labels')
    write(by_parameter, tagged("a", "x"))
    assert gathered(by_name.labels()) == [("a", "x")]
    assert postgres.tables("Cat alogue") == {"labels", "labels_images"}
    assert postgres.tables() == set()
    with (
        pytest.raises(ConfigurationError, match="disagree"),
        SqlLabelStore("warehouse", "other.labels", schema="Cat alogue").open(API),
    ):
        pass


def test_a_schema_that_does_not_exist_is_named(database: Database):
    """The message names connection and schema, and nothing is created."""
    with (
        pytest.raises(ConfigurationError, match=r"'warehouse'.*nowhere"),
        SqlLabelStore("warehouse", "labels", schema="nowhere").open(API),
    ):
        pass
    assert database.tables() == set()


@pytest.mark.parametrize(
    "table",
    [
        "product'; DROP TABLE victims; --",
        "x; DROP TABLE victims",
        'x"; DROP TABLE victims; --',
        '"open',
        "a.b.c",
        "a.",
        ".a",
        "",
        "two words",
        "zero\x00byte",
    ],
)
def test_a_text_that_is_no_table_is_refused(database: Database, table: str):
    """It never reaches the database."""
    database.run("CREATE TABLE victims (id integer)")
    with (
        pytest.raises(ConfigurationError, match="is not the name of a table"),
        SqlLabelStore("warehouse", table).open(API),
    ):
        pass
    assert database.tables() == {"victims"}


@pytest.mark.parametrize("name", ["x'; DROP TABLE victims; --", 'say "hi" %s :x', "Order"])
def test_a_quoted_name_is_a_name(database: Database, name: str):
    """In double quotes any text is a table's name and nothing more."""
    database.run("CREATE TABLE victims (id integer)")
    store = SqlLabelStore("warehouse", '"' + name.replace('"', '""') + '"')
    write(store, tagged("a", "x"))
    assert gathered(store.labels()) == [("a", "x")]
    assert database.tables() == {"victims", name, f"{name}_images"}


def test_a_schema_is_no_way_in(database: Database):
    """A schema with SQL in it is the name of a schema that does not exist."""
    database.run("CREATE TABLE victims (id integer)")
    with (
        pytest.raises(ConfigurationError),
        SqlLabelStore("warehouse", "labels", schema="x'; DROP TABLE victims; --").open(API),
    ):
        pass
    assert database.tables() == {"victims"}


@pytest.mark.parametrize("connection", [None, '{"conn_type": "http", "host": "x"}'])
def test_a_connection_that_is_no_database_is_named(
    connection: str | None, monkeypatch: pytest.MonkeyPatch
):
    """A missing connection and one of another kind are the configuration's fault."""
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", connection)
    with (
        pytest.raises(ConfigurationError, match="'elsewhere'"),
        SqlLabelStore("elsewhere").open(API),
    ):
        pass


# -- writing ----------------------------------------------------------------------------------


def test_writing_a_batch_twice_changes_nothing(database: Database, store: SqlLabelStore):
    """A batch whose answer got lost may be written again."""
    batch: list[Outcome] = [tagged("a", "x", "y"), tagged("b")]
    batch += [failed("c"), failed("d", final=False)]
    write(store, *batch)
    tables = ("product_labels", "product_labels_images")
    before = [sorted(database.rows(f"SELECT * FROM {table}"), key=str) for table in tables]
    write(store, *batch)
    assert before == [sorted(database.rows(f"SELECT * FROM {t}"), key=str) for t in tables]


def test_labels_are_replaced(database: Database, store: SqlLabelStore):
    """Of an image labelled again nothing of the earlier labels is left."""
    write(store, tagged("a", "x", "y", "z", version="1"), tagged("b", "keeps"))
    write(store, tagged("a", "new", version="2", minute=1))
    assert gathered(store.labels()) == [("a", "new"), ("b", "keeps")]
    assert known(store, "a") == {"a": StoredState("2", Status.TAGGED)}
    assert database.value("SELECT count(*) FROM product_labels_images") == 2


def test_a_final_failure_removes_the_labels(store: SqlLabelStore):
    """The labels of a version that is gone do not stay beside a failure."""
    write(store, tagged("a", "x", version="1"))
    write(store, failed("a", version="2"))
    assert gathered(store.labels()) == []
    assert known(store, "a") == {"a": StoredState("2", Status.FAILED)}


def test_a_failure_for_now_leaves_the_earlier_answer(store: SqlLabelStore):
    """A service that is down says nothing of an image that has labels."""
    write(store, tagged("a", "x", version="1"), failed("b", version="2"))
    write(store, *(failed(key, final=False, version="2") for key in "abc"))
    assert gathered(store.labels()) == [("a", "x")]
    assert known(store, "a", "b", "c") == {
        "a": StoredState("2", Status.WAITING, tries=1),
        "b": StoredState("2", Status.FAILED),
        "c": StoredState("2", Status.WAITING, tries=1),
    }
    write(store, tagged("c", "y", version="2"))
    assert gathered(store.labels()) == [("a", "x"), ("c", "y")]


def test_an_image_that_was_given_up_is_not_due(store: SqlLabelStore):
    """The source is not read again for the sake of it."""
    write(store, failed("a", final=False, has_given_up=True))
    with store.open(API) as opened:
        assert not opened.may_be_due(Rule(now=NOON))
        assert opened.may_be_due(Rule(now=NOON, retry_failed=True))


def test_an_image_without_labels_is_kept(database: Database, store: SqlLabelStore):
    """It was paid for, so it is not new."""
    write(store, tagged("a"))
    assert known(store, "a") == {"a": StoredState("", Status.TAGGED)}
    assert database.value("SELECT labels_count FROM product_labels_images") == 0


def test_the_failure_of_a_second_row_is_not_the_images(store: SqlLabelStore):
    """A duplicate of a key leaves the answer that the key has."""
    write(store, tagged("a", "x"), failed("a", is_of_image=False))
    assert known(store, "a") == {"a": StoredState("", Status.TAGGED)}


def test_apis_are_kept_apart(store: SqlLabelStore):
    """The answer of one interface is not the answer of another."""
    write(store, tagged("a", "x", content_sha256="0" * 64))
    with store.open("imagetag_detect") as opened:
        assert opened.known(["a"]) == {}
        assert opened.answers(["0" * 64]) == {}


def test_the_values_of_an_image_row(database: Database, store: SqlLabelStore):
    """The images table tells how each image ended."""
    write(
        store,
        tagged("a", "x", "y", version="7", content_sha256="f" * 64, attempts=3),
        failed("b", uri=None),
    )
    columns = "image_key, image_uri, version, status, content_sha256, labels_count, error, code"
    rows = database.rows(
        f"SELECT {columns}, message, attempts FROM product_labels_images ORDER BY image_key"
    )
    uri = "https://shop/a.jpg"
    assert rows == [
        ("a", uri, "7", "tagged", "f" * 64, 2, None, None, None, 3),
        ("b", None, "", "failed", None, 0, "ImageDecodeError", "-1301", "It failed.", 1),
    ]


@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_any_text_is_a_key(database: Database, store: SqlLabelStore, key: str):
    """It is written, found and read back as it is."""
    write(store, tagged(key, f"label {key}", version=key, uri=f"https://x/{key}"))
    assert known(store, key) == {key: StoredState(key, Status.TAGGED)}
    assert gathered(store.labels()) == [(key, f"label {key}")]
    assert len(database.tables()) == 2


def test_long_keys_that_end_differently_are_two(store: SqlLabelStore):
    """Keys are compared whole."""
    keys = ["😀" * 2000 + end for end in "ab"]
    write(store, *(tagged(key, key[-1]) for key in keys))
    assert gathered(store.labels()) == [(key, key[-1]) for key in keys]


def test_a_zero_byte_is_stored_as_far_as_the_database_can(store: SqlLabelStore):
    """PostgreSQL keeps no zero byte: one such key must not stop a run or be paid again."""
    write(store, tagged("a\x00b", "c\x00d"), tagged("plain", "x"))
    assert known(store, "a\x00b", "plain") == dict.fromkeys(
        ["a\x00b", "plain"], StoredState("", Status.TAGGED)
    )
    assert len(gathered(store.labels())) == 2


def test_thousands_of_keys_are_asked_for(store: SqlLabelStore):
    """A question with more keys than a statement takes parameters is asked in pieces."""
    write(store, *(tagged(f"key {number}", "x") for number in range(2500)))
    asked = [f"key {number}" for number in range(2000, 6000)]
    assert set(known(store, *asked)) == set(asked[:500])


# -- reading ----------------------------------------------------------------------------------


def test_answers_by_content(store: SqlLabelStore):
    """Equal bytes find the labels that were paid for, or the fault of the image."""
    digests = [str(digit) * 64 for digit in range(5)]
    write(
        store,
        tagged("a", "x", "y", content_sha256=digests[0]),
        tagged("empty", content_sha256=digests[1]),
        failed("b", content_sha256=digests[2]),
        failed("c", final=False, content_sha256=digests[3]),
    )
    with store.open(API) as opened:
        found = dict(opened.answers(digests))
    assert set(found) == set(digests[:3])
    first, empty, failure = (found[digest] for digest in digests[:3])
    assert isinstance(first, TagResult)
    assert isinstance(empty, TagResult)
    assert isinstance(failure, Failure)
    assert (first.labels, first.tagged_at, first.content_sha256) == (
        labels_named("x", "y"),
        NOON,
        digests[0],
    )
    assert empty.labels == ()
    assert (failure.error, failure.code, failure.message) == (
        "ImageDecodeError",
        "-1301",
        "It failed.",
    )


def test_answers_of_copies(store: SqlLabelStore):
    """Of images with equal bytes any answers for the others, with its own labels only."""
    digest = "a" * 64
    write(store, *(tagged(f"copy {n}", "x", "y", content_sha256=digest) for n in range(20)))
    with store.open(API) as opened:
        [answer] = opened.answers([digest]).values()
    assert isinstance(answer, TagResult)
    assert answer.labels == labels_named("x", "y")


def test_labels_come_in_frames(store: SqlLabelStore):
    """Frames have a labels frame's columns and types, and about as many rows as asked for."""
    write(store, *(tagged(f"key {number:03}", "x", "y", "z") for number in range(40)))
    frames = list(store.labels(frame_rows=25))
    assert [len(frame) for frame in frames] == [25, 25, 25, 25, 20]
    for frame in frames:
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(LABEL_COLUMNS)
    first = frames[0].iloc[0]
    assert (first["rank"], first["label"], first["probability"]) == (1, "x", 0.9)
    assert first["scene"] is not None
    assert frames[0]["scene"].isna().all()


def test_an_empty_store_has_no_frames(store: SqlLabelStore):
    """Nothing is nothing."""
    assert list(store.labels()) == []


STORED: list[tuple[str | None, str, str | None]] = [
    (None, "", None),
    *itertools.product(("tagged", "failed", "waiting"), ("", "v1"), (None, "https://x/a")),
]
NOW = list(itertools.product((None, "", "v1", "v2"), (None, "", "  ", "https://x/a")))


@pytest.fixture
def every_case(database: Database, store: SqlLabelStore) -> list[tuple[str, Any, Any]]:
    """Fill a store and a source with every pair of a stored state and a present one."""
    outcomes: list[TagResult | Failure] = []
    cases = []
    for number, (stored, now) in enumerate(itertools.product(STORED, NOW)):
        key = f"case {number}"
        cases.append((key, stored, now))
        status, version, uri = stored
        if status == "tagged":
            outcomes.append(tagged(key, "x", version=version, uri=uri))
        elif status is not None:
            outcomes.append(failed(key, final=status == "failed", version=version, uri=uri))
    write(store, *outcomes)
    database.run("CREATE TABLE products (id varchar(99) PRIMARY KEY, image_url text, changed text)")
    database.run(
        "INSERT INTO products VALUES (:id, :uri, :version)",
        *({"id": key, "uri": now[1], "version": now[0]} for key, _, now in cases),
    )
    return cases


def test_the_database_decides_as_the_rule_does(
    store: SqlLabelStore, every_case: list[tuple[str, Any, Any]]
):
    """In every case, the condition in SQL and the rule for single images agree."""
    source = SqlImages("warehouse", table="products", version="changed")
    disagreements = []
    decisions = set()
    for retag, retry_failed, need in itertools.product(Retag, (False, True), (None, *Need)):
        rule = Rule(retag, retry_failed, need=need)
        with store.open(API) as opened:
            in_sql = selected(source, opened.condition(rule))
            held = pending_entries(source.entries(), opened, rule)
            in_chunks = {entry.key for entry in held}
        for key, (status, version, uri), (version_now, uri_now) in every_case:
            stored = StoredState(version, Status(status), uri is not None) if status else None
            has_uri = bool((uri_now or "").strip())
            one = rule.is_pending(stored, version=version_now, has_uri=has_uri)
            decisions.add(one)
            if not one == (key in in_sql) == (key in in_chunks):
                disagreements.append(
                    (rule, stored, version_now, uri_now, one, key in in_sql, key in in_chunks)
                )
    assert disagreements == []
    assert decisions == {True, False}


def test_the_condition_holds_for_sources_without_uris(database: Database, store: SqlLabelStore):
    """A source of bytes has no URI to compare."""
    write(store, failed("a", uri=None), failed("b", uri=None), tagged("c", "x", uri=None))
    database.run(
        "CREATE TABLE photos (id varchar(9) PRIMARY KEY, data BLOB)".replace(
            "BLOB", "bytea" if database.is_postgres else "BLOB"
        )
    )
    database.run(
        "INSERT INTO photos VALUES (:id, :data)", *({"id": key, "data": b"x"} for key in "abcd")
    )
    source = SqlImages("warehouse", table="photos", content="data")
    for retry_failed, expected in ((False, {"d"}), (True, {"a", "b", "d"})):
        with store.open(API) as opened:
            assert selected(source, opened.condition(Rule(retry_failed=retry_failed))) == expected


# -- several writers, and faults --------------------------------------------------------------


def test_two_writers_of_the_same_images(database: Database, store: SqlLabelStore):
    """They take turns: no error, no row twice, and each image has the labels of one of them."""
    rounds, keys = 6, [f"key {number}" for number in range(60)]
    barrier = threading.Barrier(4)

    def work(writer: int) -> None:
        with store.open(API) as opened:
            for number in range(rounds):
                barrier.wait()
                mixed = keys if writer % 2 else keys[::-1]
                batch: list[TagResult | Failure] = []
                for place, key in enumerate(mixed):
                    if place % 7 == writer:
                        batch.append(failed(key, final=False))
                    else:
                        names = [f"{writer}-{number}-{rank}" for rank in range(1 + writer)]
                        batch.append(tagged(key, *names))
                opened.write(batch)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    rows = gathered(store.labels())
    assert len(rows) == len(set(rows))
    for key in keys:
        writers = {label.rpartition("-")[0] for found, label in rows if found == key}
        assert len(writers) == 1
        [writer] = writers
        assert sum(found == key for found, _ in rows) == 1 + int(writer[0])
    counted = database.value("SELECT sum(labels_count) FROM product_labels_images")
    assert counted == len(rows)


KILLED_WRITER = """
import os, signal, sys
import sqlalchemy as sa
sys.path.insert(0, sys.argv[1])
from databases import API, tagged
from airflow_imagetag.stores import SqlLabelStore

with SqlLabelStore("warehouse", "product_labels").open(API) as opened:
    @sa.event.listens_for(opened._tables.engine, "before_cursor_execute")
    def kill(connection, cursor, statement, *rest):
        if statement.startswith("INSERT INTO product_labels "):
            os.kill(os.getpid(), signal.SIGKILL)
    opened.write([tagged("old", "newer", version="2"), tagged("new", "x")])
"""


def test_a_writer_killed_in_the_middle_leaves_nothing(database: Database, store: SqlLabelStore):
    """Image rows without their labels never stay, and the next writer need not wait."""
    write(store, tagged("old", "labels", version="1"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, str(Path(__file__).resolve().parent.parent)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "AIRFLOW_CONN_WAREHOUSE": database.connection_json},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert known(store, "old", "new") == {"old": StoredState("1", Status.TAGGED)}
    assert gathered(store.labels()) == [("old", "labels")]
    write(store, tagged("new", "x"))
    assert gathered(store.labels()) == [("new", "x"), ("old", "labels")]


@contextmanager
def gone(database: Database) -> Iterator[None]:
    """Take the database away for a while."""
    if not database.is_postgres:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            yield
        return
    name = database.engine.url.database
    # Every server has this database; the closed one admits no session.
    engine = sa.create_engine(
        database.engine.url.set(database="postgres"), poolclass=sa.pool.NullPool, future=True
    )
    admin = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        admin.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"),
            {"n": name},
        )
        yield
    finally:
        admin.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        admin.close()
        engine.dispose()


def test_a_database_that_comes_back_gets_the_batch(
    database: Database, caplog: pytest.LogCaptureFixture
):
    """A batch that was paid for is retried until it is written."""
    store = ImpatientStore("warehouse", "product_labels", retry_seconds=60)
    with store.open(API) as opened, ThreadPoolExecutor(1) as threads:
        opened.write([tagged("a", "x")])
        with gone(database):
            writing = threads.submit(opened.write, [tagged("b", "y")])
            until(lambda: "could not be written to product_labels_images" in caplog.text)
            assert not writing.done()
        writing.result(60)
    assert gathered(store.labels()) == [("a", "x"), ("b", "y")]


@pytest.fixture
def impatient(database: Database) -> ImpatientStore:
    """Describe a store that gives up early."""
    return ImpatientStore(database.conn_id, "product_labels")


def test_a_database_that_stays_away_is_a_store_error(database: Database, impatient: ImpatientStore):
    """The message names the table and the reason, and holds no labels or statements."""
    with impatient.open(API) as opened, gone(database):
        with pytest.raises(StoreError, match="1 images could not be written to") as caught:
            opened.write([tagged("the key", "the label")])
        assert "product_labels_images" in caught.value.message
        assert "the key" not in caught.value.message


def test_a_table_that_is_dropped_meanwhile_is_a_store_error(
    database: Database, impatient: ImpatientStore
):
    """A statement that the database refuses raises the same error as one that it cannot answer."""
    with impatient.open(API) as opened:
        database.run("DROP TABLE product_labels")
        with pytest.raises(StoreError, match="product_labels"):
            opened.write([tagged("a", "x")])
    assert database.value("SELECT count(*) FROM product_labels_images") == 0


def test_labels_that_were_paid_and_not_stored_are_in_an_xcom(
    database: Database,
    impatient: ImpatientStore,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
):
    """A task whose database goes away fails, and the labels that it paid for are in ``unsaved``."""
    images = [Image(f"key {n}", content=data) for n, data in enumerate(small_jpegs(120))]
    task_instance = TaskInstance()
    operator = ImageTagOperator(
        task_id="label", images=images, store=impatient, batch_size=10, max_in_flight=4
    )
    with Emulator(faults=Faults(latency_seconds=0.02)) as service:
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", unlimited(service))
        ended = threading.Event()

        def take_away() -> None:
            while service.stats.billed < 40:
                assert not ended.wait(0.01)
            with gone(database):
                ended.wait(60)

        with ThreadPoolExecutor(1) as threads:
            away = threads.submit(take_away)
            with pytest.raises(StoreError):
                operator.execute({"ti": task_instance})
            ended.set()
            away.result()
        billed = service.stats.billed
    stored = {key for (key,) in database.rows("SELECT image_key FROM product_labels_images")}
    unsaved = set(task_instance.xcoms["unsaved"]["image_key"])
    assert 0 < len(stored) < 120
    assert unsaved
    assert not unsaved & stored
    assert len(unsaved | stored) == billed
    assert len(stored) <= task_instance.xcoms["summary"]["tagged"] <= billed
    json.dumps(task_instance.xcoms["summary"])


def test_a_key_is_found_by_its_digest(database: Database, store: SqlLabelStore):
    """``key_sha256`` is the hexadecimal SHA-256 of the key's UTF-8, as analysts may compute it."""
    write(store, tagged("Grüße", "x"))
    assert database.value("SELECT key_sha256 FROM product_labels") == key_digest("Grüße")
    if database.is_postgres:
        computed = "encode(sha256(convert_to(image_key, 'UTF8')), 'hex')"
        assert database.value(f"SELECT key_sha256 = {computed} FROM product_labels")

"""Stores that version 0.1.0 has made: read as they are, and upgraded in place."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import NOON, Database, failed, gathered, tagged

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.selection.rules import Rule, Status, StoredState
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore, StoreMode

OLD = Path(__file__).parent / "version_0_1_0"
API = "DetectLabelPro"

STATES = {
    "a": StoredState("1", Status.TAGGED),
    "b": StoredState("1", Status.TAGGED),
    "c": StoredState("1", Status.FAILED),
    "d": StoredState("1", Status.WAITING),
    "e": StoredState("1", Status.TAGGED),
}
LABELS = [("a", "animal"), ("a", "cat"), ("e", "dog")]
ADDED = {"tries", "first_failed_at", "next_try_at", "missing_since"}


def columns(database: Database) -> set[str]:
    """Return the names of the columns of the images table."""
    found = sa.inspect(database.engine).get_columns("product_labels_images")
    return {column["name"] for column in found}


def make_old_tables(database: Database) -> None:
    """Make the tables with the statements of version 0.1.0."""
    text = (OLD / "tables.sql").read_text()
    if database.is_postgres:
        text = text.replace("DATETIME", "timestamp with time zone")
    elif database.is_mysql:
        text = text.replace("DATETIME", "DATETIME(6)").replace("FLOAT", "FLOAT(53)")
        text = (
            text.replace("rank", "`rank`")
            .replace('"', "`")
            .replace("(image_key)", "(image_key(191))")
        )
    for statement in filter(str.strip, text.split(";\n")):
        database.script(statement)


@pytest.fixture
def old_tables(database: Database) -> Database:
    """Give a database with a store of version 0.1.0."""
    make_old_tables(database)
    return database


@pytest.fixture(params=["postgres", "sqlite", "mariadb", "parquet"])
def old_store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Give a store of version 0.1.0."""
    if request.param == "parquet":
        shutil.copytree(OLD / "parquet", tmp_path / "lake")
        return ParquetLabelStore(f"{tmp_path}/lake")
    make_old_tables(request.getfixturevalue(request.param))
    return SqlLabelStore("warehouse", "product_labels")


@pytest.mark.parametrize("mode", [StoreMode.READ, StoreMode.WRITE])
def test_nothing_is_labelled_again(old_store: LabelStore, mode: StoreMode):
    """An image that waits has no time of a next try, so it is due; all others are settled."""
    with old_store.open(API, mode) as opened:
        assert opened.known("abcde") == STATES
        states = opened.known("abcde")
        rule = Rule(now=NOON)
        due = [
            key
            for key, state in states.items()
            if rule.is_pending(state, version="1", has_uri=True)
        ]
        assert due == ["d"]
        found = opened.answers(["a" * 64, "d" * 64])
        assert set(found) == {"a" * 64}, "an image that waits has no answer"
        counts = opened.unlabelled(NOON)
        assert counts is not None
        assert (counts.waiting, counts.due, counts.gave_up) == (1, 1, 0)
        assert opened.may_be_due(rule)
    assert gathered(old_store.labels()) == LABELS


def test_new_rows_stand_beside_old_ones(old_store: LabelStore):
    """A failure that may pass gets its times, and labels of earlier versions stay."""
    for _ in range(2):
        with old_store.open(API) as opened:
            opened.write(
                [
                    failed("a", final=False, version="2", next_try_at=NOON, first_failed_at=NOON),
                    failed("d", final=False, version="1", next_try_at=NOON, first_failed_at=NOON),
                    replace(tagged("f", "new", version="1"), api=API),
                ]
            )
    with old_store.open(API) as opened:
        waiting = StoredState("2", Status.WAITING, True, NOON, 1, NOON)
        assert opened.known("ad") == {
            "a": waiting,
            "d": StoredState("1", Status.WAITING, True, NOON, 1, NOON),
        }
        assert set(opened.answers(["a" * 64])) == {"a" * 64}
    assert gathered(old_store.labels()) == [*LABELS, ("f", "new")]


def test_a_query_adds_no_column(old_tables: Database, caplog: pytest.LogCaptureFixture):
    """A sensor reads a store as it is; the first run upgrades it, and says so."""
    store = SqlLabelStore("warehouse", "product_labels")
    # Airflow's settings of logging would take the handler away from the root.
    log = logging.getLogger("airflow_imagetag.stores.sql_tables")
    with store.open(API, StoreMode.READ):
        assert not ADDED & columns(old_tables)
    log.addHandler(caplog.handler)
    with store.open(API):
        assert columns(old_tables) >= ADDED
    log.removeHandler(caplog.handler)
    added = "tries, first_failed_at, next_try_at, missing_since"
    assert f"Adding the columns {added} to product_labels_images" in caplog.text
    assert gathered(store.labels()) == LABELS


def test_a_table_that_does_not_fit_is_not_changed(old_tables: Database):
    """The mismatch is reported before a column is added."""
    old_tables.run("ALTER TABLE product_labels_images RENAME COLUMN version TO release")
    with (
        pytest.raises(ConfigurationError, match="column 'version' is missing"),
        SqlLabelStore("warehouse", "product_labels").open(API),
    ):
        pass
    assert not ADDED & columns(old_tables)


def test_a_database_that_refuses_the_columns_names_the_statements(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
):
    """The owner of the table can run them."""
    make_old_tables(postgres)
    with contextlib.suppress(sa.exc.ProgrammingError):
        # Roles are those of the server, which the tests share.
        postgres.script("CREATE ROLE only_writes LOGIN")
    postgres.script(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON product_labels, product_labels_images"
        " TO only_writes"
    )
    connection = json.loads(postgres.connection_json) | {"login": "only_writes"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    with (
        pytest.raises(
            ConfigurationError,
            match=r"ALTER TABLE product_labels_images ADD tries INTEGER; .* ADD next_try_at",
        ),
        SqlLabelStore("warehouse", "product_labels").open(API),
    ):
        pass

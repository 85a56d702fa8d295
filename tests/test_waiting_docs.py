"""The behaviour that the pages on waiting and on assets describe."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.triggers.base import BaseTrigger

from airflow_imagetag.assets import announced_images
from airflow_imagetag.errors import ConfigurationError, UnknownConnectionError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.jobs import OUTLET_COUNTS
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.triggers.imagetag import NewImagesTrigger

JULY = "2026-07-01 12:00:00"


@pytest.fixture(autouse=True)
def account(emulator, monkeypatch):
    """Make the emulator the account that labels."""
    connection = json.loads(emulator.connection_json)
    connection["extra"]["requests_per_second"] = 0
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))


@pytest.fixture
def items(database) -> str:
    """Make a table with rows of all kinds, and return the connection."""
    kind = "bytea" if database.is_postgres else "blob"
    database.run(
        f"CREATE TABLE items (id varchar(9) PRIMARY KEY, url text, data {kind}, changed timestamp)"
    )
    database.run(
        "INSERT INTO items VALUES (:id, :url, :data, :changed)",
        {"id": "a", "url": "http://e/a.jpg", "data": b"a", "changed": JULY},
        {"id": "b", "url": None, "data": None, "changed": JULY},
        {"id": "c", "url": " ", "data": b"", "changed": JULY},
        {"id": "d", "url": "https://u:p@e/d.jpg?token=1", "data": b"d", "changed": None},
    )
    return database.conn_id


def check(**fields: Any) -> list[dict[str, Any]] | None:
    """Return the sensor's images after one check; None where it goes on waiting."""
    return NewImagesSensor(task_id="wait", **fields).poke({}).xcom_value


@pytest.mark.parametrize("column", ["uri", "content"])
def test_rows_without_an_image_are_never_new(items, column):
    """NULL, blank text and an empty BLOB are not new, as URIs and as bytes."""
    name = {"uri": "url", "content": "data"}[column]
    images = SqlImages(items, table="items", **{column: name})
    assert [image.key for image in images.images()] == ["a", "d"]
    assert check(images=images, store=store(items), min_images=2) is not None
    assert check(images=images, store=store(items), min_images=3) is None


def store(conn_id: str) -> SqlLabelStore:
    """Return a store in the same database."""
    return SqlLabelStore(conn_id, table="item_labels")


def test_the_sensor_writes_nothing(items, database):
    """The sensor makes no label tables, and treats missing ones as empty."""
    before = database.tables()
    assert check(images=SqlImages(items, table="items", uri="url"), store=store(items))
    assert database.tables() == before


def test_without_a_store_changed_rows_are_new(items):
    """A row is new from the given moment on, in any zone; a row without a time is not."""
    images = SqlImages(items, table="items", uri="url", version="changed")
    for moment in ("2026-07-01T12:00:00", "2026-07-01T14:00:00+02:00"):
        found = check(images=images, modified_after=moment)
        assert found is not None
        assert [image["image_key"] for image in found] == ["a"]
    assert check(images=images, modified_after="2026-07-01T12:00:01") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "store="),
        ({"modified_after": "2026-07-01"}, "version="),
        ({"modified_after": "yesterday"}, "modified_after"),
        ({"store": SqlLabelStore("warehouse"), "retag": "always"}, "always"),
        ({"store": SqlLabelStore("warehouse"), "settle_seconds": 5}, "version="),
        ({"store": SqlLabelStore("warehouse"), "imagetag_conn_id": "nobody"}, "nobody"),
    ],
)
def test_errors_that_waiting_does_not_cure_fail_at_once(items, fields, message):
    """An invalid parameter or a missing connection raises in the first check."""
    with pytest.raises(ConfigurationError, match=message):
        check(images=SqlImages(items, table="items", uri="url"), **fields)


def test_tables_connections_and_folders_that_are_not_there_fail_at_once(items, tmp_path):
    """So does a missing table, connection or folder of source or store."""
    with pytest.raises(ConfigurationError, match="nothing"):
        check(images=SqlImages(items, table="nothing"), store=store(items))
    with pytest.raises(UnknownConnectionError):
        check(images=SqlImages("nobody", table="items"), store=store(items))
    with pytest.raises(ConfigurationError, match="There is no"):
        check(images=ObjectStorageImages(f"{tmp_path}/nothing"), store=store(items))


@pytest.mark.parametrize(
    ("fields", "uris", "lacking"),
    [
        ({"uri": "url"}, ["http://e/a.jpg"], 1),
        ({"content": "data"}, [], 2),
    ],
)
def test_images_that_an_xcom_may_not_hold_are_left_out_with_a_warning(
    items, fields, uris, lacking, caplog, capsys
):
    """URIs with a password or a signature, and bytes, are left out of the list."""
    found = check(images=SqlImages(items, table="items", **fields), store=store(items))
    assert found is not None
    assert [image["image_uri"] for image in found] == uris
    # Airflow 3 writes to the output, Airflow 2 to Python's logging.
    said = capsys.readouterr().out + caplog.text
    assert f"{lacking} images are left out" in said


def test_bytes_are_not_handed_to_a_trigger():
    """A trigger cannot keep bytes: without them it would wait for ever."""
    with pytest.raises(ConfigurationError, match="bytes"):
        NewImagesTrigger(images=[b"a", "http://e/a.jpg"], store=SqlLabelStore("warehouse"))


@pytest.mark.parametrize(
    ("path", "is_template"), [("s3://photos/{{ ds }}/", True), ("s3://photos/", False)]
)
def test_templates_start_in_the_triggerer_only_where_it_renders_them(path, is_template):
    """Triggers of Airflow 2.11 render none, and would list a path with braces."""
    renders = hasattr(BaseTrigger, "render_template_fields")
    sensor = NewImagesSensor(
        task_id="wait",
        images=ObjectStorageImages(path),
        store=SqlLabelStore("warehouse"),
        deferrable=True,
        start_from_trigger=True,
    )
    assert sensor.start_from_trigger is (renders or not is_template)
    assert (sensor.start_trigger_args is not None) is sensor.start_from_trigger


def test_the_output_of_another_task_cannot_start_in_the_triggerer():
    """The output is not known before a worker runs."""
    with DAG("two_tasks", schedule=None):
        first = ImageTagOperator(task_id="first", images=["http://e/a.jpg"])
        with pytest.raises(ConfigurationError, match="another task"):
            NewImagesSensor(
                task_id="wait",
                images=first.output,
                store=SqlLabelStore("warehouse"),
                deferrable=True,
                start_from_trigger=True,
            )


# --- Assets


TEMPLATED = [
    SqlLabelStore("{{ params.warehouse }}"),
    SqlLabelStore("warehouse", table="{% if params.a %}a{% else %}b{% endif %}"),
    ParquetLabelStore("s3://lake/{# where #}labels"),
]


@pytest.mark.parametrize("templated", TEMPLATED, ids=repr)
def test_a_store_with_a_template_is_no_outlet(templated):
    """A store with any kind of template has no asset; the task can still be made."""
    assert ImageTagOperator(task_id="label", images=[], store=templated).outlets == []
    with pytest.raises(ConfigurationError, match="rendered"):
        _ = templated.asset


def test_the_store_is_an_outlet_beside_others():
    """The outlets of the author stay, and the store's is not there twice."""
    labels = SqlLabelStore("warehouse")
    other = SqlLabelStore("warehouse", table="other").asset
    for outlets in ([], [other], [other, labels.asset]):
        task = ImageTagOperator(task_id="label", images=[], store=labels, outlets=list(outlets))
        assert task.outlets == [*[each for each in outlets if each == other], labels.asset]


@pytest.mark.parametrize("is_named_by_hand", [False, True])
def test_counts_go_into_the_event_of_the_outlet(is_named_by_hand, items):
    """The event has the counts when nothing was new, and when the author named the asset."""
    labels = store(items)
    task = ImageTagOperator(
        task_id="label",
        images=[],
        store=labels,
        outlets=[labels.asset] if is_named_by_hand else [],
    )
    [outlet] = task.outlets
    told = {outlet: SimpleNamespace(extra=None)}
    task.execute({"outlet_events": told})
    assert told[outlet].extra == dict.fromkeys(OUTLET_COUNTS, 0)


def test_announced_images_come_once_each():
    """Images of several events are returned once each; other kinds of events are ignored."""
    image = {"image_key": "1", "image_uri": "http://e/1.jpg", "version": "1"}
    changed = image | {"version": "2"}
    events = [SimpleNamespace(extra={"payload": {"images": found}}) for found in ([image], [])]
    again = SimpleNamespace(extra={"payload": {"images": [image, changed]}})
    other = SimpleNamespace(extra={"tagged": 3})
    assert announced_images({"a": [*events, other], "b": [again]}) == [image, changed]

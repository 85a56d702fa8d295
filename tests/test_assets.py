"""Assets: a store as the scheduler sees it, and the images that start a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import airflow
import pytest
from airflow.providers.common.compat.sdk import DAG, Asset
from databases import Database

from airflow_imagetag.assets import announced_images, create_asset, sanitize_uri, watch_images
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.jobs import OUTLET_COUNTS
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.base import LabelStore
from airflow_imagetag.testing import Emulator
from airflow_imagetag.triggers.imagetag import NewImagesTrigger

try:
    from airflow.sdk.execution_time.context import OutletEventAccessors
except ImportError:
    from airflow.utils.context import OutletEventAccessors

AIRFLOW_2 = airflow.__version__.startswith("2.")

# -- URIs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("imagetag://warehouse/labels", "imagetag://warehouse/labels"),
        ("imagetag://warehouse/labels/", "imagetag://warehouse/labels"),
        ("imagetag://warehouse/shop/labels", "imagetag://warehouse/shop/labels"),
        ("imagetag://warehouse/my%20labels", "imagetag://warehouse/my%20labels"),
    ],
)
def test_the_normal_form_of_a_tables_uri(uri: str, expected: str):
    """Two ways to write it are one asset, and the normal form is its own."""
    assert sanitize_uri(urlsplit(uri)).geturl() == expected
    assert sanitize_uri(urlsplit(expected)).geturl() == expected
    assert Asset(uri).uri == expected


@pytest.mark.parametrize(
    "uri",
    [
        "imagetag://warehouse",
        "imagetag://warehouse/",
        "imagetag:///labels",
        "imagetag://warehouse/a/b/c",
        "imagetag://warehouse/a//b",
    ],
)
def test_a_uri_names_a_table(uri: str):
    """The message shows the form of a URI."""
    with pytest.raises(ValueError, match="imagetag://connection/table"):
        sanitize_uri(urlsplit(uri))


STORES: list[tuple[LabelStore, str]] = [
    (SqlLabelStore("warehouse"), "imagetag://warehouse/image_labels"),
    (SqlLabelStore("warehouse", "labels", schema="shop"), "imagetag://warehouse/shop/labels"),
    (SqlLabelStore("warehouse", "shop.labels"), "imagetag://warehouse/shop/labels"),
    (SqlLabelStore("warehouse", '"my labels"'), "imagetag://warehouse/my%20labels"),
    (SqlLabelStore("warehouse", '"a/b"."c?d#e"'), "imagetag://warehouse/a%2Fb/c%3Fd%23e"),
    (ParquetLabelStore("s3://lake/labels"), "s3://lake/labels"),
    (ParquetLabelStore("s3://aws_default@lake/labels/"), "s3://lake/labels"),
    (ParquetLabelStore("s3://lake/labels", "aws_other"), "s3://lake/labels"),
    (ParquetLabelStore("s3://aws_default@lake"), "s3://lake/"),
    (ParquetLabelStore("s3://lake/labels#1/"), "s3://lake/labels%231"),
    (ParquetLabelStore("s3://lake/labels#2/"), "s3://lake/labels%232"),
    (ParquetLabelStore("s3://lake/a?b=1&a=2"), "s3://lake/a%3Fb=1&a=2"),
    (ParquetLabelStore("s3://lake/a%231"), "s3://lake/a%25231"),
    (ParquetLabelStore("s3://lake/my labels "), "s3://lake/my%20labels%20"),
    (ParquetLabelStore("s3://lake/a\tb/\u65e5"), "s3://lake/a%09b/%E6%97%A5"),
    (ParquetLabelStore("file:///data/labels"), "file:///data/labels"),
    (ParquetLabelStore("file:///data/my%20labels%231"), "file:///data/my%20labels%231"),
    (ParquetLabelStore("/data/my labels#1"), "file:///data/my%20labels%231"),
    (ParquetLabelStore("/data/labels/"), "file:///data/labels"),
]


@pytest.mark.parametrize(("store", "uri"), STORES)
def test_a_store_is_an_asset(store: LabelStore, uri: str):
    """The same place is the same asset, however it is written; Airflow changes nothing in it."""
    assert store.asset_uri == uri
    assert store.asset.uri == uri
    assert store.asset == store.asset
    assert Asset(uri).uri == uri


def test_the_asset_of_a_table_by_its_parts():
    """It is the store's."""
    store = SqlLabelStore("warehouse", "labels", schema="shop")
    assert create_asset(conn_id="warehouse", table="labels", schema="shop") == store.asset
    assert create_asset(conn_id="warehouse", table="shop.labels") == store.asset


@pytest.mark.parametrize(
    "store",
    [
        SqlLabelStore("warehouse", "{{ params.table }}"),
        SqlLabelStore("{% if x %}a{% endif %}"),
        ParquetLabelStore("s3://lake/{{ ds }}"),
    ],
)
def test_a_template_is_no_asset(store: LabelStore):
    """An asset must be known when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="when its templates are rendered"):
        _ = store.asset


# -- the start of a run -----------------------------------------------------------------------


class Happened:
    """An asset event, as a run's context has it."""

    def __init__(self, extra: Any) -> None:
        self.extra = extra


def of(*keys: str, version: str = "v1") -> Happened:
    """Return the event of a watcher."""
    images = [{"image_key": key, "image_uri": f"s3://b/{key}", "version": version} for key in keys]
    return Happened({"from_trigger": True, "payload": {"status": "success", "images": images}})


def test_the_images_that_started_a_run():
    """All events count, and an image that was announced twice is one."""
    found = announced_images({"photos": [of("a", "b"), of("b", "c")], "others": [of("a", "d")]})
    assert [image["image_key"] for image in found] == ["a", "b", "c", "d"]
    assert found[0] == {"image_key": "a", "image_uri": "s3://b/a", "version": "v1"}


def test_versions_are_told_apart():
    """An image that was replaced between two events is in both."""
    found = announced_images({"photos": [of("a"), of("a", version="v2")]})
    assert [image["version"] for image in found] == ["v1", "v2"]


@pytest.mark.parametrize(
    "events",
    [
        None,
        {},
        {"photos": []},
        {"photos": [Happened(None)]},
        {"photos": [Happened({})]},
        {"photos": [Happened({"payload": None})]},
        {"photos": [Happened({"payload": "a message"})]},
        {"photos": [Happened({"payload": {"rows": 7}})]},
        {"labels": [Happened({"tagged": 7})]},
    ],
)
def test_a_run_that_no_images_started(events: Any):
    """It was started by hand, or by an event of another kind."""
    assert announced_images(events) == []


def test_other_events_do_not_hide_the_images():
    """A run may have several reasons."""
    events = {"labels": [Happened({"tagged": 7})], "photos": [Happened({"payload": "x"}), of("a")]}
    assert [image["image_key"] for image in announced_images(events)] == ["a"]


# -- watching ---------------------------------------------------------------------------------

PHOTOS = ObjectStorageImages("s3://aws_default@photos/")
LABELS = ParquetLabelStore("s3://aws_default@lake/labels")


@pytest.mark.skipif(not AIRFLOW_2, reason="Airflow 3 has watchers")
def test_airflow_2_watches_nothing():
    """The message names the replacement."""
    with pytest.raises(ConfigurationError, match=r"Airflow 3.*NewImagesSensor"):
        watch_images("photos", images=PHOTOS, store=LABELS)


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 has no watchers")
def test_an_asset_with_a_watcher():
    """Made anew at each parse of the DAG file, it is the same."""
    assets = [watch_images("photos", images=PHOTOS, store=LABELS, min_images=5) for _ in range(2)]
    for asset in assets:
        [watcher] = asset.watchers
        assert (asset.name, watcher.name) == ("photos", "photos")
        # Airflow may keep the trigger or its serialized form.
        trigger = watcher.trigger
        if isinstance(trigger, dict):
            trigger = NewImagesTrigger(**trigger["kwargs"])
        kwargs = NewImagesTrigger(images=PHOTOS, store=LABELS, min_images=5).serialize()[1]
        assert trigger.serialize()[1] == kwargs
    assert assets[0].uri == assets[1].uri


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 has no watchers")
def test_a_watcher_needs_a_store():
    """The DAG's author sees it at once."""
    with pytest.raises(ConfigurationError, match="store="):
        watch_images("photos", images=PHOTOS)


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 has no watchers")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"min_images": 0}, "min_images"),
        ({"retag": "always"}, "retag"),
        ({"modified_after": "{{ ds }}"}, "modified_after"),
        ({"settle_seconds": -1}, "settle_seconds"),
        ({"poke_interval": -3}, "poke_interval"),
    ],
)
def test_a_watcher_with_a_wrong_parameter(fields: dict[str, Any], said: str):
    """Seen when the DAG is parsed, and not in the triggerer's log alone."""
    with pytest.raises(ConfigurationError, match=said):
        watch_images("photos", images=PHOTOS, store=SqlLabelStore("warehouse"), **fields)


# -- events of the operator ------------------------------------------------------------------


def operator(**fields: Any) -> ImageTagOperator:
    """Make a task."""
    return ImageTagOperator(**({"task_id": "label", "images": ["https://x"]} | fields))


def uris(task: Any) -> list[str]:
    """Return the URIs of a task's outlets."""
    return [outlet.uri for outlet in task.outlets]


def test_a_store_is_an_outlet():
    """Once, whether or not the author named it too; other outlets stay."""
    store = SqlLabelStore("warehouse")
    other = Asset("s3://elsewhere/x")
    assert uris(operator(store=store)) == [store.asset.uri]
    assert uris(operator(store=store, outlets=[store.asset])) == [store.asset.uri]
    assert uris(operator(store=store, outlets=other)) == [other.uri, store.asset.uri]
    given = [other]
    assert uris(operator(store=store, outlets=given)) == [other.uri, store.asset.uri]
    assert given == [other]


def test_outlets_of_the_dag_are_kept():
    """Those that default_args gives to every task."""
    given = SqlLabelStore("warehouse", "others").asset
    with DAG("d", schedule=None, default_args={"outlets": [given]}):
        task = operator(store=SqlLabelStore("warehouse"))
    assert uris(task) == [given.uri, SqlLabelStore("warehouse").asset.uri]


def test_a_task_without_a_known_store_has_no_outlet():
    """Its store is missing, or is known only when the task runs."""
    assert operator().outlets == []
    assert operator(store=SqlLabelStore("warehouse", "{{ params.table }}")).outlets == []
    assert operator(store=SqlLabelStore("warehouse", "{% raw %}x{% endraw %}")).outlets == []


def test_a_mapped_task_has_the_outlets_of_its_partial():
    """Airflow knows of no others, and would refuse an event of one."""
    store = SqlLabelStore("warehouse")
    with DAG("d", schedule=None):
        plain = ImageTagOperator.partial(task_id="plain", store=store)
        named = ImageTagOperator.partial(task_id="named", store=store, outlets=[store.asset])
        mapped = [one.expand(images=[["https://x"]]) for one in (plain, named)]
    tasks = [one.unmap({"images": ["https://x"]}) for one in mapped]
    assert all(isinstance(task, ImageTagOperator) for task in tasks)
    assert [uris(task) for task in tasks] == [[], [store.asset.uri]]


def test_the_event_holds_the_counts(
    sqlite: Database, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """A DAG that it starts knows the number of new labels; another outlet's event is left alone."""
    images = [
        Image(f"{number}", content=data, version="v") for number, data in enumerate(small_jpegs(5))
    ]
    images[2] = Image("2", content=b"no picture", version="v")
    other = Asset("s3://elsewhere/x")
    store = SqlLabelStore("warehouse")
    task = operator(images=images, store=store, outlets=[other], max_failure_ratio=1)
    for tagged, failed in ((4, 1), (0, 0)):
        events = OutletEventAccessors()
        summary = task.execute({"outlet_events": events})
        assert isinstance(summary, dict)
        extra = events[store.asset].extra
        assert extra == {name: summary[name] for name in OUTLET_COUNTS}
        assert (extra["tagged"], extra["failed"]) == (tagged, failed)
        assert events[other].extra == {}


def test_a_task_without_the_outlet_tells_nothing(
    sqlite: Database, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """Its author took it away, or the store was a template."""
    task = operator(
        images=[Image("a", content=small_jpegs(1)[0])], store=SqlLabelStore("warehouse")
    )
    task.outlets = []
    events = OutletEventAccessors()
    task.execute({"outlet_events": events})
    assert len(events) == 0

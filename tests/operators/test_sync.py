"""What left the source: marked or deleted in the store, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket
from databases import API, Database, TaskInstance, add, tagged, unlimited
from xcoms import through_xcom

from airflow_imagetag.errors import ConfigurationError, TooManyMissingError
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.sync import ImageTagSyncOperator
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator

OTHER = "DetectLabel"
OBJECTS = 1_000
"""Of the bucket; a whole number of hundreds."""

PRODUCTS = SqlImages("warehouse", table="products", version="version")


def sync(images: Any, store: LabelStore, **parameters: Any) -> dict[str, Any]:
    """Run the operator, and check that the XComs hold its summary."""
    task = ImageTagSyncOperator(task_id="sync", images=images, store=store, **parameters)
    task.render_template_fields({})
    instance: Any = TaskInstance()
    summary = task.execute({"ti": instance})
    assert instance.xcoms == {"summary": summary}
    assert json.loads(json.dumps(summary)) == summary
    assert through_xcom(summary) == summary
    return summary


def fill(store: LabelStore, *keys: str, api: str = API) -> None:
    """Put labelled images into a store."""
    with store.open(api) as opened:
        opened.write([replace(tagged(key, "x", version="v1"), api=api) for key in keys])


def marks(store: LabelStore) -> dict[tuple[str, str], bool]:
    """Return by interface and key whether an image is marked."""
    return {(one.api, one.key): one.is_missing for page in store.held() for one in page}


@pytest.fixture(params=["sql", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store of each kind."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    return SqlLabelStore("warehouse", "product_labels")


def test_marks_go_and_come(products: Database, store: LabelStore):
    """An image that leaves is marked once, and loses the mark when it is back."""
    add(products, *"abcdef")
    fill(store, *"abcdef")
    products.run("DELETE FROM products WHERE id = 'a'")
    first = sync(PRODUCTS, store)
    counts = {name: first[name] for name in ("source", "held", "missing", "marked", "deleted")}
    assert counts == {"source": 5, "held": 6, "missing": 1, "marked": 1, "deleted": 0}
    assert first["missing_sample"] == ["a"]
    assert first["missing_ratio"] == round(1 / 6, 6)
    assert (first["api"], first["on_missing"]) == (API, "mark")
    second = sync(PRODUCTS, store)
    assert (second["missing"], second["still_missing"], second["marked"]) == (0, 1, 0)
    add(products, "a")
    third = sync(PRODUCTS, store)
    assert (third["returned"], third["unmarked"]) == (1, 1)
    assert not any(marks(store).values())


def test_a_returned_image_costs_nothing(
    products: Database,
    store: LabelStore,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
):
    """In its old version; a new one is labelled, and loses the mark without a comparison."""
    del products
    contents = small_jpegs(7)
    images = [Image(key, content=contents[n], version="v1") for n, key in enumerate("abcdef")]
    with Emulator() as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", unlimited(emulator))

        def label(*images: Image) -> int:
            task = ImageTagOperator(task_id="label", images=[*images], store=store)
            summary: Any = task.execute({})
            return int(summary["calls"])

        assert label(*images) == 6
        assert sync(images[2:], store, max_missing_ratio=0.5)["marked"] == 2
        assert label(images[0], Image("b", content=contents[6], version="v2")) == 1
    assert {key for (_, key), is_marked in marks(store).items() if is_marked} == {"a"}


def test_deletes_what_was_marked_before(products: Database, store: LabelStore):
    """And what has left since; what is there stays."""
    add(products, *"abcdefghij")
    fill(store, *"abcdefghij")
    products.run("DELETE FROM products WHERE id = 'a'")
    sync(PRODUCTS, store, on_missing="mark")
    products.run("DELETE FROM products WHERE id = 'b'")
    summary = sync(PRODUCTS, store, on_missing="delete")
    assert (summary["still_missing"], summary["missing"], summary["deleted"]) == (1, 1, 2)
    assert {key for _, key in marks(store)} == set("cdefghij")
    assert {key for frame in store.labels() for key in frame["image_key"]} == set("cdefghij")


@pytest.mark.parametrize("on_missing", ["mark", "delete"])
def test_too_many_are_refused(products: Database, store: LabelStore, on_missing: str):
    """An empty source always; the message has the numbers, and nothing changes."""
    fill(store, *"abcdef")
    before = marks(store)
    with pytest.raises(TooManyMissingError, match="is empty, and the store holds 6"):
        sync(PRODUCTS, store, on_missing=on_missing, max_missing_ratio=1)
    add(products, *"abcd")
    with pytest.raises(TooManyMissingError, match=r"2 of 6 images .* \(33.3%\)"):
        sync(PRODUCTS, store, on_missing=on_missing)
    assert marks(store) == before


def test_another_interface_is_left_alone(
    products: Database, store: LabelStore, monkeypatch: pytest.MonkeyPatch
):
    """Unless it is asked for; of several, the connection names one."""
    add(products, *"abcdef")
    for api in (API, OTHER):
        fill(store, *"abcdefg", api=api)
    with Emulator() as emulator:
        connection = unlimited(emulator, api=OTHER)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection)
    assert sync(PRODUCTS, store)["api"] == OTHER
    assert {name for name, is_marked in marks(store).items() if is_marked} == {(OTHER, "g")}
    assert sync(PRODUCTS, store, api=API, on_missing="delete")["deleted"] == 1
    assert (OTHER, "g") in marks(store)
    assert sync(PRODUCTS, store, api="all", on_missing="delete")["deleted"] == 1
    assert {key for _, key in marks(store)} == set("abcdef")


def test_faulty_rows_are_there(products: Database):
    """A row that lost its URI is no image that has left."""
    store = SqlLabelStore("warehouse", "product_labels")
    add(products, *"abc")
    fill(store, *"abc")
    products.run("UPDATE products SET image_url = NULL WHERE id = 'a'")
    assert sync(PRODUCTS, store)["missing"] == 0


def test_only_objects_below_the_path_can_leave_it(
    tmp_path: Path, small_jpegs: Callable[[int], list[bytes]]
):
    """Other folders, and names that the pattern leaves out, are not of this source."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.png"):
        (folder / name).write_bytes(b"x")
    store = ParquetLabelStore(f"{tmp_path}/lake")
    base = folder.as_uri()
    keys = [f"{base}/{name}" for name in ("a.jpg", "b.jpg", "c.png")]
    fill(store, *keys, f"{base}-2025/old.jpg", "s3://photos/x.jpg")
    (folder / "a.jpg").unlink()
    (folder / "c.png").unlink()
    source = ObjectStorageImages(str(folder), pattern="*.jpg")
    summary = sync(source, store, max_missing_ratio=0.5)
    assert (summary["held"], summary["missing"]) == (2, 1)
    assert [key for (_, key), is_marked in marks(store).items() if is_marked] == [keys[0]]


@pytest.mark.parametrize("kind", ["sql", "parquet"])
def test_objects_that_were_deleted_from_a_bucket(
    bucket: Bucket, kind: str, products: Database, tmp_path: Path
):
    """Exactly those are marked and deleted; an empty listing and another interface are safe."""
    del products
    store: LabelStore = SqlLabelStore("warehouse", "product_labels")
    if kind == "parquet":
        store = ParquetLabelStore(f"{tmp_path}/lake")
    names = [f"2026/{number:05}.jpg" for number in range(OBJECTS)]
    bucket.put_many((name, b"x") for name in names)
    source = ObjectStorageImages(f"s3://aws_default@{bucket.name}/2026/")
    keys = {image.key for image in source.images()}
    assert len(keys) == OBJECTS
    for api in (API, OTHER):
        fill(store, *keys, api=api)
    gone_names = names[::33][: OBJECTS * 3 // 100]
    bucket.delete_many(gone_names)
    gone = keys - {image.key for image in source.images()}
    assert sync(source, store, api=API)["marked"] == len(gone_names) == len(gone)
    assert {name for name, is_marked in marks(store).items() if is_marked} == {
        (API, key) for key in gone
    }
    assert sync(source, store, api=API, on_missing="delete")["deleted"] == len(gone)
    held = {(API, key) for key in keys - gone} | {(OTHER, key) for key in keys}
    assert set(marks(store)) == held
    bucket.delete_many(bucket.all_keys())
    with pytest.raises(TooManyMissingError, match="is empty"):
        sync(source, store, api=API, on_missing="delete", max_missing_ratio=1)
    assert set(marks(store)) == held


def test_parameters_are_checked(products: Database):
    """Each error names the parameter and its values."""
    store = SqlLabelStore("warehouse", "product_labels")
    add(products, "a")
    with pytest.raises(ConfigurationError, match="on_missing must be 'mark' or 'delete'"):
        sync(PRODUCTS, store, on_missing="purge")
    with pytest.raises(ConfigurationError, match="max_missing_ratio must be a number from 0 to 1"):
        sync(PRODUCTS, store, max_missing_ratio="2")


def test_parameters_are_templates(products: Database):
    """Airflow renders them, those of source and store included."""
    store = SqlLabelStore("{{ params.conn }}", "product_labels")
    add(products, *"ab")
    fill(SqlLabelStore("warehouse", "product_labels"), *"abc")
    task = ImageTagSyncOperator(
        task_id="sync",
        images=SqlImages("{{ params.conn }}", table="products"),
        store=store,
        on_missing="{{ params.mode }}",
        max_missing_ratio="{{ params.ratio }}",
    )
    task.render_template_fields({"params": {"conn": "warehouse", "mode": "delete", "ratio": 0.5}})
    assert task.execute({})["deleted"] == 1


def test_ten_thousand_objects(products: Database):
    """Of which 300 are deleted: exactly those leave the store."""
    store = SqlLabelStore("warehouse", "product_labels")
    keys = [f"k{number:05}" for number in range(10_000)]
    add(products, *keys)
    fill(store, *keys)
    gone = set(keys[::33][:300])
    products.run("DELETE FROM products WHERE id = :key", *({"key": key} for key in gone))
    assert sync(PRODUCTS, store)["marked"] == 300
    assert {key for (_, key), is_marked in marks(store).items() if is_marked} == gone
    assert sync(PRODUCTS, store, on_missing="delete")["deleted"] == 300
    assert {key for _, key in marks(store)} == set(keys) - gone

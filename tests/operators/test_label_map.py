"""Labels under other names through the operator: frames, tables, datasets, reuse and retries."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from buckets import Bucket
from databases import Database, TaskInstance
from xcoms import through_xcom

from airflow_imagetag.errors import ConfigurationError, RunInterruptedError, StoreError
from airflow_imagetag.frames import LABEL_COLUMNS
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator, Faults

COUNT = 12
WITH_ORIGINALS = [*LABEL_COLUMNS, "original_label"]


@pytest.fixture
def images(small_jpegs: Callable[[int], list[bytes]]) -> list[Image]:
    """Give images, the last one a copy of the first."""
    made = [Image(f"key {n:02}", content=data) for n, data in enumerate(small_jpegs(COUNT))]
    return [*made, Image("copy", content=made[0].content)]


@pytest.fixture(params=["postgres", "sqlite", "parquet", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Describe a store of each kind."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return ParquetLabelStore(f"s3://aws_default@{bucket.name}/lake")
    request.getfixturevalue(request.param)
    return SqlLabelStore("warehouse", "product_labels")


def label(images: list[Image], **fields: Any) -> Any:
    """Label images and return the task's result."""
    return ImageTagOperator(task_id="label", images=images, **fields).execute({})


def kept(store: Any) -> pd.DataFrame:
    """Return all labels of a store with their original names, in one order."""
    frame = pd.concat(store.labels(originals=True), ignore_index=True)
    return frame.sort_values(["image_key", "rank"], ignore_index=True)


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame's rows in one order, without values that differ between two runs."""
    without = frame.drop(columns=["tagged_at"])
    return without.sort_values(["image_key", "rank"], ignore_index=True)


@pytest.fixture
def plain(images: list[Image], service: Emulator) -> pd.DataFrame:
    """Give the labels as the service names them."""
    frame: pd.DataFrame = label(images)
    service.reset_stats()
    return frame


def as_mapped(plain: pd.DataFrame, names: dict[str, str | None]) -> pd.DataFrame:
    """Return a labels frame with a map applied by pandas."""
    frame = plain.sort_values(["image_key", "rank"]).reset_index(drop=True)
    new = [names.get(name, name) for name in frame["label"]]
    changed = pd.Series(
        [old if old != name else None for old, name in zip(frame["label"], new, strict=True)],
        dtype="string",
    )
    frame = frame.assign(label=pd.Series(new, dtype="string"), original_label=changed)
    frame = frame[frame["label"].notna()].drop_duplicates(["image_key", "label"])
    frame["rank"] = frame.groupby("image_key").cumcount() + 1
    return in_order(frame)


@pytest.fixture
def names(plain: pd.DataFrame) -> dict[str, str | None]:
    """Rename the three commonest labels, two of them alike, and drop the fourth."""
    first, second, third, fourth = plain["label"].value_counts().index[:4]
    return {first: "一", second: "一", third: "三", fourth: None, "of no image": "x"}


# -- frames -----------------------------------------------------------------------------------


def test_a_frame_of_renamed_labels(images, plain, names, service):
    """Labels have their new names and ranks, and the last column tells the old ones."""
    frame = label(images, label_map=names)
    assert list(frame.columns) == WITH_ORIGINALS
    assert str(frame["original_label"].dtype) == "string"
    pd.testing.assert_frame_equal(in_order(frame), as_mapped(plain, names))
    assert set(frame["original_label"].dropna()) == set(list(names)[:3])
    assert len(frame) < len(plain)
    assert service.stats.billed == COUNT


def test_a_file_says_the_same(images, plain, names, bucket, tmp_path):
    """A CSV file in a bucket, and a JSON file that stands in the DAG."""
    text = "label,name\n" + "".join(f"{old},{new or ''}\n" for old, new in names.items())
    bucket.put("labels.csv", text.encode())
    (tmp_path / "labels.json").write_text(json.dumps(names))
    for path in (f"s3://aws_default@{bucket.name}/labels.csv", f"{tmp_path}/labels.json"):
        frame = label(images, label_map=path)
        pd.testing.assert_frame_equal(in_order(frame), as_mapped(plain, names))


@pytest.mark.parametrize("images_of", [lambda images: [], lambda images: images])
def test_an_empty_frame_has_the_column_too(images_of, images, service):
    """Without images, and with images whose labels are all dropped."""
    instance = TaskInstance()
    task = ImageTagOperator(task_id="x", images=images_of(images), label_map={"*": None})
    frame = task.execute({"ti": instance})
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == WITH_ORIGINALS
    assert len(frame) == 0
    assert str(frame["original_label"].dtype) == "string"
    assert instance.xcoms["summary"]["tagged"] == len(task.images)
    assert instance.xcoms["summary"]["failed"] == 0


@pytest.mark.parametrize("label_map", [None, "", " ", "None", "null"])
def test_without_a_map_nothing_changes(label_map, images, plain):
    """The frame has the columns that it always had."""
    frame = label(images, label_map=label_map)
    assert list(frame.columns) == list(LABEL_COLUMNS)
    pd.testing.assert_frame_equal(in_order(frame), in_order(plain))


def test_an_xcom_keeps_the_column(images, names):
    """Airflow's own serializer of XComs gives back an equal frame."""
    for frame in (label(images, label_map=names), label([], label_map=names)):
        pd.testing.assert_frame_equal(through_xcom(frame), frame)


@pytest.mark.parametrize("label_map", [{"a": 1}, "labels.txt", "none.csv", "s3://nobody@b/a.csv"])
def test_a_wrong_map_costs_nothing(label_map, images, service):
    """It is read before anything is sent."""
    with pytest.raises(ConfigurationError, match="label_map"):
        label(images, label_map=label_map)
    assert service.stats.requests == 0


@pytest.mark.parametrize("label_map", [7, ["天空"], Path("labels.csv"), SqlLabelStore("x")])
def test_what_no_map_can_be_is_refused_in_the_dag_file(label_map):
    """The error names the allowed values."""
    with pytest.raises(ConfigurationError, match="label_map must be a dict of labels"):
        ImageTagOperator(task_id="x", images=[], label_map=label_map)


def test_labels_of_several_types_are_shown_and_refused(images, service):
    """The DAG can be serialized, and the run names the fault before anything is paid."""
    task = ImageTagOperator(task_id="x", images=images, label_map={1: None, "1": "x"})
    assert repr(task.label_map)
    with pytest.raises(ConfigurationError, match="label_map"):
        task.execute({})
    assert service.stats.requests == 0


# -- stores -----------------------------------------------------------------------------------


def test_a_store_of_renamed_labels(store, images, plain, names):
    """Rows have the new names and ranks, the original beside them; the images their true counts."""
    summary = label(images, store=store, label_map=names)
    assert (summary["tagged"], summary["reused"], summary["calls"]) == (COUNT + 1, 1, COUNT)
    frame = kept(store)
    assert list(frame.columns) == WITH_ORIGINALS
    pd.testing.assert_frame_equal(in_order(frame), as_mapped(plain, names))
    assert [list(part.columns) for part in store.labels()] == [list(LABEL_COLUMNS)]


def test_without_a_map_the_column_is_empty(store, images, plain):
    """It is there, and no label has another name than the service's."""
    label(images, store=store)
    frame = kept(store)
    assert frame["original_label"].isna().all()
    pd.testing.assert_frame_equal(in_order(frame).drop(columns="original_label"), in_order(plain))


def test_an_image_whose_labels_are_all_dropped_is_labelled(store, images, service):
    """It is tagged with no labels and not sent again."""
    assert label(images, store=store, label_map={"*": None})["tagged"] == COUNT + 1
    assert list(store.labels()) == []
    assert label(images, store=store, label_map={"*": None})["tagged"] == 0
    assert service.stats.billed == COUNT


def test_another_map_acts_on_answers_that_are_reused(store, images, plain, names, service):
    """Equal bytes get the service's own names again, and then those of the map of the day."""
    label(images, store=store, label_map=names)
    copies = [Image(f"again {image.key}", content=image.content) for image in images]
    other = {"一": "wrong", **{old: f"{old} 2" for old in names if old != "of no image"}}
    assert label(copies, store=store, label_map=other)["calls"] == 0
    bare = [Image(f"bare {image.key}", content=image.content) for image in images]
    assert label(bare, store=store)["calls"] == 0
    assert service.stats.billed == COUNT
    frame = kept(store)
    first = as_mapped(plain, names)
    again = in_order(frame[frame["image_key"].str.startswith("again")])
    # Labels that the first map dropped or merged are not in the store, so not here either.
    expected = first["original_label"].fillna(first["label"])
    assert again["label"].tolist() == [
        f"{name} 2" if name in names else name for name in expected.tolist()
    ]
    assert "wrong" not in set(frame["label"])
    bare_again = in_order(frame[frame["image_key"].str.startswith("bare")])
    assert bare_again["label"].tolist() == expected.tolist()
    assert bare_again["original_label"].isna().all()


def test_a_changed_map_is_for_images_that_are_labelled_again(store, images, plain, names, service):
    """Stored labels stay as they are until ``retag`` pays for them again."""
    label(images, store=store)
    assert label(images, store=store, label_map=names)["tagged"] == 0
    assert kept(store)["original_label"].isna().all()
    label(images, store=store, label_map=names, retag="always")
    pd.testing.assert_frame_equal(in_order(kept(store)), as_mapped(plain, names))
    assert service.stats.billed == 2 * COUNT


def test_what_a_store_was_not_given_has_the_column(images, names, postgres, service):
    """The labels that a store refuses are in an XCom that tells their original names."""
    store = SqlLabelStore("warehouse", "product_labels")
    with store.open("picture_classify"):
        pass
    postgres.run("ALTER TABLE product_labels ADD CONSTRAINT no CHECK (label NOT IN ('一', '三'))")
    instance = TaskInstance()
    task = ImageTagOperator(task_id="label", images=images, store=store, label_map=names)
    with pytest.raises(StoreError):
        task.execute({"ti": instance})
    unsaved = instance.xcoms["unsaved"]
    assert list(unsaved.columns) == WITH_ORIGINALS
    assert set(unsaved["original_label"].dropna()) == set(list(names)[:3])


# -- tables of an earlier version -------------------------------------------------------------


@pytest.fixture
def old_table(database: Database) -> SqlLabelStore:
    """Make tables without the column."""
    store = SqlLabelStore("warehouse", "product_labels")
    with store.open("picture_classify"):
        pass
    database.run("ALTER TABLE product_labels DROP COLUMN original_label")
    return store


def test_an_older_table_goes_on_without_a_map(old_table, images, plain, service):
    """It is written, read and reused as ever."""
    assert label(images[:6], store=old_table)["tagged"] == 6
    assert label(images, store=old_table)["tagged"] == COUNT + 1 - 6
    frame = kept(old_table)
    assert frame["original_label"].isna().all()
    pd.testing.assert_frame_equal(in_order(frame).drop(columns="original_label"), in_order(plain))
    [frame] = old_table.labels()
    assert list(frame.columns) == list(LABEL_COLUMNS)
    assert service.stats.billed == COUNT


def test_an_older_table_and_a_map(old_table, images, plain, names, database, service):
    """The statement to run is in the error, nothing is paid before, and after it all is well."""
    with pytest.raises(ConfigurationError, match="has no column original_label") as caught:
        label(images, store=old_table, label_map=names)
    assert service.stats.requests == 0
    statement = caught.value.message.partition("'warehouse': ")[2]
    assert statement == "ALTER TABLE product_labels ADD original_label TEXT"
    database.run(statement)
    label(images, store=old_table, label_map=names)
    pd.testing.assert_frame_equal(in_order(kept(old_table)), as_mapped(plain, names))


def test_an_older_dataset_is_read_and_goes_on(images, plain, names, tmp_path):
    """Files without the column are read, reused and compacted with files that have it."""
    import pyarrow.parquet as pq

    store = ParquetLabelStore(f"{tmp_path}/lake")
    label(images[:6], store=store)
    [part] = (tmp_path / "lake" / "labels").glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["original_label"]), part)
    assert kept(store)["original_label"].isna().all()
    copy = [Image("another", content=images[1].content)]
    assert label([*images, *copy], store=store, label_map=names)["calls"] == COUNT - 6
    frame = kept(store)
    early = frame["image_key"].isin([image.key for image in images[:6]])
    assert frame[early]["original_label"].isna().all()
    late = in_order(frame[~early & (frame["image_key"] != "another")])
    mapped = as_mapped(plain, names)
    expected = mapped[mapped["image_key"].isin(set(late["image_key"]))]
    pd.testing.assert_frame_equal(late, expected.reset_index(drop=True))
    of_copy = frame[frame["image_key"] == "another"]
    of_image = mapped[mapped["image_key"] == images[1].key]
    assert of_copy["label"].tolist() == of_image["label"].tolist()
    store.compact()
    pd.testing.assert_frame_equal(kept(store), frame)


# -- retries ----------------------------------------------------------------------------------


def stop_after(task: ImageTagOperator, service: Emulator, count: int) -> threading.Thread:
    """Ask a task to end after a number of billed images."""

    def wait() -> None:
        while service.stats.billed < count:
            time.sleep(0.005)
        task.on_kill()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_checkpoint_holds_the_services_names(
    images, plain, names, service, tmp_path, monkeypatch
):
    """So each try's frame is that of its own map, and the last one is complete."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__CHECKPOINT_PATH", f"{tmp_path}/checkpoints")
    service.faults = Faults(latency_seconds=0.05)
    for number, label_map in enumerate((names, {"*": None})):
        task = ImageTagOperator(
            task_id="label", images=images, label_map=label_map, batch_size=1, max_in_flight=1
        )
        waiter = stop_after(task, service, 3 * (number + 1))
        instance = TaskInstance(number + 1)
        with pytest.raises(RunInterruptedError):
            task.execute({"ti": instance})
        waiter.join(10)
        assert list(instance.xcoms["return_value"].columns) == WITH_ORIGINALS
        assert len(instance.xcoms["return_value"]) > 0 or number == 1
    task = ImageTagOperator(task_id="label", images=images, label_map=names)
    instance = TaskInstance(3)
    frame = task.execute({"ti": instance})
    assert isinstance(frame, pd.DataFrame)
    pd.testing.assert_frame_equal(in_order(frame), as_mapped(plain, names))
    assert instance.xcoms["summary"]["reused"] >= 6
    assert service.stats.billed == COUNT

"""Images that leave a store: listed, marked as missing, deleted with every copy."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from databases import API, NOON, Database, TaskInstance, failed, gathered, tagged
from foreign import code_of, install

from airflow_imagetag.errors import ConfigurationError, StoreError
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.operators.checkpoint import checkpoint_store
from airflow_imagetag.selection.rules import Rule, Status
from airflow_imagetag.stores import (
    DeltaLabelStore,
    LabelStore,
    ParquetLabelStore,
    SqlLabelStore,
    StoreMode,
)
from airflow_imagetag.stores.parquet_dataset import open_dataset

OTHER = "DetectLabel"
LATER = datetime(2026, 8, 1, tzinfo=UTC)


@pytest.fixture(params=["postgres", "sqlite", "parquet", "delta"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store of each kind that does not exist yet."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    if request.param == "delta":
        pytest.importorskip("deltalake", reason="the extra delta is not installed")
        return DeltaLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue(request.param)
    return SqlLabelStore("warehouse", "product_labels")


def write(store: LabelStore, *outcomes: TagResult | Failure, api: str = API) -> None:
    """Write a batch."""
    with store.open(api) as opened:
        opened.write(
            [replace(one, api=api) if isinstance(one, TagResult) else one for one in outcomes]
        )


def held(store: LabelStore, api: str | None = None) -> dict[tuple[str, str], bool]:
    """Return by interface and key whether an image is marked."""
    return {
        (image.api, image.key): image.is_missing for page in store.held(api=api) for image in page
    }


def labels(store: LabelStore) -> Counter[tuple[str, str]]:
    """Return key and label of all labels."""
    return Counter(gathered(store.labels()))


def test_a_store_that_does_not_exist_holds_nothing(store: LabelStore):
    """Listing creates nothing; deleting and marking find nothing to do."""
    assert held(store) == {}
    assert store.delete(["a"]) == 0
    assert store.mark(["a"], missing_since=NOON) == 0


def test_images_are_listed_by_interface(store: LabelStore):
    """All of them, or those of one interface, whatever their status; each once."""
    write(store, tagged("a", "x"), failed("b"), failed("c", final=False))
    write(store, tagged("a", "y", minute=1))
    write(store, tagged("d", "z"), api=OTHER)
    assert held(store) == {(API, "a"): False, (API, "b"): False, (API, "c"): False} | {
        (OTHER, "d"): False
    }
    assert held(store, OTHER) == {(OTHER, "d"): False}


def test_deleted_images_are_new(store: LabelStore):
    """With their labels, in every version, and without the answers for their bytes."""
    write(store, tagged("a", "x", version="1", content_sha256="0" * 64), tagged("b", "x", "y"))
    write(store, tagged("a", "z", version="2", content_sha256="1" * 64), failed("c"))
    assert store.delete(["a", "c", "unknown"]) == 2
    assert labels(store) == Counter([("b", "x"), ("b", "y")])
    with store.open(API) as opened:
        assert set(opened.known(["a", "b", "c"])) == {"b"}
        assert opened.answers(["0" * 64, "1" * 64]) == {}
    assert store.delete(["a", "c"]) == 0
    write(store, tagged("a", "again"))
    assert labels(store)["a", "again"] == 1


def test_other_interfaces_keep_their_images(store: LabelStore):
    """One is named; without a name, all of them."""
    for api in (API, OTHER):
        write(store, tagged("a", "x"), tagged("b", "y"), api=api)
    assert store.delete(["a"], api=OTHER) == 1
    assert held(store) == {(API, "a"): False, (API, "b"): False, (OTHER, "b"): False}
    assert store.delete(["b"]) == 2
    assert held(store) == {(API, "a"): False}


def test_a_mark_leaves_state_and_labels(store: LabelStore):
    """A marked image is known as before, and is listed with its mark; marking again is nothing."""
    write(store, tagged("a", "x", version="1"), failed("b", version="1"), tagged("c", "z"))
    with store.open(API) as opened:
        before = dict(opened.known(["a", "b", "c"]))
    assert store.mark(["a", "b", "unknown"], missing_since=LATER) == 2
    assert store.mark(["a"], missing_since=NOON) == 0
    assert held(store) == {(API, "a"): True, (API, "b"): True, (API, "c"): False}
    assert labels(store) == Counter([("a", "x"), ("c", "z")])
    with store.open(API) as opened:
        assert dict(opened.known(["a", "b", "c"])) == before
        for key in ("a", "b"):
            assert not Rule().is_pending(before[key], version="1", has_uri=True)
            assert Rule().is_pending(before[key], version="2", has_uri=True)
    assert store.mark(["a", "c"], missing_since=None) == 1
    assert held(store) == {(API, "a"): False, (API, "b"): True, (API, "c"): False}
    assert labels(store) == Counter([("a", "x"), ("c", "z")])


def test_an_image_that_is_labelled_anew_loses_its_mark(store: LabelStore):
    """Its new answer is that of an image that is there."""
    write(store, tagged("a", "x", version="1"), failed("b", final=False))
    store.mark(["a", "b"], missing_since=LATER)
    write(store, tagged("a", "y", version="2", minute=1), failed("b", final=False, tries=2))
    assert held(store) == {(API, "a"): False, (API, "b"): False}
    assert labels(store) == Counter([("a", "y")])


def test_missing_images_do_not_wait(store: LabelStore):
    """They are not counted among those that a later run tries."""
    write(store, failed("a", final=False), failed("b", final=False))
    store.mark(["a"], missing_since=LATER)
    with store.open(API, StoreMode.READ) as opened:
        counts = opened.unlabelled(LATER)
    assert counts is not None
    assert counts.waiting == 1


@pytest.mark.parametrize("keys", ["a", [1]])
def test_keys_are_texts(store: LabelStore, keys: list[str]):
    """A single text would be taken for a list of letters."""
    with pytest.raises(ConfigurationError, match="keys"):
        store.delete(keys)


def test_labels_of_an_earlier_version_survive(store: LabelStore):
    """The new version waits; another image is deleted from the files of each."""
    write(store, tagged("a", "x", version="1"), tagged("b", "y"))
    write(store, failed("a", final=False, version="2"), failed("c", final=False))
    assert store.delete(["b"]) == 1
    assert store.delete(["c"]) == 1
    assert labels(store) == Counter([("a", "x")])
    with store.open(API) as opened:
        assert opened.known(["a"])["a"].status is Status.WAITING


def test_a_store_of_another_package_is_asked_for_the_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The error names the method to implement."""
    install(tmp_path, monkeypatch, "sqlite_labels", code_of("adding-a-store.md")[0])
    from sqlite_labels import SqliteFileStore  # type: ignore[import-not-found]

    store: LabelStore = SqliteFileStore(f"{tmp_path}/labels.db")
    with pytest.raises(ConfigurationError, match="'delete'"):
        store.delete(["a"])
    with pytest.raises(ConfigurationError, match="'held'"):
        next(iter(store.held()))
    with pytest.raises(ConfigurationError, match="'mark'"):
        store.mark(["a"], missing_since=None)


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Name the folder of a dataset."""
    return tmp_path / "lake"


def plain_keys(folder: Path) -> set[str]:
    """Return the keys in all files, as a reader takes them that knows nothing of the dataset."""
    files = folder.rglob("*.parquet")
    return {key for file in files for key in pq.read_table(file)["image_key"].to_pylist()}


def test_no_file_holds_a_deleted_image(lake: Path):
    """Nor do files that an interrupted compaction left; files without it stay as they are."""
    store = ParquetLabelStore(str(lake))
    for key in "abc":
        write(store, tagged(key, "x"))
    first = min(lake.glob("images/*"))
    left = {kind: (lake / kind / first.name).read_bytes() for kind in ("images", "labels")}
    store.compact()
    write(store, tagged("d", "x"))
    untouched = sorted(path.name for path in lake.glob("images/part-*"))
    for kind, content in left.items():
        (lake / kind / first.name).write_bytes(content)
    assert store.delete(["a", "b"]) == 2
    assert plain_keys(lake) == {"c", "d"}
    assert sorted(path.name for path in lake.glob("images/part-*")) == untouched


def test_an_open_store_goes_on(lake: Path):
    """It has taken note of an image that another process deletes; the image is new to it."""
    store = ParquetLabelStore(str(lake))
    write(store, tagged("a", "x", content_sha256="0" * 64), tagged("b", "y"))
    with store.open(API) as opened:
        assert set(opened.known(["a", "b"])) == {"a", "b"}
        store.delete(["a"])
        assert opened.answers(["0" * 64]) == {}
        opened.write([failed("b", final=False, version="2")])
        assert set(opened.known(["a", "b"])) == {"b"}
    assert labels(store) == Counter([("b", "y")])


def test_a_run_that_writes_meanwhile_wins(lake: Path):
    """An image comes back in a new version while it is marked."""
    store = ParquetLabelStore(str(lake))
    write(store, tagged("a", "x", version="1"))
    with store.open(API) as opened:
        opened.write([tagged("a", "y", version="2", minute=1)])
        # A mark that another process has made of the first version.
    [old, new] = sorted(lake.glob("images/*"))
    hidden = new.read_bytes()
    new.unlink()
    store.mark(["a"], missing_since=LATER)
    new.write_bytes(hidden)
    assert held(store) == {(API, "a"): False}
    assert labels(store) == Counter([("a", "y")])
    assert old.exists()


@pytest.mark.parametrize("step", [1, 6])
def test_two_compactions_at_once_lose_nothing(lake: Path, step: int):
    """The one that ends second changes nothing, and says so.

    :param step: the one in which the other comes, of reading three parts of labels and of images.
    """
    store = ParquetLabelStore(str(lake))
    for key in "abc":
        write(store, tagged(key, "x"))
    with open_dataset(str(lake), None) as dataset:
        every = dataset.load()
        steps = itertools.count(1)

        def keep(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if next(steps) == step:
                store.delete(["a"])
            return rows

        with pytest.raises(StoreError, match="meanwhile"):
            dataset.replace(every, [], keep)
    assert labels(store) == Counter([("b", "x"), ("c", "x")])
    assert plain_keys(lake) == {"b", "c"}


def test_a_compaction_leaves_one_row_of_each_image(lake: Path):
    """Also where the labels of an earlier version stay; a deletion keeps what others refer to."""
    store = ParquetLabelStore(str(lake))
    write(store, tagged("a", "x", version="1"), tagged("b", "y"))
    write(store, failed("a", final=False, version="2"))
    store.delete(["b"])
    store.compact()
    [file] = lake.glob("images/*")
    assert pq.read_table(file)["image_key"].to_pylist() == ["a"]
    assert labels(store) == Counter([("a", "x")])


def test_checkpoints_lose_the_image(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite: Database
):
    """A deletion from any store reaches the copies of runs without a store."""
    folder = tmp_path / "checkpoints"
    monkeypatch.setenv("AIRFLOW__IMAGETAG__CHECKPOINT_PATH", str(folder))
    stores: list[LabelStore] = [ParquetLabelStore(str(lake)), SqlLabelStore("warehouse")]
    for number, store in enumerate(stores):
        task = TaskInstance()
        task.map_index = number
        checkpoint = checkpoint_store(str(folder), task)
        write(checkpoint, tagged(f"k{number}", "x"), tagged("other", "y"))
        assert f"k{number}" in plain_keys(folder)
        assert store.delete([f"k{number}"]) == 0
        assert f"k{number}" not in plain_keys(folder)
    assert plain_keys(folder) == {"other"}
    assert json.dumps(sorted(path.name for path in folder.iterdir())) == '["catalogue"]'

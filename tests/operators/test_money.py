"""Nothing is paid twice without need, and nothing that was paid for is lost."""

from __future__ import annotations

import copy
import itertools
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from databases import API, Database, TaskInstance, tagged, unlimited

from airflow_imagetag.engine.output.label_rows import LabelRows
from airflow_imagetag.errors import (
    ConfigurationError,
    ResultTooLargeError,
    RunInterruptedError,
    TooManyFailuresError,
)
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.run import OperatorRun
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.parquet_open import open_parquet_store
from airflow_imagetag.testing import Emulator

SmallJpegs = Callable[[int], list[bytes]]


def rows(contents: list[bytes], **more: Any) -> list[dict[str, Any]]:
    """Return dicts that name these images."""
    return [{"image_key": f"k{n}", "content": c, **more} for n, c in enumerate(contents)]


def count(database: Database, table: str = "image_labels_images") -> int:
    """Return the number of rows of a table."""
    return int(database.value(f"SELECT count(*) FROM {table}"))


def label(images: Any, **fields: Any) -> tuple[Any, TaskInstance]:
    """Run a task; return its result and its XComs."""
    task_instance = TaskInstance()
    task = ImageTagOperator(task_id="label", images=images, **fields)
    return task.execute({"ti": task_instance}), task_instance


def test_a_faulty_entry_does_not_touch_the_image_of_its_key(
    sqlite: Database, service: Emulator, small_jpegs: SmallJpegs
):
    """As a join gives it: the labels stay in any order, and are paid for once."""
    good = rows(small_jpegs(3), version="v1")
    faulty = [{"image_key": "k1", "image_uri": None, "version": "v1"}]
    store = SqlLabelStore("warehouse")
    for images in (good + faulty, faulty + good, good + faulty):
        label(images, store=store, max_failure_ratio=1)
        assert service.stats.billed == 3
        assert {key for frame in store.labels() for key in frame["image_key"]} == {
            "k0",
            "k1",
            "k2",
        }


def test_a_storage_that_hangs_does_not_keep_labels_from_the_store(
    sqlite: Database,
    service: Emulator,
    small_jpegs: SmallJpegs,
    monkeypatch: pytest.MonkeyPatch,
):
    """However many images hang in it, finished images are written, and a kill ends the run."""
    released = threading.Event()
    load = ContentLoader.load

    def hang(self: ContentLoader, image: Image) -> Any:
        if image.content is None:
            released.wait(30)
        return load(self, image)

    monkeypatch.setattr(ContentLoader, "load", hang)
    images = [
        *rows(small_jpegs(40)),
        *({"image_key": f"slow{n}", "image_uri": f"/none/{n}.jpg"} for n in range(100)),
    ]
    task = ImageTagOperator(
        task_id="label",
        images=images,
        store=SqlLabelStore("warehouse"),
        max_in_flight=64,
        flush_seconds=0.2,
    )
    written: list[int] = []

    def kill_once_written() -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and (not sqlite.tables() or count(sqlite) < 40):
            time.sleep(0.1)
        written.append(count(sqlite))
        task.on_kill()

    thread = threading.Thread(target=kill_once_written)
    thread.start()
    try:
        with pytest.raises(RunInterruptedError):
            task.execute({"ti": TaskInstance()})
    finally:
        released.set()
        thread.join()
    assert written == [40]


def test_a_task_that_is_killed_before_it_starts_sends_nothing(
    service: Emulator, small_jpegs: SmallJpegs
):
    """Also when the signal comes while the connection is fetched."""
    task = ImageTagOperator(task_id="label", images=rows(small_jpegs(5)))
    task.on_kill()
    with pytest.raises(RunInterruptedError):
        task.execute({"ti": TaskInstance()})
    assert service.stats.requests == 0


def test_an_operator_can_be_copied_after_its_run(service: Emulator, small_jpegs: SmallJpegs):
    """It keeps nothing of the run."""
    task = ImageTagOperator(task_id="label", images=rows(small_jpegs(1)))
    task.execute({"ti": TaskInstance()})
    copy.deepcopy(task)


def with_a_bad_image(small_jpegs: SmallJpegs, **settings: Any) -> ImageTagOperator:
    """Make an operator for five photographs and something that is none."""
    images = [*rows(small_jpegs(5)), {"image_key": "none", "content": b"no picture"}]
    return ImageTagOperator(task_id="label", images=images, **settings)


class Refusing(TaskInstance):
    """Keeps the XComs of a task except for some keys, as a backend of XComs may."""

    refused = ("failures",)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        if key in self.refused:
            raise ConnectionError(key)
        super().xcom_push(key, value)


@pytest.mark.parametrize("ends_well", [True, False])
def test_an_output_that_cannot_be_kept_takes_no_other_along(
    ends_well: bool, service: Emulator, small_jpegs: SmallJpegs
):
    """The labels go where the others go before the task fails; the run's own error goes first."""
    task = with_a_bad_image(small_jpegs, max_failure_ratio=1 if ends_well else 0)
    instance = Refusing()
    with pytest.raises(ConnectionError if ends_well else TooManyFailuresError):
        task.execute({"ti": instance})
    assert set(instance.xcoms["return_value"]["image_key"]) == {f"k{n}" for n in range(5)}
    assert instance.xcoms["summary"]["tagged"] == 5


@pytest.mark.parametrize("name", ["labels", "failures", "summary"])
@pytest.mark.parametrize("ends_well", [True, False])
def test_an_output_that_cannot_be_made_takes_no_other_along(
    ends_well: bool,
    name: str,
    service: Emulator,
    small_jpegs: SmallJpegs,
    monkeypatch: pytest.MonkeyPatch,
):
    """A frame of many labels may be more than the memory left can hold."""

    def too_large(*_: Any) -> None:
        raise MemoryError

    if name == "labels":
        monkeypatch.setattr(LabelRows, "frame", too_large)
    else:
        monkeypatch.setattr(OperatorRun, name, too_large)
    task = with_a_bad_image(small_jpegs, max_failure_ratio=1 if ends_well else 0)
    instance = TaskInstance()
    with pytest.raises(MemoryError if ends_well else TooManyFailuresError):
        task.execute({"ti": instance})
    key = "return_value" if name == "labels" else name
    assert set(instance.xcoms) == {"return_value", "failures", "summary"} - {key}


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_a_store_that_takes_nothing_is_found_out_before_a_call(
    kind: str, sqlite: Database, service: Emulator, small_jpegs: SmallJpegs, tmp_path: Path
):
    """The task fails with nothing sent, in every try."""
    if kind == "sqlite":
        store: Any = SqlLabelStore("warehouse")
        with store.open(API):
            pass
        sqlite.run(
            "CREATE TRIGGER no BEFORE INSERT ON image_labels BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    else:
        # Below a file, so that it holds for root as well, who may write anywhere.
        (tmp_path / "file").write_text("")
        store = ParquetLabelStore(f"file://{tmp_path}/file/labels")
    with pytest.raises(ConfigurationError):
        label(rows(small_jpegs(3)), store=store)
    assert service.stats.requests == 0


def test_a_probe_leaves_nothing(sqlite: Database, service: Emulator, tmp_path: Path):
    """An empty run leaves empty stores, but for its record."""
    label([], store=SqlLabelStore("warehouse"))
    assert count(sqlite) == count(sqlite, "image_labels") == 0
    label([], store=ParquetLabelStore(f"file://{tmp_path}/lake"))
    [left] = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert left.parent.name == "runs"


def test_errors_that_a_retry_would_meet_again(
    service: Emulator, small_jpegs: SmallJpegs, monkeypatch: pytest.MonkeyPatch
):
    """Airflow is told not to try again, where that would only cost the same once more."""
    broken = rows([*small_jpegs(3), b"no image", b"none either"])
    with pytest.raises(TooManyFailuresError, match="cannot decode") as failures:
        label(broken, max_failure_ratio=0)
    assert isinstance(failures.value, AirflowFailException)
    monkeypatch.setenv("AIRFLOW__IMAGETAG__MAX_RESULT_ROWS", "5")
    with pytest.raises(ResultTooLargeError) as large:
        label(rows(small_jpegs(4)))
    assert isinstance(large.value, AirflowFailException)


def test_whole_numbers_stay_whole_beside_an_empty_cell(service: Emulator, small_jpegs: SmallJpegs):
    """Pandas makes floats of them; key and version are the same texts as without the empty cell."""
    contents = small_jpegs(2)
    frame = pd.DataFrame({"image_key": [1, 2, None], "content": [*contents, None]})
    labels, _ = label(frame, max_failure_ratio=1)
    assert set(labels["image_key"]) == {"1", "2"}


def test_a_file_of_zero_bytes_fails_once(
    service: Emulator, small_jpegs: SmallJpegs, tmp_path: Path
):
    """The store keeps its failure: the next run has nothing to do, until the file is replaced."""
    folder = tmp_path / "photos"
    folder.mkdir()
    *contents, later = small_jpegs(3)
    for name, content in zip(("a", "b", "c"), (*contents, b""), strict=True):
        (folder / f"{name}.jpg").write_bytes(content)
    images = ObjectStorageImages(f"file://{folder}/")
    store = ParquetLabelStore(f"file://{tmp_path}/lake")
    _, first = label(images, store=store, max_failure_ratio=0.5)
    assert (first.xcoms["summary"]["tagged"], first.xcoms["summary"]["failed"]) == (2, 1)
    _, second = label(images, store=store, max_failure_ratio=0)
    assert (second.xcoms["summary"]["tagged"], second.xcoms["summary"]["failed"]) == (0, 0)
    assert service.stats.requests == 2
    with store.open("picture_classify") as opened:
        [state] = opened.known([f"file://{folder}/c.jpg"]).values()
    assert state.status == "failed"
    (folder / "c.jpg").write_bytes(later)
    _, third = label(images, store=store, max_failure_ratio=0)
    assert third.xcoms["summary"]["tagged"] == 1


def test_a_limit_of_ours_is_no_word_on_the_bytes(
    sqlite: Database, service: Emulator, monkeypatch: pytest.MonkeyPatch
):
    """An image too large for base64 is sent under another key once multipart takes it."""
    connection = json.loads(unlimited(service))
    large = b"\xff\xd8" + b"x" * 5_000_000
    store = SqlLabelStore("warehouse")
    for number, encoding in enumerate(("base64", "multipart")):
        connection["extra"]["image_encoding"] = encoding
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
        _, task_instance = label(
            [{"image_key": f"k{number}", "content": large}], store=store, max_failure_ratio=1
        )
        [error] = task_instance.xcoms["failures"]["error"]
        assert error == ("ImageTooLargeError", "ImageDecodeError")[number]
    assert service.stats.requests == 1


def test_the_latest_batch_counts_for_any_clock(tmp_path: Path):
    """A worker whose clock ran ahead does not hide the labels that others write after it."""
    ahead = itertools.chain([timedelta(days=1)], itertools.repeat(timedelta()))
    store = ParquetLabelStore(f"file://{tmp_path}/lake")
    for name in ("early", "late", "last"):
        opening = open_parquet_store(
            store.path, None, API, clock=lambda: datetime.now(UTC) + next(ahead)
        )
        with opening as opened:
            opened.write([tagged("a", name, version=name)])
        assert [set(frame["label"]) for frame in store.labels()] == [{name}]

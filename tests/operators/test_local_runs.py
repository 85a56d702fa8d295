"""The operator with a model on the worker: a folder kept up to date, damaged files, a kill."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from forked import Driver
from onnx_models import COLOURS, colour_model, connection

from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore

pytest.importorskip("onnxruntime")

DRIVER = Path(__file__).resolve().parent / "label_driver.py"
API = "local:efficientnet-lite0"


@pytest.fixture
def folder(tmp_path: Path, small_jpegs) -> Path:
    """Make a folder of 30 photographs."""
    made = tmp_path / "photos"
    made.mkdir()
    for number, content in enumerate(small_jpegs(30)):
        (made / f"{number:03}.jpg").write_bytes(content)
    return made


@pytest.fixture(params=["sqlite", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Make a store of each kind."""
    if request.param == "parquet":
        return ParquetLabelStore(str(tmp_path / "lake"))
    database: Database = request.getfixturevalue("sqlite")
    return SqlLabelStore(database.conn_id, "photo_labels")


def label(folder: Path, store: Any, **parameters: Any) -> dict[str, Any]:
    """Run the operator and return its summary."""
    source = ObjectStorageImages(str(folder))
    task = ImageTagOperator(task_id="label", images=source, store=store, **parameters)
    summary = task.execute({})
    assert isinstance(summary, dict)
    return summary


def apis(store: Any) -> set[str]:
    """Return the interfaces whose labels the store holds."""
    return {api for frame in store.labels() for api in frame["api"]}


def test_a_folder_is_kept_up_to_date_at_no_price(local_model, folder, store):
    """The second run has nothing to do, and a damaged file is one typed failure."""
    (folder / "damaged.jpg").write_bytes((folder / "001.jpg").read_bytes()[:400])
    first = label(folder, store, min_probability=0)
    assert (first["tagged"], first["failed"], first["estimated_cost"]) == (30, 1, 0)
    assert first["failures_sample"][0]["error"] == "ImageDecodeError"
    second = label(folder, store)
    assert (second["new"], second["calls"], second["failed"]) == (0, 0, 0)
    sensor = NewImagesSensor(task_id="wait", images=ObjectStorageImages(str(folder)), store=store)
    assert not sensor.poke({})
    (folder / "copy.jpg").write_bytes((folder / "001.jpg").read_bytes())
    assert sensor.poke({})
    third = label(folder, store)
    assert (third["tagged"], third["reused"], third["calls"]) == (1, 1, 0)


def test_the_log_and_the_connection_name_the_same_threads(
    local_model, folder, store, monkeypatch, caplog
):
    """Threads label images, and some more images are read meanwhile; no cost is named."""
    extra = json.loads(os.environ["AIRFLOW_CONN_IMAGETAG_DEFAULT"])["extra"] | {"threads": 3}
    connection = {"conn_type": "imagetag", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
    with caplog.at_level(logging.INFO):
        label(folder, store)
    assert ": 3 labelled at a time, up to 20 in flight, no limit of requests" in caplog.text
    assert "of cost" not in caplog.text
    assert ImageTagHook().test_connection()[1].endswith(" 3 labelled at a time")


def test_another_model_labels_anew_beside_the_first(
    local_model, folder, store, monkeypatch, tmp_path
):
    """The name of the model is the interface of its rows."""
    assert label(folder, store)["tagged"] == 30
    model = tmp_path / "colours.onnx"
    model.write_bytes(colour_model(metadata={"names": json.dumps(COLOURS)}))
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection(model))
    assert label(folder, store)["tagged"] == 30
    found = apis(store)
    assert len(found) == 2
    assert API in found
    assert label(folder, store)["new"] == 0


def test_a_model_that_is_wrong_stops_the_run_before_any_image(folder, store, monkeypatch, tmp_path):
    """No image is recorded as failed."""
    model = tmp_path / "colours.onnx"
    model.write_bytes(colour_model())
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection(model))
    with pytest.raises(Exception, match="Set classes in extra"):
        label(folder, store)
    assert list(store.labels()) == [] or apis(store) == set()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Start the process that forks tasks."""
    running = Driver(DRIVER, tmp_path_factory.mktemp("tasks"))
    yield running
    running.end()


def test_a_terminated_task_keeps_what_is_done(local_model, driver, tmp_path, small_jpegs):
    """The next run labels the rest, and only the rest."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, content in enumerate(small_jpegs(150)):
        (folder / f"{number:03}.jpg").write_bytes(content)
    lake = tmp_path / "lake"
    names = ("AIRFLOW_CONN_IMAGETAG_DEFAULT", "AIRFLOW__IMAGETAG__MODEL_CACHE_PATH")
    job = {
        "source": ObjectStorageImages(str(folder)).serialize(),
        "store": ParquetLabelStore(str(lake)).serialize(),
        "batch_size": 10,
    }
    task = driver.start(job, {name: os.environ[name] for name in names})
    deadline = time.monotonic() + 60
    while not list((lake / "labels").rglob("*.parquet")):
        assert task.poll() is None, task.output.read_text()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    task.signal(signal.SIGTERM)
    assert task.wait() == 3
    rest = label(folder, ParquetLabelStore(str(lake)))
    assert 0 < rest["tagged"] < 150

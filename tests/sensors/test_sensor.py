"""The sensor: its result, its log lines, and the parameters that it hands to the triggerer."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSensorTimeout, TaskDeferred
from airflow.serialization import serialized_objects
from databases import API, Database, add, tagged
from modes import AIRFLOW_2, MODES, Clock, Task, rebuilt, run_to_end

from airflow_imagetag.errors import ConfigurationError, ImageTagError
from airflow_imagetag.models import Image
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching import events
from airflow_imagetag.watching.events import MAX_EVENT_IMAGES as MOST

STORE = SqlLabelStore("warehouse")


def label(*keys: str) -> None:
    """Label images."""
    with STORE.open(API) as opened:
        opened.write([tagged(key, "x") for key in keys])


def sensor(**fields: Any) -> NewImagesSensor:
    """Make a task."""
    usual: dict[str, Any] = {
        "task_id": "wait",
        "images": SqlImages("warehouse", table="products"),
        "store": STORE,
        "poke_interval": 60,
        "timeout": 400,
    }
    return NewImagesSensor(**(usual | fields))


def deferred(task: NewImagesSensor, run: Any) -> TaskDeferred:
    """Return the deferral that a call ends with."""
    with pytest.raises(TaskDeferred) as caught:
        run()
    return caught.value


def keys(xcom: Any) -> list[str]:
    """Return the keys of the images that were found."""
    return [image["image_key"] for image in xcom]


# -- deferred ---------------------------------------------------------------------------------


def test_images_that_were_labelled_meanwhile(products: Database, clock: Clock):
    """More images than an event holds are queried again; the wait keeps its first deadline."""
    many = [f"{number:04}" for number in range(MOST + 50)]
    clock.at(50, lambda: add(products, *many))
    task = sensor(deferrable=True)
    began = clock.now()
    first = deferred(task, lambda: task.execute({}))
    [event] = run_to_end(rebuilt(first.trigger))
    assert (event["count"], event["is_complete"], len(event["images"])) == (MOST + 1, False, MOST)
    label(*many)
    arguments = {**(first.kwargs or {}), "event": event}
    second = deferred(task, lambda: task.resume_execution(first.method_name, arguments, {}))
    end = began + timedelta(seconds=400)
    for found in (first, second):
        assert datetime.fromisoformat(found.trigger.deadline) == end
        assert datetime.fromisoformat((found.kwargs or {})["deadline"]) == end
    assert first.timeout is not None
    assert second.timeout is not None
    assert first.timeout - second.timeout == timedelta(seconds=60)
    clock.at(clock.passed + 50, lambda: add(products, "new"))
    [event] = run_to_end(rebuilt(second.trigger))
    arguments = json.loads(json.dumps({**(second.kwargs or {}), "event": event}))
    assert keys(task.resume_execution(second.method_name, arguments, {})) == ["new"]


def test_a_worker_that_finds_nothing_after_the_deadline(products: Database, clock: Clock):
    """The trigger found many images, which have labels now, and the deadline has passed."""
    add(products, *(f"{number:04}" for number in range(MOST + 50)))
    task = sensor(deferrable=True)
    event = found_many()
    label(*(f"{number:04}" for number in range(MOST + 50)))
    arguments = {"event": event, "deadline": clock.now().isoformat()}
    with pytest.raises(AirflowSensorTimeout, match="timed out"):
        task.resume_execution("execute_complete", arguments, {})


def found_many() -> dict[str, Any]:
    """Return the event of more images than it holds."""
    images = [Image(f"{number:04}", "https://x") for number in range(MOST + 1)]
    return events.found(images, is_all=False).payload()


def test_airflows_own_timeout_comes_after_the_triggers(products: Database, clock: Clock):
    """The trigger queries once more at the deadline and sends the result."""
    task = sensor(deferrable=True)
    found = deferred(task, lambda: task.execute({}))
    assert found.timeout is not None
    assert found.timeout > timedelta(seconds=400)


@pytest.mark.parametrize("event", [None, {}, "success", {"status": "success"}])
def test_a_value_that_is_not_an_event(event: Any):
    """The task fails."""
    with pytest.raises(ImageTagError, match="not send an event of NewImagesTrigger"):
        sensor().execute_complete({}, event=event)


def test_a_sensor_that_starts_in_the_triggerer(
    products: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """No worker is needed before images exist; the timeout counts from the task's start."""
    task = sensor(deferrable=True, start_from_trigger=True)
    assert task.start_from_trigger
    start = task.start_trigger_args
    assert start is not None
    assert (start.next_method, start.timeout) == ("execute_complete", timedelta(seconds=400))
    trigger = NewImagesTrigger(**json.loads(json.dumps(start.trigger_kwargs)))
    many = [f"{number:04}" for number in range(MOST + 50)]
    clock.at(50, lambda: add(products, *many))
    [event] = run_to_end(trigger)
    context: Any = {"ti": Task("deferrable", clock, monkeypatch).instance}
    assert keys(task.resume_execution("execute_complete", {"event": event}, context)) == many
    label(*many)
    again = deferred(
        task, lambda: task.resume_execution("execute_complete", {"event": event}, context)
    )
    end = context["ti"].start_date + timedelta(seconds=400)
    assert datetime.fromisoformat(again.trigger.deadline) == end


def test_a_wrong_parameter_of_a_sensor_that_starts_in_the_triggerer(clock: Clock):
    """The error is the same as on a worker, where ``never_fail`` covers queries only."""
    task = sensor(deferrable=True, start_from_trigger=True, min_images="some", never_fail=True)
    assert task.start_trigger_args is not None
    trigger = NewImagesTrigger(**(task.start_trigger_args.trigger_kwargs or {}))
    [event] = run_to_end(trigger)
    with pytest.raises(ConfigurationError, match="min_images must be"):
        task.resume_execution("execute_complete", {"event": event}, {})


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 renders no template in the triggerer")
def test_templates_of_a_sensor_that_starts_in_the_triggerer():
    """The trigger renders them, so they are kept unrendered."""
    task = sensor(
        deferrable=True, start_from_trigger=True, modified_after="{{ data_interval_start }}"
    )
    assert task.start_trigger_args is not None
    kwargs = task.start_trigger_args.trigger_kwargs or {}
    assert kwargs["modified_after"] == "{{ data_interval_start }}"
    assert set(NewImagesSensor.template_fields) <= set(kwargs)


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 renders no template in the triggerer")
@pytest.mark.parametrize(
    ("urls", "found"),
    [
        ("https://x/a", ["https://x/a"]),
        ('["https://x/a", "https://x/b"]', ["https://x/a", "https://x/b"]),
        ('[{"image_key": "a", "image_uri": "https://x/a"}]', ["a"]),
    ],
)
def test_a_template_that_becomes_a_list_in_the_triggerer(
    urls: str, found: list[str], tmp_path: Path, clock: Clock
):
    """The list is read when it is rendered, as on a worker."""
    task = sensor(
        images="{{ urls }}",
        store=ParquetLabelStore(str(tmp_path)),
        deferrable=True,
        start_from_trigger=True,
    )
    assert task.start_trigger_args is not None
    trigger = NewImagesTrigger(**json.loads(json.dumps(task.start_trigger_args.trigger_kwargs)))
    # As Airflow sets them for such a task.
    trigger.template_fields = ("images", "store")
    trigger.render_template_fields({"urls": urls})
    [event] = run_to_end(trigger)
    assert keys(event["images"]) == found


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 renders no template in the triggerer")
def test_a_template_that_does_not_become_a_list(tmp_path: Path, clock: Clock):
    """The message is the same as on a worker."""
    store = ParquetLabelStore(str(tmp_path))
    trigger = NewImagesTrigger(images="{{ urls }}", store=store)
    trigger.template_fields = ("images", "store")
    trigger.render_template_fields({"urls": ["https://x/a"]})
    [event] = run_to_end(trigger)
    assert (event["status"], event["error"]) == ("error", "ConfigurationError")
    assert "tojson" in event["message"]


SECRET_URIS = [
    "https://user:s3cret@host/a.jpg",
    "https://host/a.jpg?X-Amz-Signature=s3cret",
    "https://host/a.jpg?token=s3cret",
    "s3://key:s3cret@bucket/a.jpg",
]


@pytest.mark.parametrize("uri", SECRET_URIS)
@pytest.mark.parametrize("form", ["uri", "dict", "path"])
def test_no_secret_in_the_serialized_dag(uri: str, form: str, tmp_path: Path):
    """Airflow keeps the kwargs of such a start in plain text, so a worker makes it."""
    images: Any = [uri]
    if form == "dict":
        images = [{"image_key": "a", "image_uri": uri}]
    elif form == "path":
        images = ObjectStorageImages(f"{uri}/")
    with DAG("secrets", schedule=None) as dag:
        task = sensor(
            images=images,
            store=ParquetLabelStore(str(tmp_path)),
            deferrable=True,
            start_from_trigger=True,
        )
    assert not task.start_from_trigger
    name = "SerializedDAG" if AIRFLOW_2 else "DagSerialization"
    serializer: Any = getattr(serialized_objects, name)
    assert "s3cret" not in json.dumps(serializer.to_dict(dag))
    trigger = NewImagesTrigger(images=images, store=ParquetLabelStore(str(tmp_path)))
    for use in (trigger.serialize, trigger.check):
        with pytest.raises(ConfigurationError, match="serialized DAG") as caught:
            use()
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["s3://key:s3cret@bucket/labels", "s3://conn@bucket/labels"])
def test_no_secret_of_a_store_in_the_serialized_dag(path: str):
    """A connection id is no secret."""
    task = sensor(store=ParquetLabelStore(path), deferrable=True, start_from_trigger=True)
    assert task.start_from_trigger is ("s3cret" not in path)


def test_the_output_of_a_task_is_not_known_in_the_triggerer():
    """The error appears when the DAG is parsed."""
    upstream = sensor(task_id="upstream")
    with pytest.raises(ConfigurationError, match="start_from_trigger"):
        sensor(images=upstream.output, deferrable=True, start_from_trigger=True)


# -- the result -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_signature_is_in_no_xcom(
    mode: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """Airflow shows XComs."""
    signed = "https://shop/a.jpg?X-Amz-Signature=abc"
    store = ParquetLabelStore(f"{tmp_path}/lake")
    task = Task(mode, clock, monkeypatch)
    outcome = task.run(lambda **how: sensor(images=[signed], store=store, **how))
    assert outcome.kind == "returned"
    assert "abc" not in json.dumps(outcome.xcom)


@pytest.mark.parametrize("mode", MODES)
def test_files_of_a_folder(
    mode: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """A folder that stands in the DAG file may be read, in the triggerer, too."""
    folder = tmp_path / "photos"
    folder.mkdir()
    clock.at(50, lambda: (folder / "a.jpg").write_bytes(b"x"))
    fields = {"images": ObjectStorageImages(str(folder)), "store": ParquetLabelStore(str(tmp_path))}
    outcome = Task(mode, clock, monkeypatch).run(lambda **how: sensor(**fields, **how))
    if outcome.error:
        raise outcome.error
    [image] = outcome.xcom
    assert image["image_key"].endswith("/photos/a.jpg")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_folder_that_a_template_has_named(
    mode: str,
    is_allowed: bool,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
):
    """The name is data, which must not lead the worker or the triggerer to any folder."""
    (tmp_path / "a.jpg").write_bytes(b"x")
    if is_allowed:
        monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(tmp_path))
    fields = {
        "images": ObjectStorageImages("{{ folder }}"),
        "store": ParquetLabelStore(f"{tmp_path}/lake"),
    }
    task = Task(mode, clock, monkeypatch, folder=str(tmp_path))
    outcome = task.run(lambda **how: sensor(**fields, **how))
    assert outcome.kind == ("returned" if is_allowed else "ConfigurationError")


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_folder_that_a_template_has_named_in_the_triggerer(
    is_allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same holds if the triggerer renders the template."""
    (tmp_path / "a.jpg").write_bytes(b"x")
    if is_allowed:
        monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(tmp_path))
    trigger = NewImagesTrigger(
        images=ObjectStorageImages("{{ folder }}"), store=ParquetLabelStore(f"{tmp_path}/lake")
    )
    # As Airflow does: the field is replaced.
    trigger.images = trigger.images | {"path": str(tmp_path)}
    [event] = run_to_end(trigger)
    assert event["status"] == ("success" if is_allowed else "error")
    assert event["error"] == ("" if is_allowed else "ConfigurationError")


def test_the_log_tells_that_images_are_left_for_the_next_run(
    products: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """A silent limit would be a loss."""
    add(products, *"abcde")
    lines: list[str] = []
    task = sensor(max_images=2)
    monkeypatch.setattr(task.log, "info", lambda text, *values: lines.append(text % values))
    assert keys(task.execute({})) == ["a", "b"]
    assert any("left for the next run" in line for line in lines)


def test_a_copy_can_be_made_of_it_after_a_run(products: Database, clock: Clock):
    """Airflow copies tasks, and a query that is open has locks, which cannot be copied."""
    import copy

    add(products, "a")
    task = sensor()
    task.execute({})
    assert keys(copy.deepcopy(task).execute({})) == ["a"]


def test_a_wrong_store_or_source_is_refused():
    """The error appears when the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="store must be"):
        sensor(store="s3://lake")
    with pytest.raises(ConfigurationError, match="images is a store"):
        sensor(images=STORE)

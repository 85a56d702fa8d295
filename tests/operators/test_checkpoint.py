"""A run without a store that goes on where the task's last try stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from buckets import Bucket
from databases import TaskInstance

from airflow_imagetag.errors import (
    AuthenticationError,
    ImageTagError,
    ResultTooLargeError,
    RunInterruptedError,
)
from airflow_imagetag.models import Image
from airflow_imagetag.operators.checkpoint import checkpoint_store
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.testing import Emulator, Faults

COUNT = 60


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Configure a folder of checkpoints."""
    path = f"{tmp_path}/checkpoints"
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        path = f"s3://aws_default@{bucket.name}/checkpoints"
    monkeypatch.setenv("AIRFLOW__IMAGETAG__CHECKPOINT_PATH", path)
    return path


@pytest.fixture
def images(small_jpegs: Callable[[int], list[bytes]]) -> list[Image]:
    """Give images, of which some are copies and some are none."""
    contents = small_jpegs(COUNT)
    made = [Image(f"key {n}", content=data, version="v") for n, data in enumerate(contents)]
    made[7] = Image("key 7", content=b"no picture")
    made[9] = Image("key 9", content=contents[8])
    return made


def operator(images: list[Image], **fields: Any) -> ImageTagOperator:
    """Make a task."""
    return ImageTagOperator(task_id="label", images=images, batch_size=5, max_in_flight=4, **fields)


def stop_after(task: ImageTagOperator, service: Emulator, count: int) -> threading.Thread:
    """Ask a task to end after a number of billed images."""

    def wait() -> None:
        while service.stats.billed < count:
            if ended.wait(0.005):
                return
        task.on_kill()

    ended = threading.Event()
    thread = threading.Thread(target=wait)
    thread.ended = ended  # type: ignore[attr-defined]
    thread.start()
    return thread


def is_empty(folder: str, task_instance: TaskInstance) -> bool:
    """Tell whether the task's checkpoint holds nothing."""
    with checkpoint_store(folder, task_instance).open("picture_classify") as opened:
        return not any(opened.outcomes())


def test_tries_go_on_where_the_last_one_stopped(
    folder: str, images: list[Image], service: Emulator
):
    """Nothing is paid twice, the last try's outputs are complete, and the checkpoint goes."""
    service.faults = Faults(latency_seconds=0.02)
    summaries = []
    for number, stop in enumerate((15, 35)):
        task, instance = operator(images), TaskInstance(number + 1)
        waiter = stop_after(task, service, stop)
        with pytest.raises(RunInterruptedError):
            task.execute({"ti": instance})
        waiter.join()
        assert not is_empty(folder, instance)
        summaries.append(instance.xcoms["summary"])
        # Images that are paid for are in the outputs of every try.
        assert len(set(instance.xcoms["return_value"]["image_key"])) >= stop - 1
    service.faults = Faults()
    instance = TaskInstance(3)
    frame = operator(images).execute({"ti": instance})
    assert isinstance(frame, pd.DataFrame)
    assert set(frame["image_key"]) == {f"key {n}" for n in range(COUNT) if n != 7}
    assert len(frame) == len(frame.drop_duplicates(["image_key", "rank"]))
    assert instance.xcoms["failures"]["image_key"].tolist() == ["key 7"]
    assert service.stats.billed == COUNT - 2
    assert max(service.stats.billed_images.values()) == 1
    assert instance.xcoms["summary"]["tagged"] == COUNT - 1
    assert is_empty(folder, instance)


def test_a_try_after_a_refusal(folder: str, images: list[Image], service: Emulator):
    """After any end of a try, the images that it paid for are kept."""
    service.faults = Faults(latency_seconds=0.01)
    task = operator(images)

    def lock_out() -> None:
        while service.stats.billed < 20:
            if ended.wait(0.005):
                return
        service.faults = Faults(error_rates={401: 1.0})

    ended = threading.Event()
    thread = threading.Thread(target=lock_out)
    thread.start()
    with pytest.raises(AuthenticationError):
        task.execute({"ti": TaskInstance()})
    ended.set()
    thread.join()
    service.faults = Faults()
    frame = operator(images).execute({"ti": TaskInstance(2)})
    assert len(set(frame["image_key"])) == COUNT - 1
    assert service.stats.billed == COUNT - 2


def test_a_result_that_is_too_large_keeps_everything(
    folder: str, images: list[Image], service: Emulator, monkeypatch: pytest.MonkeyPatch
):
    """The error advises a store; a try with a larger limit pays for the rest only."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__MAX_RESULT_ROWS", "70")
    instance = TaskInstance()
    with pytest.raises(ResultTooLargeError, match="Give the task a store"):
        operator(images).execute({"ti": instance})
    billed = service.stats.billed
    assert 0 < billed < COUNT - 2
    paid = set(instance.xcoms["return_value"]["image_key"])
    assert billed <= len(paid) <= billed + 1
    # As it is, another try pays nothing and fails in the same way.
    with pytest.raises(ResultTooLargeError):
        operator(images).execute({"ti": TaskInstance(2)})
    assert service.stats.billed == billed
    monkeypatch.setenv("AIRFLOW__IMAGETAG__MAX_RESULT_ROWS", "7000")
    frame = operator(images).execute({"ti": TaskInstance(3)})
    assert len(set(frame["image_key"])) == COUNT - 1
    assert service.stats.billed == COUNT - 2


def test_tasks_do_not_share_a_checkpoint(folder: str):
    """Each run, task and mapped task has one of its own, with any characters in their names."""
    instances = []
    for field, value in (
        ("dag_id", "other/dag"),
        ("run_id", "manual__../up"),
        ("run_id", ".."),
        ("task_id", "group.other"),
        ("map_index", 3),
        ("task_id", "x"),
    ):
        instance = TaskInstance()
        setattr(instance, field, value)
        instances.append(instance)
    paths = [checkpoint_store(folder, instance).path for instance in instances]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.startswith(f"{folder}/")
        assert path.count("/") == folder.count("/") + 4
    assert paths[-1] == checkpoint_store(f"{folder}/", TaskInstance(2)).path


def test_max_images_counts_over_all_tries(folder: str, images: list[Image], service: Emulator):
    """A run of twenty images has twenty, in however many tries."""
    service.faults = Faults(latency_seconds=0.02)
    task = operator(images, max_images=20)
    waiter = stop_after(task, service, 8)
    with pytest.raises(RunInterruptedError):
        task.execute({"ti": TaskInstance()})
    waiter.join()
    instance = TaskInstance(2)
    operator(images, max_images=20).execute({"ti": instance})
    summary = instance.xcoms["summary"]
    assert summary["tagged"] + summary["failed"] == 20


def test_without_a_checkpoint_nothing_is_kept(
    tmp_path: Path, images: list[Image], service: Emulator, monkeypatch: pytest.MonkeyPatch
):
    """A run that has no folder of checkpoints writes none."""
    monkeypatch.chdir(tmp_path)
    frame = operator(images[:5]).execute({"ti": TaskInstance()})
    assert len(set(frame["image_key"])) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_used_costs_nothing(
    images: list[Image], service: Emulator, monkeypatch: pytest.MonkeyPatch
):
    """It is found out before the first image is sent."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__CHECKPOINT_PATH", "s3://nobody@nowhere/checkpoints")
    with pytest.raises(ImageTagError, match="nobody"):
        operator(images).execute({"ti": TaskInstance()})
    assert service.stats.requests == 0

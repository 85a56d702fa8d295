"""A run without a store: how large its result may be, and how its next try goes on."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow.providers.common.compat.sdk import DAG, task
from buckets import Bucket
from clusters import Cluster, wait_until
from hosts import AirflowHost, Run, connection

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.testing import Emulator, Faults

MAX_ROWS = 30
OUTAGE = Faults(error_rates={503: 1.0})


def new_dag() -> DAG:
    """Return a DAG without tasks and without a schedule."""
    return DAG("large", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


def label_literals(images: list[str], parameters: dict[str, Any]) -> DAG:
    """Label images of the DAG file."""
    with new_dag() as dag:
        ImageTagOperator(task_id="label", images=images, **parameters)
    return dag


def label_upstream(images: list[str], parameters: dict[str, Any]) -> DAG:
    """Label the images that a task returns."""

    @task
    def give() -> Any:
        return images

    with new_dag() as dag:
        ImageTagOperator(
            task_id="label", images=give(), retry_delay=timedelta(seconds=0), **parameters
        )
    return dag


RunLimited = Callable[..., Run]


@pytest.fixture
def run_limited(airflow_host: AirflowHost, emulator: Emulator) -> RunLimited:
    """Run a DAG in an Airflow whose XComs should hold thirty labels."""

    def run(build: Callable[..., Any], *args: Any) -> Run:
        return airflow_host.run(
            build,
            *args,
            AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator, max_in_flight=4),
            AIRFLOW__IMAGETAG__MAX_RESULT_ROWS=str(MAX_ROWS),
        )

    return run


@pytest.mark.parametrize("build", [label_literals, label_upstream])
def test_more_images_than_labels_are_allowed_are_refused_at_once(
    build, run_limited, emulator, many_urls
):
    """A list that is sure to be too long ends the task before anything is sent."""
    run = run_limited(build, many_urls(MAX_ROWS + 1), {})
    assert run.states["label", -1] == "failed"
    assert "31 images make more than the 30 labels" in run.log
    assert "[imagetag] max_result_rows" in run.log
    assert "store=SqlLabelStore(...)" in run.log
    assert emulator.stats.requests == 0


def test_a_bounded_run_over_a_long_list_is_not_refused(run_limited, emulator, many_urls):
    """The limit counts the labels of the images that the run takes, not the list's length."""
    run = run_limited(label_literals, many_urls(100), {"max_images": 30, "top_k": 1})
    assert run.state == "success", run.log
    assert len(run.xcom("label")) == MAX_ROWS
    assert emulator.stats.billed == 30


def test_a_result_that_grows_too_large_ends_the_run_with_all_that_was_paid(
    run_limited, emulator, many_urls
):
    """More labels than allowed end the task early; the outputs hold every image billed."""
    run = run_limited(label_upstream, many_urls(MAX_ROWS), {"batch_size": 5})
    assert run.states["label", -1] == "failed"
    assert "ResultTooLargeError: The result has more than 30 labels" in run.log
    labels, summary = run.xcom("label"), run.xcom("label", "summary")
    billed = emulator.stats.billed
    assert 0 < billed < MAX_ROWS
    assert len(labels) > MAX_ROWS
    assert labels["image_key"].nunique() == billed == summary["calls"]
    assert len(run.xcom("label", "failures")) == 0


def test_a_result_too_large_is_not_tried_again(run_limited, emulator, many_urls):
    """Another try would pay again and fail again, so ``retries`` is ignored."""
    run = run_limited(label_upstream, many_urls(MAX_ROWS), {"batch_size": 5, "retries": 2})
    assert run.states["label", -1] == "failed"
    stats, summary = emulator.stats, run.xcom("label", "summary")
    assert stats.requests == stats.billed == summary["calls"] == summary["tagged"]
    assert run.xcom("label")["image_key"].nunique() == stats.billed


def test_failures_for_good_are_not_tried_again(run_limited, emulator, many_urls):
    """Images with a fault of their own would fail again; the others would be paid again."""
    images = [*many_urls(6), b"no image", b"no photograph"]
    fields = {"top_k": 1, "retries": 1, "retry_delay": timedelta(seconds=0), "min_failures": 1}
    run = run_limited(label_literals, images, fields)
    assert run.states["label", -1] == "failed"
    assert "TooManyFailuresError: 2 of 8 images failed" in run.log
    assert emulator.stats.requests == 8
    summary = run.xcom("label", "summary")
    assert (summary["tagged"], summary["failed"], summary["calls"]) == (6, 2, 8)
    assert len(run.xcom("label")) == 6
    assert len(run.xcom("label", "failures")) == 2


class Checkpoints:
    """A folder of checkpoints.

    :param path: as the option takes it.
    :param files: lists what is in it.
    """

    def __init__(self, path: str, files: Callable[[], list[str]]) -> None:
        self.path = path
        self.files = files


@pytest.fixture(params=["folder", "bucket"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoints:
    """Give a folder for checkpoints on a disk and in S3."""
    if request.param == "bucket":
        bucket: Bucket = request.getfixturevalue("bucket")
        path = f"s3://aws_default@{bucket.name}/checkpoints"
        return Checkpoints(path, lambda: sorted(bucket.all_keys()))
    return Checkpoints(
        str(tmp_path), lambda: [str(path) for path in tmp_path.rglob("*") if path.is_file()]
    )


IMAGES = 160


def start(cluster: Cluster, checkpoints: Checkpoints, urls: list[str]) -> str:
    """Start a run that keeps a checkpoint."""
    conf = {"checkpoint_path": checkpoints.path, "urls": urls}
    return cluster.trigger("label_checkpointed", conf)


def assert_complete(
    cluster: Cluster, run_id: str, urls: list[str], checkpoints: Checkpoints
) -> None:
    """Find every image in the result of a run that ended well, and nothing of the checkpoint."""
    import pandas as pd

    assert cluster.wait(run_id) == "success"
    xcoms = cluster.home.xcoms("label_checkpointed", run_id)
    data = bytes.fromhex(xcoms["label", "return_value"]["__data__"])
    labels = pd.read_parquet(io.BytesIO(data))
    assert set(labels["image_key"]) == set(urls)
    assert not labels.duplicated(["image_key", "rank"]).any()
    assert not labels.duplicated(["image_key", "label"]).any()
    summary = xcoms["label", "summary"]
    assert summary["tagged"] == len(urls)
    assert 0 < summary["reused"] < len(urls)
    assert summary["calls"] == len(urls) - summary["reused"]
    assert checkpoints.files() == []


def test_a_task_that_is_killed_goes_on_from_its_checkpoint(cluster, many_urls, checkpoints):
    """After a SIGTERM the next try labels only the other images, and returns all labels."""
    cluster.emulator.faults = Faults(latency_seconds=(0.2, 0.4))
    urls = many_urls(IMAGES)
    run_id = start(cluster, checkpoints, urls)
    wait_until(lambda: cluster.emulator.stats.billed > IMAGES // 2, cluster.logs)
    [[pid]] = cluster.home.query(
        "select pid from task_instance where run_id = ? and task_id = 'label'", run_id
    )
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not psutil.pid_exists(pid), cluster.logs)
    assert checkpoints.files()
    assert_complete(cluster, run_id, urls, checkpoints)
    stats = cluster.emulator.stats
    assert stats.billed == IMAGES
    assert set(stats.billed_images.values()) == {1}


@pytest.mark.parametrize("checkpoints", ["bucket"], indirect=True)
def test_a_task_that_meets_an_outage_goes_on_from_its_checkpoint(cluster, many_urls, checkpoints):
    """When the service comes back, the next try labels only the other images."""
    cluster.emulator.faults = Faults(latency_seconds=(0.1, 0.2))
    urls = many_urls(IMAGES)
    run_id = start(cluster, checkpoints, urls)
    wait_until(lambda: cluster.emulator.stats.billed > IMAGES // 2, cluster.logs)
    cluster.emulator.faults = OUTAGE
    # The tries of every image are used up, and the run ends.
    wait_until(lambda: tries(cluster, run_id) > 1, cluster.logs)
    cluster.emulator.faults = Faults()
    assert_complete(cluster, run_id, urls, checkpoints)
    stats = cluster.emulator.stats
    assert stats.billed == IMAGES
    assert set(stats.billed_images.values()) == {1}


def tries(cluster: Cluster, run_id: str) -> int:
    """Return how many tries the task has had."""
    [[number]] = cluster.home.query(
        "select try_number from task_instance where run_id = ? and task_id = 'label'", run_id
    )
    return int(number)

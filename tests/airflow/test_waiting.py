"""The sensor under a real scheduler and triggerer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from buckets import Bucket, s3_bucket
from clusters import AIRFLOW_2, HERE, ROOT, Cluster, wait_until
from databases import new_engine, postgres_server

EXAMPLE = ROOT / "dags_examples" / "sensor_to_load.py"
TIMEOUT_SECONDS = 40
"""Timeout of the DAG ``wait_some_seconds``."""

LOOK = re.compile(r"\d+ of at least \d+ new images in ")
"""A line of the sensor's log for each look that finds too few images."""


@dataclass
class Waiting:
    """Sensors under a scheduler and a triggerer.

    :param cluster: runs them.
    :param bucket: holds the images that they wait for.
    :param photographs: all different.
    """

    cluster: Cluster
    bucket: Bucket
    photographs: Iterator[bytes]

    def put(self, key: str) -> None:
        """Write an image."""
        self.bucket.put(key, next(self.photographs))

    def start(self, dag_id: str, folder: str) -> str:
        """Start a run that waits for images of a folder, or of a bucket, and return its id."""
        place = folder if "/" in folder else f"{self.bucket.name}/{folder}"
        labels = f"labels_{time.time_ns()}"
        conf = {"photographs": f"s3://aws_default@{place}/", "labels": labels}
        return self.cluster.trigger(dag_id, conf)

    def wait_for_deferral(self, run_id: str) -> None:
        """Wait until the sensor of a run is in the triggerer's hands."""
        wait_until(
            lambda: self.cluster.task_states(run_id).get("wait") == "deferred",
            self.cluster.logs,
        )

    def looks(self, run_id: str) -> int:
        """Return how often the sensor of a run has looked in vain, as its log tells."""
        return len(LOOK.findall(self.cluster.task_log(run_id)))

    def wait_for_looks(self, run_id: str, count: int) -> None:
        """Wait until the sensor of a run has looked in vain this often again."""
        wanted = self.looks(run_id) + count
        wait_until(lambda: self.looks(run_id) >= wanted, self.cluster.logs)

    def started(self, run_id: str) -> datetime:
        """Return the time when the sensor of a run started."""
        [[moment]] = self.cluster.home.query(
            "select start_date from task_instance where run_id = ? and task_id = 'wait'", run_id
        )
        assert isinstance(moment, datetime)
        return moment

    def xcom(self, dag_id: str, run_id: str, task_id: str = "wait") -> Any:
        """Return the return value of a task."""
        return self.cluster.home.xcoms(dag_id, run_id)[task_id, "return_value"]


@pytest.fixture(scope="module")
def waiting(
    triggering_cluster: Callable[..., AbstractContextManager[Cluster]],
    photographs: list[bytes],
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Waiting]:
    """Start the example, which looks more often here, and the DAGs of the tests."""
    text = EXAMPLE.read_text()
    assert "poke_interval=60," in text
    example = tmp_path_factory.mktemp("example") / EXAMPLE.name
    text = text.replace("poke_interval=60,", "poke_interval=2,")
    # Its first run must not start before the test does, nor before Airflow's API server.
    text = text.replace("catchup=False,", "catchup=False, is_paused_upon_creation=True,")
    example.write_text(text)
    with (
        pytest.MonkeyPatch.context() as patch,
        # The bucket of the example's params, since the scheduler starts its runs by itself.
        s3_bucket(pytestconfig, patch, "photos") as bucket,
        triggering_cluster([example, HERE / "dags" / "waiting.py"]) as cluster,
    ):
        yield Waiting(cluster, bucket, iter(photographs))


def test_the_example_waits_labels_and_loads(waiting, pytestconfig):
    """The scheduled run is deferred until photographs have settled, then labels and loads them."""
    home = waiting.cluster.home
    waiting.cluster.unpause("sensor_to_load")
    [run_id] = wait_until(
        lambda: [
            run_id
            for (run_id,) in home.query("select run_id from dag_run where dag_id='sensor_to_load'")
        ],
        waiting.cluster.logs,
    )
    assert run_id.startswith("scheduled__")
    waiting.wait_for_deferral(run_id)
    for number in range(3):
        waiting.put(f"incoming/{number}.jpg")
    waiting.wait_for_looks(run_id, 2)
    assert waiting.cluster.task_states(run_id)["wait"] == "deferred", "they may be being written"
    assert waiting.cluster.emulator.stats.requests == 0
    waiting.bucket.grow_old()
    assert waiting.cluster.wait(run_id) == "success", waiting.cluster.logs()
    assert waiting.cluster.task_states(run_id) == dict.fromkeys(
        ("wait", "label", "load"), "success"
    )
    uris = [f"s3://photos/incoming/{number}.jpg" for number in range(3)]
    found = waiting.xcom("sensor_to_load", run_id)
    assert sorted(image["image_key"] for image in found) == uris
    assert waiting.xcom("sensor_to_load", run_id, "label")["tagged"] == 3
    assert waiting.xcom("sensor_to_load", run_id, "load") == 3
    assert waiting.cluster.emulator.stats.billed == waiting.cluster.emulator.stats.requests == 3
    host = postgres_server(pytestconfig).pgdata
    engine = new_engine(f"postgresql+psycopg2://postgres@/postgres?host={host}")
    with engine.connect() as connection:
        keys = connection.exec_driver_sql("select image_key from photo_labels where rank = 1")
        assert sorted(key for (key,) in keys) == uris
        photos = connection.exec_driver_sql("select sum(photos) from photos_by_label")
        assert photos.scalar_one() == 3


def test_a_deferred_sensor_returns_the_new_images(waiting):
    """The XCom of a sensor that was deferred holds the images that came in the meantime."""
    run_id = waiting.start("wait_for_long", "deferred")
    waiting.wait_for_deferral(run_id)
    # A busy scheduler that learns of the end of the process only after the trigger has fired takes
    # it for the end of the task.
    waiting.wait_for_looks(run_id, 3)
    waiting.put("deferred/one.jpg")
    assert waiting.cluster.wait(run_id) == "success", waiting.cluster.logs()
    [image] = waiting.xcom("wait_for_long", run_id)
    assert image["image_key"] == "s3://photos/deferred/one.jpg"
    assert image["image_uri"] == "s3://aws_default@photos/deferred/one.jpg"
    assert image["version"]


def test_start_from_trigger_does_not_start_on_a_worker(waiting):
    """The triggerer looks first, with rendered templates; a worker only takes the result.

    Only workers render templates in Airflow 2.11, so there the sensor starts on one.
    """
    run_id = waiting.start("wait_from_trigger", "from-trigger")
    waiting.wait_for_deferral(run_id)
    files = [
        path
        for path in waiting.cluster.home.path.rglob("attempt=*.log")
        if run_id in str(path) and ".trigger." not in path.name
    ]
    assert bool(files) == AIRFLOW_2
    waiting.put("from-trigger/one.jpg")
    assert waiting.cluster.wait(run_id) == "success", waiting.cluster.logs()
    [image] = waiting.xcom("wait_from_trigger", run_id)
    assert image["image_key"] == "s3://photos/from-trigger/one.jpg"


def test_a_timeout_with_soft_fail_skips(waiting):
    """A sensor that has waited in vain is skipped when it is told to fail softly."""
    run_id = waiting.start("wait_or_skip", "never")
    assert waiting.cluster.wait(run_id) == "success", waiting.cluster.logs()
    assert waiting.cluster.task_states(run_id) == {"wait": "skipped"}
    assert "0 of at least 1 new images" in waiting.cluster.task_log(run_id)


@pytest.mark.parametrize("dag_id", ["wait_for_long", "wait_from_trigger"])
def test_a_wrong_bucket_fails_at_the_first_look(dag_id, waiting):
    """An error that waiting does not mend fails the task with its own text."""
    run_id = waiting.start(dag_id, "no-such-bucket/incoming")
    assert waiting.cluster.wait(run_id) == "failed"
    assert waiting.cluster.task_states(run_id) == {"wait": "failed"}
    log = waiting.cluster.task_log(run_id)
    assert "ConfigurationError" in log
    assert "S3 refuses to list no-such-bucket/incoming/: An error occurred (NoSuchBucket)" in log
    assert waiting.looks(run_id) == 0


def test_a_triggerer_that_is_killed_changes_no_deadline(waiting):
    """A triggerer that starts after the deadline ends the waiting at its first look."""
    run_id = waiting.start("wait_some_seconds", "killed")
    waiting.wait_for_deferral(run_id)
    waiting.wait_for_looks(run_id, 1)
    waiting.cluster.kill("triggerer")
    looks = waiting.looks(run_id)
    deadline = waiting.started(run_id) + timedelta(seconds=TIMEOUT_SECONDS)
    wait_until(lambda: datetime.now(UTC) > deadline, waiting.cluster.logs)
    waiting.cluster.start("triggerer")
    assert waiting.cluster.wait(run_id) == "failed"
    assert waiting.looks(run_id) == looks
    message = f"after the specified timeout of {TIMEOUT_SECONDS} seconds"
    assert message in waiting.cluster.task_log(run_id)


def test_a_killed_triggerer_loses_no_image(waiting):
    """The next triggerer finds the images that came while none ran."""
    run_id = waiting.start("wait_for_long", "between")
    waiting.wait_for_deferral(run_id)
    waiting.cluster.kill("triggerer")
    waiting.put("between/one.jpg")
    waiting.cluster.start("triggerer")
    assert waiting.cluster.wait(run_id) == "success", waiting.cluster.logs()
    assert len(waiting.xcom("wait_for_long", run_id)) == 1

"""The sensor under a real scheduler and triggerer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from buckets import Bucket, s3_bucket
from clusters import AIRFLOW_2, HERE, ROOT, Cluster, wait_until
from databases import postgres_server

EXAMPLE = ROOT / "dags_examples" / "sensor_to_load.py"
TIMEOUT = 25
"""That of the DAG ``wait_some_seconds``."""


@dataclass
class Waiting:
    """Sensors under a scheduler and a triggerer.

    :param cluster: they.
    :param bucket: what they look at.
    :param photographs: a photograph that was not used before, at each call.
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
            60,
            self.cluster.logs,
        )

    def times(self, run_id: str) -> tuple[Any, Any]:
        """Return when the sensor of a run started and ended."""
        [found] = self.cluster.home.query(
            "select start_date, end_date from task_instance where run_id = ? and task_id = 'wait'",
            run_id,
        )
        return found[0], found[1]

    def xcom(self, dag_id: str, run_id: str, task_id: str = "wait") -> Any:
        """Return what a task has returned."""
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
    example.write_text(text.replace("poke_interval=60,", "poke_interval=2,"))
    with (
        pytest.MonkeyPatch.context() as patch,
        # That of the example's params, since the scheduler starts its runs by itself.
        s3_bucket(pytestconfig, patch, "photos") as bucket,
        triggering_cluster([example, HERE / "dags" / "waiting.py"]) as cluster,
    ):
        yield Waiting(cluster, bucket, iter(photographs))


def test_the_example_waits_labels_and_loads(waiting, pytestconfig):
    """The scheduled run is deferred until photographs have settled, then labels and loads them."""
    home = waiting.cluster.home
    [run_id] = wait_until(
        lambda: [
            run_id
            for (run_id,) in home.query("select run_id from dag_run where dag_id='sensor_to_load'")
        ],
        60,
        waiting.cluster.logs,
    )
    assert run_id.startswith("scheduled__")
    waiting.wait_for_deferral(run_id)
    for number in range(3):
        waiting.put(f"incoming/{number}.jpg")
    time.sleep(5)
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
    engine = sa.create_engine(
        f"postgresql+psycopg2://postgres@/postgres?host={host}", poolclass=sa.pool.NullPool
    )
    with engine.connect() as connection:
        keys = connection.execute(sa.text("select image_key from photo_labels where rank = 1"))
        assert sorted(key for (key,) in keys) == uris
        photos = connection.execute(sa.text("select sum(photos) from photos_by_label"))
        assert photos.scalar_one() == 3


def test_a_deferred_sensor_returns_what_has_come(waiting):
    """The XCom of a sensor that was deferred holds the images that came in the meantime."""
    run_id = waiting.start("wait_for_long", "deferred")
    waiting.wait_for_deferral(run_id)
    # A busy scheduler that hears of the end of the process only after the trigger has fired takes
    # it for the end of the task.
    time.sleep(3)
    waiting.put("deferred/one.jpg")
    assert waiting.cluster.wait(run_id) == "success", waiting.cluster.logs()
    [image] = waiting.xcom("wait_for_long", run_id)
    assert image["image_key"] == "s3://photos/deferred/one.jpg"
    assert image["image_uri"] == "s3://aws_default@photos/deferred/one.jpg"
    assert image["version"]


def test_start_from_trigger_does_not_start_on_a_worker(waiting):
    """The triggerer looks first, with rendered templates; a worker only takes the result.

    Airflow 2.11 renders templates on workers alone, so there the sensor starts on one.
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
def test_a_wrong_bucket_fails_at_once(dag_id, waiting):
    """What waiting does not mend fails the task with the error's own text."""
    run_id = waiting.start(dag_id, "no-such-bucket/incoming")
    assert waiting.cluster.wait(run_id, 60) == "failed"
    assert waiting.cluster.task_states(run_id) == {"wait": "failed"}
    log = waiting.cluster.task_log(run_id)
    assert "ConfigurationError" in log
    assert "S3 refuses to list no-such-bucket/incoming/: An error occurred (NoSuchBucket)" in log
    started, ended = waiting.times(run_id)
    assert ended - started < timedelta(seconds=30)


def test_a_triggerer_that_is_killed_changes_no_deadline(waiting):
    """The next triggerer goes on waiting, until the time that was left, and not from anew."""
    run_id = waiting.start("wait_some_seconds", "killed")
    waiting.wait_for_deferral(run_id)
    time.sleep(5)
    waiting.cluster.kill("triggerer")
    time.sleep(5)
    waiting.cluster.start("triggerer")
    assert waiting.cluster.wait(run_id) == "failed"
    started, ended = waiting.times(run_id)
    assert timedelta(seconds=TIMEOUT) <= ended - started < timedelta(seconds=TIMEOUT + 10)
    assert f"after the specified timeout of {TIMEOUT} seconds" in waiting.cluster.task_log(run_id)


def test_a_killed_triggerer_loses_no_image(waiting):
    """Images that come while no triggerer runs are found by the next one."""
    run_id = waiting.start("wait_for_long", "between")
    waiting.wait_for_deferral(run_id)
    waiting.cluster.kill("triggerer")
    waiting.put("between/one.jpg")
    waiting.cluster.start("triggerer")
    assert waiting.cluster.wait(run_id) == "success", waiting.cluster.logs()
    assert len(waiting.xcom("wait_for_long", run_id)) == 1

"""The operator with a shared quota: kept by all tasks together, and during an outage."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import TaskInstance
from forked import Driver
from redis_server import RedisServer

from airflow_imagetag.errors import (
    ConfigurationError,
    QuotaUnavailableError,
    RunInterruptedError,
    UnknownConnectionError,
)
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.quota import QuotaTiming, shared
from airflow_imagetag.testing import Emulator, Faults

DRIVER = Path(__file__).resolve().parents[1] / "operators" / "label_driver.py"

SmallJpegs = Callable[[int], list[bytes]]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Start the process that forks tasks."""
    running = Driver(DRIVER, tmp_path_factory.mktemp("tasks"))
    yield running
    running.end()


def connected(emulator: Emulator, **extra: Any) -> str:
    """Return the emulator's connection with the shared quota ``quota``."""
    fields = json.loads(emulator.connection_json)
    fields["extra"] |= {"quota_conn_id": "quota", **extra}
    return json.dumps(fields)


def rows(contents: list[bytes]) -> list[dict[str, Any]]:
    """Return dicts that name these images."""
    return [{"image_key": f"k{number}", "content": body} for number, body in enumerate(contents)]


@pytest.mark.parametrize("kind", ["redis_server", "postgres"])
def test_two_tasks_share_one_quota(kind, request, driver, small_jpegs, tmp_path):
    """Together they use all of it, and the service refuses nothing."""
    rate, count = 20, 45
    connection = request.getfixturevalue(kind).connection_json
    paths = []
    for number, body in enumerate(small_jpegs(2 * count)):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(body)
    with Emulator(faults=Faults(latency_seconds=0.1, requests_per_second=rate)) as emulator:
        environment = {
            "AIRFLOW_CONN_QUOTA": connection,
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": connected(emulator, requests_per_second=rate),
        }
        started = time.monotonic()
        tasks = [
            driver.start(
                {
                    "source": [str(path) for path in paths[part::2]],
                    "store": {"type": "ParquetLabelStore", "path": f"file://{tmp_path}/lake{part}"},
                },
                environment,
            )
            for part in range(2)
        ]
        summaries = [task.summary() for task in tasks]
        elapsed = time.monotonic() - started
        stats = emulator.stats
    assert [summary["tagged"] for summary in summaries] == [count] * 2
    assert stats.billed == 2 * count
    # Zero, unless the machine delays a request for longer than the margin between them.
    assert stats.over_limit <= 2
    assert sum(summary["throttled"] for summary in summaries) == stats.over_limit
    assert elapsed >= 2 * count / rate * 0.95
    # Each had to leave the other its part: alone it would have taken half as long.
    assert min(summary["elapsed_seconds"] for summary in summaries) >= count / rate * 1.2


def limit_outage(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Give the operator's schedule a shorter time limit, which no parameter of a task sets."""
    timing = QuotaTiming(max_outage_seconds=seconds)
    patch.setattr(shared, "open_schedule", partial(shared.open_schedule, timing=timing))


class Stopping:
    """Stops Redis as soon as some images are labelled.

    :param emulator: counts the images.
    :param server: the Redis.
    :param count: number of images.
    """

    def __init__(self, emulator: Emulator, server: RedisServer, count: int) -> None:
        self._emulator, self._server, self._count = emulator, server, count
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        deadline = time.monotonic() + 20
        while self._emulator.stats.billed < self._count and time.monotonic() < deadline:
            time.sleep(0.02)
        self._server.stop()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def test_a_redis_that_goes_ends_the_task(redis_server, emulator, small_jpegs, monkeypatch):
    """With an error that says so; the outputs hold the images that were labelled before."""
    limit_outage(monkeypatch, 0.5)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator))
    task_instance = TaskInstance()
    task = ImageTagOperator(task_id="label", images=rows(small_jpegs(400)))
    with (
        Stopping(emulator, redis_server, 10),
        pytest.raises(QuotaUnavailableError, match="'quota'"),
    ):
        task.execute({"ti": task_instance})
    labels, summary = (task_instance.xcoms[key] for key in ("return_value", "summary"))
    assert 10 <= summary["tagged"] <= 60
    assert set(labels["image_key"]) <= {f"k{number}" for number in range(400)}
    assert summary["tagged"] == emulator.stats.billed
    assert set(task_instance.xcoms["failures"]["error"]) <= {"QuotaUnavailableError"}
    assert set(task_instance.xcoms["failures"]["attempts"]) <= {0}


def test_a_redis_that_goes_leaves_a_share(redis_server, emulator, small_jpegs, monkeypatch, caplog):
    """With a fallback share the task goes on by itself, slower, and labels all images."""
    count = 50
    extra = {"requests_per_second": 40, "quota_fallback_share": 0.5}
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator, **extra))
    task_instance = TaskInstance()
    task = ImageTagOperator(task_id="label", images=rows(small_jpegs(count)))
    with Stopping(emulator, redis_server, 10):
        task.execute({"ti": task_instance})
    summary = task_instance.xcoms["summary"]
    assert (summary["tagged"], summary["failed"]) == (count, 0)
    assert emulator.stats.billed == count
    # Ten at the whole rate, thirty or more at half of it.
    assert summary["elapsed_seconds"] >= 10 / 40 + 30 / 20 * 0.9
    assert "going on with a share of 0.5" in caplog.text


def test_a_redis_that_is_not_there_is_found_out_before_a_call(
    redis_server, emulator, small_jpegs, monkeypatch
):
    """Nothing is sent without a slot."""
    limit_outage(monkeypatch, 0.2)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator))
    redis_server.stop()
    with pytest.raises(QuotaUnavailableError):
        ImageTagOperator(task_id="label", images=rows(small_jpegs(5))).execute({})
    assert emulator.stats.requests == 0


def test_a_killed_task_does_not_wait_for_the_quota(
    redis_server, emulator, small_jpegs, monkeypatch
):
    """Neither for a slot in the far future nor for a Redis that is away."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator, requests_per_second=0.1)
    )
    task = ImageTagOperator(task_id="label", images=rows(small_jpegs(20)))
    asked: list[float] = []

    def kill() -> None:
        deadline = time.monotonic() + 20
        while not emulator.stats.billed and time.monotonic() < deadline:
            time.sleep(0.02)
        redis_server.stop()
        asked.append(time.monotonic())
        task.on_kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RunInterruptedError):
        task.execute({"ti": TaskInstance()})
    thread.join()
    assert time.monotonic() - asked[0] < 3
    assert emulator.stats.billed == 1
    # The process does not wait either: the thread that asks ends.
    while [thread for thread in threading.enumerate() if "imagetag-quota" in thread.name]:
        assert time.monotonic() - asked[0] < 10
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("connection", "error"), [(None, UnknownConnectionError), ("fs", ConfigurationError)]
)
def test_a_wrong_quota_connection_sends_nothing(
    connection, error, emulator, small_jpegs, monkeypatch
):
    """It is an error of the settings, found before the first request."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator))
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_QUOTA", json.dumps({"conn_type": connection}))
    with pytest.raises(error, match="quota"):
        ImageTagOperator(task_id="label", images=rows(small_jpegs(5))).execute({})
    assert emulator.stats.requests == 0


def test_without_a_limit_no_quota_is_asked(emulator, small_jpegs, monkeypatch):
    """A connection that sets no limit needs no shared one, even if it names one."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator, requests_per_second=0))
    ImageTagOperator(task_id="label", images=rows(small_jpegs(5))).execute({})
    assert emulator.stats.billed == 5


def test_the_pace_of_a_task_does_not_hold_up_others(
    redis_server, emulator, small_jpegs, monkeypatch, driver, tmp_path
):
    """A task with a slower ``requests_per_second`` takes no more of the quota than it uses."""
    connection = connected(emulator, requests_per_second=50)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection)
    *contents, first, second, third = small_jpegs(63)
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path, body in zip(paths, (first, second, third), strict=True):
        path.write_bytes(body)
    slow = driver.start(
        {
            "source": [str(path) for path in paths],
            "store": {"type": "ParquetLabelStore", "path": f"file://{tmp_path}/lake"},
            "requests_per_second": 0.5,
        },
        {
            "AIRFLOW_CONN_QUOTA": redis_server.connection_json,
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": connection,
        },
    )
    deadline = time.monotonic() + 30
    while not emulator.stats.billed and time.monotonic() < deadline:
        time.sleep(0.02)
    task_instance = TaskInstance()
    ImageTagOperator(task_id="fast", images=rows(contents)).execute({"ti": task_instance})
    # Two slots of the slow task, were they as wide as it is slow, would take four seconds.
    assert task_instance.xcoms["summary"]["elapsed_seconds"] < 60 / 50 + 2
    assert slow.summary()["elapsed_seconds"] >= 3.9
    assert emulator.stats.billed == 63

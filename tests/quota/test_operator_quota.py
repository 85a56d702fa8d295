"""The operator with a shared quota: kept by all tasks together, and during an outage."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
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
from airflow_imagetag.operators.options import RunTuning
from airflow_imagetag.quota import QuotaTiming
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
    """Together they use all of it, and the service hardly refuses a request."""
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
    # None, unless a busy machine delays requests for longer than the margin between them. Two tasks
    # that do not share are refused some forty times.
    assert stats.over_limit <= count / 3
    assert sum(summary["throttled"] for summary in summaries) == stats.over_limit
    assert elapsed >= 2 * count / rate * 0.95
    # Each had to leave the other its part: alone it would have taken half as long.
    assert min(summary["elapsed_seconds"] for summary in summaries) >= count / rate * 1.2


class Enduring(ImageTagOperator):
    """Bears a shared quota that is out of reach for another time than the default.

    :param outage_seconds: maximum time.
    """

    def __init__(self, *, outage_seconds: float, **fields: Any) -> None:
        super().__init__(**fields)
        self._outage_seconds = outage_seconds

    def _tuning(self) -> RunTuning:
        return RunTuning(quota=QuotaTiming(max_outage_seconds=self._outage_seconds))


class CommandLog:
    """The commands that a Redis runs from now on, those of scripts included.

    :param server: the Redis.
    """

    def __init__(self, server: RedisServer) -> None:
        self._port = server.port
        with redis.Redis(port=self._port) as client:
            client.config_set("slowlog-max-len", 10_000)
            client.config_set("slowlog-log-slower-than", 0)

    def arguments(self, name: str) -> list[list[bytes]]:
        """Return the arguments of each run of a command."""
        with redis.Redis(port=self._port) as client:
            commands = [entry["command"].split() for entry in client.slowlog_get(10_000)]
        return [arguments for command, *arguments in commands if command == name.encode()]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a state that a running task reaches."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator))
    task_instance = TaskInstance()
    task = Enduring(task_id="label", images=rows(small_jpegs(400)), outage_seconds=0.5)
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
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator))
    redis_server.stop()
    task = Enduring(task_id="label", images=rows(small_jpegs(5)), outage_seconds=0.2)
    with pytest.raises(QuotaUnavailableError):
        task.execute({})
    assert emulator.stats.requests == 0


class Killing:
    """Kills a task that a ``with`` block executes.

    :param task: the task.
    :param is_due: tells whether the task waits.
    """

    def __init__(self, task: ImageTagOperator, is_due: Callable[[], bool]) -> None:
        self._task = task
        self._is_due = is_due
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._kill)
        self.has_ended_it = False

    def _kill(self) -> None:
        wait_until(self._is_due)
        self._task.on_kill()
        # Any wait that the kill does not end takes longer.
        self.has_ended_it = self._ended.wait(45)

    def __enter__(self) -> Killing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def is_asking() -> bool:
    """Tell whether a thread asks for the shared quota."""
    return any("imagetag-quota" in thread.name for thread in threading.enumerate())


def test_a_killed_task_does_not_wait_for_a_slot(redis_server, emulator, small_jpegs, monkeypatch):
    """It ends long before its next slot."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator, requests_per_second=1 / 200)
    )
    log = CommandLog(redis_server)
    task = ImageTagOperator(task_id="label", images=rows(small_jpegs(20)))

    def has_next_slot() -> bool:
        # Each reservation sets the key of the quota.
        return emulator.stats.billed == 1 and len(log.arguments("SET")) == 2

    with Killing(task, has_next_slot) as killing, pytest.raises(RunInterruptedError):
        task.execute({"ti": TaskInstance()})
    assert killing.has_ended_it
    assert emulator.stats.billed == 1
    wait_until(lambda: not is_asking())


def test_a_killed_task_does_not_wait_for_a_redis_that_is_away(
    redis_server, emulator, small_jpegs, monkeypatch
):
    """It ends, and so does the thread that asks, although an outage may take an hour."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connected(emulator))
    redis_server.stop()
    task = Enduring(task_id="label", images=rows(small_jpegs(20)), outage_seconds=3600)
    with Killing(task, is_asking) as killing, pytest.raises(RunInterruptedError):
        task.execute({"ti": TaskInstance()})
    assert killing.has_ended_it
    assert emulator.stats.requests == 0
    wait_until(lambda: not is_asking())


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
    log = CommandLog(redis_server)
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
    wait_until(lambda: emulator.stats.billed > 0)
    ImageTagOperator(task_id="fast", images=rows(contents)).execute({})
    assert slow.summary()["elapsed_seconds"] >= 3.9
    assert emulator.stats.billed == 63
    # A reservation takes one or two slots of the quota, and none as wide as the slow task is slow.
    slot = round(1_020_000 / 50)
    widths = {int(width) for _script, _keys, _key, width, _kept in log.arguments("EVALSHA")}
    assert widths == {slot, 2 * slot}

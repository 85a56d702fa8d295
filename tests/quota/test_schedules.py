"""Schedules in Redis and SQL: each slot is given out once, to any number of processes."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from forked import Driver, Task
from sqlalchemy.dialects import mysql

from airflow_imagetag.backends.dialects import dialect_named
from airflow_imagetag.quota.shared import SharedSchedule, open_schedule
from airflow_imagetag.quota.sql import TABLE, SqlSchedule

DRIVER = Path(__file__).resolve().parent / "quota_driver.py"
IN_SQL = ["postgres", "sqlite"]

Open = Callable[..., SharedSchedule]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Start the process that forks the others."""
    running = Driver(DRIVER, tmp_path_factory.mktemp("processes"))
    yield running
    running.end()


@pytest.fixture
def connection(kind: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """Make the connection ``quota`` to a fresh server or file; return it as an environment."""
    kept = request.getfixturevalue("redis_server" if kind == "redis" else kind)
    patch = request.getfixturevalue("monkeypatch")
    patch.setenv("AIRFLOW_CONN_QUOTA", kept.connection_json)
    return {"AIRFLOW_CONN_QUOTA": kept.connection_json}


@pytest.fixture
def opened(connection: dict[str, str]) -> Iterator[Open]:
    """Open schedules, and close them when the test ends."""
    schedules: list[SharedSchedule] = []

    def make(name: str = "q", fallback_share: float | None = None) -> SharedSchedule:
        schedules.append(open_schedule("quota", name, fallback_share=fallback_share))
        return schedules[-1]

    yield make
    for schedule in schedules:
        schedule.close()


def start_four(driver: Driver, connection: dict[str, str], **job: Any) -> list[Task]:
    """Start four processes that begin at the same moment."""
    job = {"conn_id": "quota", "name": "q", "from": time.time() + 0.5, **job}
    return [driver.start(job, connection) for _ in range(4)]


def end(tasks: list[Task]) -> None:
    """Kill processes that still run, as the failure of a machine does."""
    for task in tasks:
        assert task.poll() is None, task.output.read_text()
        task.signal(signal.SIGKILL)
    assert {task.wait() for task in tasks} == {-signal.SIGKILL}


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for an effect of other processes."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def found_by(task: Task) -> str:
    """Return the text that a process has written so far."""
    path = task.output.with_suffix(".found")
    return path.read_text() if path.exists() else ""


def moments_of(task: Task) -> list[float]:
    """Return the lines that a process wrote, except a last one that was cut off."""
    return [float(line) for line in found_by(task).split("\n")[:-1]]


def most_in_a_second(moments: list[float]) -> int:
    """Return the number of grants in the fullest second."""
    return max(sum(start <= moment < start + 1 for moment in moments) for start in moments)


def is_now(delay: float) -> bool:
    """Tell whether a slot begins at once: it may have begun during the reservation."""
    return -1 < delay <= 0


@pytest.mark.parametrize("kind", ["redis", *IN_SQL])
def test_slots_of_one_process_follow_each_other(kind, opened):
    """The first begins now, each next one with the end of the last, also of several at once."""
    schedule = opened()
    assert is_now(schedule.reserve(1, 100))
    asked = time.monotonic()
    delays = [schedule.reserve(count, 100) for count in (3, 1)]
    passed = time.monotonic() - asked
    assert delays[0] == pytest.approx(100, abs=5)
    assert 300 - passed - 0.01 <= delays[1] - delays[0] <= 300.01


@pytest.mark.parametrize("kind", ["redis", *IN_SQL])
def test_unused_time_is_gone(kind, opened):
    """After a pause one slot begins now, and no other."""
    schedule = opened()
    schedule.reserve(5, 0.01)
    time.sleep(0.3)
    assert is_now(schedule.reserve(1, 50))
    assert 45 < schedule.reserve(1, 50) <= 50


@pytest.mark.parametrize("kind", ["redis", *IN_SQL])
def test_four_processes_get_each_slot_once(kind, driver, connection):
    """Without gaps and repetitions, also when all of them create the table at once."""
    interval = 1000.0
    tasks = start_four(driver, connection, reserve=25, interval_seconds=interval)
    assert [task.wait() for task in tasks] == [0] * 4, [t.output.read_text() for t in tasks]
    moments = sorted(moment for task in tasks for moment in moments_of(task))
    # Each is the beginning of a slot, with the delay of an answer on a busy machine.
    places = [round((moment - moments[0]) / interval) for moment in moments]
    assert places == list(range(100))


@pytest.mark.parametrize("kind", ["redis", *IN_SQL])
def test_four_processes_use_the_quota_together(kind, driver, connection):
    """Nine tenths of it at least, evenly spread, with a part for every process."""
    rate = 20
    tasks = start_four(driver, connection, requests_per_second=rate, until=time.time() + 60)
    wait_until(lambda: all(moments_of(task) for task in tasks))
    begun = time.time()
    time.sleep(4)
    ended = time.time()
    end(tasks)
    each = [[m for m in moments_of(task) if begun <= m < ended] for task in tasks]
    together = sorted(itertools.chain.from_iterable(each))
    assert len(together) >= 0.9 * rate * (ended - begun) - 1
    # A busy machine delays grants from one second to the next.
    assert most_in_a_second(together) <= rate * 1.2
    assert min(map(len, each)) >= 0.5 * len(together) / 4


@pytest.mark.parametrize("kind", ["redis", *IN_SQL])
def test_a_killed_process_leaves_its_part_to_the_others(kind, driver, connection):
    """Only the slot that it was about to take is lost; the others take all further ones."""
    interval = 1000.0
    tasks = start_four(driver, connection, reserve=1_000_000, interval_seconds=interval)
    wait_until(lambda: all(moments_of(task) for task in tasks))
    end(tasks[:2])
    taken = sum(len(moments_of(task)) for task in tasks)
    wait_until(lambda: sum(len(moments_of(task)) for task in tasks) > taken + 20)
    end(tasks[2:])
    moments = sorted(moment for task in tasks for moment in moments_of(task))
    places = [round((moment - moments[0]) / interval) for moment in moments]
    assert len(places) == len(set(places))
    # A process that is killed may have reserved a slot that it had not yet written.
    assert places[-1] + 1 - len(places) <= len(tasks)


@pytest.mark.parametrize("kind", IN_SQL)
def test_a_process_that_dies_in_a_transaction_blocks_no_other(kind, driver, connection, opened):
    """Its transaction ends with it, and is rolled back."""
    task = driver.start({"hold": True, "conn_id": "quota", "name": "q"}, connection)
    wait_until(lambda: found_by(task) == "locked")
    asked = threading.Event()
    delays: list[float] = []

    def ask() -> None:
        schedule = opened()
        asked.set()
        delays.append(schedule.reserve(1, 0.01))

    thread = threading.Thread(target=ask)
    thread.start()
    asked.wait(20)
    thread.join(0.3)
    assert delays == []
    task.signal(signal.SIGKILL)
    assert task.wait() == -signal.SIGKILL
    thread.join(20)
    # The slot may have begun during the wait.
    assert len(delays) == 1
    assert -60 < delays[0] < 0.1


@pytest.mark.parametrize("kind", ["redis", *IN_SQL])
def test_two_names_are_two_quotas(kind, opened):
    """Another account or interface has slots of its own on the same server."""
    one, another = opened("one"), opened("another@host/api")
    assert one.reserve(1, 500) < 1
    assert another.reserve(1, 500) < 1
    assert one.reserve(1, 500) > 400
    assert opened("another@host/api").reserve(1, 500) > 400


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_the_servers_clock_counts(kind, opened, monkeypatch):
    """A worker whose clock is an hour off gets the same slots as the others."""
    schedule = opened()
    schedule.reserve(1, 50)
    true_time = time.time
    for error in (3600, -3600):
        monkeypatch.setattr(time, "time", lambda error=error: true_time() + error)
        assert 0 < schedule.reserve(1, 0.01) <= 51


def test_the_clock_of_mysql_tells_microseconds():
    """In whole seconds, all slots of a second would be one and the same."""
    now = str(sa.select(dialect_named("mysql").now_microseconds()).compile(dialect=mysql.dialect()))
    assert "SYSDATE(6)" in now


@pytest.mark.parametrize("kind", ["redis", *IN_SQL])
def test_a_slow_quota_is_not_forgotten(kind, opened):
    """Also requests with many hours between them keep their distance."""
    schedule = opened()
    schedule.reserve(1, 100_000)
    assert schedule.reserve(1, 100_000) > 99_000
    if kind == "redis":
        client = schedule._schedule._client
        [key] = client.keys()
        assert client.pttl(key) / 1000 > 200_000


@pytest.mark.parametrize("kind", ["redis"])
def test_redis_forgets_an_unused_quota(kind, opened):
    """The key expires an hour after its last slot, and names account, host and interface only."""
    schedule = opened("1250000001@recognition.example/picture_classify")
    schedule.reserve(1, 0.05)
    client = schedule._schedule._client
    assert client.keys() == [b"imagetag:quota:1250000001@recognition.example/picture_classify"]
    assert 3500 < client.ttl(client.keys()[0]) <= 3601


@pytest.mark.parametrize("kind", IN_SQL)
def test_the_table_has_a_row_for_each_quota(kind, request, opened):
    """It is created on first use, and grows with the names, not with the requests."""
    for _ in range(3):
        for name in ("one", "two"):
            opened(name).reserve(1, 0.01)
    database = request.getfixturevalue(kind)
    assert database.tables() == {TABLE}
    assert sorted(database.rows(f"SELECT name FROM {TABLE}")) == [("one",), ("two",)]


@pytest.mark.parametrize("kind", IN_SQL)
def test_a_dropped_table_is_created_again(kind, request, opened):
    """The failed reservation is repeated."""
    schedule = opened()
    schedule.reserve(1, 0.01)
    request.getfixturevalue(kind).run(f"DROP TABLE {TABLE}")
    assert -1 < schedule.reserve(1, 0.01) < 1


@pytest.mark.parametrize("kind", IN_SQL)
def test_many_threads_create_the_table_at_once(kind, connection):
    """Each finds it, no matter which of them created it."""
    schedules = [SqlSchedule("quota", "q") for _ in range(8)]
    barrier = threading.Barrier(len(schedules))
    delays: list[float] = []

    def ask(schedule: SqlSchedule) -> None:
        barrier.wait()
        delays.append(schedule.reserve(1, 1000))

    threads = [threading.Thread(target=ask, args=(schedule,)) for schedule in schedules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for schedule in schedules:
        schedule.close()
    assert [round(delay / 1000) for delay in sorted(delays)] == list(range(8))

"""The record of a run in the store: at its start, meanwhile, and at every kind of end."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import airflow
import pandas as pd
import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from databases import Database, TaskInstance, unlimited
from forked import Driver

from airflow_imagetag.errors import ConfigurationError, RunInterruptedError, TooManyFailuresError
from airflow_imagetag.frames import RUN_COUNTS
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.options import RunTuning
from airflow_imagetag.operators.run_record import RecordTiming
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator, Faults

SmallJpegs = Callable[[int], list[bytes]]

DRIVER = Path(__file__).resolve().parent / "label_driver.py"


@pytest.fixture(params=["sqlite", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue("sqlite")
    return SqlLabelStore("warehouse")


@pytest.fixture
def priced(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Give the connection a price."""
    connection = unlimited(service, price_per_thousand=2.5)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection)
    return service


def rows_of(contents: list[bytes]) -> list[dict[str, Any]]:
    """Return dicts that name these images."""
    return [{"image_key": f"k{n}", "content": content} for n, content in enumerate(contents)]


def operator(images: Any, store: LabelStore, **fields: Any) -> ImageTagOperator:
    """Return the operator."""
    return ImageTagOperator(task_id="label", images=images, store=store, **fields)


def runs_of(store: LabelStore) -> list[dict[str, Any]]:
    """Return the rows of all runs."""
    rows: Any = pd.concat(store.runs()).to_dict("records")
    return list(rows)


def test_the_row_has_the_counts_of_the_summary(
    store: LabelStore, priced: Emulator, small_jpegs: SmallJpegs
):
    """With the names of the task's try, and the price at the time."""
    images = [*rows_of(small_jpegs(3)), {"image_key": "bad", "content": b"no picture"}]
    summary = operator(images, store, shard="0/1").execute({"ti": TaskInstance(2)})
    assert isinstance(summary, dict)
    again = operator(images, store).execute({})
    assert isinstance(again, dict)
    first, second = runs_of(store)
    assert {name: first[name] for name in RUN_COUNTS} == {n: summary[n] for n in RUN_COUNTS}
    assert (first["calls"], first["billed_calls"], first["refused_calls"]) == (4, 3, 1)
    assert first["cost"] == pytest.approx(0.0075) == summary["estimated_cost"]
    task = {"dag_id": "catalogue", "task_id": "x", "map_index": -1, "try_number": 2}
    wanted = {
        **task,
        "run_id": TaskInstance.run_id,
        "api": "picture_classify",
        "outcome": "success",
    }
    wanted["shard"] = "0/1"
    assert {name: first[name] for name in wanted} == wanted
    assert first["started_at"] <= first["ended_at"] <= second["started_at"]
    assert (second["calls"], second["outcome"]) == (0, "success")
    assert all(pd.isna(second[name]) for name in ("shard", "dag_id", "try_number"))


def test_calls_are_told_apart_by_their_answers(
    sqlite: Database, priced: Emulator, small_jpegs: SmallJpegs
):
    """Billed, refused, and unknown where the answer was lost."""
    priced.faults = Faults(error_rates={503: 0.2}, drop_after_work_rate=0.2, garbage_rate=0.1)
    store = SqlLabelStore("warehouse")
    operator(rows_of(small_jpegs(40)), store, max_failure_ratio=1).execute({})
    [row] = runs_of(store)
    assert row["calls"] == row["billed_calls"] + row["refused_calls"] + row["unknown_calls"]
    assert row["refused_calls"] > 0
    assert row["unknown_calls"] > 0
    assert row["billed_calls"] <= priced.stats.billed <= row["calls"] - row["refused_calls"]


# -- ends -------------------------------------------------------------------------------------


def test_a_run_with_too_many_failures(store: LabelStore, service: Emulator):
    """The row has the class of the error."""
    images = rows_of([b"a", b"b", b"c"])
    with pytest.raises(TooManyFailuresError):
        operator(images, store).execute({})
    [row] = runs_of(store)
    assert (row["outcome"], row["error"], row["failed"]) == ("failed", "TooManyFailuresError", 3)


def test_a_run_whose_source_cannot_be_read(sqlite: Database, service: Emulator):
    """It is recorded although it has labelled nothing."""
    store = SqlLabelStore("warehouse")
    with pytest.raises(ConfigurationError):
        operator(SqlImages("warehouse", table="nowhere"), store).execute({})
    [row] = runs_of(store)
    assert (row["outcome"], row["error"], row["calls"]) == ("failed", "ConfigurationError", 0)


def test_a_run_that_is_asked_to_end(store: LabelStore, service: Emulator, small_jpegs: SmallJpegs):
    """As Airflow does it, while calls are on their way."""
    service.faults = Faults(latency_seconds=0.1)
    task = operator(rows_of(small_jpegs(40)), store, max_in_flight=2)
    timer = threading.Timer(0.6, task.on_kill)
    timer.start()
    with pytest.raises(RunInterruptedError):
        task.execute({})
    timer.join()
    [row] = runs_of(store)
    assert (row["outcome"], row["error"]) == ("interrupted", "RunInterruptedError")
    assert row["billed_calls"] == service.stats.billed
    assert not pd.isna(row["ended_at"])


def test_a_run_whose_time_limit_passes(
    sqlite: Database, service: Emulator, small_jpegs: SmallJpegs
):
    """As Airflow's ``execution_timeout`` does it: a signal whose handler raises."""

    def expire(*_: Any) -> None:
        raise AirflowTaskTimeout("Timeout")

    service.faults = Faults(latency_seconds=0.1)
    store = SqlLabelStore("warehouse")
    before = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.6)
        with pytest.raises(AirflowTaskTimeout):
            operator(rows_of(small_jpegs(40)), store, max_in_flight=2).execute({})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    [row] = runs_of(store)
    assert (row["outcome"], row["error"]) == ("timed_out", "AirflowTaskTimeout")
    assert row["calls"] - row["unknown_calls"] <= service.stats.billed <= row["calls"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Start the process that forks tasks."""
    running = Driver(DRIVER, tmp_path_factory.mktemp("tasks"))
    yield running
    running.end()


def connections(service: Emulator) -> dict[str, str]:
    """Return the connections of a task in a process of its own."""
    return {
        "AIRFLOW_CONN_IMAGETAG_DEFAULT": unlimited(service),
        "AIRFLOW_CONN_WAREHOUSE": os.environ.get("AIRFLOW_CONN_WAREHOUSE", ""),
    }


AIRFLOW_2 = airflow.__version__.startswith("2.")


def in_thread(task: ImageTagOperator) -> None:
    """Run a task in a thread; Airflow 2 knows its callers in the main thread only."""
    if AIRFLOW_2:
        module = importlib.import_module("airflow.models.baseoperator")
        module.ExecutorSafeguard._sentinel.callers = {}
    task.execute({})


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_run_is_found_by_the_next_try(
    store: LabelStore,
    service: Emulator,
    driver: Driver,
    small_jpegs: SmallJpegs,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """A process that dies writes no end; what it had sent may have been billed."""
    images = [str(tmp_path / f"k{number}.jpg") for number in range(40)]
    for path, content in zip(images, small_jpegs(40), strict=True):
        Path(path).write_bytes(content)
    service.faults = Faults(latency_seconds=0.1)
    job = {"source": images, "store": store.serialize(), "max_in_flight": 2, "try_number": 1}
    job |= {"flush_seconds": 0.1, "record_seconds": 0.1}
    task = driver.start(job, connections(service))
    wait_until(lambda: service.stats.billed >= 10)
    wait_until(lambda: runs_of(store)[0]["billed_calls"] >= 5)
    task.signal(signal.SIGKILL)
    assert task.wait() == -signal.SIGKILL
    [row] = runs_of(store)
    assert (row["outcome"], pd.isna(row["ended_at"])) == ("running", True)
    billed = service.stats.billed
    service.faults = Faults()
    with caplog.at_level(logging.WARNING):
        operator(images, store).execute({"ti": TaskInstance(2)})
    assert "An earlier run was killed: catalogue / x / manual__" in caplog.text
    killed, last = runs_of(store)
    assert (killed["outcome"], last["outcome"]) == ("killed", "success")
    assert killed["started_at"] < killed["ended_at"] <= last["started_at"]
    assert killed["billed_calls"] <= billed
    assert last["billed_calls"] == service.stats.billed - billed


# -- stores that do not take it -----------------------------------------------------------------


def test_a_store_that_takes_no_record_ends_no_run(
    sqlite: Database,
    service: Emulator,
    small_jpegs: SmallJpegs,
    caplog: pytest.LogCaptureFixture,
):
    """A warning says so, and the images are labelled."""
    sqlite.run("CREATE TABLE image_labels_runs (id integer)")
    store = SqlLabelStore("warehouse")
    summary = operator(rows_of(small_jpegs(2)), store).execute({})
    assert isinstance(summary, dict)
    assert summary["tagged"] == 2
    assert "This run is not recorded in the store: image_labels_runs could" in caplog.text


def test_a_table_that_is_dropped_during_a_run_ends_no_run(
    sqlite: Database,
    service: Emulator,
    small_jpegs: SmallJpegs,
    caplog: pytest.LogCaptureFixture,
):
    """Neither where the record is updated, nor at its end."""

    class Quick(ImageTagOperator):
        def _tuning(self) -> RunTuning:
            return RunTuning(record=RecordTiming(update_seconds=0.05))

    service.faults = Faults(latency_seconds=0.3)

    def drop_table() -> None:
        wait_until(lambda: service.stats.requests)
        sqlite.run("DROP TABLE image_labels_runs")

    drop = threading.Thread(target=drop_table)
    drop.start()
    summary = Quick(
        task_id="label",
        images=rows_of(small_jpegs(4)),
        store=SqlLabelStore("warehouse"),
        max_in_flight=1,
    ).execute({})
    drop.join()
    assert isinstance(summary, dict)
    assert summary["tagged"] == 4
    assert "The record of this run is not up to date" in caplog.text
    assert "The end of this run is not recorded" in caplog.text


def test_a_reader_sees_a_run_in_progress(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs
):
    """Its counts grow while it is written, and two readers of the store see the same."""

    class Quick(ImageTagOperator):
        def _tuning(self) -> RunTuning:
            return RunTuning(record=RecordTiming(update_seconds=0.05))

    service.faults = Faults(latency_seconds=0.1)
    task = Quick(
        task_id="label",
        images=rows_of(small_jpegs(20)),
        store=store,
        max_in_flight=1,
        flush_seconds=0.1,
    )
    thread = threading.Thread(target=in_thread, args=(task,))

    def read() -> tuple[list[int], list[int]]:
        seen: list[int] = []
        labelled: list[int] = []
        while thread.is_alive():
            for frame in store.runs():
                assert frame["outcome"].isin(["running", "success"]).all()
                seen.append(int(frame["calls"].iloc[0]))
            labelled.append(sum(frame["image_key"].nunique() for frame in store.labels()))
        return seen, labelled

    with ThreadPoolExecutor(2) as readers:
        thread.start()
        found = [readers.submit(read) for _ in range(2)]
        for seen, labelled in (one.result() for one in found):
            assert seen == sorted(seen)
            assert labelled == sorted(labelled)
            assert len(set(seen)) > 2
    assert runs_of(store)[0]["calls"] == 20


def test_the_clock_of_another_worker_may_differ(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs
):
    """A run of a worker that is minutes ahead or behind is not taken for a killed one for long."""

    def label(minutes: float, images: Any) -> None:
        class Shifted(ImageTagOperator):
            def _tuning(self) -> RunTuning:
                def clock() -> datetime:
                    now = RecordTiming().clock()
                    return now + timedelta(minutes=minutes)

                return RunTuning(record=RecordTiming(clock=clock))

        in_thread(Shifted(task_id="label", images=images, store=store))

    images = rows_of(small_jpegs(4))
    service.faults = Faults(latency_seconds=1.0)
    slow = threading.Thread(target=label, args=(0, images[:1]))
    slow.start()
    wait_until(lambda: service.stats.requests >= 1)
    label(10, images[1:2])
    label(-10, images[2:3])
    slow.join()
    assert [row["outcome"] for row in runs_of(store)] == ["success"] * 3
    # The end of a run that was taken for a killed one puts the record right.
    slow = threading.Thread(target=label, args=(-20, images[3:]))
    slow.start()
    wait_until(lambda: service.stats.requests >= 4)
    label(0, [])
    assert sum(row["outcome"] == "killed" for row in runs_of(store)) == 1
    slow.join()
    assert [row["outcome"] for row in runs_of(store)] == ["success"] * 5
    assert sum(row["calls"] for row in runs_of(store)) == 4

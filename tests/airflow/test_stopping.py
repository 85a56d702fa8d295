"""How a run ends before its last image: signals, a state set by hand, a time limit."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import HERE, AirflowHome, Cluster, end_group, wait_until
from hosts import connection

from airflow_imagetag.testing import Emulator, Faults

MAX_IN_FLIGHT = 8
SLOW = Faults(latency_seconds=0.3)
"""With eight at a time, a thousand images would take more than half a minute."""

STOP_SECONDS = 60
"""Far more than a stopped run needs; one that is not stopped sends most of its images by then."""

MOST_IMAGES = 900
"""More than any stopped run has labelled, and fewer than a run that was not stopped labels."""


@pytest.fixture
def slow_emulator() -> Iterator[Emulator]:
    """Run a slow service."""
    with Emulator(faults=SLOW) as running:
        yield running


def start_test_run(
    new_home: Any, emulator: Emulator, folder: Path, **environment: str
) -> tuple[AirflowHome, subprocess.Popen[str]]:
    """Start ``airflow dags test`` over a thousand images."""
    home = new_home(
        HERE / "dags",
        AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS=str(folder),
        AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator, max_in_flight=MAX_IN_FLIGHT),
        **environment,
    )
    conf = json.dumps({"folder": str(folder)})
    return home, home.start("dags", "test", "label_folder", "-c", conf)


def assert_outputs_hold_all_that_was_paid(
    home: AirflowHome, emulator: Emulator, run_id: str | None = None
) -> None:
    """Compare labels, failures and summary with the counts of the service."""
    import pandas as pd

    xcoms = home.xcoms("label_folder", run_id)
    summary = xcoms["label", "summary"]
    stats = emulator.stats
    assert summary["tagged"] == stats.billed
    assert summary["calls"] == stats.requests
    assert 0 < summary["tagged"] < MOST_IMAGES
    frames = [
        pd.read_parquet(io.BytesIO(bytes.fromhex(xcoms["label", key]["__data__"])))
        for key in ("return_value", "failures")
    ]
    assert len(set(frames[0]["image_key"])) == summary["tagged"]
    assert len(frames[1]) == summary["failed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_test_run(number, new_home, slow_emulator, image_folder):
    """After SIGTERM or SIGINT no new image is begun; the outputs hold every paid answer."""
    home, process = start_test_run(new_home, slow_emulator, image_folder)
    try:
        wait_until(
            lambda: slow_emulator.stats.requests > 3 * MAX_IN_FLIGHT,
            (home.path / "command.log").read_text,
        )
        process.send_signal(number)
        sent = slow_emulator.stats.requests
        process.wait(STOP_SECONDS)
    finally:
        end_group(process)
    log = (home.path / "command.log").read_text()
    assert slow_emulator.stats.requests <= sent + MAX_IN_FLIGHT, log
    assert_outputs_hold_all_that_was_paid(home, slow_emulator)


def test_a_time_limit_ends_a_test_run(new_home, slow_emulator, image_folder):
    """``execution_timeout`` ends the run as a signal does."""
    home, process = start_test_run(
        new_home, slow_emulator, image_folder, LABEL_FOLDER_TIMEOUT_SECONDS="8"
    )
    try:
        process.wait(90)
    finally:
        end_group(process)
    log = (home.path / "command.log").read_text()
    assert "AirflowTaskTimeout" in log
    assert_outputs_hold_all_that_was_paid(home, slow_emulator)


def running_task(cluster: Cluster, folder: Path) -> tuple[str, psutil.Process]:
    """Start a run under the scheduler; return its id and its task's process once it labels."""
    cluster.emulator.faults = SLOW
    run_id = cluster.trigger("label_folder", {"folder": str(folder)})
    wait_until(lambda: cluster.emulator.stats.requests > 3 * MAX_IN_FLIGHT, cluster.logs)
    [[pid]] = cluster.home.query(
        "select pid from task_instance where run_id = ? and task_id = 'label'", run_id
    )
    return run_id, psutil.Process(pid)


def wait_for_the_end(cluster: Cluster, process: psutil.Process) -> None:
    """Wait for the task's process to end."""
    wait_until(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        cluster.logs,
        STOP_SECONDS,
    )


def test_sigterm_ends_a_scheduled_task(cluster, image_folder):
    """A worker that is shut down ends the task, whose outputs hold every paid answer."""
    run_id, process = running_task(cluster, image_folder)
    sent = cluster.emulator.stats.requests
    os.kill(process.pid, signal.SIGTERM)
    wait_for_the_end(cluster, process)
    assert cluster.emulator.stats.requests <= sent + MAX_IN_FLIGHT
    assert cluster.wait(run_id) == "failed"
    assert_outputs_hold_all_that_was_paid(cluster.home, cluster.emulator, run_id)


def test_a_state_set_by_hand_ends_a_scheduled_task(cluster, image_folder):
    """A run that is marked failed while it labels stops sending at the next heartbeat."""
    run_id, process = running_task(cluster, image_folder)
    cluster.mark_failed("label_folder", run_id)
    wait_for_the_end(cluster, process)
    assert cluster.emulator.stats.requests < MOST_IMAGES
    assert cluster.wait(run_id) == "failed"
    assert_outputs_hold_all_that_was_paid(cluster.home, cluster.emulator, run_id)

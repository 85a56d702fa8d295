"""Start contenders as processes, all together, and gather their results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from contenders import Job, Result

ROOT = Path(__file__).resolve().parent.parent


def run(job: Job, environment: Mapping[str, str]) -> Result:
    """Run one job and return its result."""
    [result] = run_together([job], environment)
    return result


def run_together(jobs: Sequence[Job], environment: Mapping[str, str]) -> list[Result]:
    """Run jobs that begin together, each in a process of its own.

    :param environment: environment of the processes.
    :raises SystemExit: a process failed.
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_started(job, environment)) for job in jobs]
        for process in processes:
            _wait_until_ready(process)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [_result(process) for process in processes]


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    # Log lines arrive on the same pipe.
    if not any(line == "ready\n" for line in process.stdout):
        raise SystemExit("a contender could not start: see its output above")


@contextlib.contextmanager
def _started(job: Job, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    script = str(Path(__file__).with_name("contenders.py").resolve())
    process = subprocess.Popen(
        [sys.executable, script, json.dumps(dataclasses.asdict(job))],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _result(process: subprocess.Popen[str]) -> Result:
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    if process.wait():
        raise SystemExit("a contender failed: see its output above")
    return Result(**json.loads(lines[-1]))


@contextlib.contextmanager
def worker_environment() -> Iterator[dict[str, str]]:
    """Create an Airflow home for a ``with`` block; its value is the environment of processes."""
    with tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder:
        yield {
            **os.environ,
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # The progress of a run is not a result.
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "PYTHONPATH": str(ROOT),
        }

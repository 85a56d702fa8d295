"""Runs the operator in processes of their own, as tasks are; the tests start and end them.

Importing Airflow and all that a task needs takes seconds, so one process does it once and forks a
child for each task, as Airflow's own workers do. It reads a JSON object from each line of its input
and answers with one number: ``start`` gives the process id of a new task, ``wait`` and ``poll``
give how a task ended (null: not yet).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import airflow  # noqa: F401 (sets up logging before the first task)
import pandas as pd  # noqa: F401 (what every task would import)

from airflow_imagetag.errors import RunInterruptedError
from airflow_imagetag.operators import run  # noqa: F401
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages, SqlImages, sql_reader  # noqa: F401
from airflow_imagetag.stores import (
    ParquetLabelStore,
    SqlLabelStore,
    parquet_dataset,  # noqa: F401
    sql_tables,  # noqa: F401
)

CLASSES = {
    kind.__name__: kind
    for kind in (ObjectStorageImages, SqlImages, ParquetLabelStore, SqlLabelStore)
}
INTERRUPTED = 3


def described(fields: dict[str, Any]) -> Any:
    """Return the source or store that plain values describe."""
    return CLASSES[fields.pop("type")](**fields)


def label(job: dict[str, Any], output: str) -> int:
    """Label, write the summary and return the exit code."""
    operator = ImageTagOperator(
        task_id="label",
        images=described(job.pop("source")),
        store=described(job.pop("store")),
        **job,
    )
    # As Airflow's own handler does.
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        summary = operator.execute({})
    except RunInterruptedError:
        return INTERRUPTED
    with Path(output).open("a") as file:
        file.write("\n" + json.dumps(summary))
    return 0


def start(job: dict[str, Any], environment: dict[str, str], output: str) -> int:
    """Fork a task and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        code = label(job, output)
    except BaseException:  # noqa: BLE001 (the test shows it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, options: int) -> int | None:
    """Return how a task ended: its exit code, or minus the signal."""
    found, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = start(request["start"], request["environment"], request["output"])
        else:
            options = os.WNOHANG if "poll" in request else 0
            answer = ended(request.get("poll") or request["wait"], options)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

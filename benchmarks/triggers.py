"""Measure the load that starting triggers put on the event loop of one process.

The setting is a PostgreSQL, and triggers whose query takes two seconds; all of them start at once
in a loop that a watchdog wakes every 10 ms. Unlike in ``deferred.py`` there is no Airflow around
it, so a run takes seconds, and CPU times can be read on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from warehouse import warehouse

TRIGGERS = 100
QUERY_SECONDS = 2.0
TICK_SECONDS = 0.01
SQL = (
    "SELECT id, image_url FROM pictures, pg_sleep({seconds}) AS slow(nothing)"
    " WHERE slow.nothing::text = 'never {number}'"
)


def main() -> int:
    """Measure, print the figures and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--triggers", type=int, default=TRIGGERS, help="triggers that start at once"
    )
    parser.add_argument("--query", type=float, default=QUERY_SECONDS, help="seconds of a query")
    parser.add_argument("--work", action="store_true", help="internal: measure in this process")
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(_measure(arguments.triggers, arguments.query)))
        return 0
    with warehouse() as (database, environment):
        _fill(database)
        command = [sys.executable, str(Path(__file__).resolve()), "--work"]
        command += ["--triggers", str(arguments.triggers), "--query", str(arguments.query)]
        environment["PYTHONDONTWRITEBYTECODE"] = ""
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    for name, figure in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"{name:48}{figure:>10.2f}")
    return 0


def _fill(database: sa.Engine) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE pictures (id text, image_url text)")
        connection.exec_driver_sql("INSERT INTO pictures VALUES ('1', 'https://shop/1.jpg')")


def _measure(triggers: int, query_seconds: float) -> dict[str, float]:
    # What a triggerer has imported before its first trigger.
    import_module("airflow.jobs.triggerer_job_runner")
    # A triggerer has run for some time, and its long-lived objects are old.
    gc.collect()
    collections = _Collections()
    begun = time.thread_time()
    kind = import_module("airflow_imagetag.triggers.imagetag").NewImagesTrigger
    imported = time.thread_time() - begun
    kwargs = {
        "store": {
            "type": "airflow_imagetag.stores.sql.SqlLabelStore",
            "conn_id": "warehouse",
            "table": "picture_labels",
        },
        "poke_interval": 60.0,
        "is_rendered": True,
    }
    images = [
        {
            "type": "airflow_imagetag.sources.sql.SqlImages",
            "conn_id": "warehouse",
            "sql": SQL.format(seconds=query_seconds, number=number),
            "key": "id",
            "uri": "image_url",
        }
        for number in range(triggers)
    ]
    figures = asyncio.run(_run(kind, [kwargs | {"images": image} for image in images]))
    return {
        "import of the trigger, CPU ms": imported * 1000,
        **figures,
        "full collections": float(len(collections.seconds)),
        "longest full collection, CPU ms": max(collections.seconds, default=0.0) * 1000,
    }


async def _run(kind: Any, parameters: list[dict[str, Any]]) -> dict[str, float]:
    """Start the triggers and return the figures of the loop's thread."""
    delays: list[float] = []
    watchdog = asyncio.create_task(_watch(delays))
    await asyncio.sleep(0.1)
    watched = time.thread_time()
    await asyncio.sleep(1)
    watched = time.thread_time() - watched
    delays.clear()
    process, loop = time.process_time(), time.thread_time()
    tasks, slowest = [], 0.0
    for values in parameters:
        await asyncio.sleep(0)
        begun = time.thread_time()
        trigger = kind(**values)
        trigger.task_instance = SimpleNamespace(task_id="wait")
        tasks.append(asyncio.create_task(_wait(trigger)))
        await asyncio.sleep(0)
        slowest = max(slowest, time.thread_time() - begun)
    await asyncio.sleep(2)
    loop = time.thread_time() - loop - 2 * watched
    process = time.process_time() - process
    watchdog.cancel()
    for task in tasks:
        task.cancel()
    return {
        "CPU ms of the loop for each trigger": loop * 1000 / len(parameters),
        "slowest start of a trigger, CPU ms": slowest * 1000,
        "CPU ms of the process, two seconds": process * 1000,
        "longest block of the loop, ms": max(delays) * 1000,
    }


async def _wait(trigger: Any) -> None:
    async for _ in trigger.run():
        return


async def _watch(delays: list[float]) -> None:
    while True:
        begun = time.monotonic()
        await asyncio.sleep(TICK_SECONDS)
        delays.append(time.monotonic() - begun - TICK_SECONDS)


class _Collections:
    """Record the CPU time of each full garbage collection, in any thread."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0
        gc.callbacks.append(self._record)

    def _record(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < 2:
            return
        if phase == "start":
            self._begun = time.thread_time()
        else:
            self.seconds.append(time.thread_time() - self._begun)


if __name__ == "__main__":
    sys.exit(main())

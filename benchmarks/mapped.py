"""Compare one Airflow task for each image, as with an operator of one call, with one task for all.

Both end with one table of labels: a last task gathers the labels of the mapped tasks. The setting
is a real scheduler with the LocalExecutor and Airflow's default limits of parallel tasks, and a
service that takes 300 ms, without a quota. Times come from Airflow's metadata.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

from airflows import Airflow, airflow
from contenders import picture
from sections import KB, Bench
from server import serving
from table import Target, print_table
from warehouse import warehouse

LATENCY_SECONDS = 0.3

DAGS = ("one_task", "one_task_per_image")

DAG_FILE = """
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.operators.imagetag import ImageTagOperator

IMAGES = sorted(map(str, Path("FOLDER").iterdir()))
NO_SCHEDULE = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=UTC)}

with DAG("one_task", **NO_SCHEDULE):
    ImageTagOperator(task_id="label", images=IMAGES)

with DAG("one_task_per_image", **NO_SCHEDULE):

    @task
    def label(path):
        found = ImageTagHook().tag(path).labels
        return [{"image_key": path, "label": x.name, "probability": x.probability} for x in found]

    @task
    def gather(found):
        import pandas as pd

        return pd.DataFrame([row for rows in found for row in rows])

    gather(label.expand(path=IMAGES))
"""


def mapped(bench: Bench) -> list[Target]:
    """Label the same images in one task and in one mapped task for each image."""
    images = bench.count(100, 20)
    with (
        serving("canned", latency_seconds=LATENCY_SECONDS) as server,
        warehouse() as (database, environment),
    ):
        folder = Path(environment["AIRFLOW_HOME"]).parent / "images"
        folder.mkdir()
        for number in range(images):
            (folder / f"{number:04}.png").write_bytes(picture(number, 20 * KB))
        at_once = {"requests_per_second": 0, "max_in_flight": images}
        extra = {**server.connection["extra"], **at_once}
        settings = {
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": json.dumps({**server.connection, "extra": extra}),
            "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(folder),
        }
        with airflow(database, environment, **settings) as started:
            file = started.home / "dags" / "label.py"
            file.write_text(DAG_FILE.replace("FOLDER", str(folder)))
            found = _measure(started, bench.repeats)
    lines = [
        (name, f"{run:.1f}", f"{tasks:.1f}", f"{images / tasks:.1f}")
        for name, (run, tasks) in found.items()
    ]
    head = ("DAG", "whole run, s", "first task's start to last one's end, s", "images/s")
    print_table(f"{images} images of 20 KB, 300 ms, in a real Airflow", head, lines)
    tasks = [found[dag_id][1] for dag_id in DAGS]
    text = f"{images} images: a task for each, to one task, its start included"
    return [Target(text, tasks[1] / tasks[0], 20, is_floor=True, unit=" x")]


def _measure(started: Airflow, repeats: int) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each DAG: of the run, and of its tasks."""
    started.start_scheduling()
    started.wait(lambda: started.value("SELECT count(*) FROM serialized_dag") == len(DAGS), 180)
    # The first task compiles this package.
    _run(started, DAGS[0])
    rounds = [{dag_id: _run(started, dag_id) for dag_id in DAGS} for _ in range(repeats)]
    return {
        dag_id: (
            median(found[dag_id][0] for found in rounds),
            median(found[dag_id][1] for found in rounds),
        )
        for dag_id in DAGS
    }


def _run(started: Airflow, dag_id: str) -> tuple[float, float]:
    """Run a DAG and return the seconds of the run and those of its tasks."""
    run_id = f"benchmark_{time.time_ns()}"
    started.command("dags", "trigger", dag_id, "-r", run_id)
    state = "SELECT state FROM dag_run WHERE run_id = :run_id"
    started.wait(lambda: started.value(state, run_id=run_id) in ("success", "failed"), 600)
    if started.value(state, run_id=run_id) == "failed":
        raise SystemExit(f"the DAG {dag_id} failed")
    duration = "SELECT extract(epoch FROM max(end_date) - min(start_date))::float FROM "
    run, tasks = (
        float(started.value(f"{duration}{table} WHERE run_id = :run_id", run_id=run_id))
        for table in ("dag_run", "task_instance")
    )
    return run, tasks

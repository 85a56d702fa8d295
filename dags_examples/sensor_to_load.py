"""Wait for new photographs, label them, and count them; without new ones the run is skipped.

Needs the connections ``imagetag_default``, ``aws_default`` and ``warehouse``, an SQL database.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseHook, Param, task

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import SqlLabelStore

PHOTOGRAPHS = ObjectStorageImages("{{ params.photographs }}")
LABELS = SqlLabelStore("warehouse", table="photo_labels")

with DAG(
    dag_id="sensor_to_load",
    description="Waits for new photographs, labels them and counts them by label",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["imagetag", "example"],
    params={"photographs": Param("s3://aws_default@photos/incoming/", type="string")},
) as dag:
    new = NewImagesSensor(
        task_id="wait",
        images=PHOTOGRAPHS,
        store=LABELS,
        settle_seconds=30,
        poke_interval=60,
        timeout=timedelta(minutes=50),
        soft_fail=True,
        deferrable=True,
    )
    label = ImageTagOperator(task_id="label", images=new.output, store=LABELS)

    @task
    def load(summary: dict[str, Any]) -> int:
        """Count the photographs by their best label."""
        hook = BaseHook.get_connection("warehouse").get_hook()
        hook.run("DROP TABLE IF EXISTS photos_by_label")
        hook.run(
            "CREATE TABLE photos_by_label AS"
            " SELECT label, count(*) AS photos FROM photo_labels WHERE rank = 1 GROUP BY label"
        )
        print(f"{summary['tagged']} photographs are new")
        return int(hook.get_first("SELECT sum(photos) FROM photos_by_label")[0])

    load(label.output)

"""DAGs that wait for images of a bucket, each in a way of its own; the run's params name it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import SqlLabelStore


def waits(dag_id: str, **how: Any) -> DAG:
    """Return a DAG with one sensor."""
    with DAG(
        dag_id=dag_id,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        params={"photographs": "", "labels": ""},
    ) as dag:
        NewImagesSensor(
            task_id="wait",
            images=ObjectStorageImages("{{ params.photographs }}"),
            store=SqlLabelStore("warehouse", table="{{ params.labels }}"),
            poke_interval=1,
            deferrable=True,
            **how,
        )
    return dag


wait_for_long = waits("wait_for_long", timeout=timedelta(minutes=10))
wait_some_seconds = waits("wait_some_seconds", timeout=40)
wait_or_skip = waits("wait_or_skip", timeout=5, soft_fail=True)
wait_from_trigger = waits(
    "wait_from_trigger", timeout=timedelta(minutes=10), start_from_trigger=True
)

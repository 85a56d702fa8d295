"""Keep labels as Delta tables beside a bucket, and load them into a table of a warehouse.

Databricks, Snowflake, BigQuery, Trino and others read the Delta tables as they are. The second task
is for a database that does not: it replaces a table there, some rows at a time.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, BaseHook, Param, task

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import DeltaLabelStore

with DAG(
    dag_id="delta_to_warehouse",
    description="Labels a bucket into Delta tables and loads them into a warehouse",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["imagetag", "example"],
    params={
        "photographs": Param("s3://aws_default@photos/2026/", type="string"),
        "labels": Param("s3://aws_default@lake/photo_labels/", type="string"),
    },
) as dag:
    label = ImageTagOperator(
        task_id="label_photographs",
        images=ObjectStorageImages("{{ params.photographs }}"),
        store=DeltaLabelStore("{{ params.labels }}"),
        batch_size=5_000,
        flush_seconds=60,
    )

    @task
    def load(path: str) -> int:
        """Replace the table of labels in one transaction, and return the number of rows."""
        engine = BaseHook.get_connection("warehouse").get_hook().get_sqlalchemy_engine()
        rows = 0
        with engine.begin() as connection:
            for labels in DeltaLabelStore(path).labels():
                labels.to_sql(
                    "photo_labels",
                    connection,
                    if_exists="append" if rows else "replace",
                    index=False,
                    chunksize=1_000,
                )
                rows += len(labels)
        return rows

    @task
    def compact(path: str) -> None:
        """Join small files, and remove those that no version of the last week needs."""
        DeltaLabelStore(path).compact()

    label >> load("{{ params.labels }}") >> compact("{{ params.labels }}")

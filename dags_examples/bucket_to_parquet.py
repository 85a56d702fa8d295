"""Keep a Parquet dataset of labels beside a bucket of photographs.

The key of an object is its URI and its version the ETag, so a replaced object is labelled again.
Any tool that reads Parquet reads ``labels/`` below the dataset's path.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore

with DAG(
    dag_id="bucket_to_parquet",
    description="Labels new and replaced objects of a bucket",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["imagetag", "example"],
    params={
        "photographs": Param("s3://aws_default@photos/2026/", type="string"),
        "labels": Param("s3://aws_default@lake/labels/", type="string"),
    },
) as dag:
    label = ImageTagOperator(
        task_id="label_photographs",
        images=ObjectStorageImages("{{ params.photographs }}"),
        store=ParquetLabelStore("{{ params.labels }}"),
        min_probability=0.3,
    )

    @task
    def compact(path: str) -> None:
        """Merge the many files of a run's batches into few."""
        ParquetLabelStore(path).compact()

    label >> compact("{{ params.labels }}")

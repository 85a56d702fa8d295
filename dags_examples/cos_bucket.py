"""Label the objects of a bucket of Tencent Cloud COS where they lie.

The connection ``imagetag_default`` has the api ``ci_detect_label`` and the bucket. The worker lists
the bucket and sends the names of new and replaced objects; the service reads them itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import SqlLabelStore

with DAG(
    dag_id="cos_bucket",
    description="Labels objects of Tencent Cloud COS without reading them",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["imagetag", "example"],
    params={"photographs": Param("cos://photos-1250000001/2026/", type="string")},
) as dag:
    ImageTagOperator(
        task_id="label_photographs",
        images=ObjectStorageImages("{{ params.photographs }}"),
        store=SqlLabelStore("warehouse", table="photo_labels"),
    )

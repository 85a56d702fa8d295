"""Label the photographs of a folder with a model on the worker: no account, and nothing is sent.

The connection ``imagetag_local`` has the extra ``{"api": "local"}``; the worker has the extra
``local`` of the package. Labels under 0.2 are left out: the model has no class for a person or a
landscape, and its guesses at such pictures mostly lie below.
"""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore

with DAG(
    dag_id="local_model",
    description="Labels new photographs of a folder with a model on the worker",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["imagetag", "example"],
    params={
        "photographs": Param("/data/photographs", type="string"),
        "labels": Param("/data/labels", type="string"),
    },
) as dag:
    ImageTagOperator(
        task_id="label_photographs",
        imagetag_conn_id="imagetag_local",
        images=ObjectStorageImages("{{ params.photographs }}"),
        store=ParquetLabelStore("{{ params.labels }}"),
        min_probability=0.2,
    )

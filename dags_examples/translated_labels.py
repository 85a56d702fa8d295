"""Label products under your own names: a map renames, merges and drops the service's labels.

The label map is a file, which can be edited without a change of the DAG, such as::

    label,name
    天空,sky
    云,sky
    水印,

Here a first task writes a small file, so that the example runs; yours would exist already. The
column ``original_label`` keeps the service's names.
"""

from __future__ import annotations

import csv
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, task

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

with DAG(
    dag_id="translated_labels",
    description="Labels products under the names of a file",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["imagetag", "example"],
    params={"names": Param("s3://aws_default@taxonomy/labels.csv", type="string")},
) as dag:

    @task
    def write_names(path: str) -> None:
        """Write new names for some labels; an empty one drops the label."""
        names = {"Bright": "light", "Dark": "low light", "Sharp": "", "Blurry": ""}
        with ObjectStoragePath(path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("label", "name"), *names.items()])

    label = ImageTagOperator(
        task_id="label_products",
        images=SqlImages("warehouse", table="products", key="sku", uri="photo_url"),
        store=SqlLabelStore("warehouse", table="translated_labels"),
        label_map="{{ params.names }}",
    )

    write_names("{{ params.names }}") >> label

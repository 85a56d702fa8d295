"""Labels the images of a table; its tries are killed and the next one goes on."""

import os
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

with DAG(
    dag_id="label_table",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"table": "", "labels": ""},
):
    ImageTagOperator(
        task_id="label",
        images=SqlImages(
            "warehouse",
            table="{{ params.table }}",
            key="sku",
            uri="photo_url",
            version="updated_at",
        ),
        store=SqlLabelStore("warehouse", table="{{ params.labels }}"),
        batch_size=50,
        # As many as the tests end, and some more: one that never ends would disturb the others.
        retries=int(os.environ.get("IMAGETAG_TEST_KILLS", "3")) + 3,
        retry_delay=timedelta(seconds=0),
    )

"""Give the products without labels another chance once a week.

``warehouse_enrichment`` labels new products every hour, tries dead links less and less often, and
gives them up after 30 days. This DAG tries all products without labels at once: those that failed,
wait or were given up, and no others. It can also be run by hand after a fault was mended.
Products that fail again do not make the task fail; the last task prints some of them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

with DAG(
    dag_id="retry_failures",
    description="Tries the products again that have no labels",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["imagetag", "example"],
) as dag:
    label = ImageTagOperator(
        task_id="label_again",
        images=SqlImages(
            "warehouse", table="products", key="sku", uri="photo_url", version="updated_at"
        ),
        store=SqlLabelStore("warehouse", table="product_labels"),
        only_failed=True,
    )

    @task
    def report(summary: dict[str, Any]) -> None:
        """Print the counts of the run, and some of the products that have failed again."""
        print(f"{summary['tagged']} of {summary['due']} products labelled")
        for failure in summary["failures_sample"]:
            print(failure["image_key"], failure["image_uri"], failure["message"])

    report(label.output)

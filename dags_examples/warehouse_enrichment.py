"""Keep a table of labels beside a table of products, in the same database.

Every hour the products that are new, or whose ``updated_at`` has changed, are labelled; the others
cost nothing. The first run creates the label tables. An analyst joins them on the key::

    SELECT p.sku, l.label, l.probability
    FROM products p JOIN product_labels l ON l.image_key = p.sku AND l.rank = 1
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

with DAG(
    dag_id="warehouse_enrichment",
    description="Labels new and changed products",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Two runs at once would label, and pay for, the same images.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["imagetag", "example"],
) as dag:
    label = ImageTagOperator(
        task_id="label_products",
        images=SqlImages(
            "warehouse", table="products", key="sku", uri="photo_url", version="updated_at"
        ),
        store=SqlLabelStore("warehouse", table="product_labels"),
        max_images=50_000,
    )

    @task
    def report(summary: dict[str, Any]) -> None:
        """Print the counts of the run."""
        print(f"{summary['tagged']} products labelled with {summary['calls']} calls")

    report(label.output)

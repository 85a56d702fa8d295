"""Label the images of a query and load the DataFrame of labels with your own task.

Without a store the operator returns its labels to the DAG. Use it where your code changes the
labels before they are kept; for anything large, give the operator a store.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, BaseHook, task

from airflow_imagetag.operators.imagetag import ImageTagOperator

if TYPE_CHECKING:
    import pandas as pd

with DAG(
    dag_id="load_downstream",
    description="Labels the products of a query and loads the result",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["imagetag", "example"],
) as dag:

    @task
    def find_products() -> list[dict[str, Any]]:
        """Return key and URL of the products that have a photograph."""
        hook = BaseHook.get_connection("warehouse").get_hook()
        rows = hook.get_records("SELECT sku, photo_url FROM products WHERE photo_url IS NOT NULL")
        return [{"image_key": sku, "image_uri": url} for sku, url in rows]

    label = ImageTagOperator(task_id="label", images=find_products(), top_k=1)

    @task
    def load(labels: pd.DataFrame) -> int:
        """Write the best label of each product, and return their number."""
        hook = BaseHook.get_connection("warehouse").get_hook()
        hook.run("CREATE TABLE IF NOT EXISTS best_labels (sku text PRIMARY KEY, label text)")
        rows = labels[["image_key", "label"]].itertuples(index=False, name=None)
        hook.insert_rows(
            "best_labels",
            rows,
            target_fields=["sku", "label"],
            replace=True,
            replace_index="sku",
        )
        return len(labels)

    load(label.output)

"""Keep a label table in step with a table from which products are also deleted.

New products are labelled once a day. Then the whole table is compared with the labels, which makes
no calls: labels of products that are gone are deleted. If more than a tenth of the products are
gone, the task fails and deletes nothing, since the table was perhaps being reloaded.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.sync import ImageTagSyncOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

PRODUCTS = SqlImages(
    "warehouse", table="products", key="sku", uri="photo_url", version="updated_at"
)
LABELS = SqlLabelStore("warehouse", table="product_labels")

with DAG(
    dag_id="clean_up_deleted",
    description="Labels new products, and deletes the labels of those that are gone",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    tags=["imagetag", "example"],
) as dag:
    label = ImageTagOperator(task_id="label_products", images=PRODUCTS, store=LABELS)
    clean_up = ImageTagSyncOperator(
        task_id="clean_up",
        images=PRODUCTS,
        store=LABELS,
        on_missing="delete",
        max_missing_ratio=0.1,
    )
    label >> clean_up

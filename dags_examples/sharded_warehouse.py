"""Share the work of a large table between mapped tasks.

Each task labels one part of the table; the parts are even and disjoint, so no image is labelled
twice. The account's quota is divided between the tasks that run at once.
"""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

SHARDS = 4
QUOTA = 20
"""Requests per second that the account allows."""

products = SqlImages(
    "warehouse", table="products", key="sku", uri="photo_url", version="updated_at"
)

with DAG(
    dag_id="sharded_warehouse",
    description="Labels a large table with several tasks at once",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["imagetag", "example"],
) as dag:
    ImageTagOperator.partial(
        task_id="label_products",
        images=products,
        store=SqlLabelStore("warehouse", table="product_labels"),
        requests_per_second=QUOTA / SHARDS,
    ).expand(shard=products.shards(SHARDS))

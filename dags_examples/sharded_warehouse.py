"""Share the work of a large table between mapped tasks, on all workers.

Each task labels one shard of the table; shards are even and disjoint, so no image is labelled
twice. The tasks that run at once share the account's quota where its connection names a
``quota_conn_id``, such as a Redis; without one, give each task its part with
``requests_per_second``. When a worker is lost, the others go on, and the retry of its tasks goes on
where the label table ends.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

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
        # Four tasks use up any usual quota; more would only take slots from other DAGs.
        max_active_tis_per_dagrun=4,
        retries=3,
        retry_delay=timedelta(minutes=1),
    ).expand(shard=products.shards(16))

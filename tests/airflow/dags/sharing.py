"""Labels a table in small batches, by mapped tasks that share it."""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

products = SqlImages("warehouse", table="products", key="sku", uri="photo_url")

with DAG(
    dag_id="label_in_small_batches",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
):
    ImageTagOperator.partial(
        task_id="label",
        images=products,
        store=SqlLabelStore("warehouse", table="labels_in_small_batches"),
        batch_size=5,
        max_in_flight=4,
        retries=2,
        retry_delay=timedelta(seconds=0),
    ).expand(shard=products.shards(8))

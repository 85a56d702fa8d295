"""A DAG file: operators, sensor, decorator, sources, stores and assets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_imagetag.assets import announced_images, watch_images
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.triggers.imagetag import NewImagesTrigger

if TYPE_CHECKING:
    import pandas as pd

PRODUCTS = SqlImages(
    "warehouse", table="products", key="sku", uri="photo_url", version="updated_at"
)
QUERY = SqlImages("warehouse", sql="select * from products", key="sku", content="photo")
PHOTOGRAPHS = ObjectStorageImages("s3://photos/{{ ds }}/", conn_id="aws_default", pattern="*.jpg")
LABELS = SqlLabelStore("warehouse", table="product_labels", schema="public")
LAKE = ParquetLabelStore("s3://lake/labels", conn_id="aws_default")

with DAG("label_products", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    ImageTagOperator(
        task_id="label",
        images=PRODUCTS,
        imagetag_conn_id="imagetag_default",
        store=LABELS,
        min_probability=0.3,
        top_k="{{ params.top_k }}",
        retag="changed",
        retry_failed=False,
        max_images=10_000,
        max_failure_ratio="0.2",
        max_in_flight=16,
        requests_per_second=10.5,
        batch_size=100,
        flush_seconds=5,
        fetch="worker",
        oversize="downscale",
        label_map={"天空": "sky", "水印": None},
        retries=2,
        execution_timeout=timedelta(hours=1),
    )
    ImageTagOperator.partial(task_id="shards", images=QUERY, store=LAKE).expand(
        shard=QUERY.shards(4)
    )
    ImageTagOperator(
        task_id="list", images=["s3://photos/a.jpg", Path("/data/b.jpg"), Image("c", "https://c")]
    )

assert_type(QUERY.shards(4), list[str])

with DAG("label_new_photographs", schedule=None):
    new = NewImagesSensor(
        task_id="wait",
        images=PHOTOGRAPHS,
        store=LAKE,
        modified_after="{{ data_interval_start }}",
        min_images=10,
        settle_seconds=60,
        poke_interval=300,
        deferrable=True,
    )
    labelled = ImageTagOperator(task_id="label", images=new.output, store=LAKE)

    @task.image_tag(top_k=3, min_probability=0.5)
    def listed(prefix: str) -> list[str]:
        """Return the images."""
        return [f"s3://photos/{prefix}/{number}.jpg" for number in range(3)]

    @task
    def count(labels: Any) -> int:
        """Take the frame of the decorated task."""
        frame: pd.DataFrame = labels
        return len(frame)

    count(listed("today"))

watched = watch_images("photographs", images=PHOTOGRAPHS, store=LAKE, poke_interval=60)
by_hand = Asset(
    "photographs by hand",
    watchers=[
        AssetWatcher(name="new", trigger=NewImagesTrigger(images=PHOTOGRAPHS, store=LAKE)),
    ],
)

with DAG("label_announced", schedule=[watched]):

    @task
    def announced(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return the images that started this run."""
        return announced_images(triggering_asset_events)

    ImageTagOperator(task_id="label", images=announced(), store=LAKE)

with DAG("report", schedule=[LABELS.asset, LAKE.asset]):
    pass

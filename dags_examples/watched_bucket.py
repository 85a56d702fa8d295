"""Label photographs as they arrive: a bucket starts runs, each for its announced photographs.

A second DAG runs whenever labels were written. Needs Airflow 3 and the connections
``imagetag_default`` and ``aws_default``; the environment names the bucket, because an asset must be
known when the DAG is parsed.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.assets import announced_images, watch_images
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore

LAKE = os.environ.get("IMAGETAG_LAKE", "s3://aws_default@lake")
LABELS = ParquetLabelStore(f"{LAKE}/labels")

photographs = watch_images(
    "incoming_photographs",
    images=ObjectStorageImages(f"{LAKE}/incoming/"),
    store=LABELS,
    settle_seconds=2,
    poke_interval=5,
)

with DAG(
    dag_id="watched_bucket",
    description="Labels photographs as they arrive in a bucket",
    schedule=[photographs],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["imagetag", "example"],
) as dag:

    @task
    def announced(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return the photographs that started this run."""
        return announced_images(triggering_asset_events)

    ImageTagOperator(task_id="label", images=announced(), store=LABELS)

with DAG(
    dag_id="after_labels",
    description="Runs whenever labels were written",
    schedule=[LABELS.asset],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["imagetag", "example"],
) as after:

    @task
    def report(triggering_asset_events: Any = None) -> int:
        """Return the number of images that were labelled."""
        events = [event for found in triggering_asset_events.values() for event in found]
        return sum(event.extra["tagged"] for event in events)

    report()

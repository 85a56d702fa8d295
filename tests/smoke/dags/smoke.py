"""A DAG with each part of the package, which the smoke test runs on each line of Airflow."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow import DAG
    from airflow.decorators import task  # type: ignore[attr-defined,no-redef]

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import DeltaLabelStore, ParquetLabelStore, SqlLabelStore

FOLDER = Path(os.environ["SMOKE_FOLDER"])
PHOTOS = [str(path) for path in sorted((FOLDER / "photos").glob("*.png"))]
SOURCE = ObjectStorageImages(str(FOLDER / "photos"))
SQL = SqlLabelStore("smoke_db")
PARQUET = ParquetLabelStore(str(FOLDER / "labels"))
WAIT: dict[str, Any] = {"images": SOURCE, "poke_interval": 1, "timeout": 60}

with DAG("smoke", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    frame = ImageTagOperator(task_id="frame", images=PHOTOS)

    @task.image_tag
    def decorated():
        return PHOTOS[:2]

    mapped = ImageTagOperator.partial(task_id="mapped").expand(images=[PHOTOS[:1], PHOTOS[1:]])

    @task
    def read_frames(labels, from_function, from_mapped):
        frames = {"frame": labels, "decorated": from_function}
        found = {name: sorted(set(item["image_key"])) for name, item in frames.items()}
        found["mapped"] = sorted(key for item in from_mapped for key in set(item["image_key"]))
        (FOLDER / "frames.json").write_text(json.dumps(found))

    read_frames(frame.output, decorated(), mapped.output)

    poke = NewImagesSensor(task_id="poke", store=SQL, mode="poke", **WAIT)
    into_sql = ImageTagOperator(task_id="into_sql", images=poke.output, store=SQL)
    again = ImageTagOperator(task_id="again", images=SOURCE, store=SQL)
    deferred = NewImagesSensor(task_id="deferred", store=PARQUET, deferrable=True, **WAIT)
    into_parquet = ImageTagOperator(
        task_id="into_parquet",
        images=deferred.output,
        store=PARQUET,
        execution_timeout=timedelta(minutes=5),
    )

    delta = DeltaLabelStore(str(FOLDER / "tables"))
    into_delta = ImageTagOperator(task_id="into_delta", images=SOURCE, store=delta)

    @task
    def read_summaries(*outputs):
        summaries = dict(
            zip(("into_sql", "again", "into_parquet", "into_delta"), outputs, strict=True)
        )
        (FOLDER / "summaries.json").write_text(json.dumps(summaries))

    into_sql >> again
    read_summaries(into_sql.output, again.output, into_parquet.output, into_delta.output)


def activate_assets() -> None:
    """Do what a scheduler does: a task may change only assets that are in use."""
    try:
        from airflow.models.asset import AssetActive, AssetModel
    except ImportError:  # Airflow 2.11
        return
    from airflow.utils.session import create_session

    with create_session() as session:
        active = {item.uri for item in session.query(AssetActive)}
        for asset in session.query(AssetModel).all():
            if asset.uri not in active:
                session.add(AssetActive.for_asset(asset))


if __name__ == "__main__":
    activate_assets()
    ended = dag.test()
    if str(ended.state) != "success":
        raise SystemExit(f"The run ended as {ended.state}")

"""Labels images without a store; what the first try paid for is in a checkpoint for the second."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.operators.imagetag import ImageTagOperator


def use_checkpoint(context: Any) -> None:
    """Set the option as the run's params tell; an Airflow has one for all, a test its own."""
    path = context["params"]["checkpoint_path"]
    os.environ["AIRFLOW__IMAGETAG__CHECKPOINT_PATH"] = path


with DAG(
    dag_id="label_checkpointed",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"checkpoint_path": "", "urls": []},
):

    @task
    def list_urls(params: dict[str, Any] | None = None) -> list[str]:
        """Return the URLs in the run's params."""
        assert params
        return list(params["urls"])

    ImageTagOperator(
        task_id="label",
        images=list_urls(),
        batch_size=20,
        flush_seconds=0.5,
        retries=3,
        retry_delay=timedelta(seconds=0),
        pre_execute=use_checkpoint,
    )

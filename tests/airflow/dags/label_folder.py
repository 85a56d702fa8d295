"""Labels the files of a folder; the environment says how."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_imagetag.operators.imagetag import ImageTagOperator

TIMEOUT_SECONDS = os.environ.get("LABEL_FOLDER_TIMEOUT_SECONDS")

with DAG(
    dag_id="label_folder",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"folder": "", "conn_id": "imagetag_default"},
):

    @task
    def list_files(params: dict[str, Any] | None = None) -> list[str]:
        """Return the path of every file."""
        assert params
        return [str(path) for path in sorted(Path(params["folder"]).iterdir())]

    ImageTagOperator(
        task_id="label",
        images=list_files(),
        imagetag_conn_id="{{ params.conn_id }}",
        execution_timeout=(timedelta(seconds=float(TIMEOUT_SECONDS)) if TIMEOUT_SECONDS else None),
    )

"""Label every photograph of a folder and write the labels to a file.

The folder and the output folder are parameters of the run; the account is the connection
``imagetag_default``. The option ``[imagetag] allowed_local_paths`` must name the folder, since its
list of files reaches the operator as data.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_imagetag.operators.imagetag import ImageTagOperator

if TYPE_CHECKING:
    import pandas as pd

PHOTOGRAPHS = {".bmp", ".jpeg", ".jpg", ".png"}

with DAG(
    dag_id="label_images",
    description="Labels the photographs of a folder",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["imagetag", "example"],
    params={
        "folder": Param("/data/photographs", type="string", description="Where they are"),
        "output": Param("/data/labels", type="string", description="Where the labels go"),
        "min_probability": Param(0.3, type="number", description="Of the labels that are kept"),
    },
) as dag:

    @task
    def list_photographs(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        """Return key and path of every photograph in the folder."""
        folder = Path((params or {})["folder"])
        return [
            {"image_key": path.name, "image_uri": str(path)}
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in PHOTOGRAPHS
        ]

    label = ImageTagOperator(
        task_id="label",
        images=list_photographs(),
        min_probability="{{ params.min_probability }}",
        top_k=3,
    )

    @task
    def write_labels(
        labels: pd.DataFrame, summary: dict[str, Any], params: dict[str, Any] | None = None
    ) -> str:
        """Write labels and summary to files, and return the path of the Parquet file."""
        folder = Path((params or {})["output"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(json.dumps(summary, indent=2))
        labels = labels.sort_values(["image_key", "rank"], ignore_index=True)
        labels.to_csv(folder / "labels.csv", index=False)
        path = folder / "labels.parquet"
        labels.to_parquet(path, index=False)
        return str(path)

    write_labels(label.output, label.output["summary"])

"""Runs the operator in forked processes, see :mod:`forked`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from forked import preload, serve

from airflow_imagetag.errors import RunInterruptedError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore

CLASSES = {
    kind.__name__: kind
    for kind in (ObjectStorageImages, SqlImages, ParquetLabelStore, SqlLabelStore)
}
INTERRUPTED = 3


def described(fields: dict[str, Any] | list[str]) -> Any:
    """Return the source or store that plain values describe; a list is the images themselves."""
    if isinstance(fields, list):
        return fields
    return CLASSES[fields.pop("type")](**fields)


def label(job: dict[str, Any], output: str) -> int:
    """Label, write the summary and return the exit code."""
    operator = ImageTagOperator(
        task_id="label",
        images=described(job.pop("source")),
        store=described(job.pop("store")),
        **job,
    )
    # As Airflow's own handler does.
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        summary = operator.execute({})
    except RunInterruptedError:
        return INTERRUPTED
    with Path(output).open("a") as file:
        file.write("\n" + json.dumps(summary))
    return 0


if __name__ == "__main__":
    preload(
        "airflow", "pandas", "airflow_imagetag.operators.run", "airflow_imagetag.sources.sql_reader"
    )
    serve(label)

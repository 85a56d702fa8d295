"""Runs the operator in forked processes, see :mod:`forked`."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from databases import TaskInstance
from forked import preload, serve

from airflow_imagetag.errors import RunInterruptedError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.options import RunTuning
from airflow_imagetag.operators.run_record import UPDATE_SECONDS, RecordTiming
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import DeltaLabelStore, ParquetLabelStore, SqlLabelStore

CLASSES = {
    kind.__name__: kind
    for kind in (
        ObjectStorageImages,
        SqlImages,
        DeltaLabelStore,
        ParquetLabelStore,
        SqlLabelStore,
    )
}
INTERRUPTED = 3


def described(fields: dict[str, Any] | list[str]) -> Any:
    """Return the source or store that plain values describe; a list is the images themselves."""
    if isinstance(fields, list):
        return fields
    return CLASSES[fields.pop("type")](**fields)


def label(job: dict[str, Any], output: str) -> int:
    """Label, write the summary and return the exit code."""
    try_number = job.pop("try_number", None)
    ahead = timedelta(seconds=job.pop("seconds_ahead", 0))
    seconds = job.pop("record_seconds", UPDATE_SECONDS)

    class Operator(ImageTagOperator):
        def _tuning(self) -> RunTuning:
            return RunTuning(
                record=RecordTiming(update_seconds=seconds, clock=lambda: datetime.now(UTC) + ahead)
            )

    operator = Operator(
        task_id="label",
        images=described(job.pop("source")),
        store=described(job.pop("store")),
        **job,
    )
    # As Airflow's own handler does.
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        summary = operator.execute({} if try_number is None else {"ti": TaskInstance(try_number)})
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

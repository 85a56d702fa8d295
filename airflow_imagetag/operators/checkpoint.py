"""Private: the checkpoint of a run without a store, kept until its task succeeds."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow_imagetag.stores.parquet import ParquetLabelStore


def checkpoint_store(folder: str, task_instance: Any) -> ParquetLabelStore:
    """Return the dataset of one task in one run; every try of the task finds the same.

    :param folder: ``[imagetag] checkpoint_path``.
    """
    names = [task_instance.dag_id, task_instance.run_id, task_instance.task_id]
    names.append(str(getattr(task_instance, "map_index", -1)))
    # A run id holds a time with '+' and ':', which not every storage allows in a name.
    return ParquetLabelStore("/".join([folder.rstrip("/"), *(quote(name, "") for name in names)]))

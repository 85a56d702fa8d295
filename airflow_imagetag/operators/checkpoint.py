"""Private: the checkpoint of a run without a store, kept until its task succeeds."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow_imagetag.safety.uris import is_local, local_path
from airflow_imagetag.stores.parquet import ParquetLabelStore


def checkpoint_store(folder: str, task_instance: Any) -> ParquetLabelStore:
    """Return the dataset of one task in one run; every try of the task finds the same.

    :param folder: ``[imagetag] checkpoint_path``.
    """
    names = [task_instance.dag_id, task_instance.run_id, task_instance.task_id]
    names.append(str(getattr(task_instance, "map_index", -1)))
    # In a file URI, the escapes of these names would be undone.
    place = local_path(folder) if is_local(folder) else folder
    return ParquetLabelStore("/".join([place.rstrip("/"), *map(_folder_name, names)]))


def _folder_name(name: str) -> str:
    # A run id holds a time with '+' and ':', which not every storage allows in a name.
    quoted = quote(name, "")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted

"""Labels and failures as DataFrames, with the same columns and types on every pandas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FAILURE_COLUMNS", "IMAGE_COLUMNS", "LABEL_COLUMNS", "RUN_COLUMNS"]

# pandas 2 and 3 both have this nullable type, and Airflow's XCom serializer returns it unchanged,
# also for a column of missing values only.
_STRING = "string"
_TIME = "datetime64[us, UTC]"
_NUMBER = "Int64"
"""A whole number that may be missing."""

LABEL_COLUMNS: Mapping[str, str] = {
    "image_key": _STRING,
    "image_uri": _STRING,
    "label": _STRING,
    "probability": "float64",
    "rank": "int64",
    "category": _STRING,
    "subcategory": _STRING,
    "scene": _STRING,
    "api": _STRING,
    "tagged_at": _TIME,
}
"""Columns and types of a labels frame: one row for each image and label."""

IMAGE_COLUMNS: Mapping[str, str] = {
    "image_key": _STRING,
    "image_uri": _STRING,
    "version": _STRING,
    "status": _STRING,
    "api": _STRING,
    "content_sha256": _STRING,
    "labels": "int64",
    "error": _STRING,
    "code": _STRING,
    "message": _STRING,
    "tries": "Int64",
    "first_failed_at": _TIME,
    "next_try_at": _TIME,
    "tagged_at": _TIME,
}
"""Columns and types of a frame of images: one row for each image and interface of a store.

``labels`` is the number of labels, and ``tagged_at`` the time of the answer or of the last try.
"""

ORIGINAL_LABEL = "original_label"
"""The column that holds the service's own name of a label that was renamed."""

FAILURE_COLUMNS: Mapping[str, str] = {
    "image_key": _STRING,
    "image_uri": _STRING,
    "error": _STRING,
    "code": _STRING,
    "message": _STRING,
    "attempts": "int64",
    "failed_at": _TIME,
}
"""Columns and types of a failures frame: one row for each image without labels."""

RUN_COUNTS = (
    "seen",
    "new",
    "tagged",
    "reused",
    "failed",
    "failed_again",
    "waiting",
    "gave_up",
    "skipped",
    "calls",
    "billed_calls",
    "refused_calls",
    "unknown_calls",
    "retries",
    "throttled",
)
"""The counts of a run that a store keeps, named as in the summary."""

RUN_COLUMNS: Mapping[str, str] = {
    "dag_id": _STRING,
    "task_id": _STRING,
    "run_id": _STRING,
    "map_index": _NUMBER,
    "try_number": _NUMBER,
    "api": _STRING,
    "shard": _STRING,
    "started_at": _TIME,
    "ended_at": _TIME,
    **dict.fromkeys(RUN_COUNTS, "int64"),
    "price_per_thousand": "float64",
    "cost": "float64",
    "outcome": _STRING,
    "error": _STRING,
}
"""Columns and types of a frame of runs: one row for each try of a task."""


def label_columns(*, originals: bool) -> Mapping[str, str]:
    """Return the columns and types of a labels frame.

    :param originals: add ``original_label`` at the end.
    """
    return {**LABEL_COLUMNS, ORIGINAL_LABEL: _STRING} if originals else LABEL_COLUMNS


def frame(columns: Mapping[str, Any], types: Mapping[str, str]) -> pd.DataFrame:
    """Return a frame with these columns and types, also when it has no rows.

    :param columns: a sequence or an array for each name.
    """
    import pandas as pd

    return pd.DataFrame(
        {name: pd.Series(columns[name], dtype=dtype) for name, dtype in types.items()}
    )

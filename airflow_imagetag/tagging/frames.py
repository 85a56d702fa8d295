"""Labels and failures as DataFrames, with the same columns and types on every pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.tagging.outcomes import Outcome

if TYPE_CHECKING:
    import pandas as pd

# The nullable string type is the one that pandas 2 and 3 both have, that holds a missing value and
# that Airflow's XCom serializer gives back unchanged, also from a column of missing values only.
_STRING = "string"
_TIME = "datetime64[us, UTC]"

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


class FrameSink:
    """Collects outcomes in memory and makes frames of them.

    :param min_probability: labels below it are left out.
    :param top_k: so many labels of each image at most; None for all.
    """

    def __init__(self, *, min_probability: float = 0.0, top_k: int | None = None) -> None:
        self._min_probability = min_probability
        self._top_k = top_k
        self._labels: dict[str, list[Any]] = {column: [] for column in LABEL_COLUMNS}
        self.failures: list[Failure] = []

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Take a batch."""
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self.failures.append(outcome)
            else:
                self._add(outcome)

    def labels_frame(self) -> pd.DataFrame:
        """Return one row for each image and label, in the order in which images were finished."""
        return _frame(self._labels, LABEL_COLUMNS)

    def failures_frame(self) -> pd.DataFrame:
        """Return one row for each image without labels."""
        columns = {
            column: [getattr(failure, column) for failure in self.failures]
            for column in FAILURE_COLUMNS
        }
        return _frame(columns, FAILURE_COLUMNS)

    def _add(self, result: TagResult) -> None:
        chosen = [label for label in result.labels if label.probability >= self._min_probability]
        for rank, label in enumerate(chosen[: self._top_k], start=1):
            row = (
                result.image_key,
                result.image_uri,
                label.name,
                label.probability,
                rank,
                label.category,
                label.subcategory,
                label.scene,
                result.api,
                result.tagged_at,
            )
            for values, value in zip(self._labels.values(), row, strict=True):
                values.append(value)


def _frame(columns: Mapping[str, Sequence[Any]], types: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {name: pd.Series(columns[name], dtype=dtype) for name, dtype in types.items()}
    )

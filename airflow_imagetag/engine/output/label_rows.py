"""Labels and failures that are collected in memory, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_imagetag.frames import FAILURE_COLUMNS, frame, label_columns
from airflow_imagetag.models import Failure, TagResult

if TYPE_CHECKING:
    import pandas as pd


class LabelRows:
    """The rows of a labels frame.

    :param originals: a label map renames labels, so the frame has their original names, too.
    """

    def __init__(self, *, originals: bool = False) -> None:
        self._types = label_columns(originals=originals)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._types}

    def __len__(self) -> int:
        return len(self._columns["label"])

    def frame(self) -> pd.DataFrame:
        """Return one row for each image and label, in the order in which images were finished."""
        return frame(self._columns, self._types)

    def add(self, results: Sequence[TagResult]) -> None:
        """Add the labels of some images."""
        # Column by column, in the order of the frame's: row by row takes twice as long.
        rows = [
            (result, rank, label)
            for result in results
            for rank, label in enumerate(result.labels, start=1)
        ]
        columns: tuple[list[Any], ...] = (
            [result.image_key for result, _, _ in rows],
            [result.image_uri for result, _, _ in rows],
            [label.name for _, _, label in rows],
            [label.probability for _, _, label in rows],
            [rank for _, rank, _ in rows],
            [label.category for _, _, label in rows],
            [label.subcategory for _, _, label in rows],
            [label.scene for _, _, label in rows],
            [result.api for result, _, _ in rows],
            [result.tagged_at for result, _, _ in rows],
            [label.original for _, _, label in rows],
        )
        # Without original names, the frame has one column less.
        for values, more in zip(self._columns.values(), columns, strict=False):
            values.extend(more)


def failures_frame(failures: Sequence[Failure]) -> pd.DataFrame:
    """Return one row for each image without labels."""
    columns = {
        column: [getattr(failure, column) for failure in failures] for column in FAILURE_COLUMNS
    }
    return frame(columns, FAILURE_COLUMNS)

"""Where a run's outcomes go: frames in memory, or a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_imagetag.engine.output.label_mapping import LabelMapping
from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.errors import ResultTooLargeError
from airflow_imagetag.frames import FAILURE_COLUMNS, frame, label_columns
from airflow_imagetag.models import Failure, TagResult

if TYPE_CHECKING:
    import pandas as pd

MAX_SHOWN_FAILURES = 10_000
"""Failures that the output shows of a run with a store, which itself holds them all."""


class LabelFilter:
    """Which of an image's labels are kept, and under which names.

    :param min_probability: labels below it are left out.
    :param top_k: so many labels of each image at most; None for all. It counts what is kept.
    :param taxonomy: renames, drops and merges labels; None leaves them as they are.
    """

    def __init__(
        self,
        *,
        min_probability: float = 0.0,
        top_k: int | None = None,
        taxonomy: LabelMapping | None = None,
    ) -> None:
        self._min_probability = min_probability
        self._top_k = top_k
        self._taxonomy = taxonomy
        self._is_all = not min_probability and top_k is None and taxonomy is None

    def __call__(self, outcome: Outcome) -> Outcome:
        """Return the outcome with the labels that are kept."""
        if isinstance(outcome, Failure) or self._is_all:
            return outcome
        kept = tuple(
            label for label in outcome.labels if label.probability >= self._min_probability
        )
        if self._taxonomy is not None:
            kept = self._taxonomy(kept)
        kept = kept[: self._top_k]
        return outcome if kept == outcome.labels else replace(outcome, labels=kept)


class FrameSink:
    """Collects outcomes in memory and makes frames of them.

    :param max_rows: labels that the frame may hold; None for any number.
    :param originals: the labels may have been renamed, so the frame tells their original names.
    """

    def __init__(self, *, max_rows: int | None = None, originals: bool = False) -> None:
        self._max_rows = max_rows
        self._columns = label_columns(originals=originals)
        self._labels: dict[str, list[Any]] = {column: [] for column in self._columns}
        self.failures: list[Failure] = []

    is_quick = True

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Take a batch.

        :raises ResultTooLargeError: the labels are more than ``max_rows`` now; all are kept.
        """
        results = []
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self.failures.append(outcome)
            else:
                results.append(outcome)
        self._add(results)
        if self._max_rows is not None and self.rows > self._max_rows:
            raise ResultTooLargeError(
                f"The result has more than {self._max_rows:,} labels, more than an XCom should "
                "hold. Give the task a store, such as store=SqlLabelStore(...), or split the "
                "images between mapped tasks. An XCom backend of your own may allow for a larger "
                "[imagetag] max_result_rows."
            )

    @property
    def rows(self) -> int:
        """Number of labels."""
        return len(self._labels["label"])

    def labels_frame(self) -> pd.DataFrame:
        """Return one row for each image and label, in the order in which images were finished."""
        return frame(self._labels, self._columns)

    def failures_frame(self) -> pd.DataFrame:
        """Return one row for each image without labels."""
        return failures_frame(self.failures)

    def _add(self, results: Sequence[TagResult]) -> None:
        # Column by column, in the order of the frame's: a row at a time takes twice as long.
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
        # Without originals, the frame has one column less.
        for values, more in zip(self._labels.values(), columns, strict=False):
            values.extend(more)


class StoreSink:
    """Writes outcomes to a store and keeps of them what the task's outputs show."""

    is_quick = False

    def __init__(self) -> None:
        self.to: Callable[[Sequence[Outcome]], None] | None = None
        """Writes a batch to the store, all of it or nothing; None before the store is open."""
        self._error: BaseException | None = None
        self.failures: list[Failure] = []
        self.unsaved: list[Outcome] = []
        """What was paid for and could not be written."""

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write a batch; after a store has failed for good, keep what comes in memory.

        :raises StoreError: the store failed.
        """
        room = MAX_SHOWN_FAILURES - len(self.failures)
        failures = (outcome for outcome in outcomes if isinstance(outcome, Failure))
        self.failures += [failure for _, failure in zip(range(room), failures, strict=False)]
        try:
            if self._error is not None:
                raise self._error
            if self.to is not None:
                self.to(outcomes)
        except BaseException as error:
            self._error = error
            self.unsaved += outcomes
            raise


def failures_frame(failures: Sequence[Failure]) -> pd.DataFrame:
    """Return one row for each image without labels."""
    columns = {
        column: [getattr(failure, column) for failure in failures] for column in FAILURE_COLUMNS
    }
    return frame(columns, FAILURE_COLUMNS)

"""Selects the labels of an image that a task keeps."""

from __future__ import annotations

from dataclasses import replace

from airflow_imagetag.engine.output.label_mapping import LabelMapping
from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.models import Failure


class LabelFilter:
    """Selects labels, and gives them the names of a label map.

    :param min_probability: labels below it are dropped.
    :param top_k: maximum number of labels that are kept of each image; None for all.
    :param mapping: renames, drops and merges labels; None leaves them as they are.
    """

    def __init__(
        self,
        *,
        min_probability: float = 0.0,
        top_k: int | None = None,
        mapping: LabelMapping | None = None,
    ) -> None:
        self._min_probability = min_probability
        self._top_k = top_k
        self._mapping = mapping
        self._keeps_all = not min_probability and top_k is None and mapping is None

    def __call__(self, outcome: Outcome) -> Outcome:
        """Return the outcome with the labels that are kept."""
        if isinstance(outcome, Failure) or self._keeps_all:
            return outcome
        kept = tuple(
            label for label in outcome.labels if label.probability >= self._min_probability
        )
        if self._mapping is not None:
            kept = self._mapping(kept)
        kept = kept[: self._top_k]
        return outcome if kept == outcome.labels else replace(outcome, labels=kept)

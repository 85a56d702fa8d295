"""The operator that measures the labels of a store against labels that people have given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.descriptions import Description
from airflow_imagetag.adapters.final_errors import certain_errors_are_final
from airflow_imagetag.adapters.templating import (
    IsData,
    LiteralValue,
    Render,
    TemplatedFields,
    is_resolved_by_airflow,
)
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.stores.base import LabelStore, as_store

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.adapters.airflow_sdk import Context
    from airflow_imagetag.evaluation import Evaluation

__all__ = ["ImageTagEvaluateOperator"]


class Truth(LiteralValue):
    """The truth of an evaluation as a path, a DataFrame, or rows as dicts."""

    def serialize(self) -> Any:
        """Return the truth as Airflow shows it: of rows only their number."""
        if isinstance(self.value, str):
            return redact(self.value)
        count = f" of {len(self.value):,} rows" if hasattr(self.value, "__len__") else ""
        return f"<{type(self.value).__name__}{count}>"


class ImageTagEvaluateOperator(TemplatedFields):
    """Measures the labels of a store against the truth; makes no calls.

    The result is the frame ``Evaluation.labels``: precision, recall, F1 and support of each label
    at each threshold. XComs: ``summary`` has the averages and the counts of images, ``confusions``
    is the frame of the commonest confusions, and with ``min_precision`` ``label_thresholds`` is the
    frame of the lowest probability of each label that reaches it.

    :param store: where the labels are kept. (templated)
    :param truth: rows of ``image_key`` and ``label``, one for each label that an image really has;
        an image without any has one row without a label. A DataFrame, a list of dicts, the output
        of an upstream task that returns one of these, a ``TruthTable``, or the path of a ``.csv``
        or ``.parquet`` file on any storage. A local path stands in the DAG file or lies inside
        ``[imagetag] allowed_local_paths``. (templated, if it is a path or a table)
    :param api: the interface whose labels are measured; None if the images have labels of one.
        (templated)
    :param thresholds: probabilities from 0 to 1; None for 0, 0.05 and so on to 0.95. (templated)
    :param min_precision: precision that the thresholds of labels shall reach, above 0 and up to 1;
        None for no such thresholds. (templated)
    :raises ConfigurationError: a parameter cannot be used, the images have labels of several
        interfaces, or the store has none of the images.
    :raises StorageError: the store, or the truth's table or file, cannot be reached.
    """

    template_fields: Sequence[str] = ("store", "truth", "api", "thresholds", "min_precision")
    ui_color = "#e8f0d8"

    def __init__(
        self,
        *,
        store: LabelStore,
        truth: Any,
        api: str | None = None,
        thresholds: Sequence[float] | None = None,
        min_precision: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.store = as_store(store)
        self.truth = _wrapped(truth)
        self.api = api
        self.thresholds = thresholds
        self.min_precision = min_precision

    def render_field(self, content: Any, render: Render, is_data: IsData) -> Any:
        """Return a field rendered; a truth that Airflow resolved is data."""
        rendered = super().render_field(content, render, is_data)
        is_truth = content is not None and content is self.truth
        is_kept = isinstance(content, Truth | Description)
        return Truth(rendered) if is_truth and not is_kept else rendered

    def execute(self, context: Context) -> pd.DataFrame:
        """Measure the labels and push ``summary``, ``confusions`` and ``label_thresholds``.

        :return: a row for each label and threshold.
        """
        with certain_errors_are_final():
            return self._execute(context)

    def _execute(self, context: Context) -> pd.DataFrame:
        from airflow_imagetag.backends.airflow_versions import check_xcom_can_hold_frames
        from airflow_imagetag.evaluation.scores import PRECISION

        precision = PRECISION.parse("min_precision", self.min_precision)
        check_xcom_can_hold_frames()
        found = self._evaluation()
        task_instance = context.get("ti")
        xcoms = {"summary": found.summary(), "confusions": found.confusions()}
        if precision is not None:
            xcoms["label_thresholds"] = found.threshold_for(precision)
        if task_instance is not None:
            for key, value in xcoms.items():
                task_instance.xcom_push(key=key, value=value)
        best = found.micro.sort_values("f1").iloc[-1]
        self.log.info(
            "Measured the labels of %s: %s images, %s without an answer. F1 over all labels is "
            "highest at the threshold %g: %.3f",
            found.api,
            f"{len(found.image_keys):,}",
            f"{len(found.missing_keys):,}",
            best["threshold"],
            best["f1"],
        )
        return found.labels

    def _evaluation(self) -> Evaluation:
        from airflow_imagetag.backends.parameter_files import configured_policy
        from airflow_imagetag.evaluation.measuring import evaluated

        if self.store is None:
            raise ConfigurationError("store is missing: the labels to measure are in one.")
        truth, policy = self.truth, None
        if isinstance(truth, Truth):
            policy = None if truth.is_literal else configured_policy()
            truth = truth.value
        return evaluated(
            self.store, truth, api=self.api or None, thresholds=self.thresholds, policy=policy
        )


def _wrapped(truth: Any) -> Any:
    """Return the truth so that Airflow does not render each of its values as a template."""
    if isinstance(truth, Description) or is_resolved_by_airflow(truth):
        return truth
    return Truth(truth, literal=True)

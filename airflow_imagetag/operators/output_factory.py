"""Private: chooses the output of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_imagetag.backends import configuration
from airflow_imagetag.backends.airflow_versions import check_xcom_can_hold_frames
from airflow_imagetag.operators.checkpoint import CheckpointedOutput, checkpoint_store
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.outputs import FrameOutput, Output
from airflow_imagetag.operators.run_record import identity_of
from airflow_imagetag.operators.stored_outputs import StoreOutput

if TYPE_CHECKING:
    from airflow_imagetag.stores.base import LabelStore


def make_output(
    options: Options, store: LabelStore | None, *, task_instance: Any, keeps_result: bool
) -> Output:
    """Return the output that the operator's parameters and the configuration ask for.

    :param options: the operator's checked parameters.
    :param store: where the labels are kept; None for a frame.
    :param task_instance: the task's instance; None outside a task.
    :param keeps_result: Airflow keeps the return value as an XCom.
    :raises ConfigurationError: Airflow cannot keep frames of the installed pandas.
    """
    check_xcom_can_hold_frames()
    if store is not None:
        return StoreOutput(
            options,
            store,
            schedule=configuration.retry_schedule(),
            identity=identity_of(task_instance),
        )
    max_rows = configuration.max_result_rows()
    folder = configuration.checkpoint_path()
    if folder is None or task_instance is None:
        return FrameOutput(options, max_rows=max_rows, keeps_result=keeps_result)
    return CheckpointedOutput(
        options,
        checkpoint_store(folder, task_instance),
        max_rows=max_rows,
        keeps_result=keeps_result,
    )

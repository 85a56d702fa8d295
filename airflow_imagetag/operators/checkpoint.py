"""Private: the checkpoint of a run without a store, kept until its task succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_imagetag.engine.inputs import RunEnds
from airflow_imagetag.errors import ResultTooLargeError
from airflow_imagetag.models import Entry, Failure
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.outputs import FrameOutput, OpenRun, Push, RunTerms
from airflow_imagetag.operators.writers import CheckpointWriter, answer_lookup
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.safety.uris import is_local, local_path
from airflow_imagetag.selection.difference import limited, pending_entries
from airflow_imagetag.selection.rules import Rule
from airflow_imagetag.stores.parquet import ParquetLabelStore

if TYPE_CHECKING:
    from airflow_imagetag.sources.base import ImageSource

CHECKPOINT_THREADS = 3
"""One writes a batch while the others look digests up."""


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


class CheckpointedOutput(FrameOutput):
    """Labels the images that earlier tries of the task did not, and keeps all labels in memory.

    :param options: the operator's checked parameters.
    :param checkpoint: the dataset of this task in this run.
    :param max_rows: maximum number of labels of the frame.
    :param keeps_result: Airflow keeps the return value as an XCom.
    """

    needs_sha256 = True

    def __init__(
        self,
        options: Options,
        checkpoint: ParquetLabelStore,
        *,
        max_rows: int,
        keeps_result: bool,
    ) -> None:
        super().__init__(options, max_rows=max_rows, keeps_result=keeps_result)
        self._checkpoint = checkpoint

    @contextmanager
    def open(self, source: ImageSource, terms: RunTerms) -> Iterator[OpenRun]:
        """Open a run over the entries that the checkpoint does not hold."""
        options, rule = self._options, Rule()
        executor = DaemonExecutor(CHECKPOINT_THREADS, "imagetag-checkpoint")
        with self._checkpoint.open(terms.api) as opened:
            tagged = failed = 0
            too_large: ResultTooLargeError | None = None
            for outcomes in opened.outcomes():
                failures = sum(isinstance(outcome, Failure) for outcome in outcomes)
                failed += failures
                tagged += len(outcomes) - failures
                try:
                    self._writer.collect(outcomes)
                except ResultTooLargeError as error:
                    # The outputs of this try replace those of the last one, so they need all rows.
                    too_large = error
            limit = options.max_images
            left = None if limit is None else max(limit - tagged - failed, 0)
            entries = pending_entries(
                # Before the checkpoint is asked: every try of the task takes the same sample.
                options.chosen(source.entries(shard=options.shard)),
                opened,
                rule,
            )
            try:
                yield OpenRun(
                    RunEnds(
                        limited(entries, left) if too_large is None else _raising(too_large),
                        CheckpointWriter(opened, executor, self._writer),
                        lookup=answer_lookup(opened, rule, executor),
                        ask_for_calls=self._ask_for_calls(terms),
                    ),
                    resumed_tagged=tagged,
                    resumed_failed=failed,
                )
            finally:
                executor.shutdown()

    def finish(self, push: Push, result: Any) -> None:
        """Remove the checkpoint once the result is kept: Airflow keeps it only after ``execute``.

        :param push: keeps an XCom.
        :param result: the labels frame.
        """
        if self._keeps_result:
            push("return_value", result)
        self._checkpoint.remove()


def _raising(error: ResultTooLargeError) -> Iterator[Entry]:
    """Raise when the first entry is read: the run has counted the resumed images by then."""
    yield from ()
    raise error

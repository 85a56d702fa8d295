"""Private: the outputs that a run can go on from: a frame with a checkpoint, and a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import ResultTooLargeError
from airflow_imagetag.models import Entry, Failure, TagResult
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.outputs import FrameOutput, OpenRun, Output, Push
from airflow_imagetag.operators.writers import CheckpointWriter, StoreWriter, answer_lookup
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.selection.difference import limited, new_entries, pending_entries
from airflow_imagetag.selection.rules import Retag, Rule

if TYPE_CHECKING:
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores.base import LabelStore
    from airflow_imagetag.stores.parquet import ParquetLabelStore

log = logging.getLogger(__name__)

STORE_THREADS = 2
"""One writes a batch while the other looks digests up."""


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
    def open(self, source: ImageSource, api: str) -> Iterator[OpenRun]:
        """Open a run over the entries that the checkpoint does not hold."""
        options, rule = self._options, Rule()
        executor = DaemonExecutor(STORE_THREADS, "imagetag-checkpoint")
        with self._checkpoint.open(api) as opened:
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
            entries = pending_entries(source.entries(shard=options.shard), opened, rule)
            try:
                yield OpenRun(
                    limited(entries, left) if too_large is None else _raising(too_large),
                    CheckpointWriter(opened, executor, self._writer),
                    lookup=answer_lookup(opened, rule, executor),
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


class StoreOutput(Output):
    """Labels the images that the store does not hold, and writes them there.

    :param options: the operator's checked parameters.
    :param store: where the labels are kept.
    """

    place = "store"
    needs_sha256 = True

    def __init__(self, options: Options, store: LabelStore) -> None:
        super().__init__(options)
        self._store = store

    @property
    def asset_uri(self) -> str:
        """URI of the store's asset."""
        return self._store.asset_uri

    @contextmanager
    def open(self, source: ImageSource, api: str) -> Iterator[OpenRun]:
        """Open a run over the entries that the store does not hold."""
        options = self._options
        log.info("Finished images go to %r", self._store)
        executor = DaemonExecutor(STORE_THREADS, "imagetag-store")
        with self._store.open(api) as opened:
            opened.check_writable(originals=options.mapping is not None)
            entries = new_entries(
                source, opened, options.rule, shard=options.shard, limit=options.max_images
            )
            # retag='always' bypasses the cache of paid answers.
            uses_answers = options.rule.retag is not Retag.ALWAYS
            try:
                yield OpenRun(
                    limited(entries, options.max_images),
                    StoreWriter(opened, executor, options.label_filter, self.collected),
                    lookup=answer_lookup(opened, options.rule, executor) if uses_answers else None,
                )
            finally:
                executor.shutdown()

    def result(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return the summary."""
        return summary

    def rescued(self) -> dict[str, Callable[[], Any]]:
        """Return the labels that the store did not take, if there are any."""
        unsaved = self.collected.unsaved
        has_labels = any(isinstance(one, TagResult) and one.labels for one in unsaved)
        return {"unsaved": self.collected.unsaved_frame} if has_labels else {}

    def describe(self) -> dict[str, Any]:
        """Return the store as Airflow shows it."""
        shown: dict[str, Any] = self._store.serialize()
        return shown


def _raising(error: ResultTooLargeError) -> Iterator[Entry]:
    """Raise when the first entry is read: the run has counted the resumed images by then."""
    yield from ()
    raise error

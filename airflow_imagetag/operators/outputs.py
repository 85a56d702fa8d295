"""The outputs of the operator: a frame, a frame with a checkpoint, or a store."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.backends import configuration
from airflow_imagetag.backends.airflow_versions import check_xcom_can_hold_frames
from airflow_imagetag.engine.output.label_rows import failures_frame
from airflow_imagetag.engine.protocols import AnswerLookup, OutcomeWriter
from airflow_imagetag.errors import ConfigurationError, ResultTooLargeError
from airflow_imagetag.models import Entry, Failure, TagResult
from airflow_imagetag.operators.checkpoint import checkpoint_store
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.writers import (
    CheckpointWriter,
    Collected,
    FrameWriter,
    StoreWriter,
    answer_lookup,
)
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.selection.difference import limited, new_entries, pending_entries
from airflow_imagetag.selection.rules import Retag, Rule

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores.base import LabelStore
    from airflow_imagetag.stores.parquet import ParquetLabelStore

log = logging.getLogger(__name__)

Push = Callable[[str, Any], None]
"""Keeps a value as an XCom of this key."""

STORE_THREADS = 2
"""One writes a batch while the other looks digests up."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """The input and the output of a run while they are open.

    :param entries: the entries to label.
    :param writer: takes finished images.
    :param reads_inline: the entries are in memory.
    :param lookup: finds answers that were paid for in earlier runs; None for no such answers.
    :param resumed_tagged: images that an earlier try of the task labelled.
    :param resumed_failed: images that failed in an earlier try by their own fault.
    """

    entries: Iterator[Entry]
    writer: OutcomeWriter
    reads_inline: bool = False
    lookup: AnswerLookup | None = None
    resumed_tagged: int = 0
    resumed_failed: int = 0


class Output(ABC):
    """Where the outcomes of a run go, and the XComs that they leave.

    :param options: the operator's checked parameters.
    """

    place: ClassVar[str]
    """Names the place of the labels in messages."""

    needs_sha256: ClassVar[bool]
    """Whether digests are kept, so that they must be those of other runs, too."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.collected = Collected(originals=options.mapping is not None)

    @property
    def asset_uri(self) -> str | None:
        """URI of the asset that the outcomes change; None for no asset."""
        return None

    @property
    def failures(self) -> list[Failure]:
        """The failures so far; of a run with a store, the first of them."""
        return self.collected.failures

    def failures_frame(self) -> pd.DataFrame:
        """Return the failures as a frame."""
        return failures_frame(self.failures)

    def count(self, source: ImageSource) -> int | None:
        """Return the number of entries of a run; None if it is unknown."""
        del source
        return None

    def check_size(self, total: int | None) -> None:
        """Check that the result will not be too large, before anything is paid for.

        :raises ConfigurationError: the result is certain to be too large.
        """
        del total

    @abstractmethod
    def open(self, source: ImageSource, api: str) -> AbstractContextManager[OpenRun]:
        """Return a context in which the images of a source can be labelled.

        :raises ConfigurationError: a place cannot be used.
        """

    @abstractmethod
    def result(self, summary: dict[str, Any]) -> Any:
        """Return the operator's return value."""

    @abstractmethod
    def rescued(self) -> dict[str, Callable[[], Any]]:
        """Return the XComs that keep the labels of a run that failed, each as a function."""

    def finish(self, push: Push, result: Any) -> None:
        """End a run that succeeded.

        :param push: keeps an XCom.
        :param result: the operator's return value.
        """
        del push, result

    @abstractmethod
    def describe(self) -> dict[str, Any] | None:
        """Return the store as the summary shows it; None for no store."""


class FrameOutput(Output):
    """Labels everything, and keeps the labels in memory.

    :param options: the operator's checked parameters.
    :param max_rows: maximum number of labels of the frame.
    :param keeps_result: Airflow keeps the return value as an XCom.
    """

    place = "XCom 'return_value'"
    needs_sha256 = False

    def __init__(self, options: Options, *, max_rows: int, keeps_result: bool) -> None:
        super().__init__(options)
        self._max_rows = max_rows
        self._keeps_result = keeps_result
        self._writer = FrameWriter(self.collected, options.label_filter, max_rows)

    def count(self, source: ImageSource) -> int | None:
        """Return the number of entries of the source, if it is known."""
        return source.count()

    def check_size(self, total: int | None) -> None:
        """Check that the images do not make more labels than an XCom should hold.

        :raises ConfigurationError: they are certain to.
        """
        images = min(total or 0, self._options.max_images or total or 0)
        if images > self._max_rows:
            raise ConfigurationError(
                f"{images:,} images make more than the {self._max_rows:,} labels that an XCom "
                "should hold ([imagetag] max_result_rows). Give the task a store, such as "
                "store=SqlLabelStore(...), or split the images between mapped tasks."
            )

    @contextmanager
    def open(self, source: ImageSource, api: str) -> Iterator[OpenRun]:
        """Open a run over all entries of the source."""
        del api
        options = self._options
        yield OpenRun(
            limited(source.entries(shard=options.shard), options.max_images),
            self._writer,
            # A shard hashes every key.
            reads_inline=source.is_in_memory and options.shard is None,
        )

    def result(self, summary: dict[str, Any]) -> pd.DataFrame:
        """Return the labels frame."""
        del summary
        return self.collected.labels.frame()

    def rescued(self) -> dict[str, Callable[[], Any]]:
        """Return the labels that were found, unless Airflow keeps no return value."""
        return {"return_value": self.collected.labels.frame} if self._keeps_result else {}

    def describe(self) -> None:
        """Return None: there is no store."""


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
        return StoreOutput(options, store)
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


def _raising(error: ResultTooLargeError) -> Iterator[Entry]:
    """Raise when the first entry is read: the run has counted the resumed images by then."""
    yield from ()
    raise error

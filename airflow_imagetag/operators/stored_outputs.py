"""Private: the outputs that a run can go on from: a frame with a checkpoint, and a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.dataset_refs import IMAGES, LABELS
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.progress import plural
from airflow_imagetag.errors import ResultTooLargeError
from airflow_imagetag.models import Entry, Failure, Image, TagResult
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.outputs import (
    FrameOutput,
    OpenRun,
    Output,
    Push,
    RunTerms,
    Selection,
)
from airflow_imagetag.operators.run_record import RunRecorder, new_record, recording
from airflow_imagetag.operators.writers import (
    CheckpointWriter,
    StoreWriter,
    answer_lookup,
    ask_through,
)
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.selection.beginning import Beginning
from airflow_imagetag.selection.difference import (
    count_entries,
    limited,
    new_entries,
    pending_entries,
)
from airflow_imagetag.selection.retry_schedule import RetrySchedule
from airflow_imagetag.selection.rules import Retag, Rule, StoredState, has_failed_before
from airflow_imagetag.stores.base import OpenStore, UnlabelledCounts

if TYPE_CHECKING:
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores.base import LabelStore
    from airflow_imagetag.stores.parquet import ParquetLabelStore

log = logging.getLogger(__name__)

STORE_THREADS = 3
"""One writes a batch while the others look digests up and set calls aside."""


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
        executor = DaemonExecutor(STORE_THREADS, "imagetag-checkpoint")
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
                    limited(entries, left) if too_large is None else _raising(too_large),
                    CheckpointWriter(opened, executor, self._writer),
                    lookup=answer_lookup(opened, rule, executor),
                    ask_for_calls=self._ask_for_calls(terms),
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
    :param schedule: when images that failed are tried again.
    :param identity: the names of the try of the task, as fields of its record.
    """

    place = "store"
    needs_sha256 = True

    def __init__(
        self,
        options: Options,
        store: LabelStore,
        *,
        schedule: RetrySchedule,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__(options)
        self._identity = identity
        self._store = store
        self._schedule = schedule
        self._unlabelled = UnlabelledCounts()

    @property
    def asset_uri(self) -> str:
        """URI of the store's asset."""
        return self._store.asset_uri

    @contextmanager
    def open(self, source: ImageSource, terms: RunTerms) -> Iterator[OpenRun]:
        """Open a run over the entries that the store does not hold, or that are due."""
        options = self._options
        log.info("Finished images go to %r", self._store)
        now = datetime.now(UTC)
        record = new_record(
            terms.api,
            options.record_timing.clock(),
            price_per_thousand=terms.price_per_thousand,
            shard=None if options.shard is None else str(options.shard),
            **self._identity,
        )

        def counts() -> dict[str, Any]:
            return asdict(terms.counts) | asdict(self.selection(terms.counts))

        with self._store.open(terms.api) as opened:
            opened.check_writable(originals=options.mapping is not None)
            with (
                recording(
                    opened, record, counts, options.budget, options.record_timing
                ) as recorder,
                self._open(source, opened, recorder, now) as run,
            ):
                yield run

    @contextmanager
    def _open(
        self, source: ImageSource, opened: OpenStore, recorder: RunRecorder, now: datetime
    ) -> Iterator[OpenRun]:
        options = self._options
        rule = replace(options.rule, now=now)
        tried: dict[str, StoredState] = {}
        executor = DaemonExecutor(STORE_THREADS, "imagetag-store")
        entries = new_entries(
            source,
            opened,
            rule,
            shard=options.shard,
            # A sample is taken of all.
            limit=options.max_images if options.sample is None else None,
            tried=tried,
        )
        first = Beginning(limited(options.chosen(entries), options.max_images))
        total = self._total(source, opened, rule, first)
        _log_selection(first, total, tried, opened.unlabelled(now))
        writer = StoreWriter(
            opened,
            executor,
            options.label_filter,
            self.collected,
            tried=tried,
            schedule=self._schedule,
        )
        # retag='always' bypasses the cache of paid answers.
        uses_answers = rule.retag is not Retag.ALWAYS
        try:
            yield OpenRun(
                self._counted(first.entries(), tried),
                writer,
                lookup=answer_lookup(opened, rule, executor) if uses_answers else None,
                total=total,
                batch=opened.batch,
                ask_for_calls=(
                    ask_through(recorder.reserve, executor) if recorder.is_needed else None
                ),
                has_failed=lambda image: _is_due(image, tried),
            )
        finally:
            executor.shutdown()
            self._count_unlabelled(opened)

    def _total(
        self, source: ImageSource, opened: OpenStore, rule: Rule, first: Beginning
    ) -> int | None:
        """Return the number of entries to label, if it is known."""
        if first.is_all:
            return len(first)
        # Counting reads the table once more, which is little beside so many calls.
        total = count_entries(source, opened, rule, shard=self._options.shard)
        bounds = (total, self._options.max_images, self._options.sample)
        return None if total is None else min(one for one in bounds if one is not None)

    def _counted(
        self, entries: Iterator[Entry], tried: Mapping[str, StoredState]
    ) -> Iterator[Entry]:
        for entry in entries:
            if isinstance(entry, Image):
                is_due = _is_due(entry, tried)
                self.collected.due += is_due
                self.collected.new += not is_due
            yield entry

    def _count_unlabelled(self, opened: OpenStore) -> None:
        """Count what waits after the run; a store that has failed is not asked again."""
        if not self.collected.unsaved:
            self._unlabelled = opened.unlabelled(datetime.now(UTC)) or self._unlabelled

    def selection(self, counts: Counts) -> Selection:
        """Return the counts of images by what was known of them."""
        del counts
        collected, found = self.collected, self._unlabelled
        return Selection(
            collected.new,
            collected.due,
            collected.failed_again,
            found.waiting,
            found.gave_up,
            found.next_try_at,
        )

    def written_rows(self) -> dict[str, int]:
        """Return the numbers of rows that the store has taken."""
        return {LABELS: self.collected.written_labels, IMAGES: self.collected.written_images}

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


def _log_selection(
    first: Beginning,
    total: int | None,
    tried: Mapping[str, StoredState],
    unlabelled: UnlabelledCounts | None,
) -> None:
    """Log how many images there are to label, and how many are left alone."""
    if first.is_all:
        images = [entry for entry in first if isinstance(entry, Image)]
        due = sum(_is_due(image, tried) for image in images)
        parts = [f"{plural(len(images) - due, 'new image')}, {due:,} due again"]
    elif total is None:
        parts = [f"{len(first):,} images or more"]
    else:
        parts = [f"{plural(total, 'image')}, new or due again"]
    if unlabelled is not None and (waiting := unlabelled.waiting - unlabelled.due):
        parts.append(f"{waiting:,} wait for another try")
    if unlabelled is not None and unlabelled.gave_up:
        parts.append(f"{unlabelled.gave_up:,} were given up")
    log.info("To label: %s", "; ".join(parts))


def _is_due(image: Image, tried: Mapping[str, StoredState]) -> bool:
    """Tell whether an image has failed before in its version."""
    stored = tried.get(image.key)
    return has_failed_before(stored, version=image.version, has_uri=image.uri is not None)


def _raising(error: ResultTooLargeError) -> Iterator[Entry]:
    """Raise when the first entry is read: the run has counted the resumed images by then."""
    yield from ()
    raise error

"""Private: the output of a run with a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.dataset_refs import IMAGES, LABELS
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.inputs import RunEnds
from airflow_imagetag.operators.new_entries import NewEntries
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.outputs import OpenRun, Output, RunTerms, Selection
from airflow_imagetag.operators.run_record import RunRecorder, new_record, recording
from airflow_imagetag.operators.writers import StoreWriter, ask_through
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.selection.retry_schedule import RetrySchedule
from airflow_imagetag.stores import OpenStore, UnlabelledCounts

if TYPE_CHECKING:
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores import LabelStore

log = logging.getLogger(__name__)

STORE_THREADS = 3
"""One writes a batch while the others look digests up and set calls aside."""


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
            options.tuning.record.clock(),
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
                    opened, record, counts, options.budget, options.tuning.record
                ) as recorder,
                self._open(source, opened, recorder, now) as run,
            ):
                yield run

    @contextmanager
    def _open(
        self, source: ImageSource, opened: OpenStore, recorder: RunRecorder, now: datetime
    ) -> Iterator[OpenRun]:
        options = self._options
        executor = DaemonExecutor(STORE_THREADS, "imagetag-store")
        new = NewEntries(source, opened, options, now)
        new.log_start()
        writer = StoreWriter(
            opened,
            executor,
            options.label_filter,
            self.collected,
            tried=new.tried,
            schedule=self._schedule,
        )
        try:
            yield OpenRun(
                RunEnds(
                    new.counted(self.collected),
                    writer,
                    lookup=new.lookup(executor),
                    ask_for_calls=(
                        ask_through(recorder.reserve, executor) if recorder.is_needed else None
                    ),
                    has_failed=new.is_due,
                ),
                total=new.total,
                batch=opened.batch,
            )
        finally:
            executor.shutdown()
            self._count_unlabelled(opened)

    def _count_unlabelled(self, opened: OpenStore) -> None:
        """Count the images that wait after the run; a store that has failed is not asked again."""
        if not self.collected.unsaved:
            self._unlabelled = opened.unlabelled(datetime.now(UTC)) or self._unlabelled

    def selection(self, counts: Counts) -> Selection:
        """Return the counts of images by their earlier tries."""
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
        has_labels = self.collected.has_unsaved_labels
        return {"unsaved": self.collected.unsaved_frame} if has_labels else {}

    def describe(self) -> dict[str, Any]:
        """Return the store as Airflow shows it."""
        shown: dict[str, Any] = self._store.serialize()
        return shown

"""Private: the counts and the cost of a run, found without a call and without writing anything."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_imagetag.engine.preview import Preview, PreviewCounts
from airflow_imagetag.errors import RunInterruptedError
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.operators.labeller import labeller_of
from airflow_imagetag.operators.new_entries import Needs, NewEntries, every_entry
from airflow_imagetag.operators.pace import Pace
from airflow_imagetag.runtime.loop_thread import StopSignal, run_in_thread
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.stores import LabelStore, StoreMode, UnlabelledCounts

if TYPE_CHECKING:
    from airflow_imagetag.hooks.imagetag import ImageTagHook
    from airflow_imagetag.operators.options import Options
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores import OpenStore

log = logging.getLogger(__name__)

GRACE_SECONDS = 4.0
"""Maximum wait for a dry run that was asked to end."""


class DryRun:
    """A run up to its calls.

    :param hook: the account.
    :param source: where the images are.
    :param options: the operator's checked parameters.
    :param store: where the labels are kept; None for a frame.
    """

    def __init__(
        self,
        hook: ImageTagHook,
        source: ImageSource,
        options: Options,
        store: LabelStore | None,
    ) -> None:
        self._hook = hook
        self._source = source
        self._options = options
        self._store = store
        options.budget.check_price(hook.account.price_per_thousand, hook.imagetag_conn_id)
        self._pace = Pace(hook.account, options)
        self._stop = StopSignal()
        self._now = datetime.now(UTC)
        self._needs = Needs()
        self._unlabelled = UnlabelledCounts()
        self._counts = PreviewCounts()

    def stop(self) -> None:
        """Ask the dry run to end; may be called from a signal handler."""
        self._stop.request()

    @property
    def labelling(self) -> None:
        """None: a dry run labels nothing."""

    def execute(self) -> dict[str, Any]:
        """Look at all images, and return the counts and the cost of a run.

        :raises ImageTagError: an error that would end the run, too.
        """
        executor = DaemonExecutor(1, "imagetag-store")
        api = self._hook.api
        try:
            with (
                nullcontext() if self._store is None else self._store.open(api, StoreMode.READ)
            ) as opened:
                self._look(opened, executor)
        finally:
            executor.shutdown()
        if self._stop.requested:
            raise RunInterruptedError("The dry run was asked to end. Nothing was sent or written.")
        found = self._result()
        log.info(
            "A dry run: %d images (%d new, %d changed, %d due again) would make %d calls; nothing "
            "was sent or written",
            self._counts.images,
            self._needs.new,
            self._needs.changed,
            self._needs.due,
            self._counts.calls,
        )
        return found

    def _look(self, opened: OpenStore | None, executor: DaemonExecutor) -> None:
        options = self._options
        labeller = labeller_of(
            self._hook,
            self._source,
            is_fetched_by_worker=options.is_fetched_by_worker,
            needs_sha256=opened is not None,
            max_connections=self._pace.max_in_flight,
            storage_conn_id=options.storage_conn_id,
        )
        new = None
        if opened is not None:
            self._unlabelled = opened.unlabelled(self._now) or self._unlabelled
            new = NewEntries(self._source, opened, options, self._now)
        lookup = None if new is None else new.lookup(executor)

        async def main() -> None:
            async with labeller:
                preview = Preview(labeller, lookup, self._stop.attach())
                self._counts = preview.counts
                try:
                    await preview.look(self._entries(new))
                finally:
                    self._stop.detach()

        run_in_thread(main, self._stop, grace_seconds=GRACE_SECONDS)

    def _entries(self, new: NewEntries | None) -> Iterator[Entry]:
        """Yield the entries that the run would take, and count why.

        :param new: those that the store does not hold; None without a store.
        """
        for entry in every_entry(self._source, self._options) if new is None else new:
            if isinstance(entry, Image):
                self._count_need(entry, new)
            yield entry

    def _count_need(self, image: Image, new: NewEntries | None) -> None:
        if new is None:
            self._needs.count(None, has_failed_before=False, now=self._now)
            return
        has_failed_before = new.is_due(image)
        # A run drops the state when the image is finished.
        stored = new.tried.pop(image.key, None)
        self._needs.count(stored, has_failed_before=has_failed_before, now=self._now)

    def _result(self) -> dict[str, Any]:
        counts, needs, unlabelled = self._counts, self._needs, self._unlabelled
        # Images that have left their source are not among those of the store.
        waiting = max(0, unlabelled.waiting - unlabelled.due - needs.not_waiting)
        gave_up = max(0, unlabelled.gave_up - needs.not_given_up)
        price = self._hook.account.price_per_thousand
        rate = self._pace.requests_per_second
        return {
            "dry_run": True,
            "new": needs.new,
            "changed": needs.changed,
            "due": needs.due,
            "waiting": waiting,
            "gave_up": gave_up,
            "failed": counts.failed,
            "too_large": counts.too_large,
            "duplicates": counts.reused,
            "skipped": counts.skipped,
            "calls": counts.calls,
            "estimated_cost": None if price is None else round(counts.calls * price / 1000, 6),
            "seconds_at_quota": None if rate is None else round(counts.calls / rate, 3),
            "sample": counts.sample,
            "store": None if self._store is None else self._store.serialize(),
        }

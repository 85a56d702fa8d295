"""Private: one execution of the operator, put together of account, source, engine and output."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_imagetag.engine import progress
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.lineage.run_telemetry import RunTelemetry
from airflow_imagetag.operators import report
from airflow_imagetag.operators.labeller import labeller_of
from airflow_imagetag.operators.launch import EngineThread
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.outputs import OpenRun, Output, Push, RunTerms
from airflow_imagetag.operators.pace import Pace
from airflow_imagetag.sources.base import ImageSource

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.lineage.reports import TaskReport

log = logging.getLogger(__name__)

MANY_REFUSALS = 10
"""Number of refusals from which the log warns of a quota that is set too high."""

MANY_REFUSED_SHARE = 0.1
"""Share of the calls that they must be."""


class OperatorRun:
    """Labels the images of a source through a hook.

    :param hook: the account.
    :param source: where the images are.
    :param options: the operator's checked parameters.
    :param output: where the labels go.
    :param task_tags: names the task in metrics.
    """

    def __init__(
        self,
        hook: ImageTagHook,
        source: ImageSource,
        options: Options,
        output: Output,
        *,
        task_tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._hook = hook
        self._source = source
        self._options = options
        self._output = output
        options.budget.check_price(hook.account.price_per_thousand, hook.imagetag_conn_id)
        self._pace = Pace(hook.account, options)
        self._engine = EngineThread()
        self._total = output.count(source)
        self._counts = Counts()
        self._telemetry = RunTelemetry(hook.account.api, self._counts, task_tags)
        self._started = time.monotonic()
        self._elapsed_seconds = 0.0
        self._is_cut_off = True

    @property
    def counts(self) -> Counts:
        """The counts so far."""
        return self._counts

    @property
    def total(self) -> int | None:
        """Number of entries; None if it is unknown."""
        return self._total

    @property
    def cost(self) -> float | None:
        """Price of the calls so far; None if the price is unknown, or if the calls are free."""
        price = self._hook.account.price_per_thousand
        return report.estimated_cost(self._counts, price) if price else None

    def stop(self) -> None:
        """Ask the run to end; may be called from a signal handler."""
        self._engine.stop()

    def run(self) -> None:
        """Label everything, and tell metrics and traces.

        :raises ImageTagError: the error that ended the run before its last image, or the failures
            that are more than the task accepts.
        """
        with self._telemetry.run(self.summary):
            self._run()

    def _run(self) -> None:
        # The import takes as long as many calls. With a quota it comes first: it would disturb the
        # even pace. Without a quota it runs beside the calls.
        if self._pace.requests_per_second is not None:
            self._engine.import_pandas()
        self._started = time.monotonic()
        self._log_start()
        try:
            self._output.check_size(self._total)
            with (
                self._output.open(self._source, self._terms()) as opened,
                self._pace.open_schedule() as schedule,
            ):
                self._count_resumed(opened)
                self._total = opened.total if self._total is None else self._total
                labeller = labeller_of(
                    self._hook,
                    self._source,
                    is_fetched_by_worker=self._options.is_fetched_by_worker,
                    needs_sha256=self._output.needs_sha256,
                    max_connections=self._pace.max_in_flight,
                    storage_conn_id=self._options.storage_conn_id,
                )
                self._engine.run(
                    opened.ends,
                    labeller,
                    schedule,
                    self._pace.settings(batch=opened.batch, reads_inline=opened.reads_inline),
                    self._counts,
                    self._total,
                    self._telemetry.report,
                )
                # Here and not where the outputs are made: after an interrupt here, they can still
                # be made.
                self._engine.import_pandas()
                self._is_cut_off = self._engine.is_stopped or self._counts.out_of_budget
                # Inside the context: the store's record of the run has its error.
                self._judge()
        finally:
            self._elapsed_seconds = time.monotonic() - self._started
            self._log_end()

    def _terms(self) -> RunTerms:
        account = self._hook.account
        return RunTerms(self._hook.api, self._counts, account.price_per_thousand)

    def _judge(self) -> None:
        """Check that the run has reached its end, and accept its failures or not.

        :raises RunInterruptedError: it was asked to end before its last image.
        :raises TooManyFailuresError: more images failed than the task accepts.
        """
        self._engine.check_not_stopped(self._progress())
        if self._counts.out_of_budget:
            self._options.budget.end_early(self._progress())
        report.check_failures(
            self._counts,
            self._output.failures,
            failed_again=self._output.selection(self._counts).failed_again,
            max_failure_ratio=self._options.max_failure_ratio,
            min_failures=self._options.min_failures,
            place=self._output.place,
        )

    def failures(self) -> pd.DataFrame:
        """Return the failures so far."""
        return self._output.failures_frame()

    def summary(self) -> dict[str, Any]:
        """Return the counts so far."""
        return report.summary(
            self._counts,
            self._output.selection(self._counts),
            self._output.failures,
            elapsed_seconds=self._elapsed_seconds,
            price_per_thousand=self._hook.account.price_per_thousand,
            without_labels=self._output.collected.without_labels,
            store=self._output.describe(),
        )

    def report(self) -> TaskReport:
        """Return the end of the run for lineage."""
        return self._telemetry.task_report(
            self.summary(),
            self._output.written_rows(),
            self._hook.account.price_per_thousand,
        )

    @property
    def asset_uri(self) -> str | None:
        """URI of the asset that the run changes; None for no asset."""
        return self._output.asset_uri

    def result(self) -> Any:
        """Return the operator's return value."""
        return self._output.result(self.summary())

    def finish(self, push: Push, result: Any) -> None:
        """End a run that succeeded.

        :param push: keeps an XCom.
        :param result: the operator's return value.
        """
        self._output.finish(push, result)

    def rescued(self) -> dict[str, Callable[[], Any]]:
        """Return the XComs that keep the labels of a run that failed, each as a function."""
        return self._output.rescued()

    def as_raised(self, error: BaseException) -> BaseException:
        """Return the error as the task raises it: final if a retry would fail the same way."""
        return report.as_raised(error, self._output.failures)

    def _count_resumed(self, opened: OpenRun) -> None:
        resumed = opened.resumed_tagged + opened.resumed_failed
        if resumed:
            log.info("An earlier try of this task finished %d images already", resumed)
        self._counts.tagged = self._counts.reused = opened.resumed_tagged
        self._counts.failed = opened.resumed_failed

    def _log_start(self) -> None:
        # A source or a store does not tell its number of new images.
        total = self._total
        log.info(
            "Labelling %s with %s at %s (connection %r): %s",
            "new images" if total is None else progress.plural(total, "image"),
            self._hook.api,
            self._hook.account.endpoint or "this worker",
            self._hook.imagetag_conn_id,
            self._pace.describe(),
        )

    def _log_end(self) -> None:
        has_store = self._output.describe() is not None
        log.info(
            "Ended: %s",
            report.ending(
                self._progress(),
                self._output.selection(self._counts) if has_store else None,
                without_labels=self._output.collected.without_labels,
                cost=self.cost,
            ),
        )
        self._warn_of_quota()

    def _warn_of_quota(self) -> None:
        throttled, calls = self._counts.throttled, self._counts.calls
        if throttled < MANY_REFUSALS or throttled < MANY_REFUSED_SHARE * calls:
            return
        rate = self._pace.requests_per_second
        log.warning(
            "The service asked for fewer requests %d times in %d calls. %s the quota of the "
            "account into requests_per_second of the connection %r; if other tasks or programs "
            "use the account, too, share it with quota_conn_id.",
            throttled,
            calls,
            "Set" if rate is None else f"The rate of this run was {rate:g}/s: set",
            self._hook.imagetag_conn_id,
        )

    def _progress(self) -> str:
        return progress.line(
            self._counts,
            elapsed_seconds=time.monotonic() - self._started,
            total=self._total,
            is_cut_off=self._is_cut_off,
        )

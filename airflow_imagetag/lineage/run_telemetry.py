"""Private: tells metrics, traces and lineage about one run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.latency import Latency
from airflow_imagetag.lineage.metrics import RunMetrics
from airflow_imagetag.lineage.reports import TaskReport
from airflow_imagetag.lineage.traces import run_span

log = logging.getLogger(__name__)


class RunTelemetry:
    """Tells metrics and traces the counts of a run, and makes its report for lineage.

    :param api: the interface that labels the images.
    :param counts: the counts of the run, which change while it runs.
    :param task_tags: names the task in metrics.
    """

    def __init__(self, api: str, counts: Counts, task_tags: Mapping[str, str]) -> None:
        self._api = api
        self._metrics = RunMetrics(counts, {"api": api, **task_tags})

    def report(self, latency: Latency) -> None:
        """Send the counts since the last report.

        :param latency: latencies of the requests since then.
        """
        self._metrics.report(latency)

    @contextmanager
    def run(self, summary: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """Tell the end of the run that the context lasts.

        :param summary: returns the counts at the end.
        """
        outcome = "failed"
        with run_span({"api": self._api}) as counts:
            try:
                yield
                outcome = "success"
            finally:
                self._end(counts, summary, outcome)

    def _end(
        self, counts: dict[str, Any], summary: Callable[[], dict[str, Any]], outcome: str
    ) -> None:
        """Tell the end; a summary that cannot be made hides no error.

        :param counts: takes the counts for the trace.
        """
        try:
            found = summary()
        except Exception:  # raised again where the summary is pushed
            log.exception("The end of the run cannot be told to metrics and traces")
            return
        counts.update(found)
        self._metrics.end(found, outcome=outcome)

    def task_report(
        self,
        summary: Mapping[str, Any],
        written_rows: Mapping[str, int],
        price_per_thousand: float | None,
    ) -> TaskReport:
        """Return the end of the run for lineage.

        :param summary: the counts at the end.
        :param written_rows: numbers of rows that a store has taken.
        :param price_per_thousand: price of 1,000 calls; None if it is unknown.
        """
        return TaskReport(self._api, summary, written_rows, price_per_thousand)

"""Private: metrics of a run, through the StatsD or OpenTelemetry client that Airflow has.

Counters get the difference since the last report, every ten seconds and at the end, so their cost
does not depend on the number of images. Without a client, Airflow's own does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow_imagetag.adapters.airflow_sdk import Stats
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.latency import Latency

log = logging.getLogger(__name__)

PREFIX = "imagetag"

COUNTERS: Mapping[str, str] = {
    "tagged": "images.tagged",
    "reused": "images.reused",
    "failed": "images.failed",
    "skipped": "images.skipped",
    "calls": "calls",
    "refused_calls": "calls.refused",
    "unknown_calls": "calls.unknown",
    "retries": "retries",
    "throttled": "throttled",
}
"""Names of the counters by the field of the counts."""

GAUGES: Mapping[str, str] = {
    "waiting": "images.waiting",
    "gave_up": "images.gave_up",
    "estimated_cost": "run.cost",
}
"""Names of the gauges by the entry of the summary."""


class Metrics:
    """Sends numbers under names that all tasks share; a failure to send ends no run.

    :param tags: few values each, such as the interface and the task; never an image.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)
        self._has_failed = False

    def count(self, name: str, number: int, **tags: str) -> None:
        """Add to a counter; nothing is sent for 0."""
        if number:
            self._send("incr", name, number, tags)

    def gauge(self, name: str, value: float | None) -> None:
        """Set a gauge; nothing is sent for None."""
        if value is not None:
            self._send("gauge", name, value, {})

    def time(self, name: str, seconds: float) -> None:
        """Record a duration, which is sent in milliseconds."""
        self._send("timing", name, seconds * 1000, {})

    def _send(self, method: str, name: str, value: float, tags: Mapping[str, str]) -> None:
        try:
            getattr(Stats, method)(f"{PREFIX}.{name}", value, tags=self._tags | dict(tags))
        # The client is the user's own, and each has an error tree of its own.
        except Exception as error:
            if not self._has_failed:
                log.warning("Metrics cannot be sent: %s: %s", type(error).__name__, error)
            self._has_failed = True


class RunMetrics:
    """The metrics of one run.

    :param counts: the counts of the run, which change while it runs.
    :param tags: of every metric.
    """

    def __init__(self, counts: Counts, tags: Mapping[str, str]) -> None:
        self._counts = counts
        self._sent = Counts()
        self._metrics = Metrics(tags)

    def report(self, latency: Latency) -> None:
        """Send the counts since the last report.

        :param latency: latencies of the requests since then.
        """
        for field, name in COUNTERS.items():
            now = getattr(self._counts, field)
            self._metrics.count(name, now - getattr(self._sent, field))
            setattr(self._sent, field, now)
        if latency.requests:
            self._metrics.time("request.latency", latency.mean_seconds)
            self._metrics.time("request.latency_max", latency.max_seconds)

    def end(self, summary: Mapping[str, Any], *, outcome: str) -> None:
        """Send the rest.

        :param summary: of the run.
        :param outcome: ``success`` or ``failed``.
        """
        self.report(Latency())
        for entry, name in GAUGES.items():
            self._metrics.gauge(name, summary[entry])
        self._metrics.time("run.duration", summary["elapsed_seconds"])
        self._metrics.count("runs", 1, outcome=outcome)

"""One execution of the operator: hook, engine and frames put together."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import RunInterruptedError, TooManyFailuresError
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.hooks.settings import allowed_local_folders
from airflow_imagetag.models import Entry
from airflow_imagetag.operators.options import Options
from airflow_imagetag.sources.content import ContentReader
from airflow_imagetag.tagging import progress
from airflow_imagetag.tagging.engine import DRAIN_SECONDS, Run, Settings
from airflow_imagetag.tagging.frames import FrameSink
from airflow_imagetag.tagging.stopping import StopSignal, run_in_thread

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

DEFAULT_MAX_IN_FLIGHT = 32
"""Twenty requests a second that take up to a second each, and room above."""

NAMED_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a run leaves behind: the labels frame, the failures frame and the summary."""

    labels: pd.DataFrame
    failures: pd.DataFrame
    summary: dict[str, Any]


class LabelRun:
    """Labels entries through a hook and keeps what came of it.

    :param hook: the account.
    :param entries: what to label.
    :param options: the operator's checked parameters.
    :param total: number of entries, None if unknown.
    :param literal_paths: local paths that the DAG's author wrote.
    """

    def __init__(
        self,
        hook: ImageTagHook,
        entries: Iterator[Entry],
        options: Options,
        *,
        total: int | None,
        literal_paths: Collection[str] = (),
    ) -> None:
        self._account = hook.account
        self._hook = hook
        self._options = options
        self._total = total
        self._stop = StopSignal()
        self._sink = FrameSink(min_probability=options.min_probability, top_k=options.top_k)
        self._max_in_flight = (
            options.max_in_flight or self._account.max_in_flight or DEFAULT_MAX_IN_FLIGHT
        )
        self._tagger = hook.tagger(
            ContentReader(allowed_local_folders(), literal_paths),
            max_connections=self._max_in_flight,
        )
        self._engine = Run(
            islice(entries, options.max_images),
            self._tagger,
            self._sink,
            Settings(
                max_in_flight=self._max_in_flight,
                requests_per_second=(
                    options.requests_per_second or self._account.requests_per_second
                ),
            ),
            self._stop,
            total=total,
        )
        self._elapsed_seconds = 0.0

    def stop(self) -> None:
        """Ask the run to end; may be called from a signal handler."""
        self._stop.request()

    def run(self) -> None:
        """Label everything.

        :raises ImageTagError: what ended the run before its last image, or made it fail after.
        """
        started = time.monotonic()
        log.info(
            "Labelling %s images with %s at %s: up to %d at a time, %s",
            "some" if self._total is None else f"{self._total:,}",
            self._account.api,
            self._account.endpoint,
            self._max_in_flight,
            self._pace(),
        )
        try:
            # The writer's last batch comes after the answers that were waited for.
            run_in_thread(self._main, self._stop, grace_seconds=DRAIN_SECONDS + 4)
        finally:
            self._elapsed_seconds = time.monotonic() - started
            log.info("Ended: %s", self._progress())
        if self._stop.requested:
            raise RunInterruptedError(
                f"The run was asked to end before its last image: {self._progress()}. What it "
                "finished is in the outputs."
            )
        self._check_failures()

    def outputs(self) -> Outputs:
        """Return what the run finished so far."""
        counts = self._engine.counts
        price = self._account.price_per_thousand
        elapsed = self._elapsed_seconds
        return Outputs(
            self._sink.labels_frame(),
            self._sink.failures_frame(),
            {
                **asdict(counts),
                "elapsed_seconds": round(elapsed, 3),
                "images_per_second": round(counts.done / elapsed, 3) if elapsed else 0.0,
                "estimated_cost": None if price is None else round(counts.calls * price / 1000, 6),
                "store": None,
            },
        )

    async def _main(self) -> None:
        async with self._tagger:
            await self._engine.run()

    def _check_failures(self) -> None:
        failures = self._sink.failures
        counts = self._engine.counts
        done = counts.done
        if not failures or len(failures) <= self._options.max_failure_ratio * done:
            return
        commonest = Counter(
            failure.error if failure.code is None else f"{failure.error} ({failure.code})"
            for failure in failures
        ).most_common(NAMED_ERRORS)
        names = ", ".join(f"{name} {count:,}" for name, count in commonest)
        raise TooManyFailuresError(
            f"{counts.failed:,} of {done:,} images failed ({counts.failed / done:.1%}), more than "
            f"max_failure_ratio={self._options.max_failure_ratio:g} allows. Commonest: {names}. "
            f"The labels of the other {counts.tagged:,} are in the XCom 'return_value', the "
            "failures in 'failures'."
        )

    def _pace(self) -> str:
        rate = self._options.requests_per_second or self._account.requests_per_second
        return "no limit of requests per second" if rate is None else f"{rate:g} requests/s"

    def _progress(self) -> str:
        return progress.line(
            self._engine.counts, elapsed_seconds=self._elapsed_seconds, total=self._total
        )

"""Private: runs the engine in a thread of its own, while the task's thread waits for it."""

from __future__ import annotations

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.inputs import RunInputs
from airflow_imagetag.engine.run import LabelEngine, Report
from airflow_imagetag.engine.settings import EngineSettings
from airflow_imagetag.runtime.background_import import BackgroundImport
from airflow_imagetag.runtime.loop_thread import StopSignal, fast_loop, run_in_thread
from airflow_imagetag.runtime.relaxed_gc import relaxed_gc

PANDAS_AFTER_SECONDS = 0.05
"""By then the first requests are on their way: pandas is imported while the service answers."""

LAST_BATCH_SECONDS = 4.0
"""How long the last batch may take after the responses on their way have come."""


class EngineThread:
    """The engine of one run, and the import of pandas that its outputs need."""

    def __init__(self) -> None:
        self._stop = StopSignal()
        # A run whose labels could not be returned must not go on.
        self._pandas = BackgroundImport("pandas", self._stop.request)

    def stop(self) -> None:
        """Ask the run to end; may be called from a signal handler."""
        self._stop.request()

    @property
    def is_stopped(self) -> bool:
        """Whether the run was asked to end."""
        return self._stop.requested

    def import_pandas(self) -> None:
        """Wait until pandas is imported.

        :raises ImportError: it cannot be imported.
        """
        self._pandas.wait()

    def run(
        self,
        inputs: RunInputs,
        settings: EngineSettings,
        counts: Counts,
        total: int | None,
        report: Report | None = None,
    ) -> None:
        """Label everything.

        :param inputs: entries, labeller and writer; the labeller is opened here.
        :param counts: where to count.
        :param total: number of entries, for the log; None if unknown.
        :param report: called from time to time, and at the end.
        :raises ImageTagError: the error that stopped the run.
        """
        engine = LabelEngine(
            inputs, settings, self._stop, counts=counts, total=total, report=report
        )

        async def main() -> None:
            async with inputs.labeller:
                with self._pandas.starting_after(PANDAS_AFTER_SECONDS):
                    await engine.run()

        # The clock of the fast loop is too coarse to pace requests by.
        has_quota = settings.requests_per_second is not None
        with relaxed_gc():
            run_in_thread(
                main,
                self._stop,
                grace_seconds=settings.tuning.drain_seconds + LAST_BATCH_SECONDS,
                loop_factory=None if has_quota else fast_loop(),
            )

"""Private: runs the engine in a thread of its own, while the task's thread waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.inputs import RunEnds, RunInputs
from airflow_imagetag.engine.run import LabelEngine, Report
from airflow_imagetag.engine.settings import EngineSettings
from airflow_imagetag.errors import RunInterruptedError
from airflow_imagetag.runtime.background_import import BackgroundImport
from airflow_imagetag.runtime.loop_thread import StopSignal, fast_loop, run_in_thread
from airflow_imagetag.runtime.relaxed_gc import relaxed_gc

if TYPE_CHECKING:
    from airflow_imagetag.engine.flow.schedule import Schedule
    from airflow_imagetag.labellers.base import Labeller

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

    def check_not_stopped(self, progress: str) -> None:
        """Check that the run was not asked to end before its last image.

        :param progress: of the run, as the log shows it.
        :raises RunInterruptedError: it was.
        """
        if self.is_stopped:
            raise RunInterruptedError(
                f"The run was asked to end before its last image: {progress}. The finished images "
                "are in its outputs."
            )

    def import_pandas(self) -> None:
        """Wait until pandas is imported.

        :raises ImportError: it cannot be imported.
        """
        self._pandas.wait()

    def run(
        self,
        ends: RunEnds,
        labeller: Labeller,
        schedule: Schedule | None,
        settings: EngineSettings,
        counts: Counts,
        total: int | None,
        report: Report | None = None,
    ) -> None:
        """Label everything.

        :param ends: the entries, and the place of the outcomes.
        :param labeller: labels one image; opened here.
        :param schedule: slots of a quota that processes share; None for a quota of this run alone.
        :param counts: where to count.
        :param total: number of entries, for the log; None if unknown.
        :param report: called from time to time, and at the end.
        :raises ImageTagError: the error that stopped the run.
        """
        inputs = RunInputs(ends, labeller, schedule)
        engine = LabelEngine(
            inputs, settings, self._stop, counts=counts, total=total, report=report
        )

        async def main() -> None:
            async with labeller:
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

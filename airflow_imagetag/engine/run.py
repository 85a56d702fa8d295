"""Takes entries from a source, labels them concurrently and hands them on in batches.

A prefetcher reads the source, workers prepare and call, a batch writer writes. The queues between
them are bounded, so memory depends on ``max_in_flight`` and ``batch_size`` and not on the number of
images.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from airflow_imagetag.engine import parts, progress
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.flow.bytes_in_flight import BytesInFlight
from airflow_imagetag.engine.flow.worker_pool import AdaptiveWorkerPool
from airflow_imagetag.engine.inputs import RunInputs
from airflow_imagetag.engine.latency import Latency
from airflow_imagetag.engine.outcomes import OutcomeMaker, StoppingError
from airflow_imagetag.engine.output.batch_writer import BatchWriter
from airflow_imagetag.engine.prefetcher import Prefetcher, PreparedEntry
from airflow_imagetag.engine.settings import EngineSettings
from airflow_imagetag.runtime.loop_thread import StopSignal

log = logging.getLogger(__name__)

Report = Callable[[Latency], None]
"""Takes the latencies of the requests since the last call."""


class LabelEngine:
    """Labels the images of one source.

    :param inputs: entries, labeller and writer.
    :param settings: bounds and pace.
    :param stop: asks the run to end early.
    :param counts: where to count; None for counts of its own.
    :param total: number of entries, for the log; None if unknown.
    :param report: called with each progress line, and at the end, with the latencies since.
    """

    def __init__(
        self,
        inputs: RunInputs,
        settings: EngineSettings,
        stop: StopSignal,
        *,
        counts: Counts | None = None,
        total: int | None = None,
        report: Report | None = None,
    ) -> None:
        self.counts = Counts() if counts is None else counts
        self._report = report
        self._inputs = inputs
        self._settings = settings
        self._stop = stop
        self._total = total

    async def run(self) -> None:
        """Label everything and write it; finished images are written on every way out.

        :raises ImageTagError: the error that stopped the run: the account's fault, an outage.
        :raises Exception: an error of the source or the writer.
        """
        stopping = self._stop.attach()
        try:
            await _Run(
                self._inputs, self._settings, stopping, self.counts, self._total, self._report
            ).run()
        finally:
            self._stop.detach()


class _Run:
    """One run, made inside its event loop.

    :param stopping: set when nothing more may be sent.
    """

    def __init__(
        self,
        inputs: RunInputs,
        settings: EngineSettings,
        stopping: asyncio.Event,
        counts: Counts,
        total: int | None,
        report: Report | None,
    ) -> None:
        self._tell = report
        self._settings = settings
        self._stopping = stopping
        self._counts = counts
        self._total = total
        self._started = time.monotonic()
        self._errors: list[BaseException] = []
        self._asking = parts.asking_executor()
        self._reading = parts.reading_executor(settings)
        self._pool = AdaptiveWorkerPool(
            self._work,
            requests_per_second=settings.requests_per_second,
            max_in_flight=settings.max_in_flight,
            first_latency_seconds=settings.tuning.first_latency_seconds,
        )
        self._in_flight = BytesInFlight(settings.tuning.max_bytes_in_flight)
        self._prefetcher = Prefetcher(
            inputs.ends.entries,
            self._reading,
            counts,
            stopping,
            self._end_with,
            prepare_ahead=inputs.labeller.prepare_ahead,
            expected_bytes=inputs.labeller.expected_bytes,
            in_flight=self._in_flight,
            config=parts.prefetch_config(settings),
        )
        self._writer = BatchWriter(
            inputs.ends.writer,
            counts,
            self._end_with,
            batch_size=settings.batch_size,
            flush_seconds=settings.flush_seconds,
        )
        pipeline = parts.image_pipeline(
            inputs, settings, counts, self._pool, stopping, self._asking
        )
        self._outcomes = OutcomeMaker(
            pipeline, counts, self._end_with, inputs.ends.has_failed, self._resize
        )

    async def run(self) -> None:
        """Label everything and write it.

        :raises Exception: the first error that ended the run.
        """
        reporter = asyncio.create_task(self._report())
        writing = asyncio.create_task(self._writer.write())
        try:
            await self._label_all()
        finally:
            reporter.cancel()
            self._writer.close()
            await writing
            self._outcomes.report()
            self._tell_progress()
            # Not waited for: after a stop, a thread may still hang in a storage's read.
            for executor in (self._reading, self._asking):
                if executor is not None:
                    executor.shutdown(wait=False, cancel_futures=True)
        if self._errors:
            raise self._errors[0]

    async def _label_all(self) -> None:
        tuning = self._settings.tuning
        self._pool.fill()
        stopped = asyncio.create_task(self._stopping.wait())
        ended = asyncio.create_task(self._all_ended())
        while not stopped.done() and not ended.done():
            await asyncio.wait(
                (stopped, ended),
                timeout=tuning.resize_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not self._prefetcher.is_exhausted:
                self._pool.fill()
        stopped.cancel()
        await asyncio.wait((ended,), timeout=tuning.drain_seconds)
        for worker in self._pool.workers:
            worker.cancel()
        await ended
        # Every worker may be held up by its call: these entries were not taken.
        self._counts.skipped += self._prefetcher.drop()

    async def _all_ended(self) -> None:
        while running := {task for task in self._pool.workers if not task.done()}:
            await asyncio.wait(running)

    async def _work(self) -> None:
        while not self._pool.should_exit():
            taken = await self._prefetcher.take()
            if taken is None:
                return
            try:
                outcome = await self._outcomes.outcome_of(taken)
            except StoppingError:
                self._counts.skipped += 1
            except asyncio.CancelledError:
                self._counts.skipped += 1
                raise
            except Exception as error:
                self._counts.skipped += 1
                self._end_with(error)
            else:
                if outcome is not None:
                    await self._writer.add(outcome)
            finally:
                self._in_flight.release(taken.size_bytes)
                # A worker that waits for its next image must not keep the bytes of the last one.
                del taken

    def _resize(self, taken: PreparedEntry, size_bytes: int) -> None:
        """Correct the size of an image that a worker has loaded: others may have room now."""
        self._in_flight.resize(taken.size_bytes, size_bytes)
        taken.size_bytes = size_bytes

    def _end_with(self, error: Exception) -> None:
        self._errors.append(error)
        self._stopping.set()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tuning.progress_seconds)
            elapsed = time.monotonic() - self._started
            line = progress.line(
                self._counts,
                elapsed_seconds=elapsed,
                total=self._total,
                unwritten=self._writer.unwritten,
            )
            log.info(line)
            self._tell_progress()

    def _tell_progress(self) -> None:
        if self._tell is not None:
            self._tell(self._pool.latency.take())

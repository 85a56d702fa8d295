"""Takes entries from a source, labels them concurrently and hands them to a sink in batches.

A feed reads the source, workers load and call, a writer writes. What stands between them is
bounded, so memory depends on ``max_in_flight`` and ``batch_size`` and not on the number of images.
Reading and writing run in threads and never block the loop, except where both ends are in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from airflow_imagetag.engine import progress
from airflow_imagetag.engine.answers.batched_lookup import AnswerLookup, BatchedLookup
from airflow_imagetag.engine.answers.single_flight import MAX_REMEMBERED, MIN_REMEMBERED
from airflow_imagetag.engine.direct import DirectFeed
from airflow_imagetag.engine.flow import retry_policy
from airflow_imagetag.engine.flow.admission import AdmissionControl
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreakerConfig
from airflow_imagetag.engine.flow.rate_limiter import RateLimiter, Schedule
from airflow_imagetag.engine.flow.worker_pool import AdaptiveWorkerPool
from airflow_imagetag.engine.image_pipeline import GaveUpError, ImagePipeline, StoppingError
from airflow_imagetag.engine.output.batch_writer import BatchWriter
from airflow_imagetag.engine.prefetcher import MAX_WAITING, WAITING_PER_WORKER, Prefetcher
from airflow_imagetag.engine.protocols import Counts, Labeller, Outcome, Sink, Source
from airflow_imagetag.errors import ConfigurationError, Decision, DuplicateKeyError
from airflow_imagetag.models import Entry, Failure, Image, RejectedImage, SkippedImage
from airflow_imagetag.runtime.loop_thread import StopSignal
from airflow_imagetag.safety.uris import redact
from airflow_imagetag.services.messages import Payload

log = logging.getLogger(__name__)

MAX_LOADERS = 32
"""Images read from a storage at the same time."""

PROGRESS_SECONDS = 10.0

MAX_CODE_CHARACTERS = 128

CREW_SECONDS = 0.2
"""How often the size of the crew is looked at."""

DRAIN_SECONDS = 4.0
"""How long a run that was asked to end waits for the answers on their way, which may be billed
already. Airflow 3 kills the process for good a few seconds after it asks."""

LOGGED_FAILURES = 3
"""Failures of each class that the log shows; the failures output has them all."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How a run goes about it.

    :param max_in_flight: images loaded or called at the same time, at most; with a quota no more
        than it needs at the latency that is seen.
    :param requests_per_second: how fast the run may go; None for no limit.
    :param shared_requests_per_second: the quota that processes share through a ledger; None if it
        is as fast as the run may go.
    :param batch_size: finished images that are written together.
    :param flush_seconds: how long a finished image waits at most to be written.
    :param retry: when and how often a call is made again.
    :param patience: with a service that is down.
    :param calls_per_image: calls that the vendor bills for one request.
    :param reads_at_once: the entries are in memory, so no thread is needed to read them.
    """

    max_in_flight: int = 32
    requests_per_second: float | None = 20.0
    shared_requests_per_second: float | None = None
    batch_size: int = 200
    flush_seconds: float = 2.0
    retry: retry_policy.RetryPolicy = field(default_factory=retry_policy.RetryPolicy)
    patience: CircuitBreakerConfig = field(default_factory=CircuitBreakerConfig)
    calls_per_image: int = 1
    reads_at_once: bool = False


class LabelEngine:
    """One pass over a source.

    :param entries: what to label; read in a thread, unless they are in memory.
    :param tagger: how to label one.
    :param sink: where outcomes go.
    :param settings: bounds and pace.
    :param stop: asks the run to end early.
    :param counts: where to count; None for counts of its own.
    :param total: number of entries, None if unknown; only for the log.
    :param paid: returns what was paid for bytes with some digests in an earlier run; blocks.
    :param ledger: the slots of a quota that is shared with other processes; None for one's own.
    """

    def __init__(
        self,
        entries: Iterator[Entry],
        tagger: Labeller,
        sink: Sink,
        settings: EngineSettings,
        stop: StopSignal,
        *,
        counts: Counts | None = None,
        total: int | None = None,
        paid: AnswerLookup | None = None,
        ledger: Schedule | None = None,
    ) -> None:
        self._ledger = ledger
        self._crew = AdaptiveWorkerPool(
            self._work,
            requests_per_second=settings.requests_per_second,
            max_in_flight=settings.max_in_flight,
        )
        self.counts = Counts() if counts is None else counts
        self._entries = entries
        self._tagger = tagger
        self._sink = sink
        self._settings = settings
        self._stop = stop
        self._total = total
        self._paid = paid
        self._error: BaseException | None = None
        self._logged: Counter[str] = Counter()

    async def run(self) -> None:
        """Label everything and write it; what is finished is written on every way out.

        :raises ImageTagError: the error that stopped the run: the account's fault, an outage.
        :raises Exception: what the source or the sink raised.
        """
        settings = self._settings
        self._started = time.monotonic()
        self._stopping = self._stop.attach()
        # Apart from each other: a storage that hangs in every load must not keep what is finished
        # from being written.
        self._loaders = ThreadPoolExecutor(
            min(settings.max_in_flight, MAX_LOADERS), "imagetag-load"
        )
        self._threads = ThreadPoolExecutor(3, "imagetag")
        self._feed = self._new_feed()
        self._writer = BatchWriter(
            self._sink,
            self._threads,
            self.counts,
            self._end_with,
            batch_size=settings.batch_size,
            flush_seconds=settings.flush_seconds,
        )
        # Apart as well: no request waits for its slot because a source reads slowly.
        self._asking = ThreadPoolExecutor(1, "imagetag-quota")
        pacer = RateLimiter(
            settings.requests_per_second,
            self._ledger,
            shared_requests_per_second=settings.shared_requests_per_second,
            threads=self._asking,
            stopping=self._stopping,
        )
        self._labelling = ImagePipeline(
            self._tagger,
            AdmissionControl(pacer, self._stopping, settings.patience),
            settings.retry,
            self._stopping,
            self._loaders,
            self.counts,
            self._crew,
            None if self._paid is None else BatchedLookup(self._paid, self._threads),
            settings.calls_per_image,
            self._max_remembered(),
        )
        reporter = asyncio.create_task(self._report())
        writing = asyncio.create_task(self._writer.write())
        try:
            await self._label_all()
        finally:
            reporter.cancel()
            self._writer.close()
            await writing
            self._stop.detach()
            # Not waited for: after a stop, a thread may still hang in a storage's read.
            self._loaders.shutdown(wait=False, cancel_futures=True)
            self._asking.shutdown(wait=False, cancel_futures=True)
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._error is not None:
            raise self._error

    def _new_feed(self) -> Source:
        if self._settings.reads_at_once:
            return DirectFeed(self._entries, self.counts, self._stopping)
        waiting = min(WAITING_PER_WORKER * self._settings.max_in_flight, MAX_WAITING)
        return Prefetcher(
            self._entries,
            self._tagger,
            self._threads,
            self.counts,
            self._stopping,
            max_waiting=waiting,
        )

    def _max_remembered(self) -> int:
        if self._paid is None:
            return MAX_REMEMBERED
        # What was paid and is not yet written must be among them: no store knows it.
        unwritten = self._settings.batch_size + self._settings.max_in_flight
        return max(MIN_REMEMBERED, 2 * unwritten)

    async def _label_all(self) -> None:
        reader = asyncio.create_task(self._read())
        asked = asyncio.create_task(self._stopping.wait())
        everyone = asyncio.create_task(self._all_ended(reader))
        while not asked.done() and not everyone.done():
            if not self._feed.is_exhausted:
                self._crew.fill()
            await asyncio.wait(
                (asked, everyone), timeout=CREW_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        asked.cancel()
        await asyncio.wait((everyone,), timeout=DRAIN_SECONDS)
        for task in (reader, *self._crew.workers):
            task.cancel()
        await everyone
        # With every worker held up by its call, nobody was there to skip these.
        self.counts.skipped += self._feed.drop()

    async def _all_ended(self, reader: asyncio.Task[None]) -> None:
        while running := {task for task in (reader, *self._crew.workers) if not task.done()}:
            await asyncio.wait(running)

    async def _read(self) -> None:
        try:
            await self._feed.read()
        except Exception as error:
            self._end_with(error)

    async def _work(self) -> None:
        while not self._crew.should_exit() and (fed := await self._feed.take()) is not None:
            try:
                outcome = await self._outcome_of(*fed)
            except StoppingError:
                self.counts.skipped += 1
            except asyncio.CancelledError:
                self.counts.skipped += 1
                raise
            # A fault of ours must not hang the run.
            except Exception as error:
                self.counts.skipped += 1
                self._end_with(error)
            else:
                if outcome is not None:
                    await self._writer.add(outcome)

    async def _outcome_of(self, entry: Entry, payload: Payload | None) -> Outcome | None:
        if self._stopping.is_set():
            raise StoppingError
        if isinstance(entry, Image):
            try:
                return await self._labelling.label(entry, payload)
            except GaveUpError as given_up:
                if given_up.error.decision is Decision.STOP:
                    self._end_with(given_up.error)
                return self._failure(entry, given_up)
        if isinstance(entry, RejectedImage):
            return self._failure(entry, GaveUpError(entry.error, 0))
        if not isinstance(entry, SkippedImage):
            # Of another package, which knows no types.
            raise ConfigurationError(
                f"The source gave an entry of the class {type(entry).__name__}; it is to give "
                "Image objects."
            )
        self.counts.skipped += 1
        return None

    def _failure(self, entry: Image | RejectedImage, given_up: GaveUpError) -> Failure:
        error = given_up.error
        name, message = type(error).__name__, _storable(error.message)
        self._logged[name] += 1
        # What ends the run is no image's fault, and the task raises it.
        if self._logged[name] <= LOGGED_FAILURES and error.decision is not Decision.STOP:
            last = " More are only counted." if self._logged[name] == LOGGED_FAILURES else ""
            log.warning("Image %r failed: %s: %s%s", redact(entry.key), name, message, last)
        return Failure(
            entry.key,
            None if entry.uri is None else redact(entry.uri),
            name,
            None if error.code is None else _storable(error.code)[:MAX_CODE_CHARACTERS],
            message,
            given_up.attempts,
            datetime.now(UTC),
            version=entry.version,
            content_sha256=given_up.sha256,
            is_final=(
                error.decision is Decision.RECORD or retry_policy.is_unreadable_success(error)
            ),
            is_of_image=_is_of_image(entry),
            is_tolerated=isinstance(entry, RejectedImage) and entry.is_tolerated,
        )

    def _end_with(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._stopping.set()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            elapsed = time.monotonic() - self._started
            log.info(progress.line(self.counts, elapsed_seconds=elapsed, total=self._total))


def _is_of_image(entry: Image | RejectedImage) -> bool:
    """Tell whether a failure is to be remembered under the key of its entry.

    What a list has wrong may have the key of an image that is right, and nothing was paid for it.
    """
    if isinstance(entry, Image):
        return True
    return entry.is_tolerated and not isinstance(entry.error, DuplicateKeyError)


def _storable(text: str) -> str:
    """Return a text as every table and file can hold it, whoever's service it came from."""
    return text.encode("utf-8", "replace").decode()

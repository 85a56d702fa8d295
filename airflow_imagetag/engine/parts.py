"""Builds the moving parts of a run, inside its event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from airflow_imagetag.engine.answers.batched_lookup import BatchedLookup
from airflow_imagetag.engine.answers.single_flight import SingleFlightCache
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.flow.admission import AdmissionControl
from airflow_imagetag.engine.flow.call_allowance import CallAllowance
from airflow_imagetag.engine.flow.rate_limiter import RateLimiter
from airflow_imagetag.engine.flow.worker_pool import AdaptiveWorkerPool
from airflow_imagetag.engine.image_pipeline import ImagePipeline
from airflow_imagetag.engine.inputs import RunInputs
from airflow_imagetag.engine.prefetcher import ENTRIES_PER_WORKER, PrefetchConfig
from airflow_imagetag.engine.settings import EngineSettings
from airflow_imagetag.runtime.threads import DaemonExecutor

INLINE_ENTRIES = 32
"""Maximum number of entries in a chunk of a source in memory."""

INLINE_BYTES = 1024 * 1024
"""Size of image bytes from which such a chunk ends."""


def prefetch_config(settings: EngineSettings) -> PrefetchConfig:
    """Return the bounds of reading ahead: few workers need few entries at hand.

    A source in memory is not read ahead, since reading it takes no time; its chunks are only large
    enough that their handling costs little.
    """
    if settings.reads_inline:
        return PrefetchConfig(max_entries=INLINE_ENTRIES, max_bytes=INLINE_BYTES)
    bounds = PrefetchConfig()
    entries = min(ENTRIES_PER_WORKER * settings.max_in_flight, bounds.max_entries)
    return PrefetchConfig(max_entries=entries)


def asking_executor() -> Executor:
    """Return the executor for questions to a shared schedule.

    It has a thread of its own: no request waits for its slot because a source reads slowly.
    """
    return DaemonExecutor(1, "imagetag-quota")


def reading_executor(settings: EngineSettings) -> Executor | None:
    """Return the executor that reads the source; None for a source in memory.

    It has a thread of its own: a storage that hangs in every read must not keep finished images
    from being written.
    """
    if settings.reads_inline:
        return None
    return DaemonExecutor(1, "imagetag-read")


def image_pipeline(
    inputs: RunInputs,
    settings: EngineSettings,
    counts: Counts,
    pool: AdaptiveWorkerPool,
    stopping: asyncio.Event,
    asking: Executor,
) -> ImagePipeline:
    """Return the pipeline of single images.

    :param asking: runs the questions to a shared schedule.
    """
    rate_limiter = RateLimiter(
        settings.requests_per_second,
        inputs.schedule,
        shared_requests_per_second=settings.shared_requests_per_second,
        threads=asking,
        stopping=stopping,
        clock=asyncio.get_running_loop().time,
    )
    lookup = None if inputs.ends.lookup is None else BatchedLookup(inputs.ends.lookup)
    return ImagePipeline(
        inputs.labeller,
        AdmissionControl(rate_limiter, stopping, settings.breaker),
        settings.retry,
        stopping,
        counts,
        pool,
        cache=SingleFlightCache(_max_remembered(settings, has_store=lookup is not None)),
        lookup=lookup,
        allowance=(
            None
            if inputs.ends.ask_for_calls is None
            else CallAllowance(inputs.ends.ask_for_calls, stopping)
        ),
    )


def _max_remembered(settings: EngineSettings, *, has_store: bool) -> int:
    if not has_store:
        return settings.tuning.max_remembered
    # Answers that are paid for and not yet written must be remembered: no store holds them.
    unwritten = settings.batch_size + settings.max_in_flight
    return max(settings.tuning.min_remembered, 2 * unwritten)

"""The settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_imagetag.engine.answers.single_flight import MAX_REMEMBERED, MIN_REMEMBERED
from airflow_imagetag.engine.flow.bytes_in_flight import MAX_BYTES_IN_FLIGHT
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreakerConfig
from airflow_imagetag.engine.flow.retry_policy import RetryPolicy
from airflow_imagetag.engine.flow.worker_pool import FIRST_LATENCY_SECONDS

DRAIN_SECONDS = 4.0
"""How long a run that was asked to end waits for responses on their way, which may be billed.
Airflow 3 kills the process a few seconds after it asks."""


@dataclass(frozen=True, slots=True)
class EngineTuning:
    """Bounds that are the same for every run; tests shorten them.

    :param drain_seconds: how long a run that was asked to end waits for responses on their way.
    :param progress_seconds: time between two progress lines in the log.
    :param resize_seconds: time between two checks of the number of workers.
    :param first_latency_seconds: expected latency of a call before the first one has ended.
    :param max_remembered: maximum number of answers for equal bytes that a run remembers.
    :param min_remembered: the same beside a store, which holds the others.
    :param max_bytes_in_flight: size of the images in work from which no further one is taken.
    """

    drain_seconds: float = DRAIN_SECONDS
    progress_seconds: float = 10.0
    resize_seconds: float = 0.2
    first_latency_seconds: float = FIRST_LATENCY_SECONDS
    max_remembered: int = MAX_REMEMBERED
    min_remembered: int = MIN_REMEMBERED
    max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How a run labels its images.

    :param max_in_flight: maximum number of images loaded or called at the same time; with a quota,
        no more than the observed latency requires.
    :param requests_per_second: rate of this run; None for no limit.
    :param shared_requests_per_second: the quota that processes share through a schedule; None if it
        equals the rate of this run.
    :param batch_size: number of finished images that are written together.
    :param flush_seconds: maximum wait of a finished image before it is written.
    :param retry: when and how often a call is made again.
    :param breaker: when a service that is down is left alone.
    :param reads_inline: the entries are in memory, so they are read in the event loop.
    :param tuning: bounds that are the same for every run.
    """

    max_in_flight: int = 32
    requests_per_second: float | None = 20.0
    shared_requests_per_second: float | None = None
    batch_size: int = 200
    flush_seconds: float = 2.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: CircuitBreakerConfig = field(default_factory=CircuitBreakerConfig)
    reads_inline: bool = False
    tuning: EngineTuning = field(default_factory=EngineTuning)

"""Private: the operator's parameters, which templates may give as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.engine.output.label_filter import LabelFilter
from airflow_imagetag.engine.output.label_mapping import LabelMapping
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.loading.preflight import Oversize, parse_oversize
from airflow_imagetag.models import Entry
from airflow_imagetag.operators.budget import NO_BUDGET, Budget, parse_budget
from airflow_imagetag.operators.run_record import DEFAULT_RECORD_TIMING, RecordTiming
from airflow_imagetag.quota import DEFAULT_TIMING, QuotaTiming
from airflow_imagetag.selection.rules import Rule, parse_rule
from airflow_imagetag.selection.sampling import sampled
from airflow_imagetag.selection.shards import Shard, parse_shard

MIN_RATE = 0.001
"""Smallest number of seconds or of requests per second."""

MAX_IN_FLIGHT = 1_000
"""Largest ``max_in_flight``."""

Number = int | float | str | None

SHARE = NumberRule("a number from 0 to 1", minimum=0, maximum=1)
COUNT = NumberRule("a whole number from 1, or None", minimum=1, is_whole=True)
REQUIRED_COUNT = NumberRule("a whole number from 1", minimum=1, is_whole=True)
IN_FLIGHT = NumberRule(
    f"a whole number from 1 to {MAX_IN_FLIGHT:,}, or None",
    minimum=1,
    maximum=MAX_IN_FLIGHT,
    is_whole=True,
)
RATE = NumberRule(f"a number from {MIN_RATE:g}, or None", minimum=MIN_RATE)
SECONDS = NumberRule(f"a number from {MIN_RATE:g}", minimum=MIN_RATE)


@dataclass(frozen=True, slots=True)
class RunTuning:
    """Settings of a run that no parameter sets; tests shorten the times.

    :param engine: further settings of the engine.
    :param quota: time limits of a shared quota.
    :param record: times of the record of the run.
    """

    engine: Mapping[str, Any] = field(default_factory=dict)
    quota: QuotaTiming = DEFAULT_TIMING
    record: RecordTiming = DEFAULT_RECORD_TIMING


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's parameters, checked.

    :param min_probability: labels below it are dropped, from 0 to 1.
    :param top_k: maximum number of labels of each image; None for all.
    :param max_images: maximum number of images of this run; None for all.
    :param max_failure_ratio: the share of failed images that a task accepts, from 0 to 1.
    :param min_failures: fewer failures are accepted, unless all of at least three images failed.
    :param max_in_flight: None takes the connection's.
    :param requests_per_second: None takes the connection's.
    :param batch_size: number of finished images that are written together; None for the store's.
    :param flush_seconds: maximum wait of a finished image before it is written, likewise.
    :param rule: decides which images are new.
    :param shard: only this part of the source; None for all of it.
    :param is_fetched_by_worker: the worker downloads http(s) URLs, not the service.
    :param storage_conn_id: the only connection that URIs of object storages from data may use.
    :param oversize: handling of an image with more bytes than the service takes.
    :param mapping: renames, drops and merges labels; None leaves them as they are.
    :param tuning: settings that no parameter sets.
    :param dry_run: nothing is sent or written.
    :param sample: number of images of an even sample; None for all.
    :param budget: the calls that the task may make.
    """

    min_probability: float
    top_k: int | None
    max_images: int | None
    max_failure_ratio: float
    min_failures: int
    max_in_flight: int | None
    requests_per_second: float | None
    batch_size: int | None
    flush_seconds: float | None
    rule: Rule
    shard: Shard | None
    is_fetched_by_worker: bool
    oversize: Oversize
    storage_conn_id: str | None = None
    mapping: LabelMapping | None = None
    tuning: RunTuning = field(default_factory=RunTuning)
    dry_run: bool = False
    sample: int | None = None
    budget: Budget = NO_BUDGET

    def chosen(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Return a sample of the entries if one was asked for, else the entries."""
        return entries if self.sample is None else sampled(entries, self.sample)

    @property
    def label_filter(self) -> LabelFilter:
        """The selection of labels that the task keeps."""
        return LabelFilter(
            min_probability=self.min_probability, top_k=self.top_k, mapping=self.mapping
        )


def parse_options(parameters: Any, *, tuning: RunTuning | None = None) -> Options:
    """Check the parameters of an operator, but for the label map, which is read by itself.

    :param parameters: an object with the operator's parameters as attributes, rendered.
    :param tuning: settings that no parameter sets.
    :raises ConfigurationError: names the parameter and the values that it allows.
    """
    given = parameters
    return Options(
        min_probability=SHARE.require("min_probability", given.min_probability),
        top_k=COUNT.parse_whole("top_k", given.top_k),
        max_images=COUNT.parse_whole("max_images", given.max_images),
        max_failure_ratio=SHARE.require("max_failure_ratio", given.max_failure_ratio),
        min_failures=REQUIRED_COUNT.require_whole("min_failures", given.min_failures),
        max_in_flight=IN_FLIGHT.parse_whole("max_in_flight", given.max_in_flight),
        requests_per_second=RATE.parse("requests_per_second", given.requests_per_second),
        batch_size=COUNT.parse_whole("batch_size", given.batch_size),
        flush_seconds=SECONDS.parse("flush_seconds", given.flush_seconds),
        rule=parse_rule(given.retag, given.retry_failed, given.only_failed),
        shard=parse_shard(given.shard),
        is_fetched_by_worker=_is_fetched_by_worker(given.fetch),
        oversize=parse_oversize(given.oversize),
        storage_conn_id=_storage_conn_id(given.storage_conn_id),
        tuning=tuning or RunTuning(),
        dry_run=_flag("dry_run", given.is_dry_run),
        sample=COUNT.parse_whole("sample", given.sample),
        budget=parse_budget(given.max_calls, given.max_cost, given.budget_period, given.on_budget),
    )


def _flag(name: str, value: Any) -> bool:
    if str(value) not in ("True", "False"):
        raise ConfigurationError(f"{name} must be True or False, not {value!r}.")
    return str(value) == "True"


def _is_fetched_by_worker(fetch: str) -> bool:
    if fetch not in ("service", "worker"):
        raise ConfigurationError(f"fetch must be 'service' or 'worker', not {fetch!r}.")
    return fetch == "worker"


def _storage_conn_id(value: Any) -> str | None:
    # A template without a value must not widen what data may name.
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise ConfigurationError(
        f"storage_conn_id must be the id of a connection, or None, not {value!r}."
    )

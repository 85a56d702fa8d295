"""The operator's numbers, which may come from templates and so arrive as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from airflow_imagetag.engine.output.label_mapping import LabelMapping
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.loading.preflight import Oversize, parse_oversize
from airflow_imagetag.selection.rules import Rule, parse_rule
from airflow_imagetag.selection.shards import Shard, parse_shard

T = TypeVar("T")

MIN_RATE = 0.001
MAX_IN_FLIGHT = 1_000

Number = int | float | str | None


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's parameters, checked.

    :param min_probability: from 0 to 1.
    :param top_k: labels of each image at most; None for all.
    :param max_images: images of this run at most; None for all.
    :param max_failure_ratio: from 0 to 1.
    :param max_in_flight: None takes the connection's.
    :param requests_per_second: None takes the connection's.
    :param batch_size: finished images that are written together.
    :param flush_seconds: how long a finished image waits at most to be written.
    :param rule: what counts as new.
    :param shard: only this part of the source; None for all of it.
    :param fetch: who downloads http(s) URLs: ``service`` or ``worker``.
    :param oversize: what becomes of an image with more bytes than the service takes.
    :param taxonomy: renames, drops and merges labels; None leaves them as they are.
    """

    min_probability: float
    top_k: int | None
    max_images: int | None
    max_failure_ratio: float
    max_in_flight: int | None
    requests_per_second: float | None
    batch_size: int
    flush_seconds: float
    rule: Rule
    shard: Shard | None
    fetch: str
    oversize: Oversize
    taxonomy: LabelMapping | None = None


def parse_options(
    *,
    min_probability: Number,
    top_k: Number,
    max_images: Number,
    max_failure_ratio: Number,
    max_in_flight: Number,
    requests_per_second: Number,
    batch_size: Number,
    flush_seconds: Number,
    retag: str,
    retry_failed: bool | str,
    shard: str | None,
    fetch: str,
    oversize: str,
    taxonomy: LabelMapping | None = None,
) -> Options:
    """Check the numbers and return them.

    :raises ConfigurationError: names the parameter and what it may be.
    """
    return Options(
        min_probability=_share("min_probability", min_probability),
        top_k=_count("top_k", top_k),
        max_images=_count("max_images", max_images),
        max_failure_ratio=_share("max_failure_ratio", max_failure_ratio),
        max_in_flight=_in_flight(max_in_flight),
        requests_per_second=_rate("requests_per_second", requests_per_second),
        batch_size=_required("batch_size", _count("batch_size", batch_size)),
        flush_seconds=_required("flush_seconds", _rate("flush_seconds", flush_seconds)),
        rule=parse_rule(retag, retry_failed),
        shard=parse_shard(shard),
        fetch=_fetch(fetch),
        oversize=parse_oversize(oversize),
        taxonomy=taxonomy,
    )


def _fetch(value: str) -> str:
    if value not in ("service", "worker"):
        raise ConfigurationError(f"fetch must be 'service' or 'worker', not {value!r}.")
    return value


def _required(name: str, value: T | None) -> T:
    if value is None:
        raise ConfigurationError(f"{name} must be a number above 0, not None.")
    return value


def _share(name: str, value: Number) -> float:
    number = _number(name, value, "a number from 0 to 1")
    if number is None or not 0 <= number <= 1:
        raise _wrong(name, value, "a number from 0 to 1")
    return number


def _count(name: str, value: Number) -> int | None:
    number = _number(name, value, "a whole number from 1, or None")
    if number is None:
        return None
    if number < 1 or number != int(number):
        raise _wrong(name, value, "a whole number from 1, or None")
    return int(number)


def _in_flight(value: Number) -> int | None:
    number = _count("max_in_flight", value)
    if number is not None and number > MAX_IN_FLIGHT:
        raise _wrong("max_in_flight", value, f"a whole number from 1 to {MAX_IN_FLIGHT:,}, or None")
    return number


def _rate(name: str, value: Number) -> float | None:
    number = _number(name, value, "a number above 0, or None")
    if number is not None and not number >= MIN_RATE:
        raise _wrong(name, value, f"a number from {MIN_RATE:g}, or None")
    return number


def _number(name: str, value: Number, expected: str) -> float | None:
    # A template of a missing parameter renders to one of these texts.
    if value is None or value in ("", "None"):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(name, value, expected)
    return number


def _wrong(name: str, value: Number, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {expected}, not {value!r}.")

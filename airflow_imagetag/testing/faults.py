"""Private: the faults of an emulator, as a description."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GARBAGE_KINDS", "Faults", "Garbage"]

Garbage = Literal["html", "truncated", "empty", "not_json", "missing_data", "bad_probability"]
"""Kinds of answer with HTTP status 200 that no client can use."""

GARBAGE_KINDS: Final[tuple[Garbage, ...]] = get_args(Garbage)

_ERROR_FIELDS: Final = (("error_rates", "error_codes"), ("first_attempts", "first_attempt_codes"))
"""Pairs of fields, HTTP statuses and TIIA codes, that share one draw."""

_CODE: Final = re.compile(r"[A-Za-z]+(\.[A-Za-z]+)*")


@dataclass(frozen=True, slots=True)
class Faults:
    """Errors and delays of the service, and their rates; none by default.

    Shares and rates are between 0 and 1. The emulator's ``seed`` makes random faults repeatable.

    :param latency_seconds: time that a request takes, or a range for an even draw.
    :param requests_per_second: the quota: maximum number of requests in any second; None for no
        quota. A fraction counts over a longer time: 0.5 is one request in two seconds.
    :param throttle_status: HTTP status of the answer to a request over the quota. TIIA always
        answers with status 200 and the code RequestLimitExceeded.
    :param retry_after_seconds: ``Retry-After`` of that answer; None sends none.
    :param error_rates: HTTP status to the share of requests that get it, at random.
    :param error_codes: code of TIIA or COS, for example ``"RequestLimitExceeded"``, to the share of
        requests that get it, with the status that it has there. V1 and V2 ignore it.
    :param first_attempts: HTTP status to the share of images whose first attempt gets it; the
        second attempt works. The bytes or the URL of an image decide, not the order of requests.
    :param first_attempt_codes: the same with codes of TIIA and COS.
    :param drop_rate: share of requests whose connection closes without an answer or any work.
    :param drop_after_work_rate: share of labelled images whose connection closes without an
        answer. They are billed.
    :param garbage_rate: share of labelled images whose answer is garbage with status 200. They
        are billed.
    :param garbage: kind of garbage; None takes each kind in turn.
    :raises ValueError: a value is out of range.
    """

    latency_seconds: float | tuple[float, float] = 0.0
    requests_per_second: float | None = None
    throttle_status: int = 429
    retry_after_seconds: int | None = None
    error_rates: Mapping[int, float] = field(default_factory=dict)
    error_codes: Mapping[str, float] = field(default_factory=dict)
    first_attempts: Mapping[int, float] = field(default_factory=dict)
    first_attempt_codes: Mapping[str, float] = field(default_factory=dict)
    drop_rate: float = 0.0
    drop_after_work_rate: float = 0.0
    garbage_rate: float = 0.0
    garbage: Garbage | None = None

    def __post_init__(self) -> None:
        """Validate every value, and copy the mappings."""
        _check_latency(self.latency_seconds)
        _check_quota(self.requests_per_second)
        _check_status("throttle_status", self.throttle_status)
        if self.retry_after_seconds is not None and self.retry_after_seconds < 0:
            raise ValueError("retry_after_seconds must not be negative")
        for statuses, codes in _ERROR_FIELDS:
            for name in (statuses, codes):
                object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
            _check_errors(statuses, getattr(self, statuses), codes, getattr(self, codes))
        for name in ("drop_rate", "drop_after_work_rate", "garbage_rate"):
            _check_share(name, getattr(self, name))
        if self.garbage is not None and self.garbage not in GARBAGE_KINDS:
            raise ValueError(f"garbage must be one of {', '.join(GARBAGE_KINDS)}, or None")

    @property
    def latency_range_seconds(self) -> tuple[float, float]:
        """Minimum and maximum of the time that a request takes."""
        if isinstance(self.latency_seconds, tuple):
            return self.latency_seconds
        return self.latency_seconds, self.latency_seconds


def _check_latency(latency: float | tuple[float, float]) -> None:
    shortest, longest = latency if isinstance(latency, tuple) else (latency, latency)
    if not (0 <= shortest <= longest and math.isfinite(longest)):
        raise ValueError("latency_seconds must be 0 or more, or a range (shortest, longest)")


def _check_quota(requests_per_second: float | None) -> None:
    if requests_per_second is None:
        return
    if not (requests_per_second > 0 and math.isfinite(requests_per_second)):
        raise ValueError("requests_per_second must be more than 0, or None for no quota")


def _check_status(name: str, status: int) -> None:
    if not 400 <= status <= 599:
        raise ValueError(f"{name}: {status} is not an HTTP error status (400 to 599)")


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be between 0 and 1, not {share}")


def _check_errors(
    statuses: str, by_status: Mapping[int, float], codes: str, by_code: Mapping[str, float]
) -> None:
    for status, share in by_status.items():
        _check_status(statuses, status)
        _check_share(f"{statuses}[{status}]", share)
    for code, share in by_code.items():
        if not _CODE.fullmatch(code):
            raise ValueError(
                f'{codes}: {code!r} is not a TIIA code, such as "RequestLimitExceeded"'
            )
        _check_share(f"{codes}[{code}]", share)
    # Ten shares of 0.1 add up to slightly less or more than 1 in floating point.
    if math.fsum((*by_status.values(), *by_code.values())) > 1 + 1e-9:
        raise ValueError(f"the shares of {statuses} and {codes} must not add up to more than 1")

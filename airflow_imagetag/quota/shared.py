"""Opens the schedule that a connection names, and handles its outages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import tenacity

from airflow_imagetag.engine.flow.schedule import LocalSchedule, Schedule
from airflow_imagetag.errors import QuotaUnavailableError, UnknownConnectionError
from airflow_imagetag.quota import DEFAULT_TIMING, QuotaTiming
from airflow_imagetag.runtime.retries import BlockingRetrier

log = logging.getLogger(__name__)


class SharedSchedule(Schedule, Protocol):
    """A schedule in a server."""

    def close(self) -> None:
        """Close its connections."""
        ...


def open_schedule(
    conn_id: str,
    name: str,
    *,
    fallback_share: float | None,
    timing: QuotaTiming = DEFAULT_TIMING,
) -> SharedSchedule:
    """Return the schedule behind a connection.

    :param conn_id: a connection of type ``redis``, or one with a ``common.sql`` hook.
    :param name: name of the quota.
    :param fallback_share: share of the quota that each run takes for itself while the schedule is
        out of reach; None ends the run instead.
    :param timing: time limits.
    :raises ConfigurationError: the connection cannot be used.
    """
    from airflow_imagetag.adapters.airflow_sdk import AirflowNotFoundException, BaseHook

    try:
        kind = BaseHook.get_connection(conn_id).conn_type
    except AirflowNotFoundException:
        raise UnknownConnectionError(
            f"There is no connection {conn_id!r}. Correct quota_conn_id, or create it: airflow "
            f"connections add {conn_id} --conn-type ..."
        ) from None
    schedule: SharedSchedule
    if kind == "redis":
        from airflow_imagetag.quota.redis import RedisSchedule

        schedule = RedisSchedule(conn_id, name, timeout_seconds=timing.redis_timeout_seconds)
    else:
        from airflow_imagetag.quota.sql import SqlSchedule

        schedule = SqlSchedule(conn_id, name)
    if fallback_share is None:
        return RetryingSchedule(schedule, timing)
    return FallbackSchedule(schedule, fallback_share, timing)


class RetryingSchedule:
    """Waits for a shared schedule that is out of reach, for a limited time.

    :param schedule: the shared one.
    :param timing: the limit.
    :param clock: a clock that does not run backwards.
    :param sleep: waits for some seconds; None waits until the schedule is closed at most.
    """

    def __init__(
        self,
        schedule: SharedSchedule,
        timing: QuotaTiming = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._schedule = schedule
        self._closed = threading.Event()
        self._retrier = BlockingRetrier(
            timing.max_outage_seconds,
            first_wait_seconds=0.1,
            max_wait_seconds=2.0,
            is_stopped=self._closed.is_set,
            clock=clock,
            sleep=sleep or tenacity.sleep_using_event(self._closed),
        )

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return the seconds until the first of some consecutive slots.

        :raises QuotaUnavailableError: the schedule was out of reach for too long.
        """
        return self._retrier.call(
            lambda: self._schedule.reserve(count, interval_seconds),
            is_transient=lambda error, _: isinstance(error, QuotaUnavailableError),
        )

    def close(self) -> None:
        """Close the connections, and end the wait for the schedule."""
        self._closed.set()
        self._schedule.close()


class FallbackSchedule:
    """Takes a share of the quota for this process while the shared schedule is out of reach.

    :param schedule: the shared one.
    :param share: above 0, up to 1.
    :param timing: when the shared one is asked again.
    :param clock: a clock that does not run backwards.
    """

    def __init__(
        self,
        schedule: SharedSchedule,
        share: float,
        timing: QuotaTiming = DEFAULT_TIMING,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._share = share
        self._timing = timing
        self._clock = clock
        self._local = LocalSchedule(clock)
        self._ask_again_at = float("-inf")

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return the seconds until the first of some consecutive slots."""
        if self._clock() >= self._ask_again_at:
            try:
                return self._schedule.reserve(count, interval_seconds)
            except QuotaUnavailableError as error:
                log.warning("%s; going on with a share of %g of it", error.message, self._share)
                self._ask_again_at = self._clock() + self._timing.ask_again_seconds
        # One slot as wide as all of them at this share: the caller sends them at their own spacing,
        # and then waits for the rest of it.
        return self._local.reserve(1, count * interval_seconds / self._share)

    def close(self) -> None:
        """Close the connections."""
        self._schedule.close()

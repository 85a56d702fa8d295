"""Opens the ledger that a connection names, and says what happens while it is out of reach."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

import tenacity

from airflow_imagetag.engine.flow.schedule import LocalSchedule, Schedule
from airflow_imagetag.errors import QuotaUnavailableError, UnknownConnectionError

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 15.0
"""How long a shared quota may be out of reach before the run ends."""

ASK_AGAIN_SECONDS = 10.0


class SharedSchedule(Schedule, Protocol):
    """A ledger in a server."""

    def close(self) -> None:
        """Close its connections."""
        ...


def open_schedule(conn_id: str, name: str, *, fallback_share: float | None) -> SharedSchedule:
    """Return the ledger behind a connection.

    :param conn_id: a connection of type ``redis``, or one with a ``common.sql`` hook.
    :param name: names the quota.
    :param fallback_share: share of the quota that each run takes for itself while the ledger is
        out of reach; None ends the run instead.
    :raises ConfigurationError: the connection cannot be used.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    try:
        kind = BaseHook.get_connection(conn_id).conn_type
    except AirflowNotFoundException as error:
        raise UnknownConnectionError(f"{error}. Correct quota_conn_id.") from None
    ledger: SharedSchedule
    if kind == "redis":
        from airflow_imagetag.quota.redis import RedisSchedule

        ledger = RedisSchedule(conn_id, name)
    else:
        from airflow_imagetag.quota.sql import SqlSchedule

        ledger = SqlSchedule(conn_id, name)
    return (
        RetryingSchedule(ledger)
        if fallback_share is None
        else FallbackSchedule(ledger, fallback_share)
    )


class RetryingSchedule:
    """Asks again for a while before it gives up.

    :param ledger: the shared one.
    """

    def __init__(self, ledger: SharedSchedule) -> None:
        self._ledger = ledger
        self._closed = threading.Event()
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(QuotaUnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(PATIENCE_SECONDS),
                tenacity.stop_when_event_set(self._closed),
            ),
            sleep=tenacity.sleep_using_event(self._closed),
            reraise=True,
        )

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins.

        :raises QuotaUnavailableError: the ledger was out of reach for too long.
        """
        return self._retrying(self._ledger.reserve, count, interval_seconds)

    def close(self) -> None:
        """Close the connections, and wait no longer for the ledger."""
        self._closed.set()
        self._ledger.close()


class FallbackSchedule:
    """Takes a share of the quota for this process while the shared ledger is out of reach.

    :param ledger: the shared one.
    :param share: above 0, up to 1.
    :param clock: a clock that does not run backwards.
    """

    def __init__(
        self, ledger: SharedSchedule, share: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._share = share
        self._clock = clock
        self._own = LocalSchedule(clock)
        self._ask_again_at = float("-inf")

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins."""
        if self._clock() >= self._ask_again_at:
            try:
                delay = self._ledger.reserve(count, interval_seconds)
            except QuotaUnavailableError as error:
                log.warning("%s; going on with a share of %g of it", error.message, self._share)
                self._ask_again_at = self._clock() + ASK_AGAIN_SECONDS
            else:
                return delay
        # Fewer slots of the same width, so that the caller may use each of them.
        return self._own.reserve(1, count * interval_seconds / self._share)

    def close(self) -> None:
        """Close the connections."""
        self._ledger.close()

"""Admits requests within the quota, except while the service is paused or down."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from airflow_imagetag.engine.flow import retry_policy
from airflow_imagetag.engine.flow.aimd import UNAVAILABLE_WEIGHT
from airflow_imagetag.engine.flow.arrivals import Departure
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from airflow_imagetag.errors import Billing, ImageTagError, ThrottledError, TransientError

__all__ = ["AdmissionControl", "Departure"]

log = logging.getLogger(__name__)

PAUSE_CHECK_SECONDS = 0.5
"""Maximum sleep between checks of the stop event and of the end of a pause."""


class Limiter(Protocol):
    """Grants requests at some rate, which several processes may share."""

    async def acquire(self) -> None:
        """Wait until one request may be sent."""
        ...

    def grant_at_once(self) -> bool:
        """Grant a request where there is no rate to keep; False asks for ``acquire``."""
        ...

    def depart(self) -> Departure | None:
        """Return the departure of the request that was just granted; None if nothing asks."""
        ...

    def tolerates_refusal(self) -> bool:
        """Tell whether the latest refusals are so few that they slow down the rate and no more."""
        ...

    def record_throttled(self, weight: float = 1.0) -> None:
        """Lower the rate after an answer that asks for fewer requests, by its ``weight``."""
        ...


class AdmissionControl:
    """Holds back every worker of a run where a limiter alone would admit the next one.

    :param limiter: the quota.
    :param stopping: set when nothing more is sent, so that no worker needs to wait.
    :param breaker: bounds of the wait for a service that is down.
    """

    def __init__(
        self, limiter: Limiter, stopping: asyncio.Event, breaker: CircuitBreakerConfig
    ) -> None:
        self._limiter = limiter
        self._stopping = stopping
        self._paused_until = 0.0
        self._breaker = CircuitBreaker(breaker)
        self._max_asked_seconds = breaker.max_asked_seconds
        # When the service first asked for a pause since the last answer.
        self._asked_at: float | None = None
        self.answers = 0
        """Number of calls that the service has answered, those that refuse the image included."""

    async def acquire(self, *, is_retry: bool = False) -> None:
        """Wait until one request may be sent, or until the run has been asked to end.

        Each call is followed by one of ``record_success``, ``record_failure`` and
        ``record_no_result``.

        :param is_retry: whether the image was sent before.
        """
        while not self._stopping.is_set():
            # The end of a pause may move while the worker sleeps.
            if (wait := self._wait_seconds(is_retry)) > 0:
                await asyncio.sleep(min(wait, PAUSE_CHECK_SECONDS))
                continue
            await self._limiter.acquire()
            # A pause may have begun while the worker waited for the limiter.
            if self._wait_seconds(is_retry) <= 0:
                self._breaker.record_call()
                return

    def admit_at_once(self) -> bool:
        """Admit a request where no quota, no pause and no outage holds it back.

        :return: False for a request that has to ``acquire``.
        """
        if self._paused_until or self._breaker.is_open:
            return False
        return self._limiter.grant_at_once()

    def depart(self) -> Departure | None:
        """Return the departure of the request that was just admitted; None if nothing asks."""
        return self._limiter.depart()

    def record_pause(
        self, error: ImageTagError, seconds: float, *, is_of_image: bool = False
    ) -> None:
        """Admit no request for the seconds that an answer asks for.

        A lone refusal of a quota is one that came a moment early: only its own image waits.

        :param is_of_image: the service has answered for other images meanwhile.
        """
        is_lone = isinstance(error, ThrottledError) and self._limiter.tolerates_refusal()
        if not (is_lone or is_of_image):
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Admit no request for some seconds."""
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + seconds)
        if self._asked_at is None:
            self._asked_at = now

    def record_success(self) -> None:
        """Record an answer of the service, also one that refuses the image."""
        self.answers += 1
        self._asked_at = None
        self._breaker.record_success()

    def record_no_result(self) -> None:
        """Record that a request ended without a result."""
        self._breaker.record_no_result()

    def record_failure(self, error: ImageTagError, *, is_of_image: bool = False) -> None:
        """Record the error of a call.

        :param is_of_image: the service has answered for other images since the call's image failed
            first: it fails for this one, and is not down.
        """
        if isinstance(error, ThrottledError):
            # The service is up: it refuses.
            self._limiter.record_throttled()
            self._breaker.record_success()
        elif isinstance(error, TransientError):
            if retry_policy.is_throttling(error):
                self._limiter.record_throttled(
                    1.0 if retry_policy.retry_after_seconds(error) else UNAVAILABLE_WEIGHT
                )
            self._record_outage(error, is_of_image=is_of_image)
        elif error.billing is Billing.NOT_SENT:
            # A limit of this package says nothing about the service.
            self._breaker.record_no_result()
        else:
            self.answers += 1
            self._breaker.record_success()

    def outage_message(self) -> str | None:
        """Return the message about an outage that should end the run; None while there is none."""
        now = asyncio.get_running_loop().time()
        if self._asked_at is not None and now - self._asked_at >= self._max_asked_seconds:
            return (
                f"The service has asked for pauses for {now - self._asked_at:.0f} seconds and has "
                "answered no call in this time, so this run ends here."
            )
        seconds = self._breaker.outage_seconds(now)
        if seconds is None:
            return None
        return (
            f"The service has not answered for {seconds:.0f} seconds: {self._breaker.failures} "
            "calls in a row failed, so this run ends here."
        )

    def _record_outage(self, error: TransientError, *, is_of_image: bool) -> None:
        was_open = self._breaker.is_open
        if is_of_image and not was_open:
            self._breaker.record_no_result()
            return
        self._breaker.record_failure(asyncio.get_running_loop().time())
        if self._breaker.is_open and not was_open:
            log.warning(
                "The service has failed %d times in a row, the last time with %s; from now on one "
                "call at a time probes whether it is back",
                self._breaker.failures,
                error,
            )

    def _wait_seconds(self, is_retry: bool) -> float:
        if not self._paused_until and not self._breaker.is_open:
            return 0.0
        now = asyncio.get_running_loop().time()
        return max(self._paused_until - now, self._breaker.wait_seconds(now, is_retry=is_retry))

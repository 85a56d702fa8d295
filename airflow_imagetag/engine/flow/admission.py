"""Lets requests through: within the quota, and not while the service rests or is down."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from airflow_imagetag.engine.flow import retry_policy
from airflow_imagetag.engine.flow.aimd import UNAVAILABLE_WEIGHT
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from airflow_imagetag.errors import Billing, ImageTagError, ThrottledError, TransientError

log = logging.getLogger(__name__)

SLICE_SECONDS = 0.5
"""Whoever waits long looks so often whether the run has been asked to end."""


class Limiter(Protocol):
    """Grants requests at some rate; one process or many may share it."""

    async def acquire(self) -> None:
        """Return when one request may be sent."""
        ...

    def throttled(self, weight: float = 1.0) -> None:
        """Take note of an answer that asks for fewer requests; ``weight`` is how much it says."""
        ...


class AdmissionControl:
    """Holds every worker of a run back, where a limiter alone would let the next one through.

    :param limiter: the quota.
    :param stopping: set when nothing more is sent, so that nobody needs to wait.
    :param patience: with a service that is down.
    """

    def __init__(
        self, limiter: Limiter, stopping: asyncio.Event, patience: CircuitBreakerConfig
    ) -> None:
        self._limiter = limiter
        self._stopping = stopping
        self._opens_at = 0.0
        self._circuit = CircuitBreaker(patience)

    async def acquire(self, *, is_retry: bool = False) -> None:
        """Return when one request may be sent, or when the run has been asked to end.

        After it, one of ``succeeded``, ``failed`` and ``withdrawn`` is to be called.

        :param is_retry: whether the image was sent before.
        """
        while not self._stopping.is_set():
            # The time may be moved on while it is slept through.
            if (wait := self._wait_seconds(is_retry)) > 0:
                await asyncio.sleep(min(wait, SLICE_SECONDS))
                continue
            await self._limiter.acquire()
            # The service may have asked for a rest while the limiter made us wait.
            if self._wait_seconds(is_retry) <= 0:
                self._circuit.sent()
                return

    def hold(self, seconds: float) -> None:
        """Let no request through for so many seconds."""
        opens_at = asyncio.get_running_loop().time() + seconds
        self._opens_at = max(self._opens_at, opens_at)

    def succeeded(self) -> None:
        """Take note that the service has answered, whatever it says of the image."""
        self._circuit.succeeded()

    def withdrawn(self) -> None:
        """Take note that nothing is known of a request."""
        self._circuit.withdrawn()

    def failed(self, error: ImageTagError) -> None:
        """Take note of an error of a call."""
        if isinstance(error, ThrottledError):
            # The service is there, and says no.
            self._limiter.throttled()
            self._circuit.succeeded()
        elif isinstance(error, TransientError):
            if retry_policy.asks_for_less(error):
                self._limiter.throttled(
                    1.0 if retry_policy.asked_wait_seconds(error) else UNAVAILABLE_WEIGHT
                )
            self._fault(error)
        elif error.billing is Billing.NOT_SENT:
            # A limit on this side says nothing of the service.
            self._circuit.withdrawn()
        else:
            self._circuit.succeeded()

    def outage(self) -> str | None:
        """Return what to say of an outage that has lasted for so long that the run should end."""
        seconds = self._circuit.outage_seconds(asyncio.get_running_loop().time())
        if seconds is None:
            return None
        return (
            f"The service has not answered for {seconds:.0f} seconds: {self._circuit.faults} calls "
            "in a row failed, so this run ends here."
        )

    def _fault(self, error: TransientError) -> None:
        now = asyncio.get_running_loop().time()
        was_open = self._circuit.is_open
        self._circuit.failed(now)
        if self._circuit.is_open and not was_open:
            log.warning(
                "The service has failed %d times in a row, the last time with %s; from now on one "
                "call at a time asks whether it is back",
                self._circuit.faults,
                error,
            )

    def _wait_seconds(self, is_retry: bool) -> float:
        if not self._opens_at and not self._circuit.is_open:
            return 0.0
        now = asyncio.get_running_loop().time()
        return max(self._opens_at - now, self._circuit.wait_seconds(now, is_retry=is_retry))

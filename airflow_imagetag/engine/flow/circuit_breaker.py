"""A circuit breaker: a service that is down costs few calls. Pure, the time is a parameter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """How long a service that does not answer is waited for.

    :param faults: so many in a row, of any images, open the circuit; one answer in between, and
        the service is there.
    :param first_rest_seconds: until one call asks whether it is back; each further rest is twice
        as long.
    :param longest_rest_seconds: bound of a rest.
    :param outage_seconds: after so long the run ends: the task's own retry comes later.
    """

    faults: int = 10
    first_rest_seconds: float = 0.5
    longest_rest_seconds: float = 20.0
    outage_seconds: float = 60.0


class CircuitBreaker:
    """Closed while the service answers; open while it does not, but for one call now and then.

    :param patience: when it opens, and for how long.
    """

    def __init__(self, patience: CircuitBreakerConfig) -> None:
        self._patience = patience
        self._faults = 0
        self._first_fault_at: float | None = None
        self._rest_seconds = 0.0
        self._opens_at = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are held back."""
        return self._rest_seconds > 0

    @property
    def faults(self) -> int:
        """Faults since the last answer."""
        return self._faults

    def wait_seconds(self, now: float, *, is_retry: bool) -> float:
        """Return how long no call may be made; 0 for at once.

        While one call probes whether the service is back, the others wait for what comes of it.

        :param is_retry: whether the image was sent before. Such a one goes first: there are images
            that fail once each, and the service is there.
        """
        if not self.is_open:
            return 0.0
        if self._is_probing:
            return self._patience.first_rest_seconds / 10
        later = 0.0 if is_retry else self._patience.first_rest_seconds
        return max(self._opens_at + later - now, 0.0)

    def sent(self) -> None:
        """Take note of a call."""
        self._is_probing = self.is_open

    def withdrawn(self) -> None:
        """Take note that a call was not made after all, or that nothing is known of it."""
        self._is_probing = False

    def succeeded(self) -> None:
        """Take note of an answer, whatever it says of the image."""
        self._faults = 0
        self._first_fault_at = None
        self._rest_seconds = 0.0
        self._is_probing = False

    def failed(self, now: float) -> None:
        """Take note of a fault of the service or the network."""
        self._faults += 1
        if self._first_fault_at is None:
            self._first_fault_at = now
        was_probe, self._is_probing = self._is_probing, False
        if self._faults < self._patience.faults:
            return
        if not self.is_open or was_probe:
            longer = max(self._rest_seconds * 2, self._patience.first_rest_seconds)
            self._rest_seconds = min(longer, self._patience.longest_rest_seconds)
            self._opens_at = now + self._rest_seconds

    def outage_seconds(self, now: float) -> float | None:
        """Return for how long the service has not answered, once that is too long; else None."""
        if not self.is_open or self._first_fault_at is None:
            return None
        seconds = now - self._first_fault_at
        return seconds if seconds >= self._patience.outage_seconds else None

"""A circuit breaker: a service that is down costs few calls. Pure: the time is a parameter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """Bounds of the wait for a service that does not answer.

    :param max_failures: consecutive failures, of any images, that open the circuit. One answer in
        between resets the count.
    :param first_pause_seconds: pause before the first probe; each further pause is twice as long.
    :param max_pause_seconds: maximum length of a pause.
    :param max_outage_seconds: time without an answer after which the run ends; the task's own
        retry comes later.
    :param max_asked_seconds: time in which the service only asks for pauses (Retry-After) after
        which the run ends.
    """

    max_failures: int = 10
    first_pause_seconds: float = 0.5
    max_pause_seconds: float = 20.0
    max_outage_seconds: float = 60.0
    max_asked_seconds: float = 300.0


class CircuitBreaker:
    """Closed while the service answers; open while it does not, except for one probe at a time.

    :param config: when it opens, and for how long.
    """

    def __init__(self, config: CircuitBreakerConfig) -> None:
        self._config = config
        self._failures = 0
        self._first_failure_at: float | None = None
        self._pause_seconds = 0.0
        self._probe_at = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are held back."""
        return self._pause_seconds > 0

    @property
    def failures(self) -> int:
        """Failures since the last answer."""
        return self._failures

    def wait_seconds(self, now: float, *, is_retry: bool) -> float:
        """Return the seconds until a call may be made; 0 for at once.

        While one call probes the service, all others wait for its result.

        :param is_retry: whether the image was sent before. Retries go first: a new image may be one
            that fails once although the service is back.
        """
        if not self.is_open:
            return 0.0
        if self._is_probing:
            return self._config.first_pause_seconds / 10
        delay = 0.0 if is_retry else self._config.first_pause_seconds
        return max(self._probe_at + delay - now, 0.0)

    def record_call(self) -> None:
        """Record that a call begins."""
        self._is_probing = self.is_open

    def record_no_result(self) -> None:
        """Record that a call was not made after all, or that its result is unknown."""
        self._is_probing = False

    def record_success(self) -> None:
        """Record an answer of the service, also one that refuses the image."""
        self._failures = 0
        self._first_failure_at = None
        self._pause_seconds = 0.0
        self._is_probing = False

    def record_failure(self, now: float) -> None:
        """Record a failure of the service or the network."""
        self._failures += 1
        if self._first_failure_at is None:
            self._first_failure_at = now
        was_probe, self._is_probing = self._is_probing, False
        if self._failures < self._config.max_failures:
            return
        if not self.is_open or was_probe:
            longer = max(self._pause_seconds * 2, self._config.first_pause_seconds)
            self._pause_seconds = min(longer, self._config.max_pause_seconds)
            self._probe_at = now + self._pause_seconds

    def outage_seconds(self, now: float) -> float | None:
        """Return the length of an outage that is over its limit; else None."""
        if not self.is_open or self._first_failure_at is None:
            return None
        seconds = now - self._first_failure_at
        return seconds if seconds >= self._config.max_outage_seconds else None

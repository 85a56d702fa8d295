"""The requests that a server sees within one window, so that none arrives over its limit.

A server counts arrivals. Requests that are granted evenly arrive in a bunch after whatever held
some of them up: a new connection, a thread, a busy loop, the server itself. So the moment counts at
which a request was written to its connection, corrected by its answer; and one that is not yet
written counts as if it arrived now.

Pure: the time is a parameter.
"""

from __future__ import annotations

from collections import deque

MAX_CORRECTION_SECONDS = 0.05
"""Maximum time by which an answer that comes late moves the arrival of its request."""

STEADY_SECONDS = 0.03
"""Average lateness of answers up to which they tell of arrivals. The latency of a service whose
answers vary by more is its own work."""

LATENESS_WEIGHT = 0.05
"""Weight of the newest answer in the average lateness."""


class _Arrival:
    """When a request arrived, as far as it is known."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at


class ArrivalWindow:
    """The arrivals of the last window, and the requests that have yet to leave.

    :param requests_per_second: the limit of the server: as many whole requests in each window.
    :param guard: additional length of the window, as a share: the way to the server takes a
        different time for each request.
    """

    def __init__(self, requests_per_second: float, guard: float) -> None:
        self._limit = max(1, int(requests_per_second))
        self._seconds = self._limit / requests_per_second
        self.guard = guard
        self._arrived: deque[_Arrival] = deque(maxlen=self._limit)
        self._waiting = 0
        self._shortest_latency = float("inf")
        self._lateness = 0.0

    def wait_seconds(self, now: float) -> float:
        """Return the seconds until one more request may leave; 0 for at once.

        :param now: seconds of a clock that does not run backwards.
        """
        room = self._limit - self._waiting
        if room <= 0:
            # Nothing tells when one of them will leave: look again after the time of one slot.
            return self._seconds / self._limit
        if len(self._arrived) < room:
            return 0.0
        return max(0.0, self._arrived[-room].at + self._seconds * (1 + self.guard) - now)

    def admit(self) -> None:
        """Count a request that will leave soon."""
        self._waiting += 1

    def leave(self, now: float) -> _Arrival:
        """Record that an admitted request leaves, and return its arrival."""
        self._waiting -= 1
        arrival = _Arrival(now)
        self._arrived.append(arrival)
        return arrival

    def cancel(self) -> None:
        """Record that an admitted request will not leave."""
        self._waiting -= 1

    def correct(self, arrival: _Arrival, latency_seconds: float) -> None:
        """Move an arrival by the time that its answer took longer than the fastest one."""
        self._shortest_latency = min(self._shortest_latency, latency_seconds)
        late = latency_seconds - self._shortest_latency
        self._lateness += (late - self._lateness) * LATENESS_WEIGHT
        if self._lateness <= STEADY_SECONDS:
            arrival.at += min(late, MAX_CORRECTION_SECONDS)


class Departure:
    """One admitted request, until it leaves or is given up.

    :param window: counts it.
    """

    __slots__ = ("_arrival", "_is_open", "_window")

    def __init__(self, window: ArrivalWindow) -> None:
        window.admit()
        self._window = window
        self._is_open = True
        self._arrival: _Arrival | None = None

    def leave(self, now: float) -> None:
        """Record that it leaves; a second time has no effect."""
        if self._is_open:
            self._is_open = False
            self._arrival = self._window.leave(now)

    def answer(self, now: float) -> None:
        """Record that its answer has come."""
        if self._arrival is not None:
            self._window.correct(self._arrival, now - self._arrival.at)

    def close(self) -> None:
        """Give it up if it has not left."""
        if self._is_open:
            self._is_open = False
            self._window.cancel()
